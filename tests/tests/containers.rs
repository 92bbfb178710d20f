//! Real containers behind `kactor up --runtime embedded`: what runs, serves, is reached, and outlives kactor.
//!
//! Needs root and Debian's busybox-static. One cluster at a time: each has networks of its own on this host.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kactor_tests::harness::kubectl::{Kubectl, with_each};
use kactor_tests::harness::patience::Patience;
use kactor_tests::harness::skip::skip;
use kactor_tests::harness::{Cluster, Runtime, busybox};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

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
        command: [sh, -c, "mkdir /w; hostname > /w/index.html; httpd -p 80 -h /w; while true; do date; sleep 0.1; done"]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"#;

const CONFIGURED: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: swordfish}
---
apiVersion: v1
kind: Pod
metadata: {name: configured, labels: {tier: back}}
spec:
  restartPolicy: Never
  initContainers:
  - {name: first, image: busybox:latest, imagePullPolicy: IfNotPresent, command: [sh, -c, "echo ready > /shared/flag"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "cat /shared/flag /settings/colour /keys/password /pod/labels; echo; echo $COLOUR-$POD; exit 3"]
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /settings}
    - {name: keys, mountPath: /keys}
    - {name: pod, mountPath: /pod}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys}}
  - {name: pod, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
"#;

/// A cluster with the image imported; `None`, with the reason said, where there can be none.
fn cluster() -> Option<(Cluster, MutexGuard<'static, ()>)> {
    if !nix::unistd::geteuid().is_root() || !busybox::is_available() {
        skip("containers need root and the package busybox-static");
        return None;
    }
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::start(Runtime::Embedded);
    let tarball = busybox::tarball(cluster.folder());
    let imported = cluster.kactor(&["image", "import", tarball.to_str().unwrap()]);
    assert!(imported.is_ok(), "{}", imported.both());
    Some((cluster, turn))
}

/// The body of `GET /`; `None` while nobody answers.
fn get(address: &str) -> Option<String> {
    let address = address.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned())
}

fn names_until_three(mut ask: impl FnMut() -> Option<String>) -> BTreeSet<String> {
    let patience = Patience::of(Duration::from_secs(60));
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        seen.extend(ask().filter(|it| !it.is_empty()));
        assert!(!patience.is_over(), "only {seen:?} answered");
    }
    seen
}

fn pod_names(kubectl: &Kubectl) -> BTreeSet<String> {
    let names =
        kubectl.ok(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"]);
    names.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_service_reaches_all_its_pods_from_the_host_and_by_name_from_a_pod() {
    let Some((cluster, _turn)) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
        let pods = pod_names(kubectl);
        let address = format!("{}:80", kubectl.field("service/web", ".spec.clusterIP"));
        assert_eq!(names_until_three(|| get(&address)), pods);
        let one = pods.iter().next().unwrap();
        let url = format!("http://web.{}.svc.cluster.local/", kubectl.namespace);
        let ask = ["exec", one, "--", "wget", "-q", "-O", "-", &url];
        assert_eq!(names_until_three(|| Some(kubectl.run(&ask).stdout.trim().to_owned())), pods);
        kubectl.ok(&["delete", "deployment,service", "web"]);
        kubectl.until(&["get", "pods", "-o", "name"], str::is_empty);
    });
}

#[test]
fn pods_outlive_a_killed_kactor_with_their_start_times_and_growing_logs() {
    let Some((mut cluster, _turn)) = cluster() else { return };
    let started = "jsonpath={.items[*].status.containerStatuses[0].state.running.startedAt}";
    let mut before = String::new();
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
    });
    let all = |cluster: &Cluster, test: &mut dyn FnMut(&Kubectl)| {
        for (index, program) in kactor_tests::harness::kubectl::programs().into_iter().enumerate() {
            let namespace = format!("test-{index}");
            test(&Kubectl::new(program, cluster, &cluster.kubeconfig(), &namespace));
        }
    };
    all(&cluster, &mut |it| before.push_str(&it.ok(&["get", "pods", "-o", started])));
    cluster.kill();
    cluster.restart();
    let mut after = String::new();
    all(&cluster, &mut |it| after.push_str(&it.ok(&["get", "pods", "-o", started])));
    assert_eq!(before, after, "no container was started again");
    all(&cluster, &mut |kubectl| {
        let pods = pod_names(kubectl);
        let one = pods.iter().next().unwrap();
        let lines = |text: &str| text.lines().count();
        let then = lines(&kubectl.ok(&["logs", one]));
        kubectl.until(&["logs", one], |it| lines(it) > then);
        let address = format!("{}:80", kubectl.field("service/web", ".spec.clusterIP"));
        assert_eq!(names_until_three(|| get(&address)), pods);
    });
}

#[test]
fn a_pod_sees_its_volumes_and_environment_and_its_exit_code_is_kept() {
    let Some((cluster, _turn)) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        kubectl.give(CONFIGURED);
        kubectl.until(&["get", "pod", "configured", "-o", "jsonpath={.status.phase}"], |it| {
            it == "Failed"
        });
        let code = kubectl
            .field("pod/configured", ".status.containerStatuses[0].state.terminated.exitCode");
        assert_eq!(code, "3");
        let log = kubectl.ok(&["logs", "configured"]);
        assert_eq!(log, "ready\nblueswordfishtier=\"back\"\nblue-configured\n");
    });
}

#[test]
fn exec_carries_input_output_and_the_exit_code() {
    let Some((cluster, _turn)) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        kubectl.ok(&[
            "run",
            "tool",
            "--image=busybox:latest",
            "--image-pull-policy=IfNotPresent",
            "--",
            "sleep",
            "1000",
        ]);
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/tool", "--timeout=60s"]);
        assert_eq!(kubectl.ok_with(&["exec", "-i", "tool", "--", "cat"], "through\n"), "through\n");
        let failed =
            kubectl.run(&["exec", "tool", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!(failed.code, 7);
        assert!(
            failed.stdout.contains("out") && failed.stderr.contains("err"),
            "{}",
            failed.both()
        );
        let file = kubectl.file("copied", "content");
        kubectl.ok(&["cp", &file, "tool:/tmp/copied"]);
        assert_eq!(kubectl.ok(&["exec", "tool", "--", "cat", "/tmp/copied"]), "content");
        kubectl.ok(&["delete", "pod", "tool", "--grace-period=1"]);
    });
}

#[test]
fn purge_leaves_nothing_of_it_on_the_host() {
    let links = || -> BTreeSet<String> {
        let names = std::fs::read_dir("/sys/class/net").unwrap();
        names.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    let before = links();
    let Some((mut cluster, _turn)) = cluster() else { return };
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
    });
    assert!(!links().is_subset(&before), "pods have links");
    cluster.end(nix::sys::signal::Signal::SIGTERM);
    let purged = cluster.kactor(&["down", "--purge"]);
    assert!(purged.is_ok(), "{}", purged.both());
    assert!(links().is_subset(&before), "{:?} were there, now {:?}", before, links());
    assert!(!cluster.data_dir().exists());
    let data = cluster.data_dir().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&data), "{mounts}");
}
