//! Prints the trace of the first run under one seed: the determinism test compares what two processes print.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|it| it.parse().ok()) else {
        eprintln!("usage: first_run SEED (a number)");
        return ExitCode::FAILURE;
    };
    std::panic::set_hook(Box::new(|_| {})); // The run's panics are on purpose; its trace shows them.
    print!("{}", kactor_simulations::first_run::run(seed));
    ExitCode::SUCCESS
}
