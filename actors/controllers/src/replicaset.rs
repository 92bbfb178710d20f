//! ReplicaSet controller: as many live owned Pods as `.spec.replicas`, no more, no fewer.
//!
//! Level-triggered: lost, repeated or reordered wake-ups cannot change the answer. Field reference: kubernetes
//! pkg/controller/replicaset. Invariant: never deletes a Pod that it does not own. In place of expectations: one
//! plan in flight per key, and the next view is at or after its last commit.

mod ranking;
mod status;

use std::sync::Arc;

use kactor_protocol::Timestamp;
use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Object, Pod, ReplicaSet};

use crate::controller::{Controller, NoMemory, Pass};
use crate::owner::{self, Claim, Claimant};
use crate::plan::{Note, Pace, Plan, Severity};

/// Most Pods created or deleted by one pass (upstream's burstReplicas).
const PODS_PER_PASS_MAX: usize = 500;

pub struct ReplicaSetController;

impl Controller for ReplicaSetController {
    const NAME: &'static str = "replicaset-controller";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key> {
        let mut keys = Vec::new();
        for side in changed.sides() {
            match side {
                Object::ReplicaSet(set) => keys.push(set.meta.key.clone()),
                Object::Pod(pod) => keys.extend(keepers(pod, view)),
                _ => {}
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let Some(set) = pass.view.replica_sets().get(pass.key) else {
            return plan;
        };
        let live = claimed_pods(&mut plan, set, pass.view);
        if !set.meta.is_terminating() {
            let n_desired = usize::try_from(set.replicas).unwrap_or(0);
            let n_missing = n_desired.saturating_sub(live.len());
            let n_surplus = live.len().saturating_sub(n_desired);
            assert!(n_missing == 0 || n_surplus == 0, "too many and too few at once");
            create_pods(&mut plan, set, n_missing, pass);
            delete_pods(&mut plan, set, &live, n_surplus.min(PODS_PER_PASS_MAX), pass);
        }
        status::plan_status(&mut plan, set, &live, pass);
        plan
    }
}

/// The ReplicaSets that own the Pod or, while nobody does, might adopt it.
fn keepers(pod: &Pod, view: &ClusterView) -> Vec<Key> {
    match pod.meta.controller() {
        Some(owner) if owner.kind == "ReplicaSet" => {
            vec![owner::sibling(&pod.meta.key, "apps", "replicasets", &owner.name)]
        }
        Some(_) => Vec::new(),
        None => view
            .replica_sets()
            .in_namespace(pod.meta.namespace())
            .filter(|it| it.selector.matches(&pod.meta.labels))
            .map(|it| it.meta.key.clone())
            .collect(),
    }
}

/// Live Pods of the set: its own, and those without an owner that it adopts.
fn claimed_pods(plan: &mut Plan, set: &ReplicaSet, view: &ClusterView) -> Vec<Arc<Pod>> {
    let claimant = Claimant {
        api_version: "apps/v1",
        kind: "ReplicaSet",
        meta: &set.meta,
        selector: &set.selector,
    };
    let mut candidates: Vec<&Arc<Pod>> = view.pods().selected(set.meta.namespace(), &set.selector);
    candidates.extend(
        view.pods().owned_by(&set.meta.uid).filter(|it| !set.selector.matches(&it.meta.labels)),
    );
    candidates
        .into_iter()
        .filter(|it| it.is_active())
        .filter(|it| matches!(claimant.claim(plan, &it.meta), Claim::Mine | Claim::Adopted))
        .cloned()
        .collect()
}

fn create_pods(plan: &mut Plan, set: &ReplicaSet, n_missing: usize, pass: &Pass<'_>) {
    plan.pace = Pace::Abreast;
    let mut names: Vec<String> = Vec::new();
    for ordinal in 0..n_missing.min(PODS_PER_PASS_MAX) {
        let seed = format!("{}/{}/{ordinal}", set.meta.uid, pass.view.revision());
        let name = owner::generated_name(&format!("{}-", set.meta.name()), &seed, |it| {
            names.iter().any(|taken| taken == it)
                || pass.view.pods().get(&owner::sibling(pass.key, "", "pods", it)).is_some()
        });
        let key = owner::sibling(pass.key, "", "pods", &name);
        let created = format!("Created pod: {name}");
        plan.create(key, pod_from_template(set, &name))
            .on_done(event(set, Severity::Normal, "SuccessfulCreate", created))
            .on_refused(event(set, Severity::Warning, "FailedCreate", "Error creating"));
        names.push(name);
    }
}

fn delete_pods(
    plan: &mut Plan,
    set: &ReplicaSet,
    live: &[Arc<Pod>],
    n_surplus: usize,
    pass: &Pass<'_>,
) {
    if n_surplus == 0 {
        return;
    }
    for victim in ranking::deletion_order(set, live, pass).into_iter().take(n_surplus) {
        assert!(
            !victim.meta.owners.iter().any(|it| it.is_controller && it.uid != set.meta.uid),
            "a Pod of another controller was claimed"
        );
        let deleted = format!("Deleted pod: {}", victim.name());
        plan.delete(&victim.meta)
            .on_done(event(set, Severity::Normal, "SuccessfulDelete", deleted))
            .on_refused(event(set, Severity::Warning, "FailedDelete", "Error deleting"));
    }
}

fn event(
    set: &ReplicaSet,
    severity: Severity,
    reason: &'static str,
    message: impl Into<String>,
) -> Note {
    Note::new(&set.meta.key, severity, reason, message)
}

fn pod_from_template(set: &ReplicaSet, name: &str) -> serde_json::Value {
    let template = set.template.to_value();
    let mut pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": format!("{}-", set.meta.name()),
            "namespace": set.meta.namespace(),
            "labels": set.template.labels,
            "ownerReferences": [owner::controller_ref("apps/v1", "ReplicaSet", &set.meta)],
        },
        "spec": template["spec"],
    });
    for field in ["annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            pod["metadata"][field] = template["metadata"][field].clone();
        }
    }
    pod
}

/// When the next Pod becomes available by having been ready long enough.
fn next_available_at(live: &[Arc<Pod>], min_ready: i64, now: Timestamp) -> Option<Timestamp> {
    live.iter().filter_map(|it| it.available_at(min_ready)).filter(|it| *it > now).min()
}

#[cfg(test)]
mod tests;
