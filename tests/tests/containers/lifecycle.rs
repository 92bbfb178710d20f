//! How a pod begins, is started again, and ends; and what is said when it cannot.

use kactor_tests::harness::kubectl::newest;

use super::{cluster, pod, reaches, ready};

const SIDECAR: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: order}
spec:
  terminationGracePeriodSeconds: 5
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: one, image: busybox:latest, imagePullPolicy: Never, command: [sh, -c, "echo one >> /v/order"], volumeMounts: [{name: v, mountPath: /v}]}
  - name: side
    image: busybox:latest
    imagePullPolicy: Never
    restartPolicy: Always
    command: [sh, -c, "trap 'echo side ends; exit 0' TERM; echo side >> /v/order; touch /v/up; while true; do sleep 0.1; done"]
    startupProbe: {exec: {command: [test, -e, /v/up]}, periodSeconds: 1}
    volumeMounts: [{name: v, mountPath: /v}]
  - {name: two, image: busybox:latest, imagePullPolicy: Never, command: [sh, -c, "echo two >> /v/order"], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: main, image: busybox:latest, imagePullPolicy: Never, command: [sh, -c, "echo main >> /v/order; cat /v/order"], volumeMounts: [{name: v, mountPath: /v}]}
"#;

#[test]
fn init_containers_run_in_order_and_a_sidecar_ends_last() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    kubectl.give(SIDECAR);
    reaches(&kubectl, "order", ".status.phase", |it| it == "Succeeded");
    assert_eq!(kubectl.ok(&["logs", "order", "-c", "main"]), "one\nside\ntwo\nmain\n");
    reaches(
        &kubectl,
        "order",
        ".status.initContainerStatuses[1].state.terminated.exitCode",
        |it| it == "0",
    );
    assert_eq!(kubectl.ok(&["logs", "order", "-c", "side"]), "side ends\n");
}

#[test]
fn a_container_that_ends_is_started_again_as_its_policy_says() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    let count = ".status.containerStatuses[0].restartCount";
    let waiting = ".status.containerStatuses[0].state.waiting";
    let last = ".status.containerStatuses[0].lastState.terminated";
    kubectl.give(&pod(
        "always",
        "echo out of luck >&2; exit 4",
        "terminationMessagePolicy: FallbackToLogsOnError",
        "",
    ));
    kubectl.give(&pod(
        "never",
        "echo gone > /dev/termination-log; exit 5",
        "",
        "restartPolicy: Never",
    ));
    let once = "test -e /v/done && exit 0; touch /v/done; exit 1";
    let volume = "restartPolicy: OnFailure, volumes: [{name: v, emptyDir: {}}]";
    kubectl.give(&pod("onfailure", once, "volumeMounts: [{name: v, mountPath: /v}]", volume));

    reaches(&kubectl, "always", &format!("{waiting}.reason"), |it| it == "CrashLoopBackOff");
    let message = kubectl.field("pod/always", &format!("{waiting}.message"));
    assert!(
        message.contains("back-off 10s restarting failed container=main pod=always_"),
        "{message}"
    );
    assert_eq!(kubectl.field("pod/always", count), "1");
    assert_eq!(kubectl.field("pod/always", &format!("{last}.exitCode")), "4");
    assert_eq!(kubectl.field("pod/always", &format!("{last}.message")).trim(), "out of luck");

    reaches(&kubectl, "never", ".status.phase", |it| it == "Failed");
    let ended = ".status.containerStatuses[0].state.terminated";
    assert_eq!(kubectl.field("pod/never", count), "0");
    assert_eq!(kubectl.field("pod/never", &format!("{ended}.message")).trim(), "gone");
    reaches(&kubectl, "onfailure", ".status.phase", |it| it == "Succeeded");
    assert_eq!(kubectl.field("pod/onfailure", count), "1");
}

