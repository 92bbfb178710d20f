//! The deterministic world: seeded clock, disk and network behind Env.
//!
//! One seed decides everything. The code under test is the production code: it gets another `Env` and cannot tell.

pub mod chance;
pub mod disk;
pub mod first_run;
pub mod mesh;
pub mod trace;
pub mod world;

pub use chance::Chance;
pub use disk::FaultyDisk;
pub use mesh::Mesh;
pub use trace::Trace;
pub use world::{SimHost, World};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
