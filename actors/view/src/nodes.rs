//! Node, as the scheduler and the node controllers read it.

use std::sync::Arc;

use kactor_protocol::Timestamp;
use serde_json::Value;

use crate::json;
use crate::meta::{Condition, Meta};
use crate::quantity::Resources;
use crate::table::Projected;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl TaintEffect {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: TaintEffect,
    pub added: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub meta: Arc<Meta>,
    pub is_unschedulable: bool,
    pub taints: Vec<Taint>,
    pub pod_cidr: Option<String>,
    pub allocatable: Resources,
    pub conditions: Vec<Condition>,
}

impl Node {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        let allocatable =
            body.pointer("/status/allocatable").or_else(|| body.pointer("/status/capacity"));
        Self {
            meta,
            is_unschedulable: json::is_true(body, "/spec/unschedulable"),
            taints: json::list(body, "/spec/taints").iter().filter_map(taint).collect(),
            pod_cidr: json::opt_text(body, "/spec/podCIDR").map(str::to_owned),
            allocatable: Resources::parse(allocatable),
            conditions: Condition::parse_all(body, "/status/conditions"),
        }
    }

    pub fn name(&self) -> &str {
        self.meta.name()
    }

    pub fn ready(&self) -> Option<&Condition> {
        Condition::find(&self.conditions, "Ready")
    }
}

fn taint(entry: &Value) -> Option<Taint> {
    Some(Taint {
        key: json::text(entry, "/key").to_owned(),
        value: json::text(entry, "/value").to_owned(),
        effect: TaintEffect::parse(json::text(entry, "/effect"))?,
        added: json::time(entry, "/timeAdded"),
    })
}

impl Projected for Node {
    fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }
}
