//! Black-box tests of the built binary, architecture tests and benches.
//!
//! `tidy` reads the sources and `cargo metadata`; everything else starts the real binary through `harness`.

pub mod harness;
pub mod tidy;
