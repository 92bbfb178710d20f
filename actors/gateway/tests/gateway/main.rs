//! The gateway from outside: real connections, real kubectls, an API on a store in memory, a node that pretends.

mod http;
mod kubectl;
mod node;
mod world;
