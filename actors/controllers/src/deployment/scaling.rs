//! When the Deployment's own size changed: one active set takes it all; in the middle of a rollout each takes its share.

use std::sync::Arc;

use kactor_view::ReplicaSet;
use kactor_view::workloads::Strategy;

use super::replica_sets::{desired_annotation, max_annotation};
use super::{Rollout, Step, max_surge};

impl Rollout<'_> {
    pub(super) fn scale_proportionally(&mut self) -> Step {
        let wanted = self.deployment.replicas;
        let before = self.plan.effects.len();
        let active: Vec<Arc<ReplicaSet>> = self.active().cloned().collect();
        match &active[..] {
            [] => {
                let latest = self.new.clone().or_else(|| self.old.last().cloned());
                latest.into_iter().for_each(|it| self.scale(&it, wanted));
            }
            [only] => self.scale(&only.clone(), wanted),
            _ if self.new_is_saturated() => {
                for set in self.old.clone().iter().filter(|it| it.replicas > 0) {
                    self.scale(set, 0);
                }
            }
            _ if matches!(self.deployment.strategy, Strategy::RollingUpdate { .. }) => {
                self.share_out(active);
            }
            _ => {}
        }
        if self.plan.effects.len() > before { Step::Taken } else { Step::Nothing }
    }

    fn new_is_saturated(&self) -> bool {
        let wanted = self.deployment.replicas;
        self.new.as_ref().is_some_and(|it| {
            desired_annotation(it) == Some(wanted)
                && it.replicas == wanted
                && it.status.available == wanted
        })
    }

    /// Larger sets first, so that rounding's rest falls to them; among equals the newer when growing, else the older.
    fn share_out(&mut self, mut active: Vec<Arc<ReplicaSet>>) {
        let total: i64 = active.iter().map(|it| it.replicas).sum();
        let allowed = match self.deployment.replicas {
            0 => 0,
            wanted => wanted + max_surge(self.deployment),
        };
        let to_add = allowed - total;
        active.sort_by(|a, b| {
            let by_age = a.age_order().cmp(&b.age_order());
            let by_age = if to_add > 0 { by_age.reverse() } else { by_age };
            b.replicas.cmp(&a.replicas).then(by_age)
        });
        let mut added = 0;
        let mut sizes: Vec<i64> = Vec::with_capacity(active.len());
        for set in &active {
            let share = self.share(set, to_add, added);
            added += share;
            sizes.push(set.replicas + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (set, size) in active.iter().zip(sizes) {
            self.scale(set, size);
        }
    }

    fn share(&self, set: &ReplicaSet, to_add: i64, added: i64) -> i64 {
        let left = to_add - added;
        if set.replicas == 0 || left == 0 {
            return 0;
        }
        let share = self.fraction(set);
        if to_add > 0 { share.min(left) } else { share.max(left) }
    }

    /// What the set's size becomes in proportion to the Deployment's, less what it has.
    fn fraction(&self, set: &ReplicaSet) -> i64 {
        if self.deployment.replicas == 0 {
            return -set.replicas;
        }
        let now = self.deployment.replicas + max_surge(self.deployment);
        let before = max_annotation(set).unwrap_or(self.deployment.status.replicas);
        if before == 0 {
            return 0;
        }
        // Rounded half away from zero; both factors are not negative.
        (2 * set.replicas * now + before).div_euclid(2 * before) - set.replicas
    }
}
