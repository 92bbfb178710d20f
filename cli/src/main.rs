//! The kactor binary: reads the command line and hands over to one file per command.

mod args;
mod client;
mod compose;
mod data_dir;
mod doctor;

mod image;
mod insight;
mod kubeconfig_file;
mod machine_facts;
mod node_parts;
mod notes;
mod print;
mod repl;
mod replica;
mod status;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    // The hidden command of the pods' shims: before anything that makes a thread or reads a flag.
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|it| it == "shim") {
        return kactor_embedded::shim_main(&words[1..]);
    }
    let cli = Cli::parse();
    init_logs(&cli);
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kactor: {}", print::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(&args),
        Command::Down(args) => up::down(&args),
        Command::Status(args) => status::run(&args),
        Command::Kubeconfig(args) => kubeconfig_file::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Repl(args) => repl::run(&args),
        Command::Look(look) => insight::run(&look),
        Command::Image(command) => image::run(&command),
        Command::Version(args) => print::version(args.output),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "kactor", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Logs go to stderr; `KACTOR_LOG` is a filter such as `info` or `kactor_agent=debug`.
fn init_logs(cli: &Cli) {
    let default = if cli.verbose { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("KACTOR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
