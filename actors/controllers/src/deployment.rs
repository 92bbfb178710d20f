//! Deployment controller: the ReplicaSet of the present template grows while older ones shrink, within bounds.
//!
//! Follows kubernetes pkg/controller/deployment. One pass takes one step (a scale up, or scale downs, or neither) and
//! reports; the next pass sees its result. Invariant: the sum of all sizes never exceeds replicas + maxSurge by its
//! doing, and it never takes what would leave fewer than replicas - maxUnavailable available.

mod replica_sets;
mod rolling;
mod scaling;
mod status;

use std::sync::Arc;

use kactor_protocol::store::Key;
use kactor_view::workloads::Strategy;
use kactor_view::{Changed, ClusterView, Deployment, Object, ReplicaSet};

use crate::controller::{Controller, NoMemory, Pass};
use crate::owner::{self, Claim, Claimant};
use crate::plan::{Plan, Severity};

pub struct DeploymentController;

impl Controller for DeploymentController {
    const NAME: &'static str = "deployment-controller";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key> {
        let mut keys = Vec::new();
        for side in changed.sides() {
            match side {
                Object::Deployment(it) => keys.push(it.meta.key.clone()),
                Object::ReplicaSet(set) => keys.extend(keepers(set, view)),
                // Recreate waits until the last Pod of the old template is gone.
                Object::Pod(pod) if changed.after.is_none() || pod.is_terminal() => {
                    let set = pod.meta.controller().and_then(|it| view.by_uid(&it.uid));
                    let set = set.and_then(|it| view.replica_sets().get(&it.key));
                    keys.extend(set.into_iter().flat_map(|it| keepers(it, view)));
                }
                _ => {}
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let Some(deployment) = pass.view.deployments().get(pass.key) else {
            return plan;
        };
        if deployment.selector.is_everything() {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            plan.note(pass.key, Severity::Warning, "SelectingAll", message);
            return plan;
        }
        let sets = claimed_sets(&mut plan, deployment, pass.view);
        let mut rollout = Rollout::new(pass, deployment, sets, plan);
        rollout.step();
        rollout.plan
    }
}

fn keepers(set: &ReplicaSet, view: &ClusterView) -> Vec<Key> {
    match set.meta.controller() {
        Some(owner) if owner.kind == "Deployment" => {
            vec![owner::sibling(&set.meta.key, "apps", "deployments", &owner.name)]
        }
        Some(_) => Vec::new(),
        None => view
            .deployments()
            .in_namespace(set.meta.namespace())
            .filter(|it| it.selector.matches(&set.meta.labels))
            .map(|it| it.meta.key.clone())
            .collect(),
    }
}

fn claimed_sets(
    plan: &mut Plan,
    deployment: &Deployment,
    view: &ClusterView,
) -> Vec<Arc<ReplicaSet>> {
    let claimant = Claimant {
        api_version: "apps/v1",
        kind: "Deployment",
        meta: &deployment.meta,
        selector: &deployment.selector,
    };
    view.replica_sets()
        .in_namespace(deployment.meta.namespace())
        .filter(|it| matches!(claimant.claim(plan, &it.meta), Claim::Mine | Claim::Adopted))
        .cloned()
        .collect()
}

/// Whether a step planned anything that the next one must see first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Taken,
    Nothing,
}

/// One pass over one Deployment.
struct Rollout<'a> {
    pass: &'a Pass<'a>,
    deployment: &'a Deployment,
    /// Of the present template.
    new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
    plan: Plan,
}

impl<'a> Rollout<'a> {
    fn new(
        pass: &'a Pass<'a>,
        deployment: &'a Deployment,
        mut sets: Vec<Arc<ReplicaSet>>,
        plan: Plan,
    ) -> Self {
        sets.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        let new = sets.iter().find(|it| it.template.json == deployment.template.json).cloned();
        let old = sets
            .into_iter()
            .filter(|it| new.as_ref().is_none_or(|new| new.meta.uid != it.meta.uid))
            .collect();
        Self { pass, deployment, new, old, plan }
    }

    fn step(&mut self) {
        if self.deployment.meta.is_terminating() {
            return self.report_counts();
        }
        let sizes_are_stale = self.active().any(|it| {
            replica_sets::desired_annotation(it).is_some_and(|it| it != self.deployment.replicas)
        });
        if self.deployment.is_paused || sizes_are_stale {
            self.sync_new_set_annotations();
            if self.scale_proportionally() == Step::Nothing && self.deployment.is_paused {
                self.clean_up();
            }
            return self.report_counts();
        }
        match self.deployment.strategy {
            Strategy::Recreate => self.recreate(),
            Strategy::RollingUpdate { .. } => self.roll(),
        }
    }

    fn recreate(&mut self) {
        let mut step = Step::Nothing;
        for set in self.old.clone() {
            if set.replicas > 0 {
                self.scale(&set, 0);
                step = Step::Taken;
            }
        }
        if step == Step::Taken || self.old_pods_run() {
            return self.report_progress();
        }
        match self.ensure_new_set() {
            Some(new) if new.replicas != self.deployment.replicas => {
                self.scale(&new, self.deployment.replicas);
            }
            _ => self.clean_up_if_complete(),
        }
        self.report_progress();
    }

    /// Whether a Pod of an older template is still there, or might be.
    fn old_pods_run(&self) -> bool {
        let mut pods = self.old.iter().flat_map(|it| self.pass.view.pods().owned_by(&it.meta.uid));
        pods.any(|it| !it.is_terminal())
    }

    fn roll(&mut self) {
        if let Some(new) = self.ensure_new_set() {
            if self.grow_new(&new) == Step::Taken || self.shrink_old(&new) == Step::Taken {
                return self.report_progress();
            }
            self.clean_up_if_complete();
        }
        self.report_progress();
    }

    fn clean_up_if_complete(&mut self) {
        if status::is_complete(self.deployment, &self.computed_counts()) {
            self.clean_up();
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// Those with any size.
    fn active(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.all().filter(|it| it.replicas > 0)
    }

    fn total_replicas(&self) -> i64 {
        self.all().map(|it| it.replicas.max(0)).sum()
    }
}

/// How many Pods may be there beyond `replicas`.
fn max_surge(deployment: &Deployment) -> i64 {
    fenceposts(deployment).0
}

/// How many of `replicas` may be unavailable.
fn max_unavailable(deployment: &Deployment) -> i64 {
    fenceposts(deployment).1
}

/// Surge rounds up, unavailable rounds down; both zero would stand still, so one may be unavailable.
fn fenceposts(deployment: &Deployment) -> (i64, i64) {
    let Strategy::RollingUpdate { max_surge, max_unavailable } = deployment.strategy else {
        return (0, 0);
    };
    let surge = max_surge.round_up(deployment.replicas);
    let unavailable = max_unavailable.round_down(deployment.replicas);
    if surge == 0 && unavailable == 0 && deployment.replicas > 0 {
        return (0, 1);
    }
    (surge, unavailable.min(deployment.replicas))
}

#[cfg(test)]
mod tests;
