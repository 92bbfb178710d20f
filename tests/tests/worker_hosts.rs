//! Workers on one machine, by the real binary: hosts without a store, which run pods and pass clients on to the API.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;

use kactor_tests::harness::cluster::Cluster;
use kactor_tests::harness::kubectl::{self, Kubectl};
use kactor_tests::harness::{Runtime, wait_until};
use serde_json::Value;

/// The words of `kactor token create` behind `kactor up`.
fn token(host: &Cluster, role: &str) -> Vec<String> {
    let answer = host.kactor(&["token", "create", "-o", "json", "--role", role]);
    assert!(answer.is_ok(), "{}", answer.both());
    let token: Value = serde_json::from_str(&answer.stdout).unwrap();
    let line = token["line"].as_str().unwrap();
    line.strip_prefix("kactor up ").unwrap().split(' ').map(str::to_owned).collect()
}

fn join(runtime: Runtime, name: &str, words: &[String]) -> Cluster {
    let mut host = Cluster::prepared(runtime).named(name);
    host.spawn_with(&words.iter().map(String::as_str).collect::<Vec<_>>());
    host
}

fn status(host: &Cluster) -> Value {
    let answer = host.kactor(&["status", "-o", "json"]);
    serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{}", answer.both()))
}

/// A control host without a node, and two workers whose pods pretend.
fn three() -> [Cluster; 3] {
    let a = Cluster::start(Runtime::None);
    let words = token(&a, "worker");
    let mut workers = ["host-b", "host-c"].map(|it| join(Runtime::Hollow, it, &words));
    workers.iter_mut().for_each(Cluster::wait_ready);
    let [b, c] = workers;
    [a, b, c]
}

const READY: &str = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;

fn until_both_are_ready(kubectl: &Kubectl) {
    kubectl.until(&["get", "nodes", "-o", READY], |it| it == "True True");
}

/// Names, nodes and uids of all running pods.
fn pods(kubectl: &Kubectl) -> Vec<(String, String, String)> {
    let list = kubectl.json(&["get", "pods"]);
    let word = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let running = list["items"].as_array().unwrap().iter();
    let running = running.filter(|it| it["status"]["phase"] == "Running");
    let row = |it: &Value| {
        let meta = &it["metadata"];
        (word(&meta["name"]), word(&it["spec"]["nodeName"]), word(&meta["uid"]))
    };
    running.map(row).collect()
}

fn deploy(kubectl: &Kubectl, replicas: usize) -> Vec<(String, String, String)> {
    kubectl.ok(&["create", "deployment", "web", "--image", "demo:1"]);
    scaled(kubectl, replicas)
}

