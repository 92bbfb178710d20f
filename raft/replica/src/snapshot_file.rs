//! `snapshot save` and `snapshot restore`: a file with the whole state, swapped in atomically.
//!
//! A restored directory begins a new epoch: revisions jump by a billion, all history is compacted, the reign advances, and
//! the cluster gets a new name, so that other hosts' old directories are refused and no client keeps a wrong cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kactor_runtime::env::{Disk, Env, OpenMode};
use kactor_state::{ClusterState, Command, SnapshotError, SnapshotReader, SnapshotWriter};
use kactor_store::Table;

use crate::applied::{APPLIED_FORMAT, AppliedError, AppliedMeta, AppliedStore};
use crate::data_dir::{self, DataDirError, Identity};
use crate::journal::{Journal, JournalError, SEGMENT_BYTES};
use crate::record::{LogIdRecord, MembershipRecord, Record, VoteRecord};

const READ_BYTES: usize = 1 << 20;
/// The term that a restored log begins in; the first leader takes the next one.
const RESTORED_TERM: u64 = 1;

/// Why a snapshot can't be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    #[error(transparent)]
    File(#[from] DataDirError),
    #[error("{} can't be restored", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: SnapshotError,
    },
    #[error("{} holds a cluster already; restore into a directory that is empty or absent", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error(transparent)]
    Applied(#[from] AppliedError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Writes the present state to `path`. Poll it on a lane that may block.
pub async fn save(
    disk: &Arc<dyn Disk>,
    table: &Table,
    path: &Path,
) -> Result<(), SnapshotFileError> {
    let writer = SnapshotWriter::new(&table.read());
    Ok(data_dir::write_swapped(disk, path, writer).await?)
}

/// Reads a snapshot and checks all of it.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<ClusterState, SnapshotFileError> {
    let io =
        |what: &'static str| move |source| DataDirError::Io { what, path: path.to_owned(), source };
    let content = |source| SnapshotFileError::Content { path: path.to_owned(), source };
    let file = disk.open(path, OpenMode::Read).map_err(io("opening"))?;
    let mut reader = SnapshotReader::default();
    let mut chunk = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(offset, &mut chunk).map_err(io("reading"))? {
            0 => break,
            n_read => {
                reader.push(&chunk[..n_read]).map_err(content)?;
                offset += n_read as u64;
            }
        }
    }
    reader.finish().map_err(content)
}

/// Makes a data directory for `identity` (a new cluster name) from a snapshot, as a new epoch. The identity is
/// written last: a restore that was cut short leaves a directory that no replica starts from.
pub async fn restore(
    env: &Env,
    snapshot: &Path,
    dir: &Path,
    identity: &Identity,
    applied: &mut dyn AppliedStore,
) -> Result<ClusterState, SnapshotFileError> {
    let journal_dir = dir.join("journal");
    if data_dir::read_identity(env.disk.as_ref(), dir)?.is_some() || env.disk.exists(&journal_dir) {
        return Err(SnapshotFileError::NotEmpty { dir: dir.to_owned() });
    }
    let mut state = read(env.disk.as_ref(), snapshot)?;
    let index = state.applied_index() + 1;
    state.apply(index, Command::BeginEpoch { now: env.wall() });
    let id = LogIdRecord { term: RESTORED_TERM, index };
    let (mut journal, _) =
        Journal::open(env.disk.clone(), &journal_dir, SEGMENT_BYTES, None).await?;
    let vote = VoteRecord { term: RESTORED_TERM, voted_for: identity.replica, committed: false };
    journal.write(&[Record::Vote(vote), Record::Purge(id)]).await?;
    let membership = MembershipRecord {
        voters: vec![[identity.replica].into()],
        addresses: [(identity.replica, String::new())].into(),
    };
    let meta = AppliedMeta {
        format: APPLIED_FORMAT,
        applied: Some(id),
        membership_id: Some(id),
        membership,
        state: state.meta_record(),
    };
    applied.replace(&state, &meta)?;
    data_dir::claim(&env.disk, dir, identity).await?;
    Ok(state)
}
