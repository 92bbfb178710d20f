//! NodeSession: the only door of a node; its messages become API requests as system:node:NAME.
//!
//! `call` turns a node's message into a request, `feed` turns a watch into batches, `session_actor` is the shell of
//! both, and `sessions_actor` opens sessions for nodes on other hosts. `pulses` remembers when nodes were heard of,
//! `pulses_actor` tells the leader, and `lease_actor` renews their Leases together; `streams` and `streams_actor` carry
//! exec, attach, logs and port-forward to the node and back.

pub mod call;
pub mod feed;
pub mod lease_actor;
pub mod pulses;
pub mod pulses_actor;
pub mod session_actor;
pub mod sessions_actor;
pub mod streams;
pub mod streams_actor;
