//! The Node object of this host: what the agent registers and keeps up to date. Pure.
//!
//! Upstream: kubelet `initialNode`, nodestatus setters. Conditions change their transition time only with their
//! status; heartbeats are messages, so an idle node writes its status once in five minutes and nothing else.

use std::time::Duration;

use kactor_protocol::time::Timestamp;
use serde_json::{Value, json};

/// Most pods of a node (kubelet maxPods).
pub const PODS_MAX: u32 = 110;

/// What the host is, read once at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub hostname: String,
    pub addresses: Vec<String>,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub machine_id: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// `amd64`, `arm64`, as Go names them.
    pub architecture: String,
    /// `embedded://0.1.0`.
    pub runtime_version: String,
    pub kubelet_version: String,
    pub kubelet_port: u16,
}

/// What may change while the node runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// `None` when all is well, else what is not.
    pub not_ready: Option<String>,
    pub memory_pressure: bool,
    pub disk_pressure: bool,
    pub pid_pressure: bool,
}

/// Memory that the node keeps for itself (kubelet evictionHard memory.available).
const MEMORY_RESERVED_BYTES: u64 = 100 << 20;

pub fn allocatable_memory_bytes(machine: &Machine) -> u64 {
    machine.memory_bytes.saturating_sub(MEMORY_RESERVED_BYTES)
}

/// The object as it is first created.
pub fn node(name: &str, machine: &Machine, health: &Health, now: Timestamp) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": labels(machine) },
        "spec": {},
        "status": status(machine, health, &Value::Null, now),
    })
}

/// Labels that every node carries.
pub fn labels(machine: &Machine) -> Value {
    json!({
        "kubernetes.io/hostname": machine.hostname,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": machine.architecture,
    })
}

/// `status`, with the conditions' times taken from `previous` where nothing changed.
pub fn status(machine: &Machine, health: &Health, previous: &Value, now: Timestamp) -> Value {
    let mut addresses: Vec<Value> =
        machine.addresses.iter().map(|it| json!({ "type": "InternalIP", "address": it })).collect();
    addresses.push(json!({ "type": "Hostname", "address": machine.hostname }));
    let amounts = |memory: u64| {
        json!({
            "cpu": machine.cpus.to_string(),
            "memory": format!("{}Ki", memory / 1024),
            "pods": PODS_MAX.to_string(),
            "ephemeral-storage": format!("{}Ki", machine.disk_bytes / 1024),
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
        })
    };
    json!({
        "capacity": amounts(machine.memory_bytes),
        "allocatable": amounts(allocatable_memory_bytes(machine)),
        "conditions": conditions(health, previous, now),
        "addresses": addresses,
        "daemonEndpoints": { "kubeletEndpoint": { "Port": machine.kubelet_port } },
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.machine_id,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel_version,
            "osImage": machine.os_image,
            "containerRuntimeVersion": machine.runtime_version,
            "kubeletVersion": machine.kubelet_version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
    })
}

/// A shown heartbeat that is older is shown anew although nothing changed: less than the agent's `STATUS_EVERY`, so
/// that each look renews it.
const HEARTBEAT_SHOWN: Duration = Duration::from_secs(290);

fn is_recent(beat: &str, now: Timestamp) -> bool {
    beat.parse::<Timestamp>().is_ok_and(|it| now.since(it) < HEARTBEAT_SHOWN)
}

