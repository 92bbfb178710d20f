//! Real containers behind `kactor up --runtime embedded`: what runs, serves, is reached, and outlives kactor.
//!
//! Needs root and Debian's busybox-static. Each test boots a cluster of its own, on networks of its own.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod isolation;
mod lifecycle;
mod outlive;
mod services;
mod streams;
mod volumes;

use kactor_tests::harness::kubectl::Kubectl;
use kactor_tests::harness::skip::skip;
use kactor_tests::harness::{Cluster, Runtime, busybox};

/// A cluster with the image imported; `None`, with the reason said, where there can be none.
fn cluster() -> Option<Cluster> {
    if !nix::unistd::geteuid().is_root() || !busybox::is_available() {
        skip("containers need root and the package busybox-static");
        return None;
    }
    let cluster = Cluster::start(Runtime::Embedded);
    let tarball = busybox::tarball(cluster.folder());
    let imported = cluster.kactor(&["image", "import", tarball.to_str().unwrap()]);
    assert!(imported.is_ok(), "{}", imported.both());
    Some(cluster)
}

/// A pod of one container `main` that runs `script`, with more fields of the container and of the pod's spec.
fn pod(name: &str, script: &str, container: &str, spec: &str) -> String {
    let script = serde_json::Value::from(script);
    let comma = |it: &str| if it.is_empty() { String::new() } else { format!(", {it}") };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: \
         {{terminationGracePeriodSeconds: 1, containers: [{{name: main, image: 'busybox:latest', \
         imagePullPolicy: Never, command: [sh, -c, {script}]{}}}]{}}}\n---\n",
        comma(container),
        comma(spec),
    )
}

/// A pod that waits to be used.
fn tool(kubectl: &Kubectl, name: &str) {
    kubectl.give(&pod(name, "exec sleep 100000", "", ""));
    ready(kubectl, name);
}

/// Waits for a pod; what kactor knows of it is shown when it does not come.
#[track_caller]
fn ready(kubectl: &Kubectl, pod: &str) {
    reaches(kubectl, pod, ".status.conditions[?(@.type==\"Ready\")].status", |it| it == "True");
}

/// Waits until a field of a pod is as wanted.
#[track_caller]
fn reaches(kubectl: &Kubectl, pod: &str, path: &str, holds: impl Fn(&str) -> bool) -> String {
    kubectl.until(&["get", "pod", pod, "-o", &format!("jsonpath={{{path}}}")], holds)
}
