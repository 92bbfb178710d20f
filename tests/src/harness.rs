//! What tests of the real binary stand on: boot a kactor, drive real clients against it, wait on conditions.
//!
//! It lives outside the cluster, so it takes time, threads and processes from the operating system and not from
//! `Env`. Everything is bounded by [`patience::PATIENCE`]; a condition that does not come panics with what was seen.

pub mod binary;
pub mod busybox;
pub mod cluster;
pub mod exposition;
pub mod hosts;
pub mod kubectl;
pub mod linear;
pub mod network;
pub mod patience;
pub mod port;
pub mod process;
pub mod rest;
pub mod skip;
pub mod terminal;
pub mod traces;

pub use cluster::{Cluster, Runtime};
pub use hosts::Hosts;
pub use kubectl::Kubectl;
pub use patience::wait_until;
pub use rest::{Access, Call, Connection};
pub use skip::skip;
