//! One step of a rolling update: the new set grows into the surge, old ones shrink by what is available beyond the minimum.

use std::sync::Arc;

use kactor_view::ReplicaSet;
use kactor_view::workloads::Strategy;

use super::{Rollout, Step, max_surge, max_unavailable};

impl Rollout<'_> {
    /// How large the new set may be now, given its present size.
    pub(super) fn new_set_size(&self, present: i64) -> i64 {
        let wanted = self.deployment.replicas;
        if self.deployment.strategy == Strategy::Recreate {
            return wanted;
        }
        let total_max = wanted + max_surge(self.deployment);
        let total = self.total_replicas();
        if total >= total_max {
            return present;
        }
        let grown = present + (total_max - total).min(wanted - present);
        assert!(grown <= wanted, "the new set outgrows the Deployment");
        grown
    }

    pub(super) fn grow_new(&mut self, new: &ReplicaSet) -> Step {
        let wanted = self.deployment.replicas;
        let size = if new.replicas > wanted { wanted } else { self.new_set_size(new.replicas) };
        if size == new.replicas {
            return Step::Nothing;
        }
        self.scale(new, size);
        Step::Taken
    }

    pub(super) fn shrink_old(&mut self, new: &ReplicaSet) -> Step {
        if self.old.iter().all(|it| it.replicas == 0) {
            return Step::Nothing;
        }
        let minimum = self.deployment.replicas - max_unavailable(self.deployment);
        let new_unavailable = new.replicas - new.status.available;
        let most = self.total_replicas() - minimum - new_unavailable;
        if most <= 0 {
            return Step::Nothing;
        }
        // Sizes as planned so far: unhealthy Pods go first, they cost no availability.
        let mut sizes: Vec<i64> = self.old.iter().map(|it| it.replicas).collect();
        take_unhealthy(&self.old, &mut sizes, most);
        self.take_available(&mut sizes, minimum);
        let mut step = Step::Nothing;
        for (set, size) in self.old.clone().iter().zip(sizes) {
            assert!((0..=set.replicas).contains(&size), "an old set only shrinks");
            if size != set.replicas {
                self.scale(set, size);
                step = Step::Taken;
            }
        }
        step
    }

    fn take_available(&self, sizes: &mut [i64], minimum: i64) {
        let available: i64 = self.all().map(|it| it.status.available).sum();
        let mut left = (available - minimum).max(0);
        for size in sizes {
            let taken = left.min(*size);
            *size -= taken;
            left -= taken;
        }
    }
}

fn take_unhealthy(old: &[Arc<ReplicaSet>], sizes: &mut [i64], most: i64) {
    let mut left = most;
    for (set, size) in old.iter().zip(sizes) {
        let unhealthy = (set.replicas - set.status.available).max(0);
        let taken = left.min(unhealthy).min(*size);
        *size -= taken;
        left -= taken;
    }
}
