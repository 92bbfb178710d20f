//! Disruption budgets: whether an eviction leaves as many healthy pods as somebody asked for.
//!
//! The budget is counted here, on the state that the eviction is decided on, not read from the budget's `status`: there
//! is no window in which a stale count lets two evictions through, because each one touches the budget under a guard
//! on its revision. References: Kubernetes pkg/registry/core/pod/storage/eviction.go and pkg/controller/disruption.
//! How many pods are expected comes from their ReplicaSets' `spec.replicas`; a pod of no set counts once.

use std::collections::BTreeMap;

use kactor_objects::labels::Selector;
use kactor_objects::references::controller_of;
use kactor_objects::status::{Cause, Status};
use kactor_objects::{meta, tree};
use kactor_protocol::store::{Guard, Key, Write};
use kactor_store::Stored;
use serde_json::Value;

use crate::api::Api;
use crate::commit::Plan;

/// Pods and budgets of one namespace that are looked at.
const LOOKED_AT_MAX: usize = 100_000;

/// What an eviction of the pod adds to its transaction, or why it must wait (429).
pub(crate) fn permit(api: &Api, pod: &Stored) -> Result<Plan, Status> {
    let tree = parse(pod);
    let phase = tree::text(&tree, "status.phase");
    let ended = matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::is_terminating(&tree);
    let budgets: Vec<(Stored, Value)> = in_namespace(api, "policy", "poddisruptionbudgets", pod)
        .into_iter()
        .filter(|(_, budget)| covers(budget, &tree))
        .collect();
    let [(stored, budget)] = budgets.as_slice() else {
        if budgets.is_empty() || ended {
            return Ok(Plan::default());
        }
        return Err(Status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    };
    let count = Count::of(api, pod, budget);
    let unhealthy_may_go = !is_healthy(&tree)
        && (tree::text(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow"
            || (count.healthy >= count.desired && count.desired > 0));
    if ended || unhealthy_may_go {
        return Ok(Plan::default());
    }
    if count.healthy <= count.desired {
        return Err(refusal(meta::name(budget), &count));
    }
    Ok(Plan {
        guards: vec![Guard::Revision { key: stored.key.clone(), revision: stored.modified }],
        writes: vec![Write::Touch { key: stored.key.clone() }],
    })
}

/// How many pods there should be, must be, and are.
struct Count {
    healthy: i64,
    desired: i64,
}

impl Count {
    fn of(api: &Api, pod: &Stored, budget: &Value) -> Self {
        let pods = in_namespace(api, "", "pods", pod);
        let mine = pods.iter().map(|(_, it)| it).filter(|it| covers(budget, it));
        let (mut healthy, mut alone) = (0, 0);
        let mut sets: BTreeMap<String, i64> = BTreeMap::new();
        for it in mine {
            healthy += i64::from(is_healthy(it) && !meta::is_terminating(it));
            let set = controller_of(it).filter(|owner| owner.kind == "ReplicaSet");
            match set.and_then(|owner| replicas(api, pod.key.namespace(), owner.name)) {
                Some((name, replicas)) => drop(sets.insert(name, replicas)),
                None => alone += 1,
            }
        }
        let expected = alone + sets.values().sum::<i64>();
        let desired = match (
            tree::at(budget, "spec.minAvailable"),
            tree::at(budget, "spec.maxUnavailable"),
        ) {
            (Value::Null, Value::Null) => expected,
            (Value::Null, most_missing) => expected - scaled(most_missing, expected),
            (least, _) => scaled(least, expected),
        };
        Self { healthy, desired: desired.max(0) }
    }
}

fn replicas(api: &Api, namespace: &str, name: &str) -> Option<(String, i64)> {
    let key = Key::new("apps", "replicasets", namespace, name).ok()?;
    let set = parse(&api.store().get(&key)?);
    Some((name.to_owned(), tree::integer(&set, "spec.replicas").unwrap_or(1)))
}

/// A number, or a percentage of `of` rounded up.
fn scaled(value: &Value, of: i64) -> i64 {
    let percent =
        value.as_str().and_then(|it| it.strip_suffix('%')).and_then(|it| it.parse::<i64>().ok());
    match percent {
        Some(percent) => (percent * of + 99) / 100,
        None => value.as_i64().unwrap_or(of),
    }
}

fn in_namespace(api: &Api, group: &str, resource: &str, pod: &Stored) -> Vec<(Stored, Value)> {
    let prefix = Key::namespace_prefix(group, resource, pod.key.namespace());
    let page = api.store().range(&prefix, None, LOOKED_AT_MAX, None);
    let items = page.map(|it| it.items).unwrap_or_default();
    items.into_iter().map(|it| (it.clone(), parse(&it))).collect()
}

fn parse(stored: &Stored) -> Value {
    serde_json::from_slice(&stored.value.body).unwrap_or_default()
}

/// A budget without a selector covers nothing; an empty selector covers all.
fn covers(budget: &Value, pod: &Value) -> bool {
    let selector = tree::at(budget, "spec.selector");
    !selector.is_null()
        && Selector::from_object(selector).is_ok_and(|it| it.matches(meta::labels(pod)))
}

fn is_healthy(pod: &Value) -> bool {
    let conditions = tree::list(pod, "status.conditions");
    conditions
        .iter()
        .any(|it| tree::text(it, "type") == "Ready" && tree::text(it, "status") == "True")
}

fn refusal(budget: &str, count: &Count) -> Status {
    let message = format!(
        "The disruption budget {budget} needs {} healthy pods and has {} currently",
        count.desired, count.healthy
    );
    Status::too_many_requests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        10,
    )
    .with_causes(vec![Cause {
        reason: "DisruptionBudget".to_owned(),
        message,
        field: String::new(),
    }])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentages_are_rounded_up() {
        for (value, of, expected) in [
            (json!(2), 5, 2),
            (json!("50%"), 5, 3),
            (json!("0%"), 5, 0),
            (json!("100%"), 5, 5),
            (json!("1%"), 5, 1),
        ] {
            assert_eq!(scaled(&value, of), expected, "{value} of {of}");
        }
    }
}
