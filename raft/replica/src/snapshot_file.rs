//! The file of `kactor snapshot save`: the whole state and the keys without which it is worth nothing; and its restore.
//!
//! Layout, little endian: `KACTSAVE`, format u32, length u32 and crc32c u32 of the head, the head (the codec's encoding
//! of `Head`, frozen), the state as `kactor_state` writes it (checked chunk by chunk), and the SHA-256 of all that. It is
//! written and read as a stream: who saves holds one chunk, who restores the state that it makes.
//!
//! A restored directory begins a new epoch: revisions jump by a billion, all history is compacted, the reign advances, and
//! the cluster gets a new name, so that other hosts' old directories are refused and no client keeps a wrong cache.

use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use kactor_protocol::codec;
use kactor_protocol::ids::Revision;
use kactor_protocol::time::Timestamp;
use kactor_runtime::env::{Disk, Env, OpenMode};
use kactor_state::{ClusterState, Command, SnapshotError, SnapshotReader, SnapshotWriter};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::applied::{APPLIED_FORMAT, AppliedError, AppliedMeta, AppliedStore};
use crate::data_dir::{self, DataDirError, Identity};
use crate::journal::{Journal, JournalError, SEGMENT_BYTES};
use crate::record::{LogIdRecord, MembershipRecord, Record, VoteRecord};

pub const SAVE_FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"KACTSAVE";
const PREFIX_BYTES: usize = 20;
/// Longest head that is believed: a few key files and words.
const HEAD_BYTES_MAX: usize = 1 << 20;
const TAIL_BYTES: usize = 32;
const READ_BYTES: usize = 1 << 20;
/// The term that a restored log begins in; the first leader takes the next one.
const RESTORED_TERM: u64 = 1;

/// What the file says before the state. Frozen (`tests/golden`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version that wrote it.
    pub kactor: String,
    pub cluster: String,
    pub saved_at: Timestamp,
    /// Whether a leader confirmed that every write acknowledged before is in it.
    pub is_current: bool,
    pub revision: Revision,
    pub n_objects: u64,
    /// How the host was started, flag by flag; empty when that was not known.
    pub setup: Vec<(String, String)>,
    pub keys: Vec<KeyFile>,
}

/// A file of the cluster's keys: authority, token key, key of Secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    pub name: String,
    pub content: Bytes,
}

/// A key must not reach a log.
impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile({}, {} bytes)", self.name, self.content.len())
    }
}

/// Why a snapshot can't be read or restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    #[error(transparent)]
    File(#[from] DataDirError),
    #[error("{} can't be used", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: ContentError,
    },
    #[error("{} holds a cluster already; restore into a directory that is empty or absent", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error(transparent)]
    Applied(#[from] AppliedError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("this is no kactor snapshot")]
    Foreign,
    #[error("it has format {found}, this kactor reads up to {SAVE_FORMAT}: use the newer kactor")]
    Newer { found: u32 },
    #[error("it is damaged: {reason}")]
    Damaged { reason: String },
    #[error("it ends after {n_bytes} bytes, before its end: it was not copied whole")]
    Cut { n_bytes: u64 },
    #[error(transparent)]
    State(#[from] SnapshotError),
}

/// The file, chunk by chunk. It holds a copy of the state that shares all bytes with it.
pub struct Chunks {
    head: Option<Bytes>,
    state: Option<SnapshotWriter>,
    hash: Sha256,
}

/// The file of this state; revision and number of objects are put into the head here.
pub fn chunks(mut head: Head, state: &ClusterState) -> Chunks {
    head.revision = state.revision();
    head.n_objects = state.n_objects();
    let payload = codec::encode(&head).expect("a head is far below the codec's limit");
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + payload.len());
    bytes.put_slice(MAGIC);
    bytes.put_u32_le(SAVE_FORMAT);
    bytes.put_u32_le(u32::try_from(payload.len()).expect("below the codec's limit"));
    bytes.put_u32_le(crc32c::crc32c(&payload));
    bytes.extend_from_slice(&payload);
    let state = Some(SnapshotWriter::new(state));
    Chunks { head: Some(bytes.freeze()), state, hash: Sha256::new() }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let next = match self.head.take() {
            Some(head) => Some(head),
            None => self.state.as_mut()?.next(),
        };
        match next {
            Some(chunk) => {
                self.hash.update(&chunk);
                Some(chunk)
            }
            None => {
                self.state = None;
                Some(Bytes::copy_from_slice(&self.hash.finalize_reset()))
            }
        }
    }
}

/// Takes the file's bytes in pieces of any size, and hands the state's bytes on.
pub struct Intake {
    /// Not looked at yet: the last bytes may be the tail, the first ones are the head.
    held: BytesMut,
    head: Option<Head>,
    body: Sha256,
    whole: Sha256,
    n_bytes: u64,
}

