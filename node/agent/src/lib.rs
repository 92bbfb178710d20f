//! The node agent: one state machine per pod, probes, status, the kubelet's API.
//!
//! Pure parts first (`spec`, `machine`, `probes`, `environment`, `status`); the shells are `*_actor.rs`.

pub mod environment;
pub mod machine;
pub mod probes;
pub mod spec;
pub mod status;
