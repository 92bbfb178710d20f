//! What stands on disks: one encoded example of each record, decoded for ever. A file here is never changed.
//!
//! A new variant gets a new file: run with `UPDATE_GOLDEN=1`, which writes missing files and touches no other.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kactor_protocol::codec;
use kactor_protocol::ids::{Reign, ReplicaId, Revision};
use kactor_protocol::time::Timestamp;
use kactor_replica::applied::{AppliedMeta, CheckpointRecord};
use kactor_replica::data_dir::Identity;
use kactor_replica::record::{
    EntryRecord, LogIdRecord, MembershipRecord, PayloadRecord, Record, VoteRecord,
};
use kactor_replica::snapshot_file::{Head, KeyFile};
use kactor_state::{Command, MetaRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, codec::encode(value).unwrap()).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value), "{name} reads as something else");
    assert_eq!(codec::encode(value).unwrap(), bytes, "{name} is written otherwise than it was");
}

const ID: LogIdRecord = LogIdRecord { term: 3, index: 300 };
const VOTE: VoteRecord = VoteRecord { term: 3, voted_for: 2, committed: true };

fn membership() -> MembershipRecord {
    MembershipRecord {
        voters: vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1])],
        addresses: BTreeMap::from([(1, "10.0.0.1:6443".into()), (2, String::new())]),
    }
}

#[test]
fn records_of_the_journal_read_and_write_as_ever() {
    let entry = |payload| Record::Entry(EntryRecord { id: ID, payload });
    let command = Command::BeginReign { now: Timestamp(1), leader: ReplicaId(1) };
    check("record.head.bin", &Record::Head { vote: Some(VOTE), purged: Some(ID) });
    check("record.blank.bin", &entry(PayloadRecord::Blank));
    check("record.command.bin", &entry(PayloadRecord::Command(command)));
    check("record.membership.bin", &entry(PayloadRecord::Membership(membership())));
    check("record.vote.bin", &Record::Vote(VOTE));
    check("record.truncate.bin", &Record::Truncate { from: 70_000 });
    check("record.purge.bin", &Record::Purge(ID));
}

#[test]
fn the_applied_meta_row_and_the_identity_read_and_write_as_ever() {
    let state = MetaRecord {
        applied: 300,
        revision: Revision(400),
        compacted: Revision(200),
        reign: Reign(5),
        reign_leader: Some(ReplicaId(2)),
        epoch: 1,
        feature_level: 1,
        marks: vec![(Timestamp(1_000), Revision(10))],
    };
    let meta = AppliedMeta {
        format: 1,
        applied: Some(ID),
        membership_id: Some(ID),
        membership: membership(),
        state,
    };
    check("applied-meta.bin", &meta);
    check("checkpoint.bin", &CheckpointRecord { meta, n_objects: 70_000, sum: u64::MAX - 1 });
    check("identity.bin", &Identity { cluster: "c1".into(), replica: 7 });
}

#[test]
fn the_head_of_a_saved_file_reads_and_writes_as_ever() {
    let key = KeyFile { name: "ca.key".into(), content: bytes::Bytes::from_static(b"key") };
    let head = Head {
        kactor: "0.1.0".into(),
        cluster: "c1".into(),
        saved_at: Timestamp(1_700_000_000_000),
        is_current: true,
        revision: Revision(400),
        n_objects: 70,
        setup: vec![("node".into(), "a".into())],
        keys: vec![key],
    };
    check("snapshot_head.bin", &head);
}
