//! `status` of a Pod object, from what its actor has seen.
//!
//! Pure, so that the table of reasons is a table. Upstream: kubelet `generateAPIPodStatus`, `getPhase`,
//! pkg/kubelet/status/generate.go. Conditions that others own (`PodScheduled`, readiness gates) are kept.

use kactor_protocol::time::Timestamp;
use serde_json::{Map, Value, json};

use crate::machine::{ContainerSeen, Course, Ended, Observed, Progress, Run, Sandbox, course};
use crate::spec::{Container, Pod, RestartPolicy};

/// What the node adds to a pod's status beside what the pod's actor saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    pub addresses: Vec<String>,
    /// `embedded`, `docker`, …: the prefix of container ids.
    pub driver: String,
}

/// The whole status, conditions merged over `previous` (the object's present status).
pub fn status(
    pod: &Pod,
    seen: &Observed,
    previous: &Value,
    host: &HostFacts,
    now: Timestamp,
) -> Value {
    let mut out = previous.as_object().cloned().unwrap_or_default();
    let phase = phase(pod, seen);
    out.insert("phase".to_owned(), json!(phase));
    set_or_remove(&mut out, "reason", seen.doomed.as_ref().map(|it| json!(it.reason)));
    set_or_remove(&mut out, "message", seen.doomed.as_ref().map(|it| json!(it.message)));
    if let Some(started) = seen.started {
        out.entry("startTime").or_insert_with(|| json!(started.to_string()));
    }
    addresses(&mut out, pod, seen, host);
    let init = statuses(pod, &pod.spec.init_containers, seen, host);
    if !pod.spec.init_containers.is_empty() {
        out.insert("initContainerStatuses".to_owned(), Value::Array(init));
    }
    let main = statuses(pod, &pod.spec.containers, seen, host);
    out.insert("containerStatuses".to_owned(), Value::Array(main));
    out.insert("qosClass".to_owned(), json!(qos_class(pod)));
    let conditions = conditions(pod, seen, phase, previous, now);
    out.insert("conditions".to_owned(), Value::Array(conditions));
    Value::Object(out)
}

fn set_or_remove(out: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => out.insert(key.to_owned(), value),
        None => out.remove(key),
    };
}

fn addresses(out: &mut Map<String, Value>, pod: &Pod, seen: &Observed, host: &HostFacts) {
    if let Some(first) = host.addresses.first() {
        out.insert("hostIP".to_owned(), json!(first));
        let all: Vec<Value> = host.addresses.iter().map(|it| json!({ "ip": it })).collect();
        out.insert("hostIPs".to_owned(), json!(all));
    }
    let own = match &seen.sandbox {
        Sandbox::Ready { .. } if pod.spec.host_network => host.addresses.clone(),
        Sandbox::Ready { addresses, .. } => addresses.clone(),
        _ => return, // An ended pod keeps the address it had, as in Kubernetes.
    };
    if let Some(first) = own.first() {
        out.insert("podIP".to_owned(), json!(first));
        let all: Vec<Value> = own.iter().map(|it| json!({ "ip": it })).collect();
        out.insert("podIPs".to_owned(), json!(all));
    }
}

/// `status.phase`.
pub fn phase(pod: &Pod, seen: &Observed) -> &'static str {
    if seen.doomed.is_some() {
        return "Failed";
    }
    let run =
        |it: &Container| seen.containers.get(&it.name).map(|it| it.run.clone()).unwrap_or_default();
    match course(pod, seen) {
        Course::Done { succeeded: true } => return "Succeeded",
        Course::Done { succeeded: false } => return "Failed",
        Course::Alive | Course::Ending => {}
    }
    let init_done = pod.spec.init_containers.iter().all(|it| match run(it) {
        Run::Ended(end) => end.exit_code == 0 || it.is_sidecar(),
        Run::Running { .. } => it.is_sidecar(),
        _ => false,
    });
    let runs: Vec<Run> = pod.spec.containers.iter().map(run).collect();
    if !init_done || runs.iter().any(|it| matches!(it, Run::NotStarted | Run::Refused { .. })) {
        return "Pending";
    }
    if runs.iter().all(|it| matches!(it, Run::Ended(_)))
        && pod.metadata.deletion_timestamp.is_some()
    {
        let failed = runs.iter().any(|it| matches!(it, Run::Ended(end) if end.exit_code != 0));
        return match (pod.spec.restart_policy, failed) {
            (RestartPolicy::Always, _) => "Running",
            (_, true) => "Failed",
            (_, false) => "Succeeded",
        };
    }
    "Running"
}

fn statuses(pod: &Pod, containers: &[Container], seen: &Observed, host: &HostFacts) -> Vec<Value> {
    let absent = ContainerSeen::default();
    let of = |it: &Container| {
        status_of(pod, it, seen.containers.get(&it.name).unwrap_or(&absent), seen, host)
    };
    containers.iter().map(of).collect()
}

