//! The controllers: pure reconcile functions and the one shell that feeds them.
//!
//! A controller is `reconcile(view, key, facts, memory, now) -> Plan` (`controller.rs`): no clock, no IO, no channel.
//! One file each; the shell (`controller_actor.rs`) is the same for all and decides nothing.

pub mod cluster_dns;
mod conditions;
pub mod controller;
#[cfg(feature = "shell")]
mod controller_actor;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod garbage_collector;
#[cfg(any(test, feature = "shell"))]
mod merge_patch;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
mod owner;
pub mod plan;
pub mod pod_gc;
pub mod replicaset;
pub mod root_ca;
#[cfg(feature = "shell")]
mod send;
pub mod service_account;
#[cfg(feature = "shell")]
pub mod start;
pub mod taint_eviction;
#[cfg(test)]
mod testing;
pub mod work_queue;

pub use controller::{Controller, Pass};
pub use plan::{Effect, Facts, Note, Outcome, Plan, Refusal, Request, Severity};
