//! The embedded driver: libcontainer under one shim per pod.