fn status_of(
    pod: &Pod,
    container: &Container,
    it: &ContainerSeen,
    seen: &Observed,
    host: &HostFacts,
) -> Value {
    let started = matches!(it.run, Run::Running { .. }) && it.startup_passed;
    let mut out = json!({
        "name": container.name,
        "image": container.image,
        "imageID": it.image_id,
        "restartCount": it.restarts,
        "ready": is_ready(pod, container, it),
        "started": started,
        "state": state(pod, container, it, seen, host),
        "lastState": last_state(it, host),
    });
    let id = match &it.run {
        Run::Running { id, .. } => Some(id),
        Run::Ended(end) => Some(&end.id),
        _ => it.last.as_ref().map(|it| &it.id),
    };
    if let Some(id) = id.filter(|it| !it.is_empty()) {
        out["containerID"] = json!(format!("{}://{id}", host.driver));
    }
    out
}

/// A plain init container counts as ready once it has succeeded.
fn is_ready(pod: &Pod, container: &Container, it: &ContainerSeen) -> bool {
    let is_init = pod.spec.init_containers.iter().any(|init| init.name == container.name);
    match &it.run {
        Run::Running { .. } => it.ready && it.startup_passed,
        Run::Ended(end) => is_init && !container.is_sidecar() && end.exit_code == 0,
        _ => false,
    }
}

fn state(
    pod: &Pod,
    container: &Container,
    it: &ContainerSeen,
    seen: &Observed,
    host: &HostFacts,
) -> Value {
    match &it.run {
        Run::Running { started, .. } => json!({ "running": { "startedAt": started.to_string() } }),
        Run::Ended(end) if is_waiting_to_restart(pod, container, it, end, seen) => {
            let delay = crate::machine::backoff(it.failures);
            let message = format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                human(delay.as_secs()),
                container.name,
                pod.metadata.name,
                pod.metadata.namespace,
                pod.metadata.uid
            );
            json!({ "waiting": { "reason": "CrashLoopBackOff", "message": message } })
        }
        Run::Ended(end) => json!({ "terminated": terminated(end, host) }),
        Run::Refused { reason, message, .. } => {
            json!({ "waiting": { "reason": reason, "message": message } })
        }
        Run::NotStarted => json!({ "waiting": waiting(pod, container, it, seen) }),
    }
}

