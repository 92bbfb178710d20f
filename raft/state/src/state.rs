//! The MVCC table: every key with its versions since the last compaction, and how commands change it.
//!
//! Invariants: one revision per changed object; `changes` lists every retained change above `compacted` in order of
//! revision; a key is in `expiring` exactly when its live object expires; `checksums` and `live_bytes` describe the
//! live objects. All of it follows from the commands alone, so equal logs give equal states (`PartialEq`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use kactor_protocol::ids::{Reign, ReplicaId, Revision};
use kactor_protocol::store::{Changed, Committed, Key, Propose, WriteOutcome};
use kactor_protocol::time::Timestamp;

use crate::checksum::{Checksums, ObjectSum, RangeSum, hash_of};
use crate::command::{Applied, Change, Command, FEATURE_LEVEL_MAX, Outcome};
use crate::object::{History, Stored, Version};
use crate::transaction::{Step, Verdict, judge};

/// How far revisions jump when an epoch begins: no client can hold one above it.
pub const EPOCH_STEP: u64 = 1_000_000_000;
/// A mark ties a revision to a time; one is kept per this many milliseconds.
const MARK_EVERY_MS: u64 = 10_000;
/// Marks kept: an hour and more, far beyond what compaction looks back.
const MARKS_MAX: usize = 512;

/// A revision whose past is gone was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is compacted; the oldest that can be read is {floor}")]
pub struct Compacted {
    pub asked: Revision,
    pub floor: Revision,
}

/// Part of a list, all of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<Stored>,
    pub revision: Revision,
    /// How many keys follow the last item.
    pub remaining: u64,
}

/// The replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterState {
    pub(crate) applied: u64,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) reign: Reign,
    pub(crate) reign_leader: Option<ReplicaId>,
    pub(crate) epoch: u64,
    pub(crate) feature_level: u32,
    pub(crate) keys: BTreeMap<Key, History>,
    pub(crate) changes: VecDeque<(Revision, Key)>,
    pub(crate) expiring: BTreeSet<(Timestamp, Key)>,
    /// The revision as of a time, oldest first.
    pub(crate) marks: VecDeque<(Timestamp, Revision)>,
    pub(crate) checksums: Checksums,
    pub(crate) live_bytes: u64,
    pub(crate) past_bytes: u64,
    pub(crate) n_live: u64,
}

impl ClusterState {
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the log's entry `index`. Total: what can't be done is refused in the outcome.
    pub fn apply(&mut self, index: u64, command: Command) -> Applied {
        self.applied = index;
        self.mark(command.now());
        match command {
            Command::Transact { propose, .. } => self.transact(&propose),
            Command::BeginReign { leader, .. } => {
                self.reign = Reign(self.reign.0.saturating_add(1));
                self.reign_leader = Some(leader);
                Applied::only(Outcome::ReignBegan(self.reign))
            }
            Command::Compact { revision, .. } => self.compact(revision),
            Command::SetFeatureLevel { level, .. } => {
                // A level above ours can't be here: it is proposed when every replica knows it.
                if level > self.feature_level && level <= FEATURE_LEVEL_MAX {
                    self.feature_level = level;
                }
                Applied::only(Outcome::FeatureLevel(self.feature_level))
            }
            Command::BeginEpoch { .. } => self.begin_epoch(),
        }
    }

    /// An entry of the log that holds no command (a membership, a leader's blank).
    pub fn skip(&mut self, index: u64) {
        self.applied = index;
    }

    fn transact(&mut self, propose: &Propose) -> Applied {
        let steps = match judge(self, propose) {
            Err(error) => return Applied::only(Outcome::Refused(error)),
            Ok(Verdict::Retried(outcomes)) => {
                let committed = Committed { revision: self.revision, outcomes };
                return Applied::only(Outcome::Committed(committed));
            }
            Ok(Verdict::Fresh(steps)) => steps,
        };
        let mut outcomes = Vec::with_capacity(steps.len());
        let mut changes = Vec::with_capacity(steps.len());
        for step in steps {
            let (key, put) = match step {
                Step::Keep(revision) => {
                    outcomes.push(WriteOutcome { revision, changed: Changed::Unchanged });
                    continue;
                }
                Step::Put { key, value, expires_at } => (key, Some((value, expires_at))),
                Step::Delete { key } => (key, None),
            };
            self.revision = self.revision.next();
            let revision = self.revision;
            let created = self.live(&key).map_or(revision, |it| it.created);
            let current = put.map(|(value, expires_at)| Stored {
                key: key.clone(),
                value,
                created,
                modified: revision,
                expires_at,
            });
            changes.push(Arc::new(self.write(key, revision, current)));
            outcomes.push(WriteOutcome { revision, changed: Changed::Yes });
        }
        let committed = Committed { revision: self.revision, outcomes };
        Applied { outcome: Outcome::Committed(committed), changes, forgotten: Vec::new() }
    }

    /// Makes `current` the newest version of its key and keeps every index true.
    fn write(&mut self, key: Key, revision: Revision, current: Option<Stored>) -> Change {
        let previous = self.live(&key).cloned();
        self.count(previous.as_ref(), current.as_ref());
        if let Some(object) = &previous {
            self.past_bytes += bytes_of(object);
        }
        let version = Version { revision, object: current.clone() };
        match self.keys.get_mut(&key) {
            Some(history) => history.push(version),
            None => {
                self.keys.insert(key.clone(), History::new(version));
            }
        }
        self.changes.push_back((revision, key.clone()));
        Change { revision, key, previous, current }
    }

