//! The controllers: pure reconcile functions and the one shell that feeds them.
//!
//! A controller is `reconcile(view, key, facts, memory, now) -> Plan` (`controller.rs`): no clock, no IO, no channel.
//! One file each; the shell (`controller_actor.rs`) is the same for all and decides nothing.

mod conditions;
pub mod controller;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod events;
pub mod garbage_collector;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
mod owner;
pub mod plan;
pub mod pod_gc;
pub mod replicaset;
pub mod root_ca;
pub mod service_account;
pub mod taint_eviction;
#[cfg(test)]
mod testing;
pub mod work_queue;

pub use controller::{Controller, Pass};
pub use plan::{Effect, Facts, Note, Outcome, Plan, Refusal, Request, Severity};
