//! The data directory: whose it is, which format, and that one process alone uses it.
//!
//! Nothing is written before all of that is known. Layout: `identity`, `lock`, `journal/`, `applied/`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kactor_protocol::codec;
use kactor_runtime::env::{Disk, OpenMode};
use serde::{Deserialize, Serialize};

/// The directory's format; a newer one is refused.
pub const DATA_FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"KACTDATA";
const HEAD_BYTES: usize = 12;

/// Whose directory it is. Frozen (`tests/golden`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Changes with every restore: directories of another epoch are another cluster's.
    pub cluster: String,
    pub replica: u64,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{what} {} failed", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} belongs to cluster {found}, not {expected}; nothing was touched. Use another --data-dir, or remove this one",
        path.display()
    )]
    OtherCluster { path: PathBuf, found: String, expected: String },
    #[error("{} has format {found}, this kactor reads up to {DATA_FORMAT}; nothing was touched. Start the newer kactor", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("{} is damaged: {reason}; nothing was touched. Restore a snapshot into a fresh directory", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} is in use by another kactor process; stop it first (`kactor down`)", path.display())]
    InUse { path: PathBuf },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |source| DataDirError::Io { what, path: path.to_owned(), source }
}

/// Who the directory says it is, or `None` when it is fresh.
pub fn read_identity(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, DataDirError> {
    let path = dir.join("identity");
    if !disk.exists(&path) {
        return Ok(None);
    }
    let file = disk.open(&path, OpenMode::Read).map_err(io_error("opening", &path))?;
    let mut bytes = vec![0; 4096];
    let n_read = file.read_at(0, &mut bytes).map_err(io_error("reading", &path))?;
    let bytes = &bytes[..n_read];
    let damaged =
        |reason: &str| DataDirError::Damaged { path: path.clone(), reason: reason.into() };
    if bytes.len() < HEAD_BYTES + 4 || &bytes[..8] != MAGIC {
        return Err(damaged("it is no identity file"));
    }
    let le = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    if le(8) > DATA_FORMAT {
        return Err(DataDirError::Newer { path: path.clone(), found: le(8) });
    }
    let end = bytes.len() - 4;
    if crc32c::crc32c(&bytes[..end]) != le(end) {
        return Err(damaged("its checksum is wrong"));
    }
    let identity = codec::decode(&bytes[HEAD_BYTES..end]);
    identity.map(Some).map_err(|error| damaged(&error.to_string()))
}

/// Refuses a directory of another cluster or a newer format; marks a fresh one as ours.
pub async fn claim(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    identity: &Identity,
) -> Result<(), DataDirError> {
    match read_identity(disk.as_ref(), dir)? {
        Some(found) if found == *identity => Ok(()),
        Some(found) => Err(DataDirError::OtherCluster {
            path: dir.to_owned(),
            found: format!("{} (replica {})", found.cluster, found.replica),
            expected: format!("{} (replica {})", identity.cluster, identity.replica),
        }),
        None => write_identity(disk, dir, identity).await,
    }
}

async fn write_identity(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    identity: &Identity,
) -> Result<(), DataDirError> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&DATA_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&codec::encode(identity).expect("an identity has a few bytes"));
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    disk.create_dir_all(dir).map_err(io_error("making", dir))?;
    write_swapped(disk, &dir.join("identity"), [bytes.into()]).await
}

/// Writes a file beside its place, syncs it, and swaps it in: it is there whole or not at all.
pub(crate) async fn write_swapped(
    disk: &Arc<dyn Disk>,
    path: &Path,
    chunks: impl IntoIterator<Item = bytes::Bytes>,
) -> Result<(), DataDirError> {
    let new = path.with_extension("new");
    let file = disk.open(&new, OpenMode::ReadWriteCreate).map_err(io_error("making", &new))?;
    file.truncate(0).map_err(io_error("truncating", &new))?;
    let mut offset = 0;
    for chunk in chunks {
        file.write_all_at(offset, &chunk).map_err(io_error("writing", &new))?;
        offset += chunk.len() as u64;
    }
    file.sync_data().await.map_err(io_error("syncing", &new))?;
    disk.rename(&new, path).map_err(io_error("renaming", &new))?;
    match path.parent() {
        Some(parent) => disk.sync_dir(parent).await.map_err(io_error("syncing", parent)),
        None => Ok(()),
    }
}

/// Held while a process uses the directory; the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: std::fs::File,
}

impl DirLock {
    /// On the machine's own file system (a simulated host has one process).
    pub fn take(dir: &Path) -> Result<Self, DataDirError> {
        std::fs::create_dir_all(dir).map_err(io_error("making", dir))?;
        let path = dir.join("lock");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error("opening", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(DataDirError::InUse { path: dir.into() }),
            Err(std::fs::TryLockError::Error(source)) => Err(io_error("locking", &path)(source)),
        }
    }
}
