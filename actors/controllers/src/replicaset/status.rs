//! What a ReplicaSet reports: counts of its live Pods, and that some could not be made.

use std::sync::Arc;

use kactor_view::workloads::ReplicaSetStatus;
use kactor_view::{Condition, Pod, ReplicaSet};
use serde_json::{Value, json};

use super::next_available_at;
use crate::conditions::{self, WholeSeconds};
use crate::controller::Pass;
use crate::plan::{Plan, Verb};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Adds the status if it changed, and a time to look again while Pods wait to become available.
pub(super) fn plan_status(plan: &mut Plan, set: &ReplicaSet, live: &[Arc<Pod>], pass: &Pass<'_>) {
    let status = computed(set, live, pass);
    if status != set.status {
        plan.patch_status(&set.meta, to_value(&status));
    }
    if let Some(at) = next_available_at(live, set.min_ready_seconds, pass.now) {
        plan.again_at(at);
    }
}

fn computed(set: &ReplicaSet, live: &[Arc<Pod>], pass: &Pass<'_>) -> ReplicaSetStatus {
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        i64::try_from(live.iter().filter(|it| holds(it)).count()).unwrap_or(i64::MAX)
    };
    let wanted = &set.template.labels;
    ReplicaSetStatus {
        observed_generation: set.meta.generation,
        replicas: count(&|_| true),
        fully_labeled: count(&|it| {
            wanted.iter().all(|(key, value)| it.meta.labels.get(key) == Some(value))
        }),
        ready: count(&Pod::is_ready),
        available: count(&|it| it.is_available(set.min_ready_seconds, pass.now)),
        terminating: set.status.terminating,
        conditions: conditions(set, pass),
    }
}

/// `ReplicaFailure` stands while the last plan's creates or deletes were refused.
fn conditions(set: &ReplicaSet, pass: &Pass<'_>) -> Vec<Condition> {
    let mut conditions = set.status.conditions.clone();
    let failed = pass
        .facts
        .refused(Verb::Create)
        .map(|it| ("FailedCreate", it))
        .or_else(|| pass.facts.refused(Verb::Delete).map(|it| ("FailedDelete", it)));
    let Some((reason, refusal)) = failed else {
        conditions.retain(|it| it.kind != REPLICA_FAILURE);
        return conditions;
    };
    if Condition::find(&conditions, REPLICA_FAILURE).is_none() {
        conditions.push(Condition {
            kind: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: reason.to_owned(),
            message: refusal.message.clone(),
            last_transition: Some(pass.now.whole_seconds()),
            last_update: None,
            last_heartbeat: None,
        });
    }
    conditions
}

/// Zero counts are absent, as Kubernetes stores them; `replicas` always stands.
fn to_value(status: &ReplicaSetStatus) -> Value {
    let count = |it: i64| if it == 0 { Value::Null } else { it.into() };
    json!({
        "replicas": status.replicas,
        "fullyLabeledReplicas": count(status.fully_labeled),
        "readyReplicas": count(status.ready),
        "availableReplicas": count(status.available),
        "observedGeneration": count(status.observed_generation),
        "conditions": conditions::values(&status.conditions),
    })
}
