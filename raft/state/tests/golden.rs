//! What stands in logs and snapshots: one encoded example of each command and record, decoded for ever.
//!
//! A file here is never changed. A new variant gets a new file: `UPDATE_GOLDEN=1` writes missing files, no other.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::path::Path;

use bytes::Bytes;
use kactor_protocol::codec;
use kactor_protocol::ids::{Reign, ReplicaId, Revision, TraceId, Uid};
use kactor_protocol::store::{Guard, Key, Precondition, Propose, Value, Write};
use kactor_protocol::time::Timestamp;
use kactor_state::{ClusterState, Command, SnapshotWriter, decode_snapshot};

#[track_caller]
fn bytes_of(name: &str, present: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, present).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn check(name: &str, command: &Command) {
    let present = codec::encode(command).unwrap();
    let bytes = bytes_of(name, &present);
    assert_eq!(Command::decode(&bytes).as_ref(), Ok(command), "{name} reads as something else");
    assert_eq!(present, bytes, "{name} is written otherwise than it was");
}

fn transact() -> Command {
    let key = Key::new("apps", "deployments", "default", "web").unwrap();
    let value = Value {
        storage_version: 1,
        flags: 2,
        uid: Uid::from("u1"),
        body: Bytes::from_static(b"{\"a\":1}"),
    };
    let precondition = Precondition::UidAndRevision(Uid::from("u1"), Revision(7));
    let expires_at = Some(Timestamp(1_700_000_000_000));
    Command::Transact {
        now: Timestamp(1_600_000_000_000),
        propose: Propose {
            reign: Some(Reign(3)),
            guards: vec![Guard::Present {
                key: Key::new("", "namespaces", "", "default").unwrap(),
            }],
            writes: vec![Write::Put { key, precondition, value, expires_at }],
            trace: TraceId(0xfeed),
        },
    }
}

#[test]
fn commands_read_and_write_as_ever() {
    let now = Timestamp(5);
    check("command.transact.bin", &transact());
    check("command.begin-reign.bin", &Command::BeginReign { now, leader: ReplicaId(2) });
    check("command.compact.bin", &Command::Compact { now, revision: Revision(70_000) });
    check("command.set-feature-level.bin", &Command::SetFeatureLevel { now, level: 1 });
    check("command.begin-epoch.bin", &Command::BeginEpoch { now });
}

#[test]
fn a_snapshot_reads_and_writes_as_ever() {
    let mut state = ClusterState::new();
    let key = |name: &str| Key::new("", "pods", "default", name).unwrap();
    let put = |name: &str, body: &'static [u8]| Write::Put {
        key: key(name),
        precondition: Precondition::None,
        value: Value {
            storage_version: 1,
            flags: 0,
            uid: Uid::from("u"),
            body: Bytes::from_static(body),
        },
        expires_at: None,
    };
    let writes = [
        vec![put("a", b"1"), put("b", b"2")],
        vec![put("a", b"3")],
        vec![Write::Delete { key: key("b"), precondition: Precondition::None }],
        vec![Write::Add { key: Key::new("", "counts", "", "n").unwrap(), delta: 5, at_most: None }],
    ];
    for (nth, writes) in writes.into_iter().enumerate() {
        let propose = Propose { writes, ..Propose::one(put("x", b"")) };
        state.apply(nth as u64 + 1, Command::Transact { now: Timestamp(nth as u64), propose });
    }
    let present: Vec<u8> = SnapshotWriter::new(&state).flatten().collect();
    let bytes = bytes_of("snapshot.1.bin", &present);
    assert!(decode_snapshot(&bytes).unwrap() == state);
    assert_eq!(present, bytes);
}
