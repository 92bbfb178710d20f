//! Reading the journal back after any crash.
//!
//! Bad bytes with nothing durable behind them are the tail of a write that was never acknowledged: they are cut. Bad bytes
//! before an offset that a later batch knew to be durable mean that acknowledged data is lost: that is an error, never
//! repaired. So is a gap in segments or entries, and a log that ends before what the applied state holds.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use kactor_protocol::codec;
use kactor_runtime::env::{Disk, OpenMode};

use super::batch::{FORMAT, Found, find, records};
use super::{Active, Journal, JournalError, Sealed, segment_path};
use crate::record::{EntryRecord, LogIdRecord, Record, VoteRecord};

/// What the journal holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub vote: Option<VoteRecord>,
    pub purged: Option<LogIdRecord>,
    pub entries: BTreeMap<u64, EntryRecord>,
    /// Batches behind the last whole one that were cut: never acknowledged.
    pub torn: bool,
}

impl Recovered {
    /// The last entry, or what stands for it when all are purged.
    pub fn last_id(&self) -> Option<LogIdRecord> {
        self.entries.values().next_back().map(|it| it.id).max(self.purged)
    }

    fn take(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Head { vote, purged } => {
                self.purged = self.purged.max(purged);
                match vote {
                    Some(vote) => self.take_vote(vote)?,
                    None if self.vote.is_some() => return Err("its head forgot the vote".into()),
                    None => {}
                }
            }
            Record::Vote(vote) => self.take_vote(vote)?,
            Record::Entry(entry) => self.take_entry(entry)?,
            Record::Truncate { from } => drop(self.entries.split_off(&from)),
            Record::Purge(id) => self.purged = self.purged.max(Some(id)),
        }
        Ok(())
    }

    fn take_vote(&mut self, vote: VoteRecord) -> Result<(), String> {
        if self.vote.is_some_and(|old| old.term > vote.term) {
            return Err(format!("its vote is for term {}, an older one", vote.term));
        }
        self.vote = Some(vote);
        Ok(())
    }

    fn take_entry(&mut self, entry: EntryRecord) -> Result<(), String> {
        let index = entry.id.index;
        if self.purged.is_some_and(|it| index <= it.index) {
            return Ok(()); // An old segment's entry, purged later.
        }
        // The first one that is left may stand behind entries whose segments are gone: `check_gap` judges that.
        match self.entries.keys().next_back().copied() {
            Some(last) if index != last + 1 => Err(format!("entry {index} follows entry {last}")),
            _ => {
                self.entries.insert(index, entry);
                Ok(())
            }
        }
    }
}

struct Scan {
    journal_dir: std::path::PathBuf,
    segment_bytes: u64,
    recovered: Recovered,
    previous: u32,
    /// Where the good data ends: `seq * segment_bytes + offset`.
    good_end: u64,
}

pub(super) async fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    segment_bytes: u64,
    floor: Option<u64>,
) -> Result<(Journal, Recovered), JournalError> {
    disk.create_dir_all(dir).map_err(JournalError::io("making", dir))?;
    sync_names(disk.as_ref(), dir).await?;
    let names = disk.list(dir).map_err(JournalError::io("listing", dir))?;
    let seqs: Vec<u64> =
        names.iter().filter_map(|name| name.strip_suffix(".journal")?.parse().ok()).collect();
    for stale in names.iter().filter(|it| it.starts_with("spare-")) {
        let path = dir.join(stale);
        disk.remove_file(&path).map_err(JournalError::io("removing", &path))?;
    }
    let mut scan = Scan {
        journal_dir: dir.to_owned(),
        segment_bytes,
        recovered: Recovered::default(),
        previous: 0,
        good_end: 0,
    };
    let (sealed, active) = scan.segments(disk.as_ref(), &seqs)?;
    let first_kept = scan.recovered.purged.map_or(0, |it| it.index + 1);
    scan.recovered.entries = scan.recovered.entries.split_off(&first_kept);
    scan.check_gap(dir, first_kept)?;
    scan.check_floor(dir, floor)?;
    let mut journal = Journal {
        disk: disk.clone(),
        dir: dir.to_owned(),
        segment_bytes,
        sealed,
        active: match active {
            Some(active) => active,
            None => first_segment(disk.as_ref(), dir, segment_bytes)?,
        },
        spares: Vec::new(),
        next_spare: 0,
        vote: scan.recovered.vote,
        purged: scan.recovered.purged,
        previous: scan.previous,
        durable: 0,
        ended: false,
    };
    // What was read may still be unsynced (its writer died before the sync): once it is answered from, it must stay.
    let active = &mut journal.active;
    active.file.sync_data().await.map_err(JournalError::io("syncing", &active.path))?;
    disk.sync_dir(dir).await.map_err(JournalError::io("syncing", dir))?;
    journal.durable = journal.active.seq * segment_bytes + journal.active.offset;
    Ok((journal, scan.recovered))
}

/// Makes the folder's own name durable, and its parents': a journal in a folder that is gone after a crash is no journal.
async fn sync_names(disk: &dyn Disk, dir: &Path) -> Result<(), JournalError> {
    for parent in dir.ancestors().skip(1).filter(|it| !it.as_os_str().is_empty()) {
        match disk.sync_dir(parent).await {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()), // Not ours, not new.
            synced => synced.map_err(JournalError::io("syncing", parent))?,
        }
    }
    Ok(())
}

