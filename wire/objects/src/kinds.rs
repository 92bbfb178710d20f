//! The functions of each kind: defaults, preparation, validation, table cells. One file per kind, all pure.
//!
//! A file holds what its row in `registry` points to and nothing else's business. Rules and wording follow
//! upstream's pkg/apis/*/v1/defaults.go, pkg/apis/*/validation and pkg/registry/*/strategy.go.

pub mod config_map;
pub mod deployment;
pub mod disruption_budget;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_template;
pub mod rbac;
pub mod replica_set;
pub mod review;
pub mod secret;
pub mod service;
pub mod service_account;

#[cfg(test)]
mod tests;