#[test]
fn probes_restart_what_is_stuck_and_hold_back_what_has_not_started() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    let count = ".status.containerStatuses[0].restartCount";
    let liveness =
        "livenessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1, failureThreshold: 2}";
    let startup = "startupProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1, failureThreshold: 60}";
    let http = "readinessProbe: {httpGet: {path: /state, port: 80}, periodSeconds: 1}";
    kubectl.give(&pod("dead", "exec sleep 100000", liveness, ""));
    kubectl.give(&pod(
        "late",
        "mkdir /w; httpd -p 80 -h /w; until test -e /tmp/up; do sleep 0.1; done; touch /w/state; exec nc -ll -p 7000 -e cat",
        &format!("{liveness}, {startup}, {http}"),
        "",
    ));
    reaches(&kubectl, "late", ".status.phase", |it| it == "Running");
    // Restarted for want of a listener, which is what would befall the other one without its startup probe.
    reaches(&kubectl, "dead", count, |it| it >= "1");
    let events = kubectl.ok(&["get", "events", "--field-selector", "involvedObject.name=dead"]);
    assert!(
        events.contains("Liveness probe failed") && events.contains("will be restarted"),
        "{events}"
    );
    assert_eq!(kubectl.field("pod/late", ".status.containerStatuses[0].started"), "false");
    assert_eq!(kubectl.field("pod/late", count), "0");
    kubectl.ok(&["exec", "late", "--", "touch", "/tmp/up"]);
    ready(&kubectl, "late");
    assert_eq!(kubectl.field("pod/late", count), "0");
    kubectl.ok(&["delete", "pod", "dead", "late"]);
}

#[test]
fn a_pod_ends_with_its_hook_its_signal_and_its_grace() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    let host = cluster.folder().join("told");
    std::fs::create_dir(&host).unwrap();
    let mount = "volumeMounts: [{name: v, mountPath: /v}]";
    let volume = format!("volumes: [{{name: v, hostPath: {{path: '{}'}}}}]", host.display());
    let told = |name: &str| std::fs::read_to_string(host.join(name)).unwrap_or_default();
    let script =
        "trap 'echo signal >> /v/polite; exit 0' TERM; touch /v/up; while true; do sleep 0.1; done";
    let hook = "lifecycle: {preStop: {exec: {command: [sh, -c, 'echo hook >> /v/polite']}}}";
    let grace = "apiVersion: v1\nkind: Pod\n";
    let polite = pod("polite", script, &format!("{hook}, {mount}"), &volume);
    kubectl.give(
        &polite.replace("terminationGracePeriodSeconds: 1,", "terminationGracePeriodSeconds: 60,"),
    );
    assert!(polite.starts_with(grace));
    ready(&kubectl, "polite");
    kubectl.until(&["exec", "polite", "--", "ls", "/v"], |it| it.contains("up"));
    kubectl.ok(&["delete", "pod", "polite"]);
    assert_eq!(told("polite"), "hook\nsignal\n");

    // One that does not listen is killed when its grace is over, and one that is forced at once.
    let deaf = "trap '' TERM; while true; do sleep 0.1; done";
    kubectl.give(&pod("deaf", deaf, "", ""));
    ready(&kubectl, "deaf");
    kubectl.ok(&["delete", "pod", "deaf"]);
    let forced = pod("forced", deaf, "", "")
        .replace("terminationGracePeriodSeconds: 1,", "terminationGracePeriodSeconds: 3600,");
    kubectl.give(&forced);
    ready(&kubectl, "forced");
    let uid = kubectl.field("pod/forced", ".metadata.uid");
    kubectl.ok(&["delete", "pod", "forced", "--grace-period=0", "--force"]);
    kactor_tests::harness::wait_until("the forced pod's processes are gone", || {
        match cgroups_of(&uid) {
            0 => Ok(()),
            n => Err(format!("{n} cgroups are left")),
        }
    });
    kubectl.refused(&["get", "pod", "forced"]);
}

