//! The docker driver, on bollard.
