//! Which hosts are in the cluster: their records, tokens for new ones, and who of them votes.
//!
//! `admit` and `decide` are pure and tested by tables; `records` is their store; the actors are shells. What a host may
//! read or send follows from its record alone, never from what it says of itself.

pub mod admit;
pub mod announce_actor;
pub mod decide;
pub mod host;
pub mod hosts_actor;
pub mod join;
pub mod membership_actor;
pub mod records;
pub mod token;
