//! The state as flat records, for snapshots and for the replica's disk: one per version, and one of counters.
//!
//! The structs are frozen (golden bytes in `tests/golden`). Indexes, sums and sizes are never written: they are built
//! again from the versions, so they can't disagree with them.

use kactor_protocol::ids::{Reign, ReplicaId, Revision};
use kactor_protocol::store::{Key, Value};
use kactor_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::object::{History, Stored, Version};
use crate::state::{ClusterState, bytes_of};

/// The counters of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaRecord {
    pub applied: u64,
    pub revision: Revision,
    pub compacted: Revision,
    pub reign: Reign,
    pub reign_leader: Option<ReplicaId>,
    pub epoch: u64,
    pub feature_level: u32,
    pub marks: Vec<(Timestamp, Revision)>,
}

/// One version of one key; a deletion has no object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    pub key: Key,
    pub revision: Revision,
    pub object: Option<ObjectRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    pub created: Revision,
    pub value: Value,
    pub expires_at: Option<Timestamp>,
}

/// Records that are no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{key} has revision {revision} twice, or out of order")]
    Disordered { key: Key, revision: Revision },
    #[error("{key} has revision {revision}, above the state's {newest}")]
    FromTheFuture { key: Key, revision: Revision, newest: Revision },
    #[error("two changes have revision {revision}")]
    RevisionTwice { revision: Revision },
    #[error("the floor {compacted} is above the revision {revision}")]
    FloorAbove { compacted: Revision, revision: Revision },
}

impl VersionRecord {
    pub fn of(key: Key, revision: Revision, object: Option<&Stored>) -> Self {
        let object = object.map(|it| ObjectRecord {
            created: it.created,
            value: it.value.clone(),
            expires_at: it.expires_at,
        });
        Self { key, revision, object }
    }

    fn into_version(self) -> (Key, Version) {
        let Self { key, revision, object } = self;
        let object = object.map(|it| Stored {
            key: key.clone(),
            value: it.value,
            created: it.created,
            modified: revision,
            expires_at: it.expires_at,
        });
        (key, Version { revision, object })
    }
}

impl ClusterState {
    pub fn meta_record(&self) -> MetaRecord {
        MetaRecord {
            applied: self.applied,
            revision: self.revision,
            compacted: self.compacted,
            reign: self.reign,
            reign_leader: self.reign_leader,
            epoch: self.epoch,
            feature_level: self.feature_level,
            marks: self.marks.iter().copied().collect(),
        }
    }

    /// Every retained version, by key, oldest first.
    pub fn version_records(&self) -> impl Iterator<Item = VersionRecord> {
        self.keys.iter().flat_map(|(key, history)| {
            history
                .versions()
                .map(|it| VersionRecord::of(key.clone(), it.revision, it.object.as_ref()))
        })
    }

    /// The state that these records were taken from. Versions must be grouped by key, oldest first.
    pub fn from_records(
        meta: MetaRecord,
        versions: impl IntoIterator<Item = VersionRecord>,
    ) -> Result<Self, RecordError> {
        let (compacted, revision) = (meta.compacted, meta.revision);
        if compacted > revision {
            return Err(RecordError::FloorAbove { compacted, revision });
        }
        let mut state = Self {
            applied: meta.applied,
            revision,
            compacted,
            reign: meta.reign,
            reign_leader: meta.reign_leader,
            epoch: meta.epoch,
            feature_level: meta.feature_level,
            marks: meta.marks.into(),
            ..Self::default()
        };
        let mut changes = Vec::new();
        for record in versions {
            let (key, version) = record.into_version();
            state.take_version(key, version, &mut changes)?;
        }
        changes.sort_unstable();
        if let Some(pair) = changes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(RecordError::RevisionTwice { revision: pair[0].0 });
        }
        state.changes = changes.into();
        state.count_all();
        Ok(state)
    }

    fn take_version(
        &mut self,
        key: Key,
        version: Version,
        changes: &mut Vec<(Revision, Key)>,
    ) -> Result<(), RecordError> {
        let revision = version.revision;
        if revision > self.revision {
            return Err(RecordError::FromTheFuture { key, revision, newest: self.revision });
        }
        if revision > self.compacted {
            changes.push((revision, key.clone()));
        }
        match self.keys.get_mut(&key) {
            Some(history) if revision <= history.newest.revision => {
                return Err(RecordError::Disordered { key, revision });
            }
            Some(history) => history.push(version),
            None => {
                self.keys.insert(key, History::new(version));
            }
        }
        Ok(())
    }

    fn count_all(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        for history in keys.values() {
            self.count(None, history.newest.object.as_ref());
            let past = history.older.iter().filter_map(|it| it.object.as_ref());
            self.past_bytes += past.map(bytes_of).sum::<u64>();
        }
        self.keys = keys;
    }
}
