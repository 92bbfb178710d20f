//! The applied state on disk, behind a small trait: sled in production, a model in the simulator.
//!
//! A checkpoint writes the versions that changed since the last one, then the log id they belong to, and is durable when
//! it returns; only then may the journal forget the entries below it. One that was cut short changes nothing that a
//! load sees (`settle.rs`). A restart is the last checkpoint plus the journal's tail.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kactor_protocol::codec::CodecError;
use kactor_protocol::ids::Revision;
use kactor_protocol::store::Key;
use kactor_state::{ClusterState, MetaRecord, RangeSum, RecordError, VersionRecord};
use serde::{Deserialize, Serialize};

use crate::record::{LogIdRecord, MembershipRecord};

mod settle;
mod sled_store;
#[cfg(test)]
mod tests;

pub use sled_store::SledStore;

/// Why the applied state can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AppliedError {
    #[error("{what} the applied state in {} failed", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("a row of the applied state in {} can't be read", path.display())]
    Row {
        path: PathBuf,
        #[source]
        source: CodecError,
    },
    #[error("the applied state's rows contradict each other; restore a snapshot or join again")]
    Contradiction(#[from] RecordError),
    #[error(
        "the applied state has format {found}, this kactor reads up to {APPLIED_FORMAT}: start the newer one"
    )]
    Newer { found: u32 },
    #[error(
        "the applied state ends at entry {applied}, but the journal forgot entries up to {purged}: its disk was rolled back \
         or its files were removed. With other control hosts alive, remove this host's data directory and join again; on a \
         single host, restore a snapshot (`kactor snapshot restore FILE`)"
    )]
    Behind { applied: u64, purged: u64 },
    #[error(
        "the applied state in {} is not what its checkpoint said: {found} objects were read, {expected} were written, or \
         one of them differs; the disk lost or changed them. With other control hosts alive, remove this host's data \
         directory and join again; on a single host, restore a snapshot (`kactor snapshot restore FILE`)",
        path.display()
    )]
    Differs { path: PathBuf, found: u64, expected: u64 },
    #[error("{} names generation {generation}, which is not there; restore a snapshot or join again", path.display())]
    NoGeneration { path: PathBuf, generation: u64 },
    #[error("the process is ending")]
    Ended,
}

impl AppliedError {
    /// Whether it is only space that is missing.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }
}

/// 2: the checkpoint's row has a tree of its own, and garbage may stand beside what it describes.
pub const APPLIED_FORMAT: u32 = 2;

/// The row that ties the versions to the log. Frozen (`tests/golden`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedMeta {
    pub format: u32,
    pub applied: Option<LogIdRecord>,
    pub membership_id: Option<LogIdRecord>,
    pub membership: MembershipRecord,
    pub state: MetaRecord,
}

/// The last row of a checkpoint: what stands beside it belongs to it or is garbage. Frozen (`tests/golden`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    pub meta: AppliedMeta,
    /// Of the live objects, so that a disk that lost some is found out.
    pub n_objects: u64,
    pub sum: u64,
}

/// What is written between two checkpoints: `None` removes the row.
pub type Rows = BTreeMap<(Key, Revision), Option<VersionRecord>>;

/// A state as it was at a checkpoint.
#[derive(Debug)]
pub struct Loaded {
    pub meta: AppliedMeta,
    pub state: ClusterState,
}

/// Holds the applied state durably. Called on a lane that may block.
pub trait AppliedStore: Send {
    fn load(&mut self) -> Result<Option<Loaded>, AppliedError>;

    /// Writes the rows and what they lead to as one, durable when it returns. `sum` is the whole state's.
    /// After an error only `replace` may follow.
    fn checkpoint(
        &mut self,
        rows: &Rows,
        meta: &AppliedMeta,
        sum: RangeSum,
    ) -> Result<(), AppliedError>;

    /// Replaces everything, atomically and durably: after a snapshot was installed, or to get rid of garbage.
    fn replace(&mut self, state: &ClusterState, meta: &AppliedMeta) -> Result<(), AppliedError>;

    /// Bytes that it takes on disk.
    fn bytes_on_disk(&self) -> u64;
}

/// An applied state in memory that outlives its replica: a simulated disk for what is checkpointed.
#[derive(Debug, Clone, Default)]
pub struct ModelStore {
    disk: Arc<Mutex<ModelDisk>>,
}

#[derive(Debug, Default)]
struct ModelDisk {
    rows: BTreeMap<(Key, Revision), VersionRecord>,
    meta: Option<AppliedMeta>,
}

impl AppliedStore for ModelStore {
    fn load(&mut self) -> Result<Option<Loaded>, AppliedError> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(meta) = disk.meta.clone() else { return Ok(None) };
        let rows = disk.rows.values().cloned();
        let state = ClusterState::from_records(meta.state.clone(), rows)?;
        Ok(Some(Loaded { meta, state }))
    }

    fn checkpoint(
        &mut self,
        rows: &Rows,
        meta: &AppliedMeta,
        _: RangeSum,
    ) -> Result<(), AppliedError> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, row) in rows {
            match row {
                Some(row) => drop(disk.rows.insert(at.clone(), row.clone())),
                None => drop(disk.rows.remove(at)),
            }
        }
        disk.meta = Some(meta.clone());
        Ok(())
    }

    fn replace(&mut self, state: &ClusterState, meta: &AppliedMeta) -> Result<(), AppliedError> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.rows = state.version_records().map(|it| ((it.key.clone(), it.revision), it)).collect();
        disk.meta = Some(meta.clone());
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let body = |it: &VersionRecord| it.object.as_ref().map_or(0, |it| it.value.body.len());
        disk.rows.values().map(|it| (it.key.as_str().len() + body(it)) as u64).sum()
    }
}

/// A row's key: the object's key, a zero byte that no key holds, and the revision in order.
pub(crate) fn row_key(key: &Key, revision: Revision) -> Bytes {
    let mut out = Vec::with_capacity(key.as_str().len() + 9);
    out.extend_from_slice(key.as_str().as_bytes());
    out.push(0);
    out.extend_from_slice(&revision.0.to_be_bytes());
    out.into()
}
