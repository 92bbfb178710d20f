//! The journal under a disk that loses, tears and refuses: what was acknowledged is there, what was not may be.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::executor::block_on;
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::time::Timestamp;
use kactor_replica::journal::{Journal, JournalError, Recovered};
use kactor_replica::record::{EntryRecord, LogIdRecord, PayloadRecord, Record, VoteRecord};
use kactor_runtime::env::Disk;
use kactor_simulations::{Chance, FaultyDisk};
use kactor_state::Command;

const SEGMENT_BYTES: u64 = 4096;

fn dir() -> PathBuf {
    PathBuf::from("/data/journal")
}

fn disk(seed: u64) -> FaultyDisk {
    FaultyDisk::new(Chance::new(seed, "disk"), |_| {})
}

fn open(disk: &FaultyDisk, floor: Option<u64>) -> Result<(Journal, Recovered), JournalError> {
    block_on(Journal::open(Arc::new(disk.clone()), &dir(), SEGMENT_BYTES, floor))
}

fn entry(term: u64, index: u64) -> EntryRecord {
    let command =
        Command::BeginReign { now: Timestamp(index * 7919), leader: ReplicaId(term << 40 | index) };
    EntryRecord { id: LogIdRecord { term, index }, payload: PayloadRecord::Command(command) }
}

/// What the journal said it holds.
#[derive(Debug, Clone, Default)]
struct Acknowledged {
    vote: Option<VoteRecord>,
    purged: Option<LogIdRecord>,
    entries: Vec<EntryRecord>,
    term: u64,
}

impl Acknowledged {
    fn next_index(&self) -> u64 {
        let last = self.entries.last().map(|it| it.id).max(self.purged);
        last.map_or(0, |it| it.index + 1)
    }
}

/// One step; the acknowledged state only follows when it succeeded.
fn step(
    journal: &mut Journal,
    ack: &mut Acknowledged,
    chance: &Chance,
) -> Result<(), JournalError> {
    let mut next = ack.clone();
    let mut records = Vec::new();
    match chance.below(10) {
        0 => {
            next.term += 1;
            let vote = VoteRecord { term: next.term, voted_for: chance.below(3), committed: false };
            next.vote = Some(vote);
            records.push(Record::Vote(vote));
        }
        1 if !next.entries.is_empty() => {
            let n_kept = chance.below(next.entries.len() as u64 + 1) as usize;
            let from = next.entries.get(n_kept).map_or(next.next_index(), |it| it.id.index);
            next.entries.truncate(n_kept);
            records.push(Record::Truncate { from });
        }
        2 if !next.entries.is_empty() => {
            let n_gone = chance.below(next.entries.len() as u64) as usize;
            let id = next.entries[n_gone].id;
            next.entries.drain(..=n_gone);
            next.purged = Some(id);
            block_on(journal.purge(id))?;
        }
        _ => {
            for _ in 0..=chance.below(6) {
                let entry = entry(next.term, next.next_index());
                next.entries.push(entry.clone());
                records.push(Record::Entry(entry));
            }
        }
    }
    block_on(journal.write(&records))?;
    *ack = next;
    Ok(())
}

fn assert_holds(recovered: &Recovered, ack: &Acknowledged, seed: u64) {
    let entries: Vec<EntryRecord> = recovered.entries.values().cloned().collect();
    assert_eq!(entries, ack.entries, "seed {seed}: acknowledged entries");
    assert_eq!(recovered.vote, ack.vote, "seed {seed}: the vote");
    assert_eq!(recovered.purged, ack.purged, "seed {seed}: the purge mark");
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    for seed in 0..300 {
        let disk = disk(seed);
        let chance = Chance::new(seed, "steps");
        let mut ack = Acknowledged::default();
        for _ in 0..6 {
            let (mut journal, recovered) =
                open(&disk, None).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert_holds(&recovered, &ack, seed);
            for _ in 0..chance.below(25) {
                step(&mut journal, &mut ack, &chance).unwrap();
            }
            disk.crash();
        }
    }
}