/// Folders of the cgroup trees that bear a pod's uid.
fn cgroups_of(uid: &str) -> usize {
    fn count(folder: &std::path::Path, uid: &str, depth: u32) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let folders = entries.filter(|it| it.file_type().is_ok_and(|it| it.is_dir()));
        folders
            .map(|it| {
                let is_it = usize::from(it.file_name().to_string_lossy().contains(uid));
                is_it + if depth == 0 { 0 } else { count(&it.path(), uid, depth - 1) }
            })
            .sum()
    }
    count(std::path::Path::new("/sys/fs/cgroup"), uid, 5)
}

#[test]
fn what_keeps_a_pod_from_starting_is_said_where_one_looks() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    let waiting = |pod: &str, reason: &str| {
        let path = ".status.containerStatuses[0].state.waiting";
        reaches(&kubectl, pod, &format!("{path}.reason"), |it| it == reason);
        kubectl.field(&format!("pod/{pod}"), &format!("{path}.message"))
    };
    let image = |name: &str, image: &str, policy: &str| {
        let manifest = pod(name, "true", "", "");
        manifest.replace("busybox:latest", image).replace("Never", policy)
    };
    kubectl.give(&image("absent", "absent:1", "Never"));
    kubectl.give(&image("unreachable", "127.0.0.1:1/nothing:1", "Always"));
    kubectl.give(&image("malformed", "UPPER case", "Always"));
    let env = "env: [{name: A, valueFrom: {configMapKeyRef: {name: later, key: a}}}]";
    kubectl.give(&pod("unset", "echo $A; exec sleep 100000", env, ""));
    let volume = "volumes: [{name: v, configMap: {name: later}}]";
    kubectl.give(&pod(
        "unmounted",
        "exec sleep 100000",
        "volumeMounts: [{name: v, mountPath: /v}]",
        volume,
    ));
    let program = pod("program", "true", "", "restartPolicy: Never")
        .replace("[sh, -c, \"true\"]", "[/no-such-program]");
    kubectl.give(&program);

    let message = waiting("absent", "ErrImageNeverPull");
    assert_eq!(message, "Container image \"absent:1\" is not present with pull policy of Never");
    let message = waiting("unreachable", "ImagePullBackOff");
    assert!(message.contains("127.0.0.1:1/nothing:1"), "{message}");
    waiting("malformed", "InvalidImageName");
    let message = waiting("unset", "CreateContainerConfigError");
    assert_eq!(message, "configmap \"later\" not found");
    kubectl.until(&["get", "events"], |it| {
        it.contains("MountVolume.SetUp failed for volume \"v\"")
            && it.contains("configmap \"later\" not found")
    });
    reaches(&kubectl, "program", ".status.phase", |it| it == "Failed");
    let ended = ".status.containerStatuses[0].state.terminated";
    assert_eq!(kubectl.field("pod/program", &format!("{ended}.reason")), "StartError");
    assert_eq!(kubectl.field("pod/program", &format!("{ended}.exitCode")), "128");
    let message = kubectl.field("pod/program", &format!("{ended}.message"));
    assert!(message.contains("/no-such-program"), "{message}");

    // What was missing comes, and both begin by themselves.
    kubectl.ok(&["create", "configmap", "later", "--from-literal=a=now"]);
    ready(&kubectl, "unset");
    ready(&kubectl, "unmounted");
    assert_eq!(kubectl.ok(&["logs", "unset"]), "now\n");

    let odd = pod("odd", "true", "", "runtimeClassName: special");
    let said = kubectl.run_with(&["apply", "-f", "-"], &odd);
    if said.is_ok() {
        let refused = reaches(&kubectl, "odd", ".status.message", |it| !it.is_empty());
        assert!(refused.contains("runtimeClassName"), "{refused}");
        assert_eq!(kubectl.field("pod/odd", ".status.phase"), "Failed");
    } else {
        assert!(said.stderr.contains("runtimeClassName"), "{}", said.stderr);
    }
}
