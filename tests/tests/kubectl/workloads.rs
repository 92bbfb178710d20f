//! Deployments as users drive them: create, scale, set image, rollouts and their history, drains.

use kactor_tests::harness::cluster::NODE;
use kactor_tests::harness::kubectl::with_each;
use kactor_tests::{harness::Cluster, harness::Runtime};

use crate::reading::{WEB, pod, running};

#[test]
fn a_deployment_is_created_scaled_and_deleted_with_its_pods() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.ok(&["create", "deployment", "web", "--image=demo:1", "--replicas=2"]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
        for count in [5, 1, 0] {
            let replicas = format!("--replicas={count}");
            assert_eq!(
                kubectl.ok(&["scale", "deployment", "web", &replicas]).trim(),
                "deployment.apps/web scaled"
            );
            let names = ["get", "pods", "-l", "app=web", "-o", "name"];
            kubectl.until(&names, |it| it.lines().count() == count);
        }
        kubectl.ok(&["scale", "deployment", "web", "--replicas=3"]);
        let ready = ["get", "deployment", "web"];
        kubectl.until(&ready, |it| it.contains("3/3"));
        kubectl.ok(&["delete", "deployment", "web"]);
        kubectl.until(&["get", "replicasets,pods", "-o", "name"], str::is_empty);
    });
}

#[test]
fn a_new_image_rolls_out_has_a_history_and_can_be_undone() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        let status = ["rollout", "status", "deployment/web", "--timeout=100s"];
        let done = kubectl.ok(&status);
        assert!(done.contains("deployment \"web\" successfully rolled out"), "{done}");
        kubectl.ok(&["set", "image", "deployment/web", "app=demo:2"]);
        kubectl.ok(&status);
        let images =
            ["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.containers[0].image}"];
        kubectl.until(&images, |it| it.split(' ').all(|it| it == "demo:2"));
        let history = kubectl.ok(&["rollout", "history", "deployment/web"]);
        assert!(
            history.lines().any(|it| it.starts_with('1'))
                && history.lines().any(|it| it.starts_with('2')),
            "{history}"
        );
        let first = kubectl.ok(&["rollout", "history", "deployment/web", "--revision=1"]);
        assert!(first.contains("demo:1"), "{first}");
        let undone = kubectl.ok(&["rollout", "undo", "deployment/web"]);
        assert_eq!(undone.trim(), "deployment.apps/web rolled back");
        kubectl.ok(&status);
        kubectl.until(&images, |it| it.split(' ').all(|it| it == "demo:1"));
        kubectl.ok(&["rollout", "restart", "deployment/web"]);
        kubectl.ok(&status);
        assert_eq!(kubectl.ok(&["get", "rs", "-o", "name"]).lines().count(), 3);
    });
}

#[test]
fn a_paused_rollout_waits_until_it_is_resumed() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        let status = ["rollout", "status", "deployment/web", "--timeout=100s"];
        kubectl.ok(&status);
        kubectl.ok(&["rollout", "pause", "deployment/web"]);
        kubectl.ok(&["set", "image", "deployment/web", "app=demo:2"]);
        // The controller has seen the change when it has observed its generation.
        let generation = kubectl.field("deployment/web", ".metadata.generation");
        let observed = ["get", "deployment/web", "-o", "jsonpath={.status.observedGeneration}"];
        kubectl.until(&observed, |it| it == generation);
        assert_eq!(kubectl.ok(&["get", "rs", "-o", "name"]).lines().count(), 1);
        kubectl.ok(&["rollout", "resume", "deployment/web"]);
        kubectl.ok(&status);
        assert_eq!(kubectl.ok(&["get", "rs", "-o", "name"]).lines().count(), 2);
    });
}

#[test]
fn a_service_gets_the_addresses_of_its_ready_pods() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
        let ip = kubectl.field("service/web", ".spec.clusterIP");
        assert!(ip.starts_with("10.96."), "{ip}");
        let addresses = [
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=web",
            "-o",
            "jsonpath={.items[*].endpoints[*].addresses[0]}",
        ];
        let of_pods = kubectl.ok(&[
            "get",
            "pods",
            "-l",
            "app=web",
            "-o",
            "jsonpath={.items[*].status.podIP}",
        ]);
        let sorted = |it: &str| {
            let mut all: Vec<String> = it.split_whitespace().map(str::to_owned).collect();
            all.sort();
            all
        };
        kubectl.until(&addresses, |it| sorted(it) == sorted(&of_pods) && sorted(it).len() == 2);
    });
}

#[test]
fn a_cordoned_node_takes_no_pods_and_a_drained_one_loses_them() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
        assert_eq!(kubectl.ok(&["cordon", NODE]).trim(), format!("node/{NODE} cordoned"));
        assert!(kubectl.ok(&["get", "nodes"]).contains("Ready,SchedulingDisabled"));
        kubectl.give(&pod("late"));
        let reason = [
            "get",
            "pod",
            "late",
            "-o",
            "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}",
        ];
        kubectl.until(&reason, |it| {
            it.contains("0/1 nodes are available") && it.contains("unschedulable")
        });
        let before = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "name"]);
        let drain = ["drain", NODE, "--ignore-daemonsets", "--force", "--timeout=100s"];
        let drained = kubectl.ok(&drain);
        assert!(drained.contains("evicting pod") && drained.contains("drained"), "{drained}");
        let after = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "name"]);
        assert!(before.lines().all(|it| !after.contains(it)), "{before}\n{after}");
        kubectl.ok(&["uncordon", NODE]);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
        running(kubectl, "late");
    });
}