    /// Keeps sizes, sums and expiry true while one live object takes another's place.
    pub(crate) fn count(&mut self, previous: Option<&Stored>, current: Option<&Stored>) {
        self.checksums.replace(previous, current);
        if let Some(object) = previous {
            self.n_live -= 1;
            self.live_bytes -= bytes_of(object);
            if let Some(at) = object.expires_at {
                self.expiring.remove(&(at, object.key.clone()));
            }
        }
        if let Some(object) = current {
            self.n_live += 1;
            self.live_bytes += bytes_of(object);
            if let Some(at) = object.expires_at {
                self.expiring.insert((at, object.key.clone()));
            }
        }
    }

    fn begin_epoch(&mut self) -> Applied {
        self.epoch = self.epoch.saturating_add(1);
        self.reign = Reign(self.reign.0.saturating_add(1));
        self.reign_leader = None;
        self.revision = Revision(self.revision.0.saturating_add(EPOCH_STEP));
        let compacted = self.compact(self.revision);
        let outcome = Outcome::EpochBegan { epoch: self.epoch, revision: self.revision };
        Applied { outcome, ..compacted }
    }

    fn mark(&mut self, now: Timestamp) {
        let due =
            self.marks.back().is_none_or(|(at, _)| now.0 >= at.0.saturating_add(MARK_EVERY_MS));
        if due {
            self.marks.push_back((now, self.revision));
            if self.marks.len() > MARKS_MAX {
                self.marks.pop_front();
            }
        }
    }

    // --- reads

    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision that can be read or watched from.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    pub fn reign(&self) -> Reign {
        self.reign
    }

    pub fn reign_leader(&self) -> Option<ReplicaId> {
        self.reign_leader
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    pub fn n_objects(&self) -> u64 {
        self.n_live
    }

    /// Keys and bodies of the live objects.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Keys and bodies of versions that are kept for readers of the past.
    pub fn past_bytes(&self) -> u64 {
        self.past_bytes
    }

    pub fn get(&self, key: &Key) -> Option<&Stored> {
        self.live(key)
    }

    pub(crate) fn live(&self, key: &Key) -> Option<&Stored> {
        self.keys.get(key).and_then(|it| it.newest.object.as_ref())
    }

    pub(crate) fn history(&self, key: &Key) -> Option<&History> {
        self.keys.get(key)
    }

    /// A revision above the present one reads the present.
    pub fn get_at(&self, key: &Key, at: Revision) -> Result<Option<&Stored>, Compacted> {
        self.check_readable(at)?;
        Ok(self.keys.get(key).and_then(|it| it.at(at)))
    }

    fn check_readable(&self, asked: Revision) -> Result<(), Compacted> {
        if asked < self.compacted {
            return Err(Compacted { asked, floor: self.compacted });
        }
        Ok(())
    }

    /// At most `limit` objects whose keys begin with `prefix`, behind `after`, in order of their keys.
    pub fn range(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Compacted> {
        let revision = at.unwrap_or(self.revision);
        self.check_readable(revision)?;
        let mut found = self.objects_at(prefix, after, revision);
        let items: Vec<Stored> = found.by_ref().take(limit).cloned().collect();
        let remaining = if items.len() < limit { 0 } else { found.count() as u64 };
        Ok(Page { items, revision, remaining })
    }

    fn objects_at<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a Key>,
        at: Revision,
    ) -> impl Iterator<Item = &'a Stored> {
        let start = match after {
            Some(key) if key.as_str() >= prefix => Bound::Excluded(key.as_str()),
            _ => Bound::Included(prefix),
        };
        self.keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
            .filter_map(move |(_, history)| history.at(at))
    }

    /// What happened above `after`, in order, at most `limit` changes; an empty answer means nothing did.
    pub fn changes_after(&self, after: Revision, limit: usize) -> Result<Vec<Change>, Compacted> {
        self.check_readable(after)?;
        let start = self.changes.partition_point(|(revision, _)| *revision <= after);
        Ok(self.changes.range(start..).take(limit).map(|it| self.change(it)).collect())
    }

    fn change(&self, (revision, key): &(Revision, Key)) -> Change {
        let history = self.keys.get(key).expect("a retained change has its key's history");
        let version = history.versions().find(|it| it.revision == *revision);
        Change {
            revision: *revision,
            key: key.clone(),
            previous: history.before(*revision).and_then(|it| it.object.clone()),
            current: version.and_then(|it| it.object.clone()),
        }
    }

    /// One sum per resource (`/{group}/{resource}/`).
    pub fn checksums(&self) -> &BTreeMap<String, RangeSum> {
        self.checksums.ranges()
    }

    /// Bytes of the keys and bodies of one range's live objects.
    pub fn range_bytes(&self, range: &str) -> u64 {
        self.checksums.size_of(range)
    }

    /// The sum over all live objects.
    pub fn checksum(&self) -> RangeSum {
        let add = |a: RangeSum, b: &RangeSum| RangeSum {
            n_objects: a.n_objects + b.n_objects,
            sum: a.sum.wrapping_add(b.sum),
        };
        self.checksums().values().fold(RangeSum::default(), add)
    }

    /// The hashes behind one range's sum, to find the object that differs.
    pub fn object_sums(&self, prefix: &str) -> Vec<ObjectSum> {
        let sum = |it: &Stored| ObjectSum {
            key: it.key.clone(),
            modified: it.modified,
            hash: hash_of(it),
        };
        self.objects_at(prefix, None, self.revision).map(sum).collect()
    }
}

pub(crate) fn bytes_of(object: &Stored) -> u64 {
    (object.key.as_str().len() + object.value.body.len()) as u64
}
