//! The node agent: one state machine per pod, probes, status, the kubelet's API.
//!
//! Pure parts first (`spec`, `machine`, `probes`, `environment`, `status`); the shells are `*_actor.rs`.

pub mod admission;
pub mod agent_actor;
pub mod container_spec;
pub mod downward;
pub mod effect;
pub mod environment;
pub mod event;
pub mod feeds;
pub mod hollow;
pub mod host_volumes;
pub mod log_reader;
pub mod logs;
pub mod machine;
pub mod node_object;
pub mod observe;
pub mod open_stream;
pub mod perform;
pub mod pod_actor;
pub mod pod_files;
pub mod pod_logs;
pub mod ports;
pub mod probe_counts;
pub mod probes;
pub mod references;
pub mod spec;
pub mod status;
pub mod streams_actor;
pub mod token_cache;
pub mod uplink;
pub mod uplink_actor;
