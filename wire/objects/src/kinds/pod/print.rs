//! A pod's table row: the words in STATUS are a summary of phase, conditions and containers, as upstream's printPod.

use kactor_protocol::Timestamp;
use serde_json::{Value, json};

use crate::ages;
use crate::meta;
use crate::table::{self, Column, Printer};
use crate::tree;

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Ready", "Containers that are ready, of all."),
        Column::text("Status", "What the pod's containers are doing."),
        Column::text("Restarts", "How often containers were restarted, and when last."),
        Column::AGE,
        Column::text("IP", "The pod's address.").wide(),
        Column::text("Node", "Where it runs.").wide(),
        Column::text("Nominated Node", "Where room is being made for it.").wide(),
        Column::text("Readiness Gates", "Extra conditions that hold, of all.").wide(),
    ],
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let ip = match tree::list(pod, "status.podIPs").first() {
        Some(it) => tree::text(it, "ip"),
        None => tree::text(pod, "status.podIP"),
    };
    let restarts = match (summary.n_restarts, summary.last_restart) {
        (0, _) | (_, None) => summary.n_restarts.to_string(),
        (n, Some(at)) => format!("{n} ({} ago)", ages::human(now.since(at))),
    };
    vec![
        json!(meta::name(pod)),
        json!(format!("{}/{}", summary.n_ready, summary.n_containers)),
        json!(summary.reason),
        json!(restarts),
        table::age(pod, now),
        table::or_none(ip),
        table::or_none(tree::text(pod, "spec.nodeName")),
        table::or_none(tree::text(pod, "status.nominatedNodeName")),
        readiness_gates(pod),
    ]
}

/// What READY, STATUS and RESTARTS show.
struct Summary {
    n_containers: usize,
    n_ready: usize,
    n_restarts: i64,
    last_restart: Option<Timestamp>,
    reason: String,
}

impl Summary {
    fn add_restarts(&mut self, status: &Value) {
        self.n_restarts += tree::integer(status, "restartCount").unwrap_or(0);
        let ended = meta::time(status, "lastState.terminated.finishedAt");
        self.last_restart = self.last_restart.max(ended);
    }
}

/// The STATUS word of a pod, also for `describe`-like output and `why`.
pub fn status_word(pod: &Value) -> String {
    summarize(pod).reason
}

fn summarize(pod: &Value) -> Summary {
    let sidecars: Vec<&Value> =
        tree::list(pod, "spec.initContainers").iter().filter(|it| is_sidecar(it)).collect();
    let reason = match tree::text(pod, "status.reason") {
        "" => tree::text(pod, "status.phase"),
        reason => reason,
    };
    let mut summary = Summary {
        n_containers: tree::list(pod, "spec.containers").len() + sidecars.len(),
        n_ready: 0,
        n_restarts: 0,
        last_restart: None,
        reason: reason.to_owned(),
    };
    if condition(pod, "PodScheduled")
        .is_some_and(|it| tree::text(it, "reason") == "SchedulingGated")
    {
        summary.reason = "SchedulingGated".to_owned();
    }
    let initializing = add_init_containers(pod, &mut summary);
    if !initializing || is_true(pod, "Initialized") {
        // From here on only sidecars' restarts count, besides the containers'.
        forget_init_restarts(pod, &mut summary);
        add_containers(pod, &mut summary);
    }
    if meta::is_terminating(pod) {
        let lost = tree::text(pod, "status.reason") == "NodeLost";
        let phase = tree::text(pod, "status.phase");
        if lost {
            summary.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// Counts restarts of init containers; true while one of them still holds the pod back.
fn add_init_containers(pod: &Value, summary: &mut Summary) -> bool {
    let n_specs = tree::list(pod, "spec.initContainers").len();
    let statuses = tree::list(pod, "status.initContainerStatuses");
    for (at, status) in statuses.iter().enumerate() {
        summary.add_restarts(status);
        let state = tree::at(status, "state");
        let terminated = tree::at(state, "terminated");
        if !terminated.is_null() && tree::integer(terminated, "exitCode") == Some(0) {
            continue;
        }
        if is_status_of_sidecar(pod, status) && tree::is_true(status, "started") {
            summary.n_ready += usize::from(tree::is_true(status, "ready"));
            continue;
        }
        let waiting = tree::text(state, "waiting.reason");
        summary.reason = if !terminated.is_null() {
            match tree::text(terminated, "reason") {
                "" => format!("Init:{}", exit_words(terminated)),
                reason => format!("Init:{reason}"),
            }
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{at}/{n_specs}")
        };
        return true;
    }
    false
}

fn forget_init_restarts(pod: &Value, summary: &mut Summary) {
    (summary.n_restarts, summary.last_restart) = (0, None);
    for status in tree::list(pod, "status.initContainerStatuses") {
        if is_status_of_sidecar(pod, status) {
            summary.add_restarts(status);
        }
    }
}

fn is_status_of_sidecar(pod: &Value, status: &Value) -> bool {
    let name = tree::text(status, "name");
    tree::list(pod, "spec.initContainers")
        .iter()
        .any(|it| tree::text(it, "name") == name && is_sidecar(it))
}

fn add_containers(pod: &Value, summary: &mut Summary) {
    let mut has_running = false;
    for status in tree::list(pod, "status.containerStatuses").iter().rev() {
        summary.add_restarts(status);
        let state = tree::at(status, "state");
        let (waiting, terminated) =
            (tree::text(state, "waiting.reason"), tree::at(state, "terminated"));
        let ended_for = tree::text(terminated, "reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if !ended_for.is_empty() {
            summary.reason = ended_for.to_owned();
        } else if !terminated.is_null() {
            summary.reason = exit_words(terminated);
        } else if tree::is_true(status, "ready") && !tree::at(state, "running").is_null() {
            has_running = true;
            summary.n_ready += 1;
        }
    }
    if summary.reason == "Completed" && has_running {
        summary.reason = match is_true(pod, "Ready") {
            true => "Running".to_owned(),
            false => "NotReady".to_owned(),
        };
    }
}

fn exit_words(terminated: &Value) -> String {
    match tree::integer(terminated, "signal").unwrap_or(0) {
        0 => format!("ExitCode:{}", tree::integer(terminated, "exitCode").unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

fn is_sidecar(container: &Value) -> bool {
    tree::text(container, "restartPolicy") == "Always"
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    tree::list(pod, "status.conditions").iter().find(|it| tree::text(it, "type") == kind)
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|it| tree::text(it, "status") == "True")
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = tree::list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return json!("<none>");
    }
    let n_true = gates.iter().filter(|it| is_true(pod, tree::text(it, "conditionType"))).count();
    json!(format!("{n_true}/{}", gates.len()))
}
