//! What READY, STATUS and RESTARTS say of a pod, case by case.

use super::*;

fn pod(name: &str, spec: Value, status: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec, "status": status})
}

fn containers(n: usize) -> Value {
    let all: Vec<Value> = (0..n).map(|at| json!({"name": format!("c{at}")})).collect();
    json!({"containers": all})
}

fn running(ready: bool, restarts: u64) -> Value {
    json!({"name": "c0", "ready": ready, "restartCount": restarts, "state": {"running": {}}})
}

fn terminated(reason: &str, code: i64) -> Value {
    json!({"terminated": {"reason": reason, "exitCode": code}})
}

fn deleted(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!(ago(1));
    pod
}

#[test]
fn running_and_restarting_pods() {
    let mut restarted = running(true, 1);
    restarted["lastState"] = json!({"terminated": {"finishedAt": ago(5)}});
    let crash = json!({"name": "c0", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"finishedAt": ago(70)}}});
    let ready = json!([{"type": "Ready", "status": "True"}, {"type": "gate", "status": "True"}]);
    expect_test::expect![[r#"
        NAME | READY | STATUS | RESTARTS | AGE | [IP] | [NODE] | [NOMINATED NODE] | [READINESS GATES]
        pending | 0/2 | Pending | 0 | 3m10s | <none> | <none> | <none> | <none>
        gated | 0/1 | SchedulingGated | 0 | 3m10s | <none> | <none> | <none> | <none>
        creating | 0/1 | ContainerCreating | 0 | 3m10s | <none> | <none> | <none> | <none>
        running | 1/1 | Running | 0 | 3m10s | 10.1.0.4 | n1 | <none> | 1/2
        restarted | 1/1 | Running | 1 (5s ago) | 3m10s | <none> | <none> | <none> | <none>
        crashing | 0/1 | CrashLoopBackOff | 4 (70s ago) | 3m10s | <none> | <none> | <none> | <none>
        pull | 0/1 | ImagePullBackOff | 0 | 3m10s | <none> | <none> | <none> | <none>
        preempting | 0/1 | Pending | 0 | 3m10s | <none> | <none> | n2 | <none>
    "#]].assert_eq(&printed("pods", vec![
        pod("pending", containers(2), json!({"phase": "Pending"})),
        pod("gated", containers(1), json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]})),
        pod("creating", containers(1), json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]})),
        pod("running", json!({"containers": [{}], "nodeName": "n1", "readinessGates": [{"conditionType": "gate"}, {"conditionType": "other"}]}),
            json!({"phase": "Running", "podIPs": [{"ip": "10.1.0.4"}], "podIP": "10.1.0.4", "conditions": ready, "containerStatuses": [running(true, 0)]})),
        pod("restarted", containers(1), json!({"phase": "Running", "containerStatuses": [restarted]})),
        pod("crashing", containers(1), json!({"phase": "Running", "containerStatuses": [crash]})),
        pod("pull", containers(1), json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]})),
        pod("preempting", containers(1), json!({"phase": "Pending", "nominatedNodeName": "n2"})),
    ]));
}

