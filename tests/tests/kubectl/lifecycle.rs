//! Namespaces from first to last, and a cluster that is stopped and started again.

use kactor_tests::harness::kubectl::with_each;
use kactor_tests::{harness::Cluster, harness::Runtime};
use nix::sys::signal::Signal;

use crate::reading::{WEB, pod, running};

#[test]
fn a_deleted_namespace_takes_everything_in_it_along() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        let name = format!("{}-gone", kubectl.namespace);
        kubectl.ok(&["create", "namespace", &name]);
        let inside = kubectl.within(&name);
        inside.until(&["get", "serviceaccount", "default"], |_| true);
        inside.give(WEB);
        inside.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
        inside.ok(&["create", "secret", "generic", "s", "--from-literal=a=b"]);
        kubectl.ok(&["delete", "namespace", &name, "--wait=false"]);
        let late = inside.refused(&["create", "configmap", "late"]);
        assert!(late.contains("being terminated") || late.contains("not found"), "{late}");
        kubectl.until_refused(&["get", "namespace", &name], "not found");
        kubectl.ok(&["create", "namespace", &name]);
        let left =
            inside.ok(&["get", "deployments,replicasets,pods,services,secrets", "-o", "name"]);
        assert_eq!(left, "");
    });
    let kept = "Error from server (Forbidden): namespaces \"default\" is forbidden: this namespace may not be deleted";
    with_default(&cluster, kept);
}

/// The namespaces that a cluster cannot be without stay.
fn with_default(cluster: &Cluster, words: &str) {
    for program in kactor_tests::harness::kubectl::programs() {
        let admin =
            kactor_tests::harness::Kubectl::new(program, cluster, &cluster.kubeconfig(), "default");
        assert_eq!(admin.refused(&["delete", "namespace", "default"]).trim(), words);
    }
}

#[test]
fn a_stopped_cluster_comes_back_with_all_objects_and_the_pods_it_left() {
    let mut cluster = Cluster::start(Runtime::Hollow);
    let mut started = Vec::new();
    let started_at = ["get", "pod", "web", "-o", "jsonpath={.metadata.uid}"];
    with_each(&cluster, |kubectl| {
        kubectl.give(&pod("web"));
        running(kubectl, "web");
    });
    for program in kactor_tests::harness::kubectl::programs().into_iter().enumerate() {
        let namespace = format!("test-{}", program.0);
        let kubectl = kactor_tests::harness::Kubectl::new(
            program.1,
            &cluster,
            &cluster.kubeconfig(),
            &namespace,
        );
        started.push((kubectl.ok(&started_at), kubectl));
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let status = cluster.end(signal);
        assert!(status.success(), "{signal} ends it cleanly, not with {status}");
        assert!(!cluster.kactor(&["status"]).is_ok(), "a stopped kactor has no status");
        cluster.restart();
        for (uid, kubectl) in &started {
            assert_eq!(&kubectl.ok(&started_at), uid);
            running(kubectl, "web");
        }
    }
    let down = cluster.kactor(&["down"]);
    assert!(down.is_ok(), "{down:?}");
    assert!(cluster.wait_end().success());
    let again = cluster.kactor(&["down"]);
    assert!(again.both().contains("no kactor runs"), "{again:?}");
    let purged = cluster.kactor(&["down", "--purge"]);
    assert!(purged.is_ok(), "{purged:?}");
    assert!(!cluster.data_dir().exists(), "--purge leaves nothing");
}