#[test]
fn a_batch_whose_sync_failed_is_there_whole_or_not_at_all() {
    let mut n_kept = 0;
    for seed in 0..300 {
        let disk = disk(seed);
        let chance = Chance::new(seed, "steps");
        let mut ack = Acknowledged::default();
        let (mut journal, _) = open(&disk, None).unwrap();
        for _ in 0..chance.below(12) {
            step(&mut journal, &mut ack, &chance).unwrap();
        }
        disk.fail_syncs(1);
        let lost = [entry(ack.term, ack.next_index()), entry(ack.term, ack.next_index() + 1)];
        let records = lost.clone().map(Record::Entry);
        let failed = block_on(journal.write(&records));
        assert!(matches!(failed, Err(JournalError::Io { what: "syncing", .. })), "{failed:?}");
        let after = block_on(journal.write(&[Record::Vote(VoteRecord {
            term: 1_000,
            voted_for: 1,
            committed: false,
        })]));
        assert!(matches!(after, Err(JournalError::Ended)), "a failed sync is never retried");
        disk.crash();
        let (_, recovered) = open(&disk, None).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let entries: Vec<EntryRecord> = recovered.entries.values().cloned().collect();
        let mut with_lost = ack.entries.clone();
        with_lost.extend(lost);
        assert!(entries == ack.entries || entries == with_lost, "seed {seed}: {entries:?}");
        n_kept += usize::from(entries == with_lost);
        assert_eq!(recovered.vote, ack.vote, "seed {seed}");
    }
    assert!(n_kept < 300, "the disk never lost anything: the test shows nothing");
}

#[test]
fn every_write_is_synced_before_it_is_acknowledged() {
    let disk = disk(1);
    let (mut journal, _) = open(&disk, None).unwrap();
    for index in 0..100 {
        let before = disk.syncs();
        block_on(journal.write(&[Record::Entry(entry(1, index))])).unwrap();
        assert!(disk.syncs() > before, "entry {index} was acknowledged without a sync");
    }
}

fn filled(n_entries: u64) -> FaultyDisk {
    let disk = disk(7);
    let (mut journal, _) = open(&disk, None).unwrap();
    for index in 0..n_entries {
        block_on(journal.write(&[Record::Entry(entry(1, index))])).unwrap();
    }
    disk
}

fn segment(seq: u64) -> PathBuf {
    dir().join(format!("{seq:020}.journal"))
}

#[test]
fn a_flipped_bit_in_acknowledged_bytes_is_an_error_that_names_the_place() {
    let n_bytes_used = 2000;
    for offset in (0..n_bytes_used).step_by(37) {
        let disk = filled(60);
        assert!(disk.exists(&segment(2)), "the test needs two segments");
        assert!(disk.flip_bit(&segment(1), offset, 3));
        match open(&disk, None) {
            Err(JournalError::Damaged { path, offset: at, .. }) => {
                assert!(path == segment(1) || path == segment(2), "{}", path.display());
                assert!(at <= offset || path == segment(2), "byte {offset} was named as {at}");
            }
            Err(other) => panic!("byte {offset}: {other}"),
            // Padding is covered by nothing and holds nothing.
            Ok((_, recovered)) => assert_eq!(recovered.entries.len(), 60, "byte {offset}"),
        }
    }
}

#[test]
fn a_missing_segment_is_an_error() {
    let disk = filled(150);
    assert!(disk.exists(&segment(3)), "the test needs three segments");
    disk.remove_file(&segment(2)).unwrap();
    assert!(matches!(open(&disk, None), Err(JournalError::Damaged { .. })));

    let disk = filled(150);
    disk.remove_file(&segment(1)).unwrap();
    assert!(matches!(open(&disk, None), Err(JournalError::Damaged { .. })));
}

#[test]
fn a_log_shorter_than_what_was_applied_durably_is_an_error() {
    let disk = filled(10);
    assert!(open(&disk, Some(9)).is_ok());
    let refused = open(&disk, Some(10)).err();
    assert!(
        matches!(refused, Some(JournalError::Shorter { last: 9, floor: 10, .. })),
        "{refused:?}"
    );
    disk.remove_dir_all(Path::new("/data/journal")).unwrap();
    assert!(matches!(open(&disk, Some(9)), Err(JournalError::Shorter { .. })));
}

#[test]
fn purged_segments_are_used_again() {
    let disk = disk(3);
    let (mut journal, _) = open(&disk, None).unwrap();
    let mut most = 0;
    for index in 0..2000 {
        block_on(journal.write(&[Record::Entry(entry(1, index))])).unwrap();
        if index % 50 == 49 {
            block_on(journal.purge(LogIdRecord { term: 1, index })).unwrap();
        }
        most = most.max(journal.bytes());
    }
    assert!(most <= 6 * SEGMENT_BYTES, "{most} bytes for 50 entries that are kept");
    let names = disk.list(&dir()).unwrap();
    assert!(names.len() <= 6, "{names:?}");
}
