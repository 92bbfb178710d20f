//! The controllers: pure reconcile functions and the one shell that feeds them.
