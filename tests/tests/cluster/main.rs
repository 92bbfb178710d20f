//! Clusters of several hosts, in network namespaces of this machine: what a loss, a cut or a slow host may cost, and
//! what it may not. Needs root. `KACTOR_CLUSTER_FULL=1` runs each scenario at full length.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod hosts;
mod joining;
mod scenarios;
mod workers;
mod workload;
