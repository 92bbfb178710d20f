//! The kactor binary: reads the command line and hands over to one file per command.

mod args;
mod client;
mod compose;
mod data_dir;
mod demo;
mod doctor;
mod down;
mod image;
mod insight;
mod join;
mod kept;
mod kubeconfig_file;
mod kubelet;
mod leave;
mod links;
mod machine_facts;
mod networks;
mod node_parts;
mod node_start;
mod notes;
mod open_files;
mod print;
mod progress;
mod raft;
mod repl;
mod replica;
mod snapshot;
mod status;
mod token;
#[cfg(debug_assertions)]
mod trial;
mod up;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    // The hidden commands of the pods' shims and pause containers: before anything that makes a thread or reads a flag.
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("shim") => return kactor_embedded::shim_main(&words[1..]),
        Some("pause") => return kactor_docker::pause_main(),
        _ => {}
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
    if !matches!(command, Command::Up(_) | Command::DemoServer(_)) {
        end_with_the_reader();
    }
    match command {
        Command::Up(args) => up::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Token(command) => token::run(&command),
        Command::Leave(args) => leave::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Kubeconfig(args) => kubeconfig_file::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Repl(args) => repl::run(&args),
        Command::Look(look) => insight::run(&look),
        Command::Image(command) => image::run(&command),
        Command::Snapshot(command) => snapshot::run(&command),
        Command::Version(args) => print::version(args.output),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut shown(), "kactor", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::DemoServer(args) => demo::server::serve(&args),
        Command::DemoClient(args) => demo::server::ask(&args),
    }
}

/// `kactor actors | head` ends when its reader does, as other programs do, and not with a panic.
fn end_with_the_reader() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default action is no code of ours, and no other thread runs yet.
    let restored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    restored.expect("SIGPIPE is a signal that may be set");
}

/// The command line without what only pods call: completions would offer it.
fn shown() -> clap::Command {
    let all = Cli::command();
    clap::Command::new("kactor")
        .args(all.get_arguments().cloned())
        .subcommands(all.get_subcommands().filter(|it| !it.is_hide_set()).cloned())
}

/// Logs go to stderr; `KACTOR_LOG` is a filter such as `info` or `kactor_agent=debug`.
fn init_logs(cli: &Cli) {
    // openraft warns of what is no trouble: requests that were in flight when it was told to stop.
    let default = if cli.verbose { "info,openraft=warn" } else { "warn,openraft=error" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("KACTOR_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
