//! The promises of the actor kit, each by its name: bounds, replies, order, supervision, insight, other hosts.
//!
//! On a real machine, waiting for conditions and never for time; the simulations crate runs actors under the seeded clock.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod insight;
mod mailboxes;
mod probe;
mod remoting;
mod supervision;
