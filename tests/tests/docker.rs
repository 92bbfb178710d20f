//! Pods on Docker behind `kactor up --runtime docker`: they run, serve, are entered, outlive kactor, and go at purge.
//!
//! Needs root, Debian's busybox-static and a dockerd (`DOCKER_HOST` or the default socket; `.ci/run` starts one).

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kactor_tests::harness::kubectl::{Kubectl, programs};
use kactor_tests::harness::patience::wait_until;
use kactor_tests::harness::skip::skip;
use kactor_tests::harness::{Cluster, Runtime, busybox};
use serde_json::Value;

const WEB: &str = r#"
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
        command: [sh, -c, "mkdir /w; hostname > /w/index.html; httpd -p 80 -h /w; n=0; while true; do n=$((n+1)); echo line $n; sleep 0.1; done"]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"#;

fn socket() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").to_owned()
}

/// dockerd's answer to a GET: the Engine's API, past kactor.
fn docker(path: &str) -> Value {
    let mut stream = UnixStream::connect(socket()).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// Of an instance, pause containers too.
fn containers_of(instance: &str) -> Vec<String> {
    let all = docker("/containers/json?all=1");
    let all = all.as_array().unwrap().iter();
    let ours = all.filter(|it| it["Labels"]["io.kactor.instance"] == instance);
    ours.map(|it| it["Id"].as_str().unwrap().to_owned()).collect()
}

fn instance_of(uid: &str) -> String {
    let all = docker("/containers/json?all=1");
    let mut all = all.as_array().unwrap().iter();
    let found = all.find(|it| it["Labels"]["io.kactor.pod.uid"] == uid).unwrap();
    found["Labels"]["io.kactor.instance"].as_str().unwrap().to_owned()
}

fn get(address: &str) -> Option<String> {
    let timeout = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, timeout).ok()?;
    stream.set_read_timeout(Some(timeout)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned())
}

fn words(kubectl: &Kubectl, path: &str) -> Vec<String> {
    let path = format!("jsonpath={{.items[*]{path}}}");
    let text = kubectl.ok(&["get", "pods", "-l", "app=web", "-o", &path]);
    text.split_whitespace().map(str::to_owned).collect()
}

/// The numbers that a pod printed, in the order of its log.
fn numbers(log: &str) -> Vec<u64> {
    log.lines().filter_map(|it| it.strip_prefix("line ")?.parse().ok()).collect()
}

#[test]
fn pods_on_docker_serve_are_entered_outlive_a_killed_kactor_and_go_at_purge() {
    if !nix::unistd::geteuid().is_root() || !busybox::is_available() {
        return skip("containers need root and the package busybox-static");
    }
    if UnixStream::connect(socket()).is_err() {
        return skip(&format!("no dockerd answers at {}", socket()));
    }
    let Some(program) = programs().pop() else { return skip("there is no kubectl") };
    let mut cluster = Cluster::start(Runtime::Docker);
    let tarball = busybox::tarball(cluster.folder());
    let imported = cluster.kactor(&["image", "import", tarball.to_str().unwrap()]);
    assert!(imported.is_ok(), "{}", imported.both());
    let kubectl = Kubectl::new(program, &cluster, &cluster.kubeconfig(), "default");
    kubectl.until(&["get", "serviceaccount", "default", "-o", "name"], |it| it.contains("default"));
    kubectl.give(WEB);
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=110s"]);

    let pods = words(&kubectl, ".metadata.name");
    let address = format!("{}:80", kubectl.field("service/web", ".spec.clusterIP"));
    let mut answered = BTreeSet::new();
    wait_until("the service reaches all three", || {
        answered.extend(get(&address));
        if answered.len() == 3 { Ok(()) } else { Err(format!("{answered:?} of {pods:?}")) }
    });
    let in_pod = ["exec", "-i", &pods[0], "--", "sh", "-c", "cat; hostname; exit 7"];
    let said = kubectl.run_with(&in_pod, "through\n");
    assert_eq!((said.code, said.stdout.as_str()), (7, format!("through\n{}\n", pods[0]).as_str()));
    assert!(
        kubectl
            .field("node/host-a", ".status.nodeInfo.containerRuntimeVersion")
            .starts_with("docker://")
    );

    let state = ".status.containerStatuses[0].state.running.startedAt";
    let (ids, started) =
        (words(&kubectl, ".status.containerStatuses[0].containerID"), words(&kubectl, state));
    let instance = instance_of(&words(&kubectl, ".metadata.uid")[0]);
    cluster.kill();
    assert_eq!(containers_of(&instance).len(), 6, "three pause containers and three of the pods");
    cluster.restart();
    assert_eq!(words(&kubectl, ".status.containerStatuses[0].containerID"), ids);
    assert_eq!(words(&kubectl, state), started);
    // What was printed while kactor was away is in the log too, each line once and in order.
    let before = numbers(&kubectl.ok(&["logs", &pods[0]])).len();
    let log = kubectl.until(&["logs", &pods[0]], |it| numbers(it).len() > before + 20);
    let printed = numbers(&log);
    assert_eq!(printed, (1..=printed.len() as u64).collect::<Vec<_>>());

    cluster.end(nix::sys::signal::Signal::SIGTERM);
    let purged = cluster.kactor(&["down", "--purge"]);
    assert!(purged.is_ok(), "{}", purged.both());
    assert_eq!(containers_of(&instance), [""; 0]);
    let images = docker("/images/json").to_string();
    assert!(!images.contains(&instance), "the pause image stayed: {images}");
}
