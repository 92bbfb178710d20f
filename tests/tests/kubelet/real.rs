//! With real containers: numbers that grow, a log that is followed, a command that runs.

use kactor_tests::harness::cluster::NODE;
use kactor_tests::harness::kubectl::with_each;
use kactor_tests::harness::{Cluster, Runtime, busybox, skip, wait_until};

use crate::asking::{Kubelet, read};

const BUSY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo begun; while true; do :; done"]
    resources: {limits: {memory: 64Mi}}
    readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
"#;

#[test]
fn a_busy_containers_numbers_grow_and_its_log_and_shell_are_reached() {
    if !nix::unistd::geteuid().is_root() || !busybox::is_available() {
        return skip("real containers need root and Debian's busybox-static");
    }
    let cluster = Cluster::start(Runtime::Embedded);
    let image = busybox::tarball(cluster.folder());
    let imported = cluster.kactor(&["image", "import", &image.display().to_string()]);
    assert!(imported.is_ok(), "{}", imported.both());
    with_each(&cluster, |kubectl| {
        kubectl.give(BUSY);
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/busy", "--timeout=90s"]);
        let kubelet = Kubelet::of(&cluster);
        let namespace = kubectl.field("pod/busy", ".metadata.namespace");
        let main = [("namespace", namespace.as_str()), ("pod", "busy"), ("container", "main")];

        let used = || {
            let page = kubelet.page(&cluster, "/metrics/resource");
            let rows = page.rows("container_cpu_usage_seconds_total", &main);
            rows.first().map(|it| it.value).ok_or_else(|| "it is not on the page".to_owned())
        };
        // The pod was Ready a moment ago: its container may be first read after that.
        let first = wait_until("the container is measured", used);
        wait_until("the container uses more of a processor", || match used()? {
            now if now > first && now > 0.0 => Ok(()),
            now => Err(format!("{first} then, {now} now")),
        });
        let page = kubelet.page(&cluster, "/metrics/cadvisor");
        for family in
            ["container_memory_working_set_bytes", "container_memory_rss", "container_processes"]
        {
            assert!(page.one(family, &main).value > 0.0, "{family}");
        }
        let limit = page.one("container_spec_memory_limit_bytes", &main).value;
        assert_eq!(limit, f64::from(64 << 20));
        let of_pod = [("pod", "busy"), ("namespace", namespace.as_str()), ("interface", "eth0")];
        assert_eq!(page.rows("container_network_receive_bytes_total", &of_pod).len(), 1);
        wait_until("a rate is known", || {
            let summary = kubelet.json(&cluster, "/stats/summary");
            let pods = summary["pods"].as_array().cloned().unwrap_or_default();
            let pod = pods.into_iter().find(|it| it["podRef"]["namespace"] == namespace.as_str());
            let rate = pod.map(|it| it["containers"][0]["cpu"]["usageNanoCores"].clone());
            match rate.as_ref().and_then(serde_json::Value::as_u64) {
                Some(1..) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        wait_until("probes are counted", || {
            let page = read(&kubelet.text(&cluster, "/metrics/probes"));
            let ready = [main[0], main[1], ("probe_type", "Readiness"), ("result", "successful")];
            match page.rows("prober_probe_total", &ready).len() {
                1 => Ok(()),
                n => Err(format!("{n} rows")),
            }
        });
        let logs = format!("/containerLogs/{namespace}/busy/main?tailLines=5");
        assert_eq!(kubelet.text(&cluster, &logs), "begun\n");
        exec(&cluster, &kubelet.address, &format!("/exec/{namespace}/busy/main"));
        let through = format!("/api/v1/nodes/{NODE}/proxy/exec/{namespace}/busy/main");
        exec(&cluster, &format!("127.0.0.1:{}", cluster.port()), &through);
    });
}

/// Runs a command by SPDY, and by WebSocket as `wscat` would: stdout comes on channel 1, the status on channel 3.
fn exec(cluster: &Cluster, address: &str, path: &str) {
    let query = "command=sh&command=-c&command=echo+hello%3B+exit+7&output=1&error=1";
    let frames = crate::socket::talk(cluster, address, &format!("{path}?{query}"));
    let of = |channel: u8| -> String {
        let of = frames.iter().filter(|it| it.first() == Some(&channel));
        of.map(|it| String::from_utf8_lossy(&it[1..]).into_owned()).collect()
    };
    assert_eq!(of(1), "hello\n", "{path}: {frames:?}");
    assert!(of(3).contains("\"reason\":\"NonZeroExitCode\""), "{path}: {}", of(3));
    assert!(of(3).contains("\"message\":\"7\""), "{path}: {}", of(3));
    let said = crate::socket::spdy(cluster, address, &format!("{path}?{query}"));
    assert_eq!(said.get("stdout").map(String::as_str), Some("hello\n"), "{path}: {said:?}");
    assert!(said["error"].contains("\"message\":\"7\""), "{path}: {said:?}");
}
