//! The kactor binary.
fn main() {}