/// What is known of a file once all its bytes were taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub head: Head,
    pub n_bytes: u64,
    /// Of the whole file, as `sha256sum` prints it.
    pub sha256: String,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            held: BytesMut::new(),
            head: None,
            body: Sha256::new(),
            whole: Sha256::new(),
            n_bytes: 0,
        }
    }
}

impl Intake {
    /// Answers the bytes of the state that are certain by now.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Bytes, ContentError> {
        self.whole.update(bytes);
        self.n_bytes += bytes.len() as u64;
        self.held.extend_from_slice(bytes);
        if self.head.is_none() && !self.take_head()? {
            return Ok(Bytes::new());
        }
        let n_state = self.held.len().saturating_sub(TAIL_BYTES);
        let state = self.held.split_to(n_state).freeze();
        self.body.update(&state);
        Ok(state)
    }

    fn take_head(&mut self) -> Result<bool, ContentError> {
        let n_known = self.held.len().min(MAGIC.len());
        if self.held[..n_known] != MAGIC[..n_known] {
            return Err(ContentError::Foreign);
        }
        if self.held.len() < PREFIX_BYTES {
            return Ok(false);
        }
        let word =
            |at: usize| u32::from_le_bytes(self.held[at..at + 4].try_into().expect("four bytes"));
        let (format, n_head, crc) = (word(8), word(12) as usize, word(16));
        let damaged = |reason: &str| ContentError::Damaged { reason: reason.to_owned() };
        match format {
            SAVE_FORMAT => {}
            found if found > SAVE_FORMAT => return Err(ContentError::Newer { found }),
            _ => return Err(damaged("its format is none that ever was")),
        }
        if n_head > HEAD_BYTES_MAX {
            return Err(damaged("its head is longer than any can be"));
        }
        if self.held.len() < PREFIX_BYTES + n_head {
            return Ok(false);
        }
        let head = self.held.split_to(PREFIX_BYTES + n_head);
        self.body.update(&head);
        let payload = &head[PREFIX_BYTES..];
        if crc32c::crc32c(payload) != crc {
            return Err(damaged("its head's checksum is wrong"));
        }
        self.head = Some(codec::decode(payload).map_err(|it| damaged(&it.to_string()))?);
        Ok(true)
    }

    /// Once all bytes were pushed.
    pub fn finish(self) -> Result<Taken, ContentError> {
        let n_bytes = self.n_bytes;
        let Some(head) = self.head.filter(|_| self.held.len() == TAIL_BYTES) else {
            return Err(ContentError::Cut { n_bytes });
        };
        if self.body.finalize()[..] != self.held[..] {
            let reason = "its SHA-256 is wrong, or its end is missing".to_owned();
            return Err(ContentError::Damaged { reason });
        }
        let sha256 = self.whole.finalize().iter().map(|it| format!("{it:02x}")).collect();
        Ok(Taken { head, n_bytes, sha256 })
    }
}

/// Reads a file and checks all of it.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<(Taken, ClusterState), SnapshotFileError> {
    let io =
        |what: &'static str| move |source| DataDirError::Io { what, path: path.to_owned(), source };
    let content = |source| SnapshotFileError::Content { path: path.to_owned(), source };
    let file = disk.open(path, OpenMode::Read).map_err(io("opening"))?;
    let (mut intake, mut reader) = (Intake::default(), SnapshotReader::default());
    let mut chunk = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(offset, &mut chunk).map_err(io("reading"))? {
            0 => break,
            n_read => {
                let state = intake.push(&chunk[..n_read]).map_err(content)?;
                reader.push(&state).map_err(|it| content(it.into()))?;
                offset += n_read as u64;
            }
        }
    }
    let state = match reader.finish() {
        Err(SnapshotError::Cut { .. }) => {
            return Err(content(ContentError::Cut { n_bytes: offset }));
        }
        finished => finished.map_err(|it| content(it.into()))?,
    };
    Ok((intake.finish().map_err(content)?, state))
}

/// Makes a data directory for `identity` (a new cluster name) from a saved state, as a new epoch. The identity is
/// written last: a restore that was cut short leaves a directory that no replica starts from.
pub async fn restore(
    env: &Env,
    mut state: ClusterState,
    dir: &Path,
    identity: &Identity,
    applied: &mut dyn AppliedStore,
) -> Result<ClusterState, SnapshotFileError> {
    let journal_dir = dir.join("journal");
    if data_dir::read_identity(env.disk.as_ref(), dir)?.is_some() || env.disk.exists(&journal_dir) {
        return Err(SnapshotFileError::NotEmpty { dir: dir.to_owned() });
    }
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

#[cfg(test)]
mod tests;