fn scaled(kubectl: &Kubectl, replicas: usize) -> Vec<(String, String, String)> {
    kubectl.ok(&["scale", "deployment/web", "--replicas", &replicas.to_string()]);
    wait_until("all pods run", || match pods(kubectl) {
        it if it.len() == replicas => Ok(it),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn pods_spread_over_workers_and_outlive_the_kill_of_one() {
    let [a, mut b, c] = three();
    let Some(kubectl) = kubectl::newest(&a) else { return };
    until_both_are_ready(&kubectl);
    let roles: Vec<Value> = status(&a)["hosts"].as_array().unwrap().clone();
    let of = |name: &str| roles.iter().find(|it| it["name"] == name).unwrap()["role"].clone();
    assert_eq!([of("host-a"), of("host-b"), of("host-c")], ["voter", "worker", "worker"]);

    let before = deploy(&kubectl, 6);
    let nodes: BTreeSet<&str> = before.iter().map(|it| it.1.as_str()).collect();
    assert_eq!(nodes, BTreeSet::from(["host-b", "host-c"]));
    for (name, node, _) in &before {
        let logs = kubectl.ok(&["logs", name]);
        assert_eq!(logs.trim(), "demo pretends to run demo:1", "{name} on {node}");
    }

    b.kill();
    // Whatever is asked of the others works meanwhile.
    for (name, ..) in before.iter().filter(|it| it.1 == "host-c") {
        kubectl.ok(&["logs", name]);
    }
    // Without a word of how it joined.
    b.spawn();
    b.wait_ready();
    until_both_are_ready(&kubectl);
    let after: BTreeSet<_> = scaled(&kubectl, 8).into_iter().collect();
    assert!(before.iter().all(|it| after.contains(it)), "{before:?} {after:?}");
    for (name, node, _) in &after {
        wait_until("logs are read", || match kubectl.run(&["logs", name]) {
            it if it.is_ok() => Ok(()),
            other => Err(format!("{name} on {node}: {}", other.both())),
        });
    }
    kubectl.ok(&["delete", "deployment", "web"]);
    wait_until("the pods go", || match pods(&kubectl) {
        it if it.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    drop(c);
}

#[test]
fn a_kubeconfig_that_names_a_worker_works_and_a_control_host_may_start_again() {
    let [mut a, b, _c] = three();
    let Some(program) = kubectl::programs().pop() else { return };
    let text = std::fs::read_to_string(a.kubeconfig()).unwrap();
    let own = format!("127.0.0.1:{}", a.port());
    assert!(text.contains(&own), "{text}");
    let file = b.folder().join("by-worker.kubeconfig");
    std::fs::write(&file, text.replace(&own, &format!("127.0.0.1:{}", b.port()))).unwrap();
    let kubectl = Kubectl::new(program, &b, &file, "default");
    until_both_are_ready(&kubectl);
    kubectl.ok(&["create", "configmap", "by-worker"]);
    let before = deploy(&kubectl, 2);
    a.kill();
    let cut = wait_until("the worker says what is wrong", || match status(&b) {
        it if it["session"].is_null() => Ok(it),
        other => Err(other.to_string()),
    });
    assert!(cut["wrong"].as_str().unwrap().contains("no control host serves this node"), "{cut}");
    a.spawn();
    a.wait_ready();
    wait_until("the relay finds it again", || match kubectl.run(&["get", "cm", "by-worker"]) {
        it if it.is_ok() => Ok(()),
        other => Err(other.both()),
    });
    wait_until("the worker has its session again", || match status(&b) {
        it if it["session"] == "host-a" && it["wrong"].is_null() => Ok(()),
        other => Err(other.to_string()),
    });
    until_both_are_ready(&kubectl);
    let after: BTreeSet<_> = scaled(&kubectl, 3).into_iter().collect();
    assert!(before.iter().all(|it| after.contains(it)), "no pod was begun anew: {after:?}");
}

#[test]
fn a_worker_answers_for_itself_and_names_who_answers_for_the_cluster() {
    let [a, mut b, c] = three();
    let shown = b.kactor(&["status"]);
    assert!(shown.is_ok() && shown.stdout.contains("session  with host-a"), "{}", shown.both());
    let actors = b.kactor(&["actors"]);
    assert!(actors.is_ok() && actors.stdout.contains("uplink"), "{}", actors.both());
    let links = b.kactor(&["links"]);
    assert!(links.is_ok() && links.stdout.contains("host-a"), "{}", links.both());
    for args in [&["token", "create"][..], &["leave", "--yes"], &["kubeconfig"], &["raft"]] {
        let refused = b.kactor(args);
        assert!(!refused.is_ok(), "{args:?}: {}", refused.both());
    }
    let refused = b.kactor(&["token", "create"]);
    assert!(refused.stderr.contains("ask on a control host (host-a)"), "{}", refused.both());
    let other = b.kactor(&["actors", "--host", "host-c"]);
    assert!(!other.is_ok() && other.stderr.contains("look into itself alone"), "{}", other.both());
    let through = a.kactor(&["inspect", "uplink@host-b"]);
    assert!(through.is_ok() && through.stdout.contains("host-a"), "{}", through.both());

    let down = b.kactor(&["down", "--purge"]);
    assert!(down.is_ok() && !b.data_dir().exists(), "{}", down.both());
    assert!(b.wait_end().success());
    let left = a.kactor(&["leave", "--host", "host-c", "--yes"]);
    assert!(left.is_ok(), "{}", left.both());
    if let Some(kubectl) = kubectl::newest(&a) {
        let nodes = kubectl.ok(&["get", "nodes", "-o", "name"]);
        assert_eq!(
            nodes.trim(),
            "node/host-b",
            "the one that left is deleted, the one that was purged is not"
        );
    }
    let out = wait_until("the worker hears that it is out", || match status(&c) {
        it if it["serves"] == false => Ok(it["wrong"].to_string()),
        other => Err(other.to_string()),
    });
    assert!(out.contains("does not know this host") || out.contains("directory"), "{out}");
}

#[test]
fn an_any_token_makes_workers_of_those_who_come_after_three_control_hosts() {
    let a = Cluster::start(Runtime::None);
    let words = token(&a, "any");
    let mut rest = ["host-b", "host-c"].map(|it| join(Runtime::None, it, &words));
    rest.iter_mut().for_each(Cluster::wait_ready);
    let mut idle = join(Runtime::None, "host-d", &words);
    assert!(!idle.wait_end().success());
    assert!(idle.errors().contains("--runtime none has no node"), "{}", idle.errors());
    let mut d = join(Runtime::Hollow, "host-e", &words);
    d.wait_ready();
    assert_eq!(status(&d)["role"], "worker");
    let session = status(&d)["session"].as_str().unwrap().to_owned();
    // It takes the next control host when the one of its session is gone.
    let mut control = vec![a];
    control.extend(rest);
    let at = control.iter().position(|it| it.node() == session).unwrap();
    wait_until("three vote", || {
        let hosts = status(&control[0])["hosts"].clone();
        let n = hosts.as_array().unwrap().iter().filter(|it| it["role"] == "voter").count();
        if n == 3 { Ok(()) } else { Err(hosts.to_string()) }
    });
    control[at].kill();
    wait_until("another session", || match status(&d) {
        it if it["session"].is_string() && it["session"] != session && it["serves"] == true => {
            Ok(())
        }
        other => Err(other.to_string()),
    });
}