fn conditions(health: &Health, previous: &Value, now: Timestamp) -> Vec<Value> {
    let pressure = |what: &str, holds: bool, has: &str, no: &str| {
        let reason = if holds { format!("KubeletHas{has}") } else { format!("KubeletHas{no}") };
        let message =
            if holds { format!("kubelet has {what}") } else { format!("kubelet has no {what}") };
        (holds, reason, message)
    };
    let ready = match &health.not_ready {
        None => (true, "KubeletReady".to_owned(), "kactor is posting ready status".to_owned()),
        Some(why) => (false, "KubeletNotReady".to_owned(), why.clone()),
    };
    let all = [
        (
            "MemoryPressure",
            pressure(
                "insufficient memory available",
                health.memory_pressure,
                "InsufficientMemory",
                "SufficientMemory",
            ),
        ),
        (
            "DiskPressure",
            pressure("disk pressure", health.disk_pressure, "DiskPressure", "NoDiskPressure"),
        ),
        (
            "PIDPressure",
            pressure(
                "insufficient PID available",
                health.pid_pressure,
                "InsufficientPID",
                "SufficientPID",
            ),
        ),
        ("Ready", ready),
    ];
    let old = previous["conditions"].as_array();
    all.into_iter()
        .map(|(kind, (holds, reason, message))| {
            let status = if holds { "True" } else { "False" };
            let before =
                old.into_iter().flatten().find(|it| it["type"] == kind && it["status"] == status);
            let since = before.and_then(|it| it["lastTransitionTime"].as_str().map(str::to_owned));
            let beat = before.filter(|it| it["reason"] == reason && it["message"] == message);
            let beat = beat.and_then(|it| it["lastHeartbeatTime"].as_str().map(str::to_owned));
            let beat = beat.filter(|it| is_recent(it, now));
            json!({
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": since.unwrap_or_else(|| now.to_string()),
                "lastHeartbeatTime": beat.unwrap_or_else(|| now.to_string()),
            })
        })
        .collect()
}

/// The pod CIDR that the control plane gave a node, if it has.
pub fn pod_cidr(node: &Value) -> Option<&str> {
    node["spec"]["podCIDR"].as_str().filter(|it| !it.is_empty())
}

/// Whether the control plane took this node for lost: only it says `Unknown`.
pub fn is_given_up(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["status"] == "Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            hostname: "h".to_owned(),
            addresses: vec!["192.0.2.1".to_owned()],
            cpus: 2,
            memory_bytes: 1 << 30,
            ..Machine::default()
        }
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        status["conditions"].as_array().unwrap().iter().find(|it| it["type"] == kind).unwrap()
    }

    #[test]
    fn a_node_says_what_it_offers() {
        let it = node("n1", &machine(), &Health::default(), Timestamp(1000));
        assert_eq!(it["status"]["capacity"]["memory"], "1048576Ki");
        assert_eq!(it["status"]["allocatable"]["memory"], "946176Ki");
        assert_eq!(it["metadata"]["labels"]["kubernetes.io/hostname"], "h");
        assert_eq!(condition(&it["status"], "Ready")["status"], "True");
        assert_eq!(condition(&it["status"], "DiskPressure")["reason"], "KubeletHasNoDiskPressure");
    }

    #[test]
    fn a_node_sees_that_it_was_given_up() {
        let mut it = node("n1", &machine(), &Health::default(), Timestamp(1000));
        assert!(!is_given_up(&it) && !is_given_up(&json!({})));
        it["status"]["conditions"][3]["status"] = "Unknown".into();
        assert!(is_given_up(&it));
    }

    #[test]
    fn a_heartbeat_is_shown_anew_once_in_five_minutes() {
        let first = status(&machine(), &Health::default(), &Value::Null, Timestamp(1000));
        let at = |now| status(&machine(), &Health::default(), &first, Timestamp(now));
        let beat = |it: &Value| condition(it, "Ready")["lastHeartbeatTime"].clone();
        assert_eq!(beat(&at(290_000)), "1970-01-01T00:00:01Z");
        assert_eq!(beat(&at(301_000)), "1970-01-01T00:05:01Z");
        assert_eq!(condition(&at(301_000), "Ready")["lastTransitionTime"], "1970-01-01T00:00:01Z");
    }

    #[test]
    fn an_unchanged_node_has_an_unchanged_status() {
        let first = status(&machine(), &Health::default(), &Value::Null, Timestamp(1000));
        let again = status(&machine(), &Health::default(), &first, Timestamp(99_000));
        assert_eq!(first, again);
        let health = Health { not_ready: Some("no network".to_owned()), ..Health::default() };
        let changed = status(&machine(), &health, &first, Timestamp(99_000));
        assert_eq!(condition(&changed, "Ready")["lastTransitionTime"], "1970-01-01T00:01:39Z");
        assert_eq!(
            condition(&changed, "PIDPressure")["lastTransitionTime"],
            "1970-01-01T00:00:01Z"
        );
    }
}