#[test]
fn pods_that_ended() {
    let with = |state: Value| json!({"phase": "Failed", "containerStatuses": [{"state": state}]});
    expect_test::expect![[r#"
        NAME | READY | STATUS | RESTARTS | AGE | [IP] | [NODE] | [NOMINATED NODE] | [READINESS GATES]
        completed | 0/1 | Completed | 0 | 3m10s | <none> | <none> | <none> | <none>
        error | 0/1 | Error | 0 | 3m10s | <none> | <none> | <none> | <none>
        oom | 0/1 | OOMKilled | 0 | 3m10s | <none> | <none> | <none> | <none>
        code | 0/1 | ExitCode:3 | 0 | 3m10s | <none> | <none> | <none> | <none>
        signal | 0/1 | Signal:9 | 0 | 3m10s | <none> | <none> | <none> | <none>
        evicted | 0/1 | Evicted | 0 | 3m10s | <none> | <none> | <none> | <none>
        half | 1/2 | Running | 0 | 3m10s | <none> | <none> | <none> | <none>
        half-unready | 1/2 | NotReady | 0 | 3m10s | <none> | <none> | <none> | <none>
        terminating | 1/1 | Terminating | 0 | 3m10s | <none> | <none> | <none> | <none>
        ended | 0/1 | Completed | 0 | 3m10s | <none> | <none> | <none> | <none>
        lost | 0/1 | Unknown | 0 | 3m10s | <none> | <none> | <none> | <none>
    "#]].assert_eq(&printed("pods", vec![
        pod("completed", containers(1), json!({"phase": "Succeeded", "containerStatuses": [{"state": terminated("Completed", 0)}]})),
        pod("error", containers(1), with(terminated("Error", 1))),
        pod("oom", containers(1), with(terminated("OOMKilled", 137))),
        pod("code", containers(1), with(terminated("", 3))),
        pod("signal", containers(1), with(json!({"terminated": {"signal": 9, "exitCode": 137}}))),
        pod("evicted", containers(1), json!({"phase": "Failed", "reason": "Evicted"})),
        pod("half", containers(2), json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"state": terminated("Completed", 0)}, running(true, 0)]})),
        pod("half-unready", containers(2), json!({"phase": "Running",
            "containerStatuses": [{"state": terminated("Completed", 0)}, running(true, 0)]})),
        deleted(pod("terminating", containers(1), json!({"phase": "Running", "containerStatuses": [running(true, 0)]}))),
        deleted(pod("ended", containers(1), json!({"phase": "Succeeded", "containerStatuses": [{"state": terminated("Completed", 0)}]}))),
        deleted(pod("lost", containers(1), json!({"phase": "Running", "reason": "NodeLost"}))),
    ]));
}

#[test]
fn pods_with_init_containers() {
    let spec =
        json!({"containers": [{"name": "c0"}], "initContainers": [{"name": "i0"}, {"name": "i1"}]});
    let init = |statuses: Value| json!({"phase": "Pending", "initContainerStatuses": statuses});
    let done = json!({"name": "i0", "state": terminated("Completed", 0), "restartCount": 2});
    let sidecar = json!({"containers": [{"name": "c0"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
    expect_test::expect![[r#"
        NAME | READY | STATUS | RESTARTS | AGE | [IP] | [NODE] | [NOMINATED NODE] | [READINESS GATES]
        first | 0/1 | Init:0/2 | 0 | 3m10s | <none> | <none> | <none> | <none>
        second | 0/1 | Init:1/2 | 2 | 3m10s | <none> | <none> | <none> | <none>
        error | 0/1 | Init:Error | 0 | 3m10s | <none> | <none> | <none> | <none>
        code | 0/1 | Init:ExitCode:1 | 0 | 3m10s | <none> | <none> | <none> | <none>
        backoff | 0/1 | Init:CrashLoopBackOff | 3 | 3m10s | <none> | <none> | <none> | <none>
        running | 1/1 | Running | 0 | 3m10s | <none> | <none> | <none> | <none>
        sidecar | 2/2 | Running | 3 (30s ago) | 3m10s | <none> | <none> | <none> | <none>
    "#]].assert_eq(&printed("pods", vec![
        pod("first", spec.clone(), init(json!([{"name": "i0", "state": {"running": {}}}]))),
        pod("second", spec.clone(), init(json!([done, {"name": "i1", "state": {"waiting": {"reason": "PodInitializing"}}}]))),
        pod("error", spec.clone(), init(json!([{"name": "i0", "state": terminated("Error", 1)}]))),
        pod("code", spec.clone(), init(json!([{"name": "i0", "state": terminated("", 1)}]))),
        pod("backoff", spec.clone(), init(json!([{"name": "i0", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]))),
        pod("running", spec, json!({"phase": "Running", "initContainerStatuses": [done], "containerStatuses": [running(true, 0)]})),
        pod("sidecar", sidecar, json!({"phase": "Running", "containerStatuses": [running(true, 1)],
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": ago(30)}}}]})),
    ]));
}
