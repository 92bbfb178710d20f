//! The oldest and the newest stock kubectl against a real kactor with a hollow node: what a user types, and sees.
//!
//! Each test boots a cluster of its own and gives each kubectl a namespace in it.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod access;
mod everyday;
mod lifecycle;
mod objects;
mod reading;
mod workloads;
