//! How often the probes of each container succeeded and failed: the kubelet's `/metrics/probes`.
//!
//! Counted by container across its restarts, as upstream does; a pod's counts are dropped with its pod.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kactor_drivers::spec::{ContainerId, SandboxId};

use crate::probes::{ProbeKind, ProbeOutcome};

/// Rows of one node; containers of further pods are not counted until others are gone.
const ROWS_MAX: usize = 4096;

/// (pod, container, kind)
type Row = (SandboxId, String, ProbeKind);

/// Shared by the pods' actors, which count, and the kubelet's API, which shows.
#[derive(Default)]
pub struct ProbeCounts {
    rows: Mutex<BTreeMap<Row, ProbeCount>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeCount {
    pub successful: u64,
    pub failed: u64,
}

impl ProbeCounts {
    pub fn count(&self, id: &ContainerId, kind: ProbeKind, outcome: &ProbeOutcome) {
        let row = (id.sandbox.clone(), id.name.clone(), kind);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() >= ROWS_MAX && !rows.contains_key(&row) {
            return;
        }
        let count = rows.entry(row).or_default();
        match outcome {
            ProbeOutcome::Success => count.successful += 1,
            ProbeOutcome::Failure(_) => count.failed += 1,
        }
    }

    /// Everything counted for the pods that are `here`; what was counted for others is forgotten.
    pub fn of(
        &self,
        here: impl Fn(&SandboxId) -> bool,
    ) -> Vec<(SandboxId, String, ProbeKind, ProbeCount)> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|(pod, _, _), _| here(pod));
        rows.iter().map(|((pod, name, kind), it)| (pod.clone(), name.clone(), *kind, *it)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_across_restarts_and_dropped_with_the_pod() {
        let counts = ProbeCounts::default();
        let id = |pod: &str, attempt| ContainerId {
            sandbox: SandboxId(pod.to_owned()),
            name: "web".to_owned(),
            attempt,
        };
        counts.count(&id("a", 0), ProbeKind::Liveness, &ProbeOutcome::Success);
        counts.count(&id("a", 1), ProbeKind::Liveness, &ProbeOutcome::Failure("no".to_owned()));
        counts.count(&id("b", 0), ProbeKind::Readiness, &ProbeOutcome::Success);
        let all = counts.of(|_| true);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].3, ProbeCount { successful: 1, failed: 1 });
        assert_eq!(counts.of(|pod| pod.0 == "b").len(), 1);
        assert_eq!(counts.of(|_| true).len(), 1, "the other pod's row is gone");
    }
}
