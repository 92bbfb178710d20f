//! Several replicas in one simulated world: elections, replication, cuts, crashes, membership.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

mod compare;
mod forwarding;
mod kit;
mod leaders;
mod membership;
mod replication;
mod snapshots;
