//! Black-box tests of the built binary, architecture tests and benches.
