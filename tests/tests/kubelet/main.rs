//! The kubelet's API as Prometheus, metrics-server and clients of a kubelet use it: on the node's own port and through
//! the API server's `nodes/proxy`.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod asking;
mod pretended;
mod real;
mod socket;
