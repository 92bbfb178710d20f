//! Which Pod goes first when there are too many (kubernetes pkg/controller, ActivePodsWithRanks).
//!
//! In order: not bound; less far in its life; not ready; cheaper by its deletion cost; more of its relatives on the
//! same node; ready for a shorter time; restarted more; younger. Ages compare by their power of two, then by uid, so
//! that the victims spread over ages.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use kactor_protocol::Timestamp;
use kactor_view::{Phase, Pod, ReplicaSet};

use crate::controller::Pass;

pub(super) fn deletion_order<'a>(
    set: &ReplicaSet,
    live: &'a [Arc<Pod>],
    pass: &Pass<'_>,
) -> Vec<&'a Arc<Pod>> {
    let crowding = relatives_per_node(set, pass);
    let mut order: Vec<&Arc<Pod>> = live.iter().collect();
    order.sort_by(|a, b| {
        rank(a, &crowding)
            .cmp(&rank(b, &crowding))
            .then_with(|| younger_first(a.ready_since(), b.ready_since(), pass.now))
            .then_with(|| b.restarts.cmp(&a.restarts))
            .then_with(|| younger_first(Some(a.meta.created), Some(b.meta.created), pass.now))
            .then_with(|| a.meta.uid.cmp(&b.meta.uid))
    });
    order
}

/// Smaller goes first.
fn rank(pod: &Pod, crowding: &BTreeMap<&str, usize>) -> (bool, u8, bool, i64, Reverse<usize>) {
    let cost = pod
        .meta
        .annotation("controller.kubernetes.io/pod-deletion-cost")
        .and_then(|it| it.parse::<i32>().ok())
        .unwrap_or(0);
    let crowd = pod.node.as_deref().and_then(|it| crowding.get(it)).copied().unwrap_or(0);
    let progress = match pod.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    };
    (pod.node.is_some(), progress, pod.is_ready(), i64::from(cost), Reverse(crowd))
}

/// How many live Pods of this set and of its owner's other sets each node has.
fn relatives_per_node<'a>(set: &ReplicaSet, pass: &'a Pass<'_>) -> BTreeMap<&'a str, usize> {
    let sets = pass.view.replica_sets();
    let relatives: Vec<&Arc<ReplicaSet>> = match set.meta.controller() {
        Some(owner) => sets.owned_by(&owner.uid).collect(),
        None => sets.get(&set.meta.key).into_iter().collect(),
    };
    let mut crowding = BTreeMap::new();
    for relative in relatives {
        for pod in pass.view.pods().owned_by(&relative.meta.uid).filter(|it| it.is_active()) {
            if let Some(node) = pod.node.as_deref() {
                *crowding.entry(node).or_insert(0) += 1;
            }
        }
    }
    crowding
}

/// Younger first by power of two of the age; what has no time counts as youngest.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let age = |at: Option<Timestamp>| {
        at.map_or(0, |it| now.since(it).as_secs().saturating_add(1).ilog2() + 1)
    };
    age(a).cmp(&age(b))
}
