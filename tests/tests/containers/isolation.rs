//! What a container may not do or take more of than it was given.

use kactor_tests::harness::kubectl::{Kubectl, newest};

use super::{cluster, pod, reaches, ready};

fn said(kubectl: &Kubectl, name: &str, script: &str, container: &str, spec: &str) -> String {
    let spec = ["restartPolicy: Never", spec]
        .iter()
        .filter(|it| !it.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    kubectl.give(&pod(name, script, container, &spec));
    reaches(kubectl, name, ".status.phase", |it| it == "Succeeded" || it == "Failed");
    kubectl.ok(&["logs", name])
}

#[test]
fn limits_hold_and_who_passes_them_is_named() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    let limits = "resources: {limits: {memory: 16Mi, cpu: 250m}}";
    // It keeps the line that it reads, and there is no line's end.
    kubectl.give(&pod("hog", "exec tail /dev/zero", limits, "restartPolicy: Never"));
    reaches(&kubectl, "hog", ".status.phase", |it| it == "Failed");
    let ended = ".status.containerStatuses[0].state.terminated";
    assert_eq!(kubectl.field("pod/hog", &format!("{ended}.reason")), "OOMKilled");
    assert_eq!(kubectl.field("pod/hog", &format!("{ended}.exitCode")), "137");
    assert_eq!(kubectl.field("pod/hog", ".status.qosClass"), "Guaranteed");

    kubectl.give(&pod("slow", "exec sleep 100000", limits, ""));
    ready(&kubectl, "slow");
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
    let quota = kubectl.ok(&["exec", "slow", "--", "sh", "-c", quota]);
    assert_eq!(quota.split_whitespace().next(), Some("25000"), "{quota}");
}

#[test]
fn a_security_context_is_kept() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    let user = "securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000}";
    let volume = format!("{user}, volumes: [{{name: v, emptyDir: {{}}}}]");
    let mount = "volumeMounts: [{name: v, mountPath: /v}]";
    let script = "id -u; id -g; id -G; touch /v/mine && stat -c %g /v/mine; touch /root-file 2>/dev/null || echo refused";
    assert_eq!(
        said(&kubectl, "user", script, mount, &volume),
        "1000\n3000\n3000 2000\n2000\nrefused\n"
    );

    let read_only = "securityContext: {readOnlyRootFilesystem: true}";
    let script = "touch /file 2>&1 | grep -o 'Read-only file system'";
    assert_eq!(said(&kubectl, "sealed", script, read_only, ""), "Read-only file system\n");

    let dropped = "securityContext: {capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}, allowPrivilegeEscalation: false}";
    let script = "grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -d '\\t'";
    assert_eq!(
        said(&kubectl, "weak", script, dropped, ""),
        "CapEff:0000000000000400\nNoNewPrivs:1\n"
    );

    // The harness starts kactor with a signal ignored, as nohup and service managers do.
    let signals =
        said(&kubectl, "signals", "grep -E 'Sig(Ign|Blk)' /proc/self/status | tr -d '\\t'", "", "");
    assert_eq!(signals, "SigBlk:0000000000000000\nSigIgn:0000000000000000\n");

    let not_root = "securityContext: {runAsNonRoot: true}";
    kubectl.give(&pod("root", "id -u", not_root, "restartPolicy: Never"));
    let path = ".status.containerStatuses[0].state.waiting";
    reaches(&kubectl, "root", &format!("{path}.reason"), |it| it == "CreateContainerConfigError");
    let why = kubectl.field("pod/root", &format!("{path}.message"));
    assert!(why.contains("root"), "{why}");
}
