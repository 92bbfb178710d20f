//! The pause program by itself, for the tests of this crate; in the product it is `kactor pause`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kactor_docker::pause_main()
}
