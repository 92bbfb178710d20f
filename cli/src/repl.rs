//! `kactor repl`: the verbs of `kactor actors|inspect|…`, line by line, read-only.
//!
//! A line is parsed by the very grammar of the command line, so help, flags and errors are the same. Without a
//! terminal it reads lines from stdin and stops at the first error: scripts are tests.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use reedline::{DefaultPrompt, DefaultPromptSegment, FileBackedHistory, Reedline, Signal};

use crate::args::{ConnectArgs, Look};
use crate::client::{Client, block_on};
use crate::data_dir::DataDir;
use crate::insight;

/// Lines that the arrow keys bring back.
const HISTORY_LINES: usize = 1000;

/// One line of the REPL.
#[derive(Debug, Parser)]
#[command(
    name = "",
    no_binary_name = true,
    help_template = "{subcommands}\n  quit     End (or Ctrl-D)\n"
)]
struct Line {
    #[command(subcommand)]
    look: Look,
}

pub fn run(args: &ConnectArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    let holder = dir.running()?;
    if !std::io::stdin().is_terminal() {
        return script(&dir, args);
    }
    println!(
        "node {}, kactor with pid {}. Read-only; `help` lists the verbs, Ctrl-D ends.",
        holder.node, holder.pid
    );
    let history = FileBackedHistory::new(HISTORY_LINES)?;
    let mut editor = Reedline::create().with_history(Box::new(history));
    let prompt = DefaultPrompt::new(
        DefaultPromptSegment::Basic(format!("kactor {}", holder.node)),
        DefaultPromptSegment::Empty,
    );
    loop {
        match editor.read_line(&prompt)? {
            Signal::Success(line) if is_quit(&line) => return Ok(ExitCode::SUCCESS),
            Signal::Success(line) => {
                if let Err(error) = one(&dir, args, &line) {
                    eprintln!("{}", crate::print::chain(&error));
                }
            }
            Signal::CtrlD => return Ok(ExitCode::SUCCESS),
            _ => {}
        }
    }
}

fn is_quit(line: &str) -> bool {
    matches!(line.trim(), "quit" | "exit")
}

fn script(dir: &DataDir, args: &ConnectArgs) -> anyhow::Result<ExitCode> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if is_quit(&line) {
            break;
        }
        if one(dir, args, &line)? != ExitCode::SUCCESS {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn one(dir: &DataDir, args: &ConnectArgs, line: &str) -> anyhow::Result<ExitCode> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.is_empty() || words[0].starts_with('#') {
        return Ok(ExitCode::SUCCESS);
    }
    let look = match Line::try_parse_from(&words) {
        Ok(line) => line.look,
        Err(error) => {
            let _ = error.print();
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return Ok(code);
        }
    };
    // A flag of the line wins over the REPL's own.
    let output = if words.iter().any(|it| it.starts_with("-o") || *it == "--output") {
        look.connect().output
    } else {
        args.output
    };
    block_on(async {
        let client = Client::of(dir)?;
        match &look {
            Look::Tap { .. } => insight::tap(&client, &look, output).await,
            _ => insight::answer(&client, &look, output).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_without_its_program() {
        let line = Line::try_parse_from(["why", "pod/web"]).unwrap();
        assert!(matches!(line.look, Look::Why { .. }));
        assert!(Line::try_parse_from(["nonsense"]).is_err());
        assert!(is_quit(" quit "));
    }
}
