//! The shim as a program of its own: for tests, which have no kactor binary to re-execute.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    kactor_embedded::shim_main(&args)
}
