//! The command line as a new user meets it: what cannot be is refused in a sentence, and nobody's files are harmed.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use kactor_tests::harness::process::{self, Answer, Background};
use kactor_tests::harness::{Cluster, Runtime, binary, skip};
use nix::sys::signal::Signal;

/// A user without rights: `nobody`.
const NOBODY: u32 = 65534;

/// Refused with one sentence on stderr that holds these words, and an exit code that says so.
#[track_caller]
fn refused(answer: &Answer, words: &[&str]) {
    assert!(answer.code > 0, "{answer:?}");
    assert_eq!(answer.stderr.lines().count(), 1, "one sentence: {answer:?}");
    assert!(!answer.stderr.contains("panicked"), "{answer:?}");
    for it in words {
        assert!(answer.stderr.contains(it), "{it:?} not in {answer:?}");
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn networks_that_cannot_be_are_refused_before_anything_is_made() {
    let cluster = Cluster::prepared(Runtime::None);
    for (flags, words) in [
        (["--pod-cidr", "10.1.0.0/33"], ["--pod-cidr", "10.1.0.0/33"]),
        (["--pod-cidr", "10.1.2.3/16"], ["--pod-cidr", "no bits behind"]),
        (["--pod-cidr", "10.96.0.0/12"], ["--service-cidr", "overlap"]),
        (["--service-cidr", "10.244.9.0/24"], ["--pod-cidr", "overlap"]),
        (["--service-cidr", "fd00::/108"], ["--service-cidr", "fd00::/108"]),
    ] {
        refused(&process::run(cluster.up().args(flags), ""), &words);
        assert!(!cluster.data_dir().exists(), "{flags:?}");
    }
}

#[test]
fn a_machine_that_cannot_run_containers_is_told_why_and_what_works() {
    if !is_root() {
        return skip("containers need root");
    }
    let cluster = Cluster::prepared(Runtime::Embedded);
    // The same machine, with nothing where the cgroups are.
    let without_cgroups = |command: &Command| {
        let hidden = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\"";
        let mut out = Command::new("unshare");
        out.args(["--mount", "sh", "-c", hidden]).arg(command.get_program());
        out.args(command.get_args()).env("HOME", cluster.folder().join("home"));
        process::run(&mut out, "")
    };
    let answer = without_cgroups(&cluster.up());
    refused(&answer, &["cgroups", "cpu, memory, pids", "mount cgroup2", "hollow"]);
    assert!(!cluster.data_dir().exists());
    // The doctor finds the same, and says so to scripts too.
    let mut doctor = cluster.command(&["doctor", "-o", "json"]);
    let answer = without_cgroups(doctor.arg("--data-dir").arg(cluster.data_dir()));
    assert_eq!(answer.code, 1, "{answer:?}");
    let findings: Vec<serde_json::Value> = serde_json::from_str(&answer.stdout).unwrap();
    let failed: Vec<_> = findings.iter().filter(|it| it["verdict"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{findings:?}");
    assert_eq!(failed[0]["check"], "cgroups");
    for it in ["kernel", "disk sync", "API port 6443", "clock"] {
        assert!(findings.iter().any(|found| found["check"] == it), "{it} is not checked");
    }
}

#[test]
fn an_address_that_cannot_be_listened_on_is_refused_before_anything_is_made() {
    let cluster = Cluster::prepared(Runtime::None);
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = taken.local_addr().map(|it| (it.to_string(), taken)).unwrap();
    for (listen, words) in [
        (taken.0.as_str(), ["in use by another program", "--listen"]),
        ("192.0.2.1:7443", ["192.0.2.1 is no address of this host", "--listen"]),
    ] {
        let mut command = cluster.command(&["up", "--runtime", "none", "--listen", listen]);
        refused(&process::run(command.arg("--data-dir").arg(cluster.data_dir()), ""), &words);
        assert!(!cluster.data_dir().exists(), "{listen}");
    }
}

#[test]
fn a_network_that_the_host_is_in_is_refused_with_the_link_that_has_it() {
    if !is_root() {
        return skip("containers need root");
    }
    let cluster = Cluster::prepared(Runtime::Embedded);
    let mut command = cluster.command(&["up", "--pod-cidr", "127.0.0.0/16", "--listen"]);
    command.arg(format!("127.0.0.1:{}", cluster.port())).arg("--data-dir").arg(cluster.data_dir());
    refused(&process::run(&mut command, ""), &["--pod-cidr", "127.0.0.0/8", "lo"]);
    assert!(!cluster.data_dir().exists());
}

#[test]
fn a_folder_that_is_not_kactors_is_neither_taken_nor_purged() {
    let cluster = Cluster::prepared(Runtime::None);
    let theirs = cluster.data_dir().join("network/file");
    std::fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    std::fs::write(&theirs, "theirs").unwrap();
    refused(&process::run(&mut cluster.up(), ""), &["not made by kactor", "--data-dir"]);
    refused(&cluster.kactor(&["down", "--purge"]), &["no data directory of kactor"]);
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
}

/// `kactor ARGS` as nobody, with a home of its own below the cluster's folder.
fn as_nobody(cluster: &Cluster, args: &[&str]) -> Command {
    let folder = cluster.folder();
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    chown(folder.join("home"), Some(NOBODY), Some(NOBODY)).unwrap();
    // The build's folder may be closed to others.
    let program = folder.join("kactor");
    if !program.exists() {
        std::fs::hard_link(binary::kactor(), &program)
            .or_else(|_| std::fs::copy(binary::kactor(), &program).map(drop))
            .unwrap();
    }
    let mut command = Command::new(program);
    command.args(args).env("HOME", folder.join("home")).env_remove("KUBECONFIG");
    command.current_dir("/").uid(NOBODY).gid(NOBODY);
    command
}

#[test]
fn without_root_containers_are_refused_and_pods_that_pretend_are_not() {
    if !is_root() {
        return skip("becoming nobody needs root");
    }
    let cluster = Cluster::prepared(Runtime::Hollow);
    let listen = format!("127.0.0.1:{}", cluster.port());
    let answer = process::run(&mut as_nobody(&cluster, &["up", "--listen", &listen]), "");
    refused(&answer, &["root", "hollow", "none"]);
    assert!(!cluster.folder().join("home/.local").exists());

    let mut up = as_nobody(&cluster, &["up", "--runtime", "hollow", "--listen", &listen]);
    let mut running = Background::start(&mut up);
    running.until("is Ready");
    let ours = cluster.folder().join("home/.kube/config");
    assert_eq!(ours.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let status = process::run(&mut as_nobody(&cluster, &["status"]), "");
    assert!(status.is_ok(), "{status:?}");
    let purged = process::run(&mut as_nobody(&cluster, &["down", "--purge"]), "");
    assert!(purged.is_ok(), "{purged:?}");
    assert!(!ours.exists() && !cluster.folder().join("home/.local/share/kactor").exists());
}

/// `up` that merges, as no `--kubeconfig` is given.
fn merging(cluster: &Cluster, kubeconfig: &str) -> Command {
    let listen = format!("127.0.0.1:{}", cluster.port());
    let mut command = cluster.command(&["up", "--runtime", "none", "--listen", &listen]);
    command.arg("--data-dir").arg(cluster.data_dir()).env("KUBECONFIG", kubeconfig);
    command
}

#[test]
fn the_users_kubeconfig_keeps_what_it_has_and_a_purge_gives_it_back() {
    let cluster = Cluster::prepared(Runtime::None);
    let (none, file) = (cluster.folder().join("none"), cluster.folder().join("config"));
    let theirs = "apiVersion: v1\nclusters:\n- cluster:\n    server: https://prod\n    x-unknown: \"on\"\n  name: prod\n\
        contexts:\n- context:\n    cluster: prod\n    user: me\n  name: prod\ncurrent-context: prod\nkind: Config\nusers:\n- name: me\n  user:\n    token: \"0123\"\n";
    std::fs::write(&file, theirs).unwrap();
    let list = format!("{}:{}", none.display(), file.display());
    let mut running = Background::start(&mut merging(&cluster, &list));
    let told = running.until("kubeconfig");
    let context = format!("kactor-{}", cluster.port());
    assert!(told.contains(file.to_str().unwrap()) && told.contains(&context), "{told}");
    assert!(told.contains("not current"), "{told}");
    let now = read(&file);
    assert!(now.contains("x-unknown: \"on\"") && now.contains("token: \"0123\""), "{now}");
    assert!(now.contains("current-context: prod") && now.contains(&context), "{now}");
    assert!(!none.exists());
    assert!(cluster.kactor(&["down", "--purge"]).is_ok());
    assert_eq!(read(&file), theirs);
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_kubeconfig_that_cannot_be_read_is_left_as_it_is_and_the_cluster_serves_all_the_same() {
    let cluster = Cluster::prepared(Runtime::None);
    let file = cluster.folder().join("config");
    std::fs::write(&file, "clusters: [\n").unwrap();
    let refusal = process::run(
        cluster.command(&["up", "--runtime", "none"]).arg("--kubeconfig").arg(&file),
        "",
    );
    refused(&refusal, &[file.to_str().unwrap(), "left as it is"]);

    let mut running = Background::start(&mut merging(&cluster, file.to_str().unwrap()));
    running.until("left as it is");
    assert!(cluster.kactor(&["status", "--wait"]).is_ok());
    assert_eq!(read(&file), "clusters: [\n");
    assert!(cluster.kactor(&["kubeconfig"]).stdout.contains("client-key-data"));
    assert!(cluster.kactor(&["down"]).is_ok());
}

#[test]
fn stopping_twice_and_purging_twice_is_no_error() {
    let mut cluster = Cluster::start(Runtime::None);
    let stopped = cluster.kactor(&["down"]);
    assert!(stopped.is_ok() && stopped.stdout.contains("stopped"), "{stopped:?}");
    assert!(cluster.wait_end().success());
    let again = cluster.kactor(&["down"]);
    assert!(again.is_ok() && again.stdout.contains("no kactor runs"), "{again:?}");
    for words in ["removed", "nothing to remove"] {
        let purged = cluster.kactor(&["down", "--purge"]);
        assert!(purged.is_ok() && purged.stdout.contains(words), "{purged:?}");
    }
    assert!(!cluster.data_dir().exists());
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    if !is_root() {
        return skip("containers need root");
    }
    let mut cluster = Cluster::start(Runtime::Embedded);
    let garbage = cluster.folder().join("garbage.tar");
    std::fs::write(&garbage, vec![7; 4096]).unwrap();
    let named = garbage.to_str().unwrap();
    refused(&cluster.kactor(&["image", "import", named]), &[named]);
    std::fs::write(&garbage, "").unwrap();
    refused(&cluster.kactor(&["image", "import", named]), &[named, "no image"]);
    refused(&cluster.kactor(&["image", "import", "/not/there"]), &["/not/there"]);
    refused(&cluster.kactor(&["image", "rm", "never:seen"]), &["never:seen"]);
    let images = cluster.kactor(&["image", "list", "-o", "json"]);
    assert_eq!(images.stdout.trim(), "[]");
    cluster.end(Signal::SIGTERM);
}

#[test]
fn answers_for_programs_are_json() {
    let cluster = Cluster::start(Runtime::Hollow);
    for args in [
        vec!["status"],
        vec!["doctor"],
        vec!["actors"],
        vec!["inspect", "scheduler"],
        vec!["mailbox", "scheduler"],
        vec!["why", "node/host-a"],
        vec!["dead"],
        vec!["top"],
        vec!["image", "list"],
    ] {
        let args: Vec<&str> = args.into_iter().chain(["-o", "json"]).collect();
        let answer = cluster.kactor(&args);
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&answer.stdout);
        assert!(parsed.is_ok(), "{args:?}: {answer:?}");
    }
    let version = process::run(&mut cluster.command(&["version", "-o", "json"]), "");
    let version: serde_json::Value = serde_json::from_str(&version.stdout).unwrap();
    assert!(version["kactor"].is_string() && version["kubernetes"].is_string(), "{version}");
}

#[test]
fn an_answer_whose_reader_goes_away_ends_quietly() {
    let cluster = Cluster::prepared(Runtime::None);
    let piped = "\"$0\" completion zsh | true; \"$0\" help up | head -n 1";
    let mut shell = Command::new("sh");
    let answer =
        process::run(shell.args(["-c", piped]).arg(cluster.command(&[]).get_program()), "");
    assert!(answer.is_ok() && answer.stderr.is_empty(), "{answer:?}");
}

#[test]
fn shells_get_completions_that_know_the_commands() {
    let cluster = Cluster::prepared(Runtime::None);
    for shell in ["bash", "zsh", "fish"] {
        let answer = process::run(&mut cluster.command(&["completion", shell]), "");
        assert!(answer.is_ok() && answer.stdout.contains("pod-cidr"), "{shell}");
        assert!(answer.stdout.contains("doctor"), "{shell}");
        assert!(!answer.stdout.contains("demo-server"), "{shell}: hidden commands stay hidden");
    }
    let script = process::run(&mut cluster.command(&["completion", "bash"]), "").stdout;
    let checked = process::run(Command::new("bash").args(["-n"]), &script);
    assert!(checked.is_ok(), "{checked:?}");
}
