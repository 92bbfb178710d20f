//! The gateway from outside: real connections, real kubectls, an API on a store in memory, a node that pretends.

#![expect(clippy::unwrap_used, reason = "a test's helper fails its test")]

mod http;
mod kubectl;
mod node;
mod world;
