//! The official Python client, in the venv that `.ci/run` makes, against a hollow kactor. The scenarios are in
//! `tests/python/client.py`; each runs in a cluster of its own.

use std::path::PathBuf;
use std::process::Command;

use kactor_tests::harness::{Cluster, Runtime, process, skip};
use kactor_tests::tidy::root;

/// `KACTOR_PYTHON`, else the venv of `.ci/run`; none without the client in it.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("KACTOR_PYTHON").map(PathBuf::from);
    let program = named.unwrap_or_else(|| root().join("target/python/bin/python"));
    let mut look = Command::new(&program);
    let found =
        program.is_file() && look.args(["-c", "import kubernetes"]).status().ok()?.success();
    found.then_some(program)
}

#[track_caller]
fn scenario(name: &str) {
    let Some(python) = python() else {
        return skip::skip(
            "no Python with the kubernetes client: `.ci/run --venv` makes target/python, or name one in KACTOR_PYTHON",
        );
    };
    let cluster = Cluster::start(Runtime::Hollow);
    let mut command = Command::new(python);
    command.arg(root().join("tests/python/client.py")).arg(cluster.kubeconfig()).arg(name);
    command.env("HOME", cluster.folder().join("home"));
    let answer = process::run(&mut command, "");
    assert!(answer.is_ok(), "{}", answer.both());
    assert!(answer.stdout.contains(&format!("{name}: held")), "{}", answer.both());
}

macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            scenario(stringify!($name));
        })+

        /// A scenario that nobody runs would prove nothing.
        #[test]
        fn every_scenario_of_the_script_is_run() {
            let script = std::fs::read_to_string(root().join("tests/python/client.py"));
            let script = script.expect("the script is there");
            let (_, list) = script.split_once("SCENARIOS = [").expect("the script has a list");
            let (list, _) = list.split_once(']').expect("the list ends");
            let listed: Vec<&str> = list.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
            assert_eq!(listed, [$(stringify!($name)),+]);
        }
    };
}

scenarios![
    namespaces_come_with_an_account_and_go_with_what_they_hold,
    config_maps_and_secrets_are_created_read_replaced_and_deleted,
    lists_come_in_pages_of_one_moment,
    a_watch_follows_from_a_revision_and_goes_on_after_a_break,
    each_type_of_patch_does_what_it_is_for,
    a_deployment_rolls_out_scales_and_goes,
    a_pod_has_logs_and_takes_commands,
    the_dynamic_client_finds_kinds_by_discovery,
    one_leader_at_a_time_holds_a_lease,
    refusals_are_exceptions_with_code_reason_and_status,
];
