//! The control plane seen from outside: a panic costs one retry, cluster DNS has its Service, and messages between the
//! node and the control actors pass the codec in test builds.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use kactor_tests::harness::kubectl::{self, Kubectl, with_each};
use kactor_tests::harness::{Cluster, Runtime, skip, wait_until};
use serde_json::Value;

/// What `kactor inspect ACTOR` shows of the actor's own state.
fn inspect(cluster: &Cluster, actor: &str) -> Value {
    let answer = cluster.kactor(&["inspect", actor, "-o", "json"]);
    assert!(answer.is_ok(), "{}", answer.both());
    let reply: Value = serde_json::from_str(&answer.stdout).unwrap();
    let state = find(&reply, "state").and_then(Value::as_str);
    serde_json::from_str(state.unwrap_or_else(|| panic!("no state in {reply:#}"))).unwrap()
}

fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => {
            fields.get(name).or_else(|| fields.values().find_map(|it| find(it, name)))
        }
        Value::Array(items) => items.iter().find_map(|it| find(it, name)),
        _ => None,
    }
}

#[test]
fn a_panic_in_one_reconcile_costs_that_key_a_retry_and_no_other_anything() {
    let mut cluster = Cluster::prepared(Runtime::Hollow);
    let key = "/apps/deployments/default/poor";
    cluster.set("KACTOR_TEST_PANIC", &format!("deployment-controller {key} 3"));
    cluster.spawn();
    cluster.wait_ready();
    let Some(program) = kubectl::programs().into_iter().next_back() else {
        return skip("there is no kubectl in the folder KUBECTLS, in KUBECTL or in PATH");
    };
    let kubectl = Kubectl::new(program, &cluster, &cluster.kubeconfig(), "default");
    for name in ["poor", "fine"] {
        kubectl.ok(&["create", "deployment", name, "--image=x", "--replicas=2"]);
    }
    for name in ["fine", "poor"] {
        kubectl.ok(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]);
    }
    let state = inspect(&cluster, "controller/deployment");
    assert_eq!(state["panics"], 3, "each asked-for panic happened, and none came of it: {state:#}");
    assert!(state["lastPanic"].as_str().unwrap().starts_with(key), "{state:#}");
    let why = cluster.kactor(&["why", "deployment/poor"]);
    assert!(why.stdout.contains("a test asked for this pass to panic"), "{}", why.both());
}

#[test]
fn cluster_dns_has_its_service_and_gets_it_back() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        let kubectl = kubectl.within("kube-system");
        let stands = |other_than: &str| {
            let path = "jsonpath={.spec.clusterIP} {.metadata.uid}";
            let seen = kubectl.run(&["get", "service", "kube-dns", "-o", path]);
            match seen.stdout.split_once(' ') {
                Some(("10.96.0.10", uid)) if uid != other_than => Ok(uid.to_owned()),
                _ => Err(seen.both()),
            }
        };
        let uid = wait_until("kube-dns stands at its address", || stands(""));
        assert_eq!(kubectl.field("service/kube-dns", ".spec.ports[*].name"), "dns dns-tcp");
        kubectl.ok(&["delete", "service", "kube-dns"]);
        wait_until("kube-dns is made again", || stands(&uid));
        let all = kubectl.ok(&["get", "service", "-A"]);
        assert!(all.contains("kubernetes") && all.contains("kube-dns"), "{all}");
        let told = kubectl.ok(&["cluster-info"]);
        assert!(told.contains("services/kube-dns:dns/proxy"), "{told}");
    });
}

#[test]
fn what_passes_between_node_and_control_passes_the_codec_in_test_builds() {
    let cluster = Cluster::start(Runtime::None);
    let status = cluster.kactor(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    let expected = if cfg!(debug_assertions) { "encoded" } else { "moved" };
    assert_eq!(find(&status, "letters").unwrap(), expected, "{status:#}");
}

#[test]
fn one_host_pretends_to_be_many_nodes_and_pods_run_on_all_of_them() {
    let mut cluster = Cluster::prepared(Runtime::Hollow);
    cluster.spawn_with(&["--hollow-nodes", "3"]);
    cluster.wait_ready();
    let Some(kubectl) = kubectl::newest(&cluster) else {
        return skip("there is no kubectl in the folder KUBECTLS, in KUBECTL or in PATH");
    };
    let names = "jsonpath={range .items[*]}{.metadata.name}={.metadata.labels.kubernetes\\.io/hostname} {end}";
    let own = kactor_tests::harness::cluster::NODE;
    let wanted = format!("{own}={own} {own}-2={own}-2 {own}-3={own}-3 ");
    kubectl.until(&["get", "nodes", "-o", names], |it| it == wanted);
    kubectl.ok(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"]);
    kubectl.ok(&["create", "deployment", "web", "--image=x", "--replicas=6"]);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let nodes = kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]);
    let nodes: std::collections::BTreeSet<&str> = nodes.split(' ').collect();
    assert_eq!(nodes.len(), 3, "pods spread over all nodes: {nodes:?}");
    let pods = kubectl.ok(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
    for pod in pods.split(' ') {
        assert!(!kubectl.ok(&["logs", pod]).is_empty(), "{pod} has its line of log");
    }
}
