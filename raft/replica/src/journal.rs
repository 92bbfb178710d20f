//! The log on disk: preallocated, checksummed segments; one fdatasync acknowledges everything written before it.
//!
//! A segment is a file of fixed length whose blocks are written before use, so that a sync of data changes no
//! metadata. It holds batches; each batch names its segment and offset, carries the checksum of the batch before it (so
//! what an earlier use of the file left there is never taken for its continuation), and records the offset known
//! durable before it. Everything goes through `Disk`, so the simulator tears and loses writes of this very code.
//!
//! Invariants: at most one batch is unsynced; segments are numbered without gaps; the first record of each segment
//! repeats the vote and the purge mark; after any failed write or sync the journal refuses everything (never retried).

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kactor_protocol::codec;
use kactor_runtime::env::{Disk, DiskFile, OpenMode};

use crate::record::{LogIdRecord, Record, VoteRecord};

mod batch;
mod recovery;

pub use recovery::Recovered;

use batch::{Framed, frame};

/// Length of a segment in production.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Records are put into one batch up to this many bytes.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Emptied segments that are kept for reuse.
const SPARES_MAX: usize = 2;

/// Why the journal can't be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{what} {} failed; the process ends, because nothing may be assumed of earlier writes", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the journal is damaged: {} at byte {offset}: {reason}. Acknowledged writes may be missing after it. With other \
         control hosts alive, remove this host's data directory and join again; on a single host, restore a snapshot \
         (`kactor snapshot restore FILE`)",
        path.display()
    )]
    Damaged { path: PathBuf, offset: u64, reason: String },
    #[error(
        "the journal in {} ends at entry {last}, but entry {floor} was applied durably: its disk was rolled back or its \
         files were removed. With other control hosts alive, remove this host's data directory and join again; on a \
         single host, restore a snapshot (`kactor snapshot restore FILE`)",
        dir.display()
    )]
    Shorter { dir: PathBuf, last: u64, floor: u64 },
    #[error("{} has format {found}, this kactor reads {}: start the newer one", path.display(), batch::FORMAT)]
    Newer { path: PathBuf, found: u32 },
    #[error("a batch of {n_bytes} bytes does not fit into a segment of {segment_bytes}")]
    TooLarge { n_bytes: usize, segment_bytes: u64 },
    #[error("the journal failed before; it takes nothing more")]
    Ended,
}

impl JournalError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// A segment that is written no more.
#[derive(Debug)]
struct Sealed {
    seq: u64,
    last_index: Option<u64>,
}

/// The segment that is written.
struct Active {
    seq: u64,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    offset: u64,
    last_index: Option<u64>,
}

/// The open journal. One task owns it.
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    sealed: VecDeque<Sealed>,
    active: Active,
    spares: Vec<PathBuf>,
    next_spare: u64,
    vote: Option<VoteRecord>,
    purged: Option<LogIdRecord>,
    /// Checksum of the last batch.
    previous: u32,
    /// Position known durable: `seq * segment_bytes + offset`.
    durable: u64,
    ended: bool,
}

