//! How pods are reached: by a service's address and name, by a node's port, and only while they are ready.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kactor_tests::harness::kubectl::{Kubectl, with_each};
use kactor_tests::harness::patience::Patience;

use super::{cluster, pod, ready};

pub const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: busybox:latest
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "mkdir /w; hostname > /w/index.html; httpd -p 80 -h /w; n=0; while true; do n=$((n + 1)); echo line $n; sleep 0.1; done"]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
"#;

/// The body of `GET /`; `None` while nobody answers.
pub fn get(address: &str) -> Option<String> {
    let address = address.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned())
}

#[track_caller]
pub fn names_until_three(mut ask: impl FnMut() -> Option<String>) -> BTreeSet<String> {
    let patience = Patience::of(Duration::from_secs(60));
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        seen.extend(ask().filter(|it| !it.is_empty()));
        assert!(!patience.is_over(), "only {seen:?} answered");
    }
    seen
}

pub fn pod_names(kubectl: &Kubectl) -> BTreeSet<String> {
    let names =
        kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_service_reaches_all_its_pods_by_address_name_and_node_port() {
    let Some(cluster) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
        let pods = pod_names(kubectl);
        let address = format!("{}:80", kubectl.field("service/web", ".spec.clusterIP"));
        assert_eq!(names_until_three(|| get(&address)), pods, "from the host");
        let node =
            kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"]);
        let port = kubectl.field("service/web", ".spec.ports[0].nodePort");
        let address_of_node = format!("{node}:{port}");
        assert_eq!(names_until_three(|| get(&address_of_node)), pods, "by the node's port");
        let one = pods.iter().next().unwrap();
        let name = format!("web.{}.svc.cluster.local", kubectl.namespace);
        for target in [name.as_str(), address.as_str()] {
            let url = format!("http://{target}/");
            let ask = ["exec", one, "--", "wget", "-q", "-O", "-", &url];
            let answered = names_until_three(|| Some(kubectl.run(&ask).stdout.trim().to_owned()));
            assert_eq!(answered, pods, "from a pod, itself among them, at {target}");
        }
        kubectl.ok(&["delete", "deployment,service", "web"]);
        kubectl.until(&["get", "pods", "-o", "name"], str::is_empty);
    });
}

#[test]
fn only_ready_pods_are_endpoints() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = kactor_tests::harness::kubectl::newest(&cluster) else { return };
    let probe = "readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}";
    kubectl.give(&pod("gate", "exec sleep 100000", probe, ""));
    kubectl.ok(&["expose", "pod", "gate", "--port=80"]);
    let endpoints = ["get", "endpoints", "gate", "-o", "jsonpath={.subsets[0].addresses[*].ip}"];
    let conditions =
        ["get", "endpointslices", "-o", "jsonpath={.items[*].endpoints[*].conditions.ready}"];
    kubectl.until(&["get", "pod", "gate", "-o", "jsonpath={.status.phase}"], |it| it == "Running");
    kubectl.until(&conditions, |it| it.contains("false"));
    assert_eq!(kubectl.ok(&endpoints), "");
    kubectl.until(&["get", "events"], |it| it.contains("Readiness probe failed"));
    kubectl.ok(&["exec", "gate", "--", "touch", "/tmp/ready"]);
    ready(&kubectl, "gate");
    let address = kubectl.field("pod/gate", ".status.podIP");
    kubectl.until(&endpoints, |it| it == address);
    kubectl.ok(&["exec", "gate", "--", "rm", "/tmp/ready"]);
    kubectl.until(&endpoints, str::is_empty);
    kubectl.ok(&["delete", "pod", "gate"]);
}
