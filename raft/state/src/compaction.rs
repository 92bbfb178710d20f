//! Forgetting the past: the `Compact` command, and the pure planners of what the leader proposes by itself.
//!
//! Compaction is a command so that all replicas forget alike and answer 410 alike. What is kept of a key is its newest
//! version at the floor, if that is an object, and everything after it.

use std::time::Duration;

use kactor_protocol::ids::{Revision, TraceId};
use kactor_protocol::store::{Key, Precondition, Propose, WRITES_PER_TRANSACTION_MAX, Write};
use kactor_protocol::time::Timestamp;

use crate::command::{Applied, Outcome};
use crate::object::Version;
use crate::state::{ClusterState, bytes_of};

/// Most objects whose deletion one pass proposes.
pub const EXPIRED_PER_PASS_MAX: usize = WRITES_PER_TRANSACTION_MAX;

/// How much of the past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    pub keep: Duration,
    /// Above this the past is halved, whatever its age.
    pub past_bytes_max: u64,
    /// Below this many old versions it is not worth an entry in the log.
    pub versions_min: usize,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self { keep: Duration::from_secs(300), past_bytes_max: 64 << 20, versions_min: 100 }
    }
}

impl ClusterState {
    pub(crate) fn compact(&mut self, floor: Revision) -> Applied {
        if floor <= self.compacted || floor > self.revision {
            return Applied::only(Outcome::Compacted(self.compacted));
        }
        self.compacted = floor;
        let n_forgotten = self.changes.partition_point(|(revision, _)| *revision <= floor);
        let mut keys: Vec<Key> = self.changes.drain(..n_forgotten).map(|(_, key)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut forgotten = Vec::new();
        for key in keys {
            self.forget_versions(key, floor, &mut forgotten);
        }
        if self.marks.len() > 1 {
            let last = self.marks.len() - 1;
            let n_old = self.marks.iter().take(last).filter(|(_, it)| *it < floor).count();
            self.marks.drain(..n_old);
        }
        Applied { forgotten, ..Applied::only(Outcome::Compacted(floor)) }
    }

    fn forget_versions(&mut self, key: Key, floor: Revision, forgotten: &mut Vec<(Key, Revision)>) {
        let Some(history) = self.keys.get_mut(&key) else { return };
        let n_below = history.versions().filter(|it| it.revision <= floor).count();
        let is_dead = |it: &Version| it.object.is_none();
        let at_floor = n_below.checked_sub(1).and_then(|nth| history.versions().nth(nth));
        // A deletion at the floor is the same as nothing.
        let n_gone = n_below - usize::from(at_floor.is_some_and(|it| !is_dead(it)));
        if n_gone > history.older.len() {
            // Down to the deletion that stands newest: the key is gone, its versions with it.
            let history = self.keys.remove(&key).expect("it was found above");
            for version in history.versions() {
                self.past_bytes -= version.object.as_ref().map_or(0, bytes_of);
                forgotten.push((key.clone(), version.revision));
            }
            return;
        }
        for version in history.older.drain(..n_gone) {
            self.past_bytes -= version.object.as_ref().map_or(0, bytes_of);
            forgotten.push((key.clone(), version.revision));
        }
        history.older.shrink_to_fit();
    }

    /// The floor that a `Compact` should name now, if it is worth one.
    pub fn plan_compaction(&self, policy: &CompactionPolicy, now: Timestamp) -> Option<Revision> {
        let until = now.minus(policy.keep);
        let by_age = self
            .marks
            .iter()
            .rev()
            .find(|(at, _)| *at <= until)
            .map(|(_, revision)| *revision)
            .filter(|floor| self.n_changes_until(*floor) >= policy.versions_min);
        let by_size = (self.past_bytes > policy.past_bytes_max)
            .then(|| self.changes.get(self.changes.len() / 2).map(|(revision, _)| *revision))
            .flatten();
        by_age.max(by_size).filter(|floor| *floor > self.compacted)
    }

    fn n_changes_until(&self, floor: Revision) -> usize {
        self.changes.partition_point(|(revision, _)| *revision <= floor)
    }

    /// When the next object expires.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiring.first().map(|(at, _)| *at)
    }

    /// Deletions of what expired by `now`, one transaction each: one that lost a race must not hold up the others.
    pub fn plan_expiry(&self, now: Timestamp) -> Vec<Propose> {
        let due = self.expiring.iter().take_while(|(at, _)| *at <= now);
        due.take(EXPIRED_PER_PASS_MAX)
            .filter_map(|(_, key)| self.live(key))
            .map(|it| Propose {
                reign: Some(self.reign),
                guards: Vec::new(),
                writes: vec![Write::Delete {
                    key: it.key.clone(),
                    precondition: Precondition::UidAndRevision(it.value.uid.clone(), it.modified),
                }],
                trace: TraceId::NONE,
            })
            .collect()
    }
}
