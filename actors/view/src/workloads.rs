//! Deployment and ReplicaSet. A template stays raw JSON: controllers copy it into Pods, they never look inside.

use std::sync::Arc;

use bytes::Bytes;
use kactor_protocol::Timestamp;
use serde_json::Value;

use crate::json;
use crate::meta::{Condition, Labels, Meta};
use crate::selector::Selector;
use crate::table::Projected;

/// The label by which a Deployment tells its ReplicaSets' Pods apart.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// `spec.template`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTemplate {
    /// With `pod-template-hash`, where it has one.
    pub labels: Labels,
    /// Canonical JSON of `{metadata, spec}` without the label `pod-template-hash`: equal bytes are equal templates.
    pub json: Bytes,
}

impl PodTemplate {
    pub fn parse(template: Option<&Value>) -> Self {
        let mut template = template.cloned().unwrap_or(Value::Null);
        let labels = json::text_map(&template, "/metadata/labels");
        if let Some(Value::Object(map)) = template.pointer_mut("/metadata/labels") {
            map.remove(POD_TEMPLATE_HASH);
        }
        // The API stores `creationTimestamp: null` for some clients and not for others; it means nothing here.
        if let Some(Value::Object(metadata)) = template.pointer_mut("/metadata") {
            metadata.remove("creationTimestamp");
        }
        Self { labels, json: json::canonical(&template).into() }
    }

    /// The tree, to be made into a Pod or a ReplicaSet.
    pub fn to_value(&self) -> Value {
        serde_json::from_slice(&self.json).expect("these bytes were encoded from a tree")
    }
}

/// A count, or a percentage of the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntOrPercent {
    Int(i64),
    Percent(i64),
}

impl IntOrPercent {
    pub fn parse(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Number(number) => number.as_i64().map(Self::Int),
            Value::String(text) => match text.strip_suffix('%') {
                Some(percent) => percent.parse().ok().map(Self::Percent),
                None => text.parse().ok().map(Self::Int),
            },
            _ => None,
        }
    }

    pub fn round_up(self, of: i64) -> i64 {
        match self {
            Self::Int(count) => count,
            Self::Percent(percent) => percent.saturating_mul(of).saturating_add(99).div_euclid(100),
        }
    }

    pub fn round_down(self, of: i64) -> i64 {
        match self {
            Self::Int(count) => count,
            Self::Percent(percent) => percent.saturating_mul(of).div_euclid(100),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    Recreate,
    RollingUpdate { max_surge: IntOrPercent, max_unavailable: IntOrPercent },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i64,
    pub updated: i64,
    pub ready: i64,
    pub available: i64,
    pub unavailable: i64,
    pub terminating: Option<i64>,
    pub collision_count: Option<i64>,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    pub meta: Arc<Meta>,
    pub replicas: i64,
    pub selector: Selector,
    pub template: PodTemplate,
    pub strategy: Strategy,
    pub min_ready_seconds: i64,
    /// `None`: no deadline.
    pub progress_deadline_seconds: Option<i64>,
    pub revision_history_limit: Option<i64>,
    pub is_paused: bool,
    pub status: DeploymentStatus,
    /// `spec.selector` as it stands, for the ReplicaSets made from it.
    pub selector_json: Value,
}

impl Deployment {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        Self {
            meta,
            replicas: json::int(body, "/spec/replicas").unwrap_or(1),
            selector: Selector::parse(body.pointer("/spec/selector")),
            template: PodTemplate::parse(body.pointer("/spec/template")),
            strategy: strategy(body),
            min_ready_seconds: json::int(body, "/spec/minReadySeconds").unwrap_or(0),
            progress_deadline_seconds: json::int(body, "/spec/progressDeadlineSeconds"),
            revision_history_limit: json::int(body, "/spec/revisionHistoryLimit"),
            is_paused: json::is_true(body, "/spec/paused"),
            status: deployment_status(body),
            selector_json: body.pointer("/spec/selector").cloned().unwrap_or_default(),
        }
    }
}

fn strategy(body: &Value) -> Strategy {
    if json::text(body, "/spec/strategy/type") == "Recreate" {
        return Strategy::Recreate;
    }
    let quarter = IntOrPercent::Percent(25);
    let at = |pointer| IntOrPercent::parse(body.pointer(pointer)).unwrap_or(quarter);
    Strategy::RollingUpdate {
        max_surge: at("/spec/strategy/rollingUpdate/maxSurge"),
        max_unavailable: at("/spec/strategy/rollingUpdate/maxUnavailable"),
    }
}

fn deployment_status(body: &Value) -> DeploymentStatus {
    let count = |pointer| json::int(body, pointer).unwrap_or(0);
    DeploymentStatus {
        observed_generation: count("/status/observedGeneration"),
        replicas: count("/status/replicas"),
        updated: count("/status/updatedReplicas"),
        ready: count("/status/readyReplicas"),
        available: count("/status/availableReplicas"),
        unavailable: count("/status/unavailableReplicas"),
        terminating: json::int(body, "/status/terminatingReplicas"),
        collision_count: json::int(body, "/status/collisionCount"),
        conditions: Condition::parse_all(body, "/status/conditions"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaSetStatus {
    pub observed_generation: i64,
    pub replicas: i64,
    pub fully_labeled: i64,
    pub ready: i64,
    pub available: i64,
    pub terminating: Option<i64>,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSet {
    pub meta: Arc<Meta>,
    pub replicas: i64,
    pub selector: Selector,
    pub template: PodTemplate,
    pub min_ready_seconds: i64,
    pub status: ReplicaSetStatus,
}

impl ReplicaSet {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        let count = |pointer| json::int(body, pointer).unwrap_or(0);
        Self {
            meta,
            replicas: json::int(body, "/spec/replicas").unwrap_or(1),
            selector: Selector::parse(body.pointer("/spec/selector")),
            template: PodTemplate::parse(body.pointer("/spec/template")),
            min_ready_seconds: count("/spec/minReadySeconds"),
            status: ReplicaSetStatus {
                observed_generation: count("/status/observedGeneration"),
                replicas: count("/status/replicas"),
                fully_labeled: count("/status/fullyLabeledReplicas"),
                ready: count("/status/readyReplicas"),
                available: count("/status/availableReplicas"),
                terminating: json::int(body, "/status/terminatingReplicas"),
                conditions: Condition::parse_all(body, "/status/conditions"),
            },
        }
    }

    /// `metadata.creationTimestamp`, then name: the order in which a Deployment reads its ReplicaSets.
    pub fn age_order(&self) -> (Timestamp, &str) {
        (self.meta.created, self.meta.name())
    }
}

impl Projected for Deployment {
    fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }
}

impl Projected for ReplicaSet {
    fn meta(&self) -> &Arc<Meta> {
        &self.meta
    }
}