/// `10s`, `2m40s`, `5m0s`, as Go prints durations.
fn human(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

fn is_waiting_to_restart(
    pod: &Pod,
    container: &Container,
    it: &ContainerSeen,
    end: &Ended,
    seen: &Observed,
) -> bool {
    if course(pod, seen) != Course::Alive || it.failures < 2 {
        return false;
    }
    let is_init = pod.spec.init_containers.iter().any(|init| init.name == container.name);
    match container.restart_policy.unwrap_or(pod.spec.restart_policy) {
        RestartPolicy::Always => !is_init || container.is_sidecar() || end.exit_code != 0,
        RestartPolicy::OnFailure => end.exit_code != 0,
        RestartPolicy::Never => false,
    }
}

fn waiting(pod: &Pod, container: &Container, it: &ContainerSeen, seen: &Observed) -> Value {
    if let Progress::Failed { message, attempts, .. } = &it.image {
        // The first failure names the cause, later ones that it is waited.
        let waited = if *attempts > 1 { "ImagePullBackOff" } else { "ErrImagePull" };
        let reason = it.image_reason.unwrap_or(waited);
        return json!({ "reason": reason, "message": message });
    }
    let is_init = pod.spec.init_containers.iter().any(|init| init.name == container.name);
    let init_pending = pod.spec.init_containers.iter().any(|init| {
        let run = seen.containers.get(&init.name).map(|it| &it.run);
        match run {
            Some(Run::Ended(end)) => end.exit_code != 0,
            Some(Run::Running { .. }) => !init.is_sidecar(),
            _ => true,
        }
    });
    let reason = if init_pending || is_init { "PodInitializing" } else { "ContainerCreating" };
    let problem = match (&seen.volumes, &seen.sandbox) {
        (Progress::Failed { message, .. }, _) | (_, Sandbox::Failed { message, .. }) => {
            Some(message)
        }
        _ => None,
    };
    match problem {
        Some(message) => json!({ "reason": reason, "message": message }),
        None => json!({ "reason": reason }),
    }
}

fn last_state(it: &ContainerSeen, host: &HostFacts) -> Value {
    let shown = match (&it.run, &it.last) {
        (Run::Ended(end), _) if it.failures >= 2 => Some(end),
        (_, last) => last.as_ref(),
    };
    shown.map_or_else(|| json!({}), |end| json!({ "terminated": terminated(end, host) }))
}

fn terminated(end: &Ended, host: &HostFacts) -> Value {
    let mut out = json!({
        "exitCode": end.exit_code,
        "reason": end.reason,
        "startedAt": end.started.to_string(),
        "finishedAt": end.finished.to_string(),
        "containerID": format!("{}://{}", host.driver, end.id),
    });
    if let Some(signal) = end.signal {
        out["signal"] = json!(signal);
    }
    if !end.message.is_empty() {
        out["message"] = json!(end.message);
    }
    out
}

/// `Guaranteed`, `Burstable` or `BestEffort` (component-helpers resource.ComputePodQOS), on cpu and memory.
pub fn qos_class(pod: &Pod) -> &'static str {
    let all = || pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let is_set = |it: &&Value| it.as_str() != Some("0") && it.as_i64() != Some(0);
    let counted = |map: &std::collections::BTreeMap<String, Value>| {
        ["cpu", "memory"].iter().filter(|it| map.get(**it).as_ref().is_some_and(is_set)).count()
    };
    if all().all(|it| counted(&it.resources.limits) + counted(&it.resources.requests) == 0) {
        return "BestEffort";
    }
    let guaranteed = |it: &Container| {
        counted(&it.resources.limits) == 2
            && ["cpu", "memory"].iter().all(|name| {
                let request = it.resources.requests.get(*name);
                request.is_none() || request == it.resources.limits.get(*name)
            })
    };
    if all().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

fn conditions(
    pod: &Pod,
    seen: &Observed,
    phase: &str,
    previous: &Value,
    now: Timestamp,
) -> Vec<Value> {
    let old: &[Value] = previous["conditions"].as_array().map_or(&[], Vec::as_slice);
    let mut out: Vec<Value> = old.to_vec();
    for verdict in verdicts(pod, seen, phase, old) {
        let at = out.iter().position(|it| it["type"] == verdict.kind);
        let before = at.map(|it| out[it].clone()).unwrap_or(Value::Null);
        let status = if verdict.holds { "True" } else { "False" };
        let changed = before["status"] != status;
        let since =
            if changed { json!(now.to_string()) } else { before["lastTransitionTime"].clone() };
        let mut condition =
            json!({ "type": verdict.kind, "status": status, "lastTransitionTime": since });
        condition["lastProbeTime"] = Value::Null;
        if let Some((reason, message)) = verdict.why {
            condition["reason"] = json!(reason);
            if !message.is_empty() {
                condition["message"] = json!(message);
            }
        }
        match at {
            Some(at) => out[at] = condition,
            None => out.push(condition),
        }
    }
    out
}

struct Verdict {
    kind: &'static str,
    holds: bool,
    why: Option<(&'static str, String)>,
}

fn verdicts(pod: &Pod, seen: &Observed, phase: &str, old: &[Value]) -> Vec<Verdict> {
    let is_over = phase == "Succeeded" || phase == "Failed";
    let over =
        || Some((if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" }, String::new()));
    let run = |it: &&Container| seen.containers.get(&it.name);
    let uninitialized: Vec<&str> = pod
        .spec
        .init_containers
        .iter()
        .filter(|it| match run(it).map(|it| &it.run) {
            Some(Run::Ended(end)) => end.exit_code != 0,
            Some(Run::Running { .. }) => !it.is_sidecar(),
            _ => true,
        })
        .map(|it| it.name.as_str())
        .collect();
    let unready: Vec<&str> = pod
        .spec
        .containers
        .iter()
        .chain(pod.spec.init_containers.iter().filter(|it| it.is_sidecar()))
        .filter(|it| !run(it).is_some_and(|state| is_ready(pod, it, state)))
        .map(|it| it.name.as_str())
        .collect();
    let listed = |names: &[&str], what: &str| {
        format!("containers with {what} status: [{}]", names.join(" "))
    };
    let not_initialized =
        || Some(("ContainersNotInitialized", listed(&uninitialized, "incomplete")));
    let not_ready =
        || if is_over { over() } else { Some(("ContainersNotReady", listed(&unready, "unready"))) };
    let containers_ready = unready.is_empty() && !is_over;
    let gates_closed: Vec<&str> = pod
        .spec
        .readiness_gates
        .iter()
        .map(|it| it.condition_type.as_str())
        .filter(|kind| !old.iter().any(|it| it["type"] == *kind && it["status"] == "True"))
        .collect();
    let ready = containers_ready && gates_closed.is_empty();
    let ready_why = if !containers_ready {
        not_ready()
    } else {
        let message = format!(
            "corresponding condition of pod readiness gate \"{}\" does not exist or is not True.",
            gates_closed.join("\", \"")
        );
        (!ready).then_some(("ReadinessGatesNotReady", message))
    };
    let sandboxed = matches!(seen.sandbox, Sandbox::Ready { .. });
    let initialized = uninitialized.is_empty() || phase == "Succeeded";
    vec![
        Verdict { kind: "PodReadyToStartContainers", holds: sandboxed, why: None },
        Verdict {
            kind: "Initialized",
            holds: initialized,
            why: if phase == "Succeeded" {
                over()
            } else if initialized {
                None
            } else {
                not_initialized()
            },
        },
        Verdict { kind: "Ready", holds: ready, why: ready_why },
        Verdict {
            kind: "ContainersReady",
            holds: containers_ready,
            why: if containers_ready { None } else { not_ready() },
        },
    ]
}

#[cfg(test)]
mod tests;
