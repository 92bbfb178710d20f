//! Pod: what decides about it. The scheduler's part is `PodSpec` (shared by all Pods of one template), the rest is status.

use std::sync::Arc;

use kactor_protocol::Timestamp;
use serde_json::Value;

use crate::json;
use crate::meta::{Condition, Meta};
pub use crate::scheduling::PodSpec;
use crate::table::Projected;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Phase {
    fn parse(text: &str) -> Self {
        match text {
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            "Unknown" => Self::Unknown,
            _ => Self::Pending,
        }
    }
}

/// A named port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    pub name: String,
    pub port: i64,
    pub protocol: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub meta: Arc<Meta>,
    pub spec: Arc<PodSpec>,
    /// `spec.nodeName`: where it is bound.
    pub node: Option<Arc<str>>,
    pub hostname: String,
    pub subdomain: String,
    pub ports: Vec<ContainerPort>,
    pub phase: Phase,
    pub conditions: Vec<Condition>,
    pub ips: Vec<String>,
    pub started: Option<Timestamp>,
    pub restarts: i64,
}

impl Pod {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        let ports = json::list(body, "/spec/containers")
            .iter()
            .chain(json::list(body, "/spec/initContainers").iter().filter(|it| {
                json::text(it, "/restartPolicy") == "Always" // sidecars serve too
            }))
            .flat_map(|it| json::list(it, "/ports"))
            .map(container_port)
            .collect();
        Self {
            spec: Arc::new(PodSpec::parse(meta.namespace(), &meta.labels, body)),
            meta,
            node: json::opt_text(body, "/spec/nodeName").map(Arc::from),
            hostname: json::text(body, "/spec/hostname").to_owned(),
            subdomain: json::text(body, "/spec/subdomain").to_owned(),
            ports,
            phase: Phase::parse(json::text(body, "/status/phase")),
            conditions: Condition::parse_all(body, "/status/conditions"),
            ips: pod_ips(body),
            started: json::time(body, "/status/startTime"),
            restarts: json::list(body, "/status/containerStatuses")
                .iter()
                .filter_map(|it| json::int(it, "/restartCount"))
                .max()
                .unwrap_or(0),
        }
    }

    pub fn name(&self) -> &str {
        self.meta.name()
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Neither ended nor told to end.
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.meta.is_terminating()
    }

    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        Condition::find(&self.conditions, kind)
    }

    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(Condition::is_true)
    }

    /// When it became ready, if it is.
    pub fn ready_since(&self) -> Option<Timestamp> {
        self.condition("Ready").filter(|it| it.is_true())?.last_transition
    }

    /// Ready for `min_ready_seconds` at `now`.
    pub fn is_available(&self, min_ready_seconds: i64, now: Timestamp) -> bool {
        self.is_ready() && self.available_at(min_ready_seconds).is_some_and(|it| it <= now)
    }

    /// When it becomes available if it stays ready.
    pub fn available_at(&self, min_ready_seconds: i64) -> Option<Timestamp> {
        if !self.is_ready() {
            return None;
        }
        let Ok(seconds @ 1..) = u64::try_from(min_ready_seconds) else {
            return Some(Timestamp::EPOCH);
        };
        self.ready_since().map(|it| it.plus(std::time::Duration::from_secs(seconds)))
    }
}

fn container_port(entry: &Value) -> ContainerPort {
    ContainerPort {
        name: json::text(entry, "/name").to_owned(),
        port: json::int(entry, "/containerPort").unwrap_or(0),
        protocol: json::opt_text(entry, "/protocol").unwrap_or("TCP").to_owned(),
    }
}

fn pod_ips(body: &Value) -> Vec<String> {
    let mut ips: Vec<String> = json::list(body, "/status/podIPs")
        .iter()
        .filter_map(|it| json::opt_text(it, "/ip"))
        .map(str::to_owned)
        .collect();
    if let (true, Some(ip)) = (ips.is_empty(), json::opt_text(body, "/status/podIP")) {
        ips.push(ip.to_owned());
    }
    ips
}

impl Projected for Pod {
    const INDEXES_LABELS: bool = true;

    fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }

    fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }
}
