//! Workers with real containers: pods of two hosts reach each other and a Service, through whichever host kubectl is given.

use kactor_tests::harness::{Hosts, Kubectl, busybox, kubectl, skip, wait_until};

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: host-2
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: busybox:latest, imagePullPolicy: Never, command: [sh, -c, "mkdir /tmp/w; echo from-host-2 > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: host-3
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: busybox:latest, imagePullPolicy: Never, command: [sleep, "3600"]}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
"#;

const NAME: &str = "server.default.svc.cluster.local";

/// What the client's pod gets from there.
fn fetched(kubectl: &Kubectl, from: &str) -> Result<(), String> {
    let url = format!("http://{from}/");
    match kubectl.run(&["exec", "client", "--", "wget", "-q", "-O", "-", &url]) {
        it if it.is_ok() && it.stdout.trim() == "from-host-2" => Ok(()),
        other => Err(other.both()),
    }
}

#[test]
fn pods_of_two_workers_reach_each_other_and_a_service_also_after_the_kill_of_a_worker() {
    let (Some(program), true) = (kubectl::programs().pop(), busybox::is_available()) else {
        return skip("this needs kubectl and the package busybox-static");
    };
    let Some(mut hosts) = Hosts::new(3) else { return };
    hosts.host(0).run_on("none");
    hosts.host(0).start();
    for index in [1, 2] {
        hosts.host(index).run_on("embedded");
        hosts.join(index, "worker");
        let tarball = busybox::tarball(hosts.all()[index].folder());
        let imported = hosts.all()[index].kactor(&["image", "import", tarball.to_str().unwrap()]);
        assert!(imported.is_ok(), "{}", imported.both());
    }
    let kubectl = Kubectl::of_host(program, &hosts.all()[0], "default");
    kubectl.until(&["get", "serviceaccount", "default", "-o", "name"], |it| it.contains("default"));
    kubectl.give(PODS);
    kubectl.ok(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s"]);
    let address = kubectl.field("pod/server", ".status.podIP");
    let service = kubectl.field("service/server", ".spec.clusterIP");
    // The certificate that the control host shows names the workers too.
    let by_worker = kubectl.by(&hosts.all()[2].server());
    for to in [format!("{address}:8080"), service, NAME.to_owned()] {
        wait_until(&format!("the pod on host-3 reaches {to}"), || fetched(&by_worker, &to));
    }
    let uid = kubectl.field("pod/server", ".metadata.uid");
    hosts.host(1).kill();
    wait_until("pods outlive their host's kactor", || fetched(&kubectl, NAME));
    hosts.host(1).start();
    wait_until("its streams work again", || {
        match kubectl.run(&["exec", "server", "--", "cat", "/tmp/w/index.html"]) {
            it if it.is_ok() => Ok(()),
            other => Err(other.both()),
        }
    });
    assert_eq!(kubectl.field("pod/server", ".metadata.uid"), uid);
    assert_eq!(kubectl.field("pod/server", ".status.containerStatuses[0].restartCount"), "0");
    wait_until("and the service", || fetched(&kubectl, NAME));
}