impl Journal {
    /// Opens or makes the journal in `dir`. `floor` is the last entry that the applied state holds durably.
    pub async fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        segment_bytes: u64,
        floor: Option<u64>,
    ) -> Result<(Self, Recovered), JournalError> {
        recovery::open(disk, dir, segment_bytes, floor).await
    }

    /// Makes the records durable, in order, with as few batches as fit; one sync each.
    pub async fn write(&mut self, records: &[Record]) -> Result<(), JournalError> {
        if self.ended {
            return Err(JournalError::Ended);
        }
        let written = self.write_all(records).await;
        self.ended = written.is_err();
        written
    }

    async fn write_all(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let mut batch = Framed::default();
        for record in records {
            let bytes = codec::encode(record).map_err(|error| JournalError::Damaged {
                path: self.active.path.clone(),
                offset: self.active.offset,
                reason: format!("a record can't be encoded: {error}"),
            })?;
            if !batch.is_empty() && batch.len() + bytes.len() > BATCH_BYTES_MAX {
                self.write_batch(std::mem::take(&mut batch)).await?;
            }
            batch.push(&bytes);
            self.note(record, &mut batch);
        }
        self.write_batch(batch).await
    }

    fn note(&mut self, record: &Record, batch: &mut Framed) {
        match record {
            Record::Entry(entry) => batch.last_index = Some(entry.id.index),
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Purge(id) => self.purged = Some(*id),
            Record::Head { .. } | Record::Truncate { .. } => {}
        }
    }

    async fn write_batch(&mut self, mut batch: Framed) -> Result<(), JournalError> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.active.offset + batch.framed_len() > self.segment_bytes {
            self.rotate().await?;
        }
        if self.active.offset == 0 {
            batch = self.with_head(batch);
        }
        let n_bytes = batch.framed_len();
        if n_bytes > self.segment_bytes {
            let segment_bytes = self.segment_bytes;
            return Err(JournalError::TooLarge { n_bytes: batch.len(), segment_bytes });
        }
        let last_index = batch.last_index;
        let (bytes, checksum) =
            frame(&batch, self.active.seq, self.active.offset, self.durable, self.previous);
        let active = &mut self.active;
        active
            .file
            .write_all_at(active.offset, &bytes)
            .map_err(JournalError::io("writing", &active.path))?;
        active.file.sync_data().await.map_err(JournalError::io("syncing", &active.path))?;
        active.offset += bytes.len() as u64;
        active.last_index = active.last_index.max(last_index);
        self.previous = checksum;
        self.durable = active.seq * self.segment_bytes + active.offset;
        Ok(())
    }

    fn with_head(&self, batch: Framed) -> Framed {
        let head = Record::Head { vote: self.vote, purged: self.purged };
        let bytes = codec::encode(&head).expect("a head has a few bytes");
        let mut whole = Framed::default();
        whole.last_index = batch.last_index;
        whole.push(&bytes);
        whole.append(batch);
        whole
    }

    /// Goes on in the next segment. What was written before is durable already.
    async fn rotate(&mut self) -> Result<(), JournalError> {
        let seq = self.active.seq + 1;
        let next = self.make_segment(seq).await?;
        let old = std::mem::replace(&mut self.active, next);
        self.sealed.push_back(Sealed { seq: old.seq, last_index: old.last_index });
        Ok(())
    }

    async fn make_segment(&mut self, seq: u64) -> Result<Active, JournalError> {
        let path = segment_path(&self.dir, seq);
        if self.spares.is_empty() {
            self.prepare_spare()?;
        }
        let spare = self.spares.pop().expect("prepared above");
        self.disk.rename(&spare, &path).map_err(JournalError::io("renaming", &spare))?;
        let file = self
            .disk
            .open(&path, OpenMode::ReadWrite)
            .map_err(JournalError::io("opening", &path))?;
        self.disk.sync_dir(&self.dir).await.map_err(JournalError::io("syncing", &self.dir))?;
        Ok(Active { seq, file, path, offset: 0, last_index: None })
    }

    /// Has one empty segment ready before it is needed. A full disk is met here, while the active one has room.
    pub fn prepare_spare(&mut self) -> Result<(), JournalError> {
        if !self.spares.is_empty() {
            return Ok(());
        }
        let path = self.dir.join(format!("spare-{}", self.next_spare));
        self.next_spare += 1;
        let made = self
            .disk
            .open(&path, OpenMode::ReadWriteCreate)
            .and_then(|file| file.allocate(self.segment_bytes));
        if let Err(source) = made {
            let _ = self.disk.remove_file(&path);
            return Err(JournalError::Io { what: "allocating", path, source });
        }
        self.spares.push(path);
        Ok(())
    }

    /// Whether the active segment has less room than `n_bytes`, and a spare should be prepared.
    pub fn needs_spare(&self) -> bool {
        self.spares.is_empty() && self.active.offset > self.segment_bytes / 2
    }

    /// Forgets entries up to `id`. They must be durable in the applied state: their segments are used again.
    pub async fn purge(&mut self, id: LogIdRecord) -> Result<(), JournalError> {
        self.write(&[Record::Purge(id)]).await?;
        while let Some(oldest) = self.sealed.front() {
            if oldest.last_index.is_some_and(|last| last > id.index) {
                break;
            }
            let path = segment_path(&self.dir, oldest.seq);
            self.release(&path)?;
            self.sealed.pop_front();
        }
        Ok(())
    }

    fn release(&mut self, path: &Path) -> Result<(), JournalError> {
        if self.spares.len() >= SPARES_MAX {
            return self.disk.remove_file(path).map_err(JournalError::io("removing", path));
        }
        let spare = self.dir.join(format!("spare-{}", self.next_spare));
        self.next_spare += 1;
        self.disk.rename(path, &spare).map_err(JournalError::io("renaming", path))?;
        self.spares.push(spare);
        Ok(())
    }

    /// Segments that are full, and whose entries are needed still.
    pub fn n_sealed(&self) -> u64 {
        self.sealed.len() as u64
    }

    /// Bytes on disk, spares included.
    pub fn bytes(&self) -> u64 {
        (self.n_segments() + self.spares.len() as u64) * self.segment_bytes
    }

    /// Segments that hold records.
    pub fn n_segments(&self) -> u64 {
        self.sealed.len() as u64 + 1
    }
}

fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:020}.journal"))
}