fn first_segment(disk: &dyn Disk, dir: &Path, segment_bytes: u64) -> Result<Active, JournalError> {
    let path = segment_path(dir, 1);
    let made = disk.open(&path, OpenMode::ReadWriteCreate).and_then(|file| {
        file.allocate(segment_bytes)?;
        Ok(file)
    });
    let file = made.map_err(JournalError::io("allocating", &path))?;
    Ok(Active { seq: 1, file, path, offset: 0, last_index: None })
}

impl Scan {
    fn segments(
        &mut self,
        disk: &dyn Disk,
        seqs: &[u64],
    ) -> Result<(VecDeque<Sealed>, Option<Active>), JournalError> {
        let mut sealed = VecDeque::new();
        let mut active: Option<Active> = None;
        for (nth, seq) in seqs.iter().copied().enumerate() {
            let path = segment_path(&self.journal_dir, seq);
            if let Some(before) = active.take() {
                if seq != before.seq + 1 {
                    let reason = format!("segment {} is missing before it", before.seq + 1);
                    return Err(JournalError::Damaged { path, offset: 0, reason });
                }
                sealed.push_back(Sealed { seq: before.seq, last_index: before.last_index });
            }
            let file = disk
                .open(&path, OpenMode::ReadWrite)
                .map_err(JournalError::io("opening", &path))?;
            let bytes = read_all(file.as_ref()).map_err(JournalError::io("reading", &path))?;
            // A new segment whose allocation was cut short; its first batch was never acknowledged.
            file.allocate(self.segment_bytes).map_err(JournalError::io("allocating", &path))?;
            let (offset, last_index) = self.segment(&path, seq, &bytes, nth == 0)?;
            active = Some(Active { seq, file, path, offset, last_index });
        }
        Ok((sealed, active))
    }

    /// Takes a segment's batches; returns where its good part ends.
    fn segment(
        &mut self,
        path: &Path,
        seq: u64,
        bytes: &[u8],
        is_first: bool,
    ) -> Result<(u64, Option<u64>), JournalError> {
        let mut offset = 0;
        let mut last_index = None;
        while let Some(batch) = find(bytes, seq, offset) {
            if batch.format > FORMAT {
                return Err(JournalError::Newer { path: path.to_owned(), found: batch.format });
            }
            let damaged = |reason: String| JournalError::Damaged {
                path: path.to_owned(),
                offset: offset as u64,
                reason,
            };
            let follows = batch.previous == self.previous || (is_first && offset == 0);
            if !follows {
                if batch.durable > self.good_end {
                    return Err(damaged("what stood before it is missing".into()));
                }
                break; // Left by an earlier life of the tail.
            }
            let position = seq * self.segment_bytes + offset as u64;
            if batch.durable > position {
                return Err(damaged("it knows more durable bytes than stand before it".into()));
            }
            last_index = self.batch(&batch).map_err(damaged)?.max(last_index);
            self.previous = batch.checksum;
            offset += batch.n_bytes;
            self.good_end = seq * self.segment_bytes + offset as u64;
        }
        self.check_tail(path, seq, bytes, offset)?;
        Ok((offset as u64, last_index))
    }

    fn batch(&mut self, batch: &Found<'_>) -> Result<Option<u64>, String> {
        let mut last_index = None;
        let records = records(batch.payload).ok_or("its records' lengths do not add up")?;
        for bytes in records {
            let record: Record = codec::decode(bytes).map_err(|error| error.to_string())?;
            if let Record::Entry(entry) = &record {
                last_index = Some(entry.id.index);
            }
            self.recovered.take(record)?;
        }
        Ok(last_index)
    }

    /// Nothing behind the good part may have known it to be durable.
    fn check_tail(
        &mut self,
        path: &Path,
        seq: u64,
        bytes: &[u8],
        end: usize,
    ) -> Result<(), JournalError> {
        let good_until = seq * self.segment_bytes + end as u64;
        for at in (end..bytes.len()).step_by(8) {
            let Some(batch) = find(bytes, seq, at) else { continue };
            self.recovered.torn = true;
            if batch.durable > good_until {
                return Err(JournalError::Damaged {
                    path: path.to_owned(),
                    offset: end as u64,
                    reason: format!(
                        "a batch at byte {at} was written when these bytes were durable"
                    ),
                });
            }
        }
        let has_bytes = |it: &[u8]| it.iter().any(|byte| *byte != 0);
        self.recovered.torn |= bytes.get(end..end + 48).is_some_and(has_bytes);
        Ok(())
    }

    fn check_gap(&self, dir: &Path, first_kept: u64) -> Result<(), JournalError> {
        match self.recovered.entries.keys().next() {
            Some(first) if *first != first_kept => Err(JournalError::Damaged {
                path: dir.to_owned(),
                offset: 0,
                reason: format!("entry {first_kept} is missing; entry {first} comes first"),
            }),
            _ => Ok(()),
        }
    }

    fn check_floor(&self, dir: &Path, floor: Option<u64>) -> Result<(), JournalError> {
        let last = self.recovered.last_id().map(|it| it.index);
        match floor {
            Some(floor) if last.is_none_or(|last| last < floor) => {
                Err(JournalError::Shorter { dir: dir.to_owned(), last: last.unwrap_or(0), floor })
            }
            _ => Ok(()),
        }
    }
}

fn read_all(file: &dyn kactor_runtime::env::DiskFile) -> std::io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        match file.read_at(at as u64, &mut bytes[at..])? {
            0 => break,
            n => at += n,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}
