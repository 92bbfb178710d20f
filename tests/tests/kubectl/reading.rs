//! Commands that only look: get, watch, explain, api-resources, describe, logs, raw paths.

use kactor_tests::harness::cluster::NODE;
use kactor_tests::harness::kubectl::with_each;
use kactor_tests::{harness::Cluster, harness::Kubectl, harness::Runtime};
use serde_json::Value;

pub const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: 'demo:1', ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// A pod by itself, which pretends to run.
pub fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers: [{{name: app, image: 'demo:1'}}]\n"
    )
}

/// Waits until a pod runs.
pub fn running(kubectl: &Kubectl, name: &str) {
    kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=100s"]);
}

#[test]
fn nodes_and_pods_of_all_namespaces_show_where_and_how_they_run() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(&pod("web"));
        running(kubectl, "web");
        let nodes = kubectl.ok(&["get", "nodes", "-o", "wide"]);
        let node = nodes.lines().find(|it| it.starts_with(NODE)).unwrap();
        assert!(node.split_whitespace().nth(1) == Some("Ready"), "{nodes}");
        assert!(node.contains("hollow"), "the runtime is named: {nodes}");
        let pods = kubectl.ok(&["get", "pods", "-A", "-o", "wide"]);
        let row = pods.lines().find(|it| it.starts_with(&kubectl.namespace)).unwrap();
        assert!(row.contains("1/1") && row.contains("Running") && row.contains(NODE), "{pods}");
        let both = kubectl.ok(&["get", "nodes,pods", "-A", "-o", "wide"]);
        assert!(both.contains(&format!("node/{NODE}")) && both.contains("pod/web"), "{both}");
        let none = kubectl.run(&["get", "pods", "-n", "nowhere"]);
        assert!(none.stderr.contains("No resources found in nowhere namespace"), "{none:?}");
    });
}

#[test]
fn a_watch_shows_a_pod_come_run_and_go() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        let mut watch = kubectl.start(&["get", "pods", "-w", "--output-watch-events"]);
        kubectl.give(&pod("web"));
        assert!(watch.until("web").starts_with("ADDED"));
        watch.until("Running");
        kubectl.ok(&["delete", "pod", "web", "--wait=false"]);
        watch.until("Terminating");
        watch.until("DELETED");
    });
}

#[test]
fn kubectl_learns_kinds_and_fields_from_the_server() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        let resources = kubectl.ok(&["api-resources"]);
        for kind in ["pods", "nodes", "deployments", "endpointslices", "leases", "clusterroles"] {
            assert!(resources.lines().any(|it| it.starts_with(kind)), "{kind}:\n{resources}");
        }
        let absent = kubectl.refused(&["get", "statefulsets"]);
        assert!(absent.contains("doesn't have a resource type \"statefulsets\""), "{absent}");
        let replicas = kubectl.ok(&["explain", "deployment.spec.replicas"]);
        assert!(replicas.contains("replicas") && replicas.contains("<integer>"), "{replicas}");
        let whole = kubectl.ok(&["explain", "pod", "--recursive"]);
        assert!(whole.contains("initContainers"), "{whole}");
        let unknown = kubectl.refused(&["explain", "pod.spec.nonsense"]);
        assert!(unknown.contains("field \"nonsense\" does not exist"), "{unknown}");
    });
}

#[test]
fn raw_paths_answer_health_version_metrics_and_schemas() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        let raw = |path: &str| kubectl.ok(&["get", "--raw", path]);
        assert_eq!(raw("/readyz"), "ok");
        let verbose = raw("/readyz?verbose");
        assert!(verbose.contains("[+]") && verbose.contains("readyz check passed"), "{verbose}");
        let version: Value = serde_json::from_str(&raw("/version")).unwrap();
        assert_eq!((&version["major"], &version["minor"]), (&"1".into(), &"36".into()));
        assert!(raw("/metrics").contains("apiserver_request_total"));
        let index: Value = serde_json::from_str(&raw("/openapi/v3")).unwrap();
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        let apps: Value = serde_json::from_str(&raw(url)).unwrap();
        assert!(apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    });
}

#[test]
fn describe_tells_of_pods_deployments_services_and_nodes() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
        let pod = kubectl.ok(&["describe", "pods", "-l", "app=web"]);
        for part in [
            "Status:",
            "Running",
            "demo:1",
            "Controlled By:  ReplicaSet/web-",
            "Events:",
            "Scheduled",
        ] {
            assert!(pod.contains(part), "{part:?} not in\n{pod}");
        }
        let deployment = kubectl.ok(&["describe", "deployment", "web"]);
        for part in
            ["2 desired | 2 updated | 2 total | 2 available", "ScalingReplicaSet", "RollingUpdate"]
        {
            assert!(deployment.contains(part), "{part:?} not in\n{deployment}");
        }
        let holds =
            |it: &str| it.lines().any(|it| it.starts_with("Endpoints:") && it.contains(":8080"));
        kubectl.until(&["describe", "service", "web"], holds);
        let node = kubectl.ok(&["describe", "node", NODE]);
        for part in
            ["Capacity:", "Allocatable:", "Ready", "Non-terminated Pods:", "Allocated resources:"]
        {
            assert!(node.contains(part), "{part:?} not in\n{node}");
        }
    });
}

#[test]
fn logs_show_the_line_that_a_hollow_container_writes() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(&pod("web"));
        running(kubectl, "web");
        assert_eq!(kubectl.ok(&["logs", "web"]).trim(), "app pretends to run demo:1");
        assert!(kubectl.ok(&["logs", "web", "--timestamps"]).starts_with("20"));
        let mut follow = kubectl.start(&["logs", "-f", "web"]);
        follow.until("app pretends to run demo:1");
        let none = kubectl.refused(&["logs", "web", "-c", "other"]);
        assert!(none.contains("container other is not valid for pod web"), "{none}");
    });
}

#[test]
fn events_tell_what_became_of_a_pod() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(&pod("web"));
        running(kubectl, "web");
        let all = ["Scheduled", "Started"];
        kubectl.until(&["get", "events"], |it| all.iter().all(|reason| it.contains(reason)));
        let of_pod = kubectl.until(&["events", "--for", "pod/web"], |it| it.contains("Scheduled"));
        assert!(of_pod.contains("web"), "{of_pod}");
    });
}
