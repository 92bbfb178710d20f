//! One seed, one trace, byte for byte: in one process, across processes, wherever and as whoever they run.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::path::Path;
use std::process::Command;

use kactor_simulations::first_run;

#[test]
fn two_runs_of_a_seed_give_the_same_trace_byte_for_byte() {
    for seed in 1..=5 {
        let (first, second) = (first_run::run(seed).to_string(), first_run::run(seed).to_string());
        assert_eq!(first, second, "seed {seed}");
        assert!(first.lines().count() > 500, "a run in which little happens shows little");
    }
}

#[test]
fn the_run_has_failures_restarts_and_a_crash_in_it() {
    let trace = first_run::run(1).to_string();
    for event in ["n1 crashes", "restarts 1", "logged: Ok(Ok(", "synced /data/log", "starts"] {
        assert!(trace.contains(event), "{event}");
    }
}

#[test]
fn seeds_differ() {
    assert_ne!(first_run::run(1).hash(), first_run::run(2).hash());
}

fn print(seed: u64, dir: &Path, env: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_first_run"));
    command.arg(seed.to_string()).current_dir(dir).env_clear().envs(env.iter().copied());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_trace_is_the_same_in_another_process_folder_and_environment() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = print(7, here.path(), &[]);
    let second = print(
        7,
        there.path(),
        &[
            ("TZ", "Asia/Tokyo"),
            ("LANG", "de_DE.UTF-8"),
            ("HOME", "/nowhere"),
            ("RUST_LOG", "trace"),
        ],
    );
    assert_eq!(first, second);
    assert_eq!(first, first_run::run(7).to_string());
}
