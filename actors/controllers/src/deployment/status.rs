//! What a Deployment reports: counts, and the conditions Available, Progressing and ReplicaFailure with upstream's reasons.

use std::time::Duration;

use kactor_protocol::Timestamp;
use kactor_view::workloads::DeploymentStatus;
use kactor_view::{Condition, Deployment};
use serde_json::{Value, json};

use super::{Rollout, max_unavailable};
use crate::conditions::{self, WholeSeconds};
use crate::plan::Verb;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// All that was asked for is there, updated and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    status.updated == deployment.replicas
        && status.replicas == deployment.replicas
        && status.available == deployment.replicas
        && status.observed_generation >= deployment.meta.generation
}

impl Rollout<'_> {
    /// The status while nothing rolls: counts, Available, and that it is paused or resumed.
    pub(super) fn report_counts(&mut self) {
        let mut status = self.computed_counts();
        if self.deployment.progress_deadline_seconds.is_some() {
            self.note_pause(&mut status);
        }
        self.plan_status(status);
    }

    /// The status of a rollout: whether it progresses, is complete or is stuck.
    pub(super) fn report_progress(&mut self) {
        let mut status = self.computed_counts();
        let current = Condition::find(&status.conditions, PROGRESSING).cloned();
        let was_complete = status.replicas == status.updated
            && current.as_ref().is_some_and(|it| it.reason == NEW_SET_AVAILABLE);
        if self.deployment.progress_deadline_seconds.is_none() {
            status.conditions.retain(|it| it.kind != PROGRESSING);
        } else if self.creation_failed(&mut status) {
            // Told as it is; the next attempt follows the back-off.
        } else if !was_complete {
            self.judge_progress(&mut status, current);
        }
        self.report_replica_failure(&mut status);
        if self.deployment.progress_deadline_seconds.is_some() {
            self.note_pause(&mut status);
        }
        self.plan_status(status);
    }

    /// Counts from the sets, other fields as they stand, and Available.
    pub(super) fn computed_counts(&self) -> DeploymentStatus {
        let deployment = self.deployment;
        let sum =
            |count: &dyn Fn(&kactor_view::ReplicaSet) -> i64| self.all().map(|it| count(it)).sum();
        let available: i64 = sum(&|it| it.status.available);
        let mut status = DeploymentStatus {
            observed_generation: deployment.meta.generation,
            replicas: sum(&|it| it.status.replicas),
            updated: self.new.as_ref().map_or(0, |it| it.status.replicas),
            ready: sum(&|it| it.status.ready),
            available,
            unavailable: (self.total_replicas() - available).max(0),
            ..deployment.status.clone()
        };
        let has_minimum = available >= deployment.replicas - max_unavailable(deployment);
        let (value, reason, message) = if has_minimum {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            (
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            )
        };
        self.set(&mut status, AVAILABLE, (value, reason, message.to_owned()));
        status
    }

    fn judge_progress(&self, status: &mut DeploymentStatus, current: Option<Condition>) {
        let name = match &self.new {
            Some(new) => format!("ReplicaSet {:?}", new.meta.name()),
            None => format!("Deployment {:?}", self.deployment.meta.name()),
        };
        if self.new.is_some() && is_complete(self.deployment, status) {
            let message = format!("{name} has successfully progressed.");
            self.set(status, PROGRESSING, ("True", NEW_SET_AVAILABLE, message));
        } else if progressed(&self.deployment.status, status) {
            // Said anew each time, because the deadline counts from the last update.
            status.conditions.retain(|it| it.kind != PROGRESSING);
            let message = format!("{name} is progressing.");
            self.set(status, PROGRESSING, ("True", "ReplicaSetUpdated", message));
            let kept = current.filter(|it| it.status == "True").and_then(|it| it.last_transition);
            let fresh = status.conditions.last_mut().expect("it was just set");
            fresh.last_transition = kept.or(fresh.last_transition);
        } else if self.is_timed_out(current.as_ref()) {
            let message = format!("{name} has timed out progressing.");
            self.set(status, PROGRESSING, ("False", TIMED_OUT, message));
        } else if current.is_none() {
            let (reason, message) = self.beginning();
            self.set(status, PROGRESSING, ("True", reason, message));
        }
    }

    /// The first word on progress: the set was found, or is being made by this very plan.
    fn beginning(&self) -> (&'static str, String) {
        match &self.new {
            Some(new) => {
                ("FoundNewReplicaSet", format!("Found new replica set {:?}", new.meta.name()))
            }
            None => {
                let hash = super::replica_sets::template_hash(self.deployment);
                let name = format!("{}-{hash}", self.deployment.meta.name());
                ("NewReplicaSetCreated", format!("Created new replica set {name:?}"))
            }
        }
    }

    fn is_timed_out(&self, current: Option<&Condition>) -> bool {
        let Some(current) = current else { return false };
        match current.reason.as_str() {
            NEW_SET_AVAILABLE => false,
            TIMED_OUT => true,
            _ => self.deadline(current).is_some_and(|it| it < self.pass.now),
        }
    }

    fn deadline(&self, current: &Condition) -> Option<Timestamp> {
        let seconds = u64::try_from(self.deployment.progress_deadline_seconds?).ok()?;
        Some(current.last_update?.plus(Duration::from_secs(seconds)))
    }

    fn creation_failed(&self, status: &mut DeploymentStatus) -> bool {
        let Some(refusal) = self.pass.facts.refused(Verb::Create).filter(|_| self.new.is_none())
        else {
            return false;
        };
        let told = ("False", "ReplicaSetCreateError", refusal.message.clone());
        self.set(status, PROGRESSING, told);
        true
    }

    /// A paused Deployment makes no progress, and is not blamed for it.
    fn note_pause(&self, status: &mut DeploymentStatus) {
        let current = Condition::find(&status.conditions, PROGRESSING);
        if current.is_some_and(|it| it.reason == TIMED_OUT) {
            return;
        }
        let was_paused = current.is_some_and(|it| it.reason == PAUSED);
        if self.deployment.is_paused && !was_paused {
            let told = ("Unknown", PAUSED, "Deployment is paused".to_owned());
            self.set(status, PROGRESSING, told);
        } else if !self.deployment.is_paused && was_paused {
            let told = ("Unknown", RESUMED, "Deployment is resumed".to_owned());
            self.set(status, PROGRESSING, told);
        }
    }

    /// The new set's failure, or else any old one's.
    fn report_replica_failure(&self, status: &mut DeploymentStatus) {
        status.conditions.retain(|it| it.kind != REPLICA_FAILURE);
        let failing = self
            .new
            .iter()
            .chain(&self.old)
            .find_map(|it| Condition::find(&it.status.conditions, REPLICA_FAILURE));
        if let Some(failure) = failing {
            let before = Condition::find(&self.deployment.status.conditions, REPLICA_FAILURE);
            let since = before.map_or(failure.last_transition, |it| it.last_transition);
            status.conditions.push(Condition {
                last_transition: since,
                last_update: since,
                ..failure.clone()
            });
        }
    }

    /// Sets a condition; the same status and reason change nothing, the same status keeps its transition time.
    fn set(&self, status: &mut DeploymentStatus, kind: &str, told: (&str, &str, String)) {
        let now = Some(self.pass.now.whole_seconds());
        let (value, reason, message) = told;
        let current = Condition::find(&status.conditions, kind);
        if current.is_some_and(|it| it.status == value && it.reason == reason) {
            return;
        }
        let since = current.filter(|it| it.status == value).and_then(|it| it.last_transition);
        status.conditions.retain(|it| it.kind != kind);
        status.conditions.push(Condition {
            kind: kind.to_owned(),
            status: value.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition: since.or(now),
            last_update: now,
            last_heartbeat: None,
        });
    }

    fn plan_status(&mut self, status: DeploymentStatus) {
        let current = Condition::find(&status.conditions, PROGRESSING);
        let is_open =
            current.is_some_and(|it| it.reason != NEW_SET_AVAILABLE && it.reason != TIMED_OUT);
        if is_open
            && !self.deployment.is_paused
            && let Some(deadline) = current.and_then(|it| self.deadline(it))
        {
            self.plan.again_at(deadline.plus(Duration::from_secs(1)));
        }
        if status != self.deployment.status {
            self.plan.patch_status(&self.deployment.meta, to_value(&status));
        }
    }
}

fn progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    now.updated > before.updated
        || now.replicas - now.updated < before.replicas - before.updated
        || now.ready > before.ready
        || now.available > before.available
}

/// Zero counts are absent, as Kubernetes stores them. `collisionCount` is patched where it is counted.
fn to_value(status: &DeploymentStatus) -> Value {
    let count = |it: i64| if it == 0 { Value::Null } else { it.into() };
    json!({
        "observedGeneration": count(status.observed_generation),
        "replicas": count(status.replicas),
        "updatedReplicas": count(status.updated),
        "readyReplicas": count(status.ready),
        "availableReplicas": count(status.available),
        "unavailableReplicas": count(status.unavailable),
        "conditions": conditions::values(&status.conditions),
    })
}
