//! A saved file reads as what was saved, and nothing else reads as a file.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use kactor_protocol::ids::Uid;
use kactor_protocol::store::{Key, Precondition, Propose, Value, Write};
use kactor_runtime::env::Env;

use super::*;

fn head() -> Head {
    Head {
        kactor: "0.1.0".into(),
        cluster: "c1".into(),
        saved_at: Timestamp(1),
        is_current: true,
        revision: Revision(0),
        n_objects: 0,
        setup: vec![("node".into(), "a".into())],
        keys: vec![KeyFile { name: "ca.key".into(), content: Bytes::from_static(b"PRIVATE") }],
    }
}

fn state(n_objects: usize) -> ClusterState {
    let mut state = ClusterState::new();
    for nth in 0..n_objects {
        let write = Write::Put {
            key: Key::new("", "configmaps", "default", &format!("c{nth}")).unwrap(),
            precondition: Precondition::None,
            value: Value {
                storage_version: 1,
                flags: 0,
                uid: Uid::from("u"),
                body: Bytes::from(vec![b'x'; 300]),
            },
            expires_at: None,
        };
        let propose = Propose::one(write);
        state.apply(nth as u64 + 1, Command::Transact { now: Timestamp(1), propose });
    }
    state
}

fn file(state: &ClusterState) -> Vec<u8> {
    chunks(head(), state).flat_map(|it| it.to_vec()).collect()
}

fn read_bytes(bytes: &[u8]) -> Result<(Taken, ClusterState), SnapshotFileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, bytes).unwrap();
    read(Env::machine().disk.as_ref(), &path)
}

#[test]
fn what_was_saved_is_read_and_the_head_counts_it() {
    let state = state(2000);
    let bytes = file(&state);
    let (taken, read) = read_bytes(&bytes).unwrap();
    assert_eq!(read, state);
    assert_eq!((taken.head.revision.0, taken.head.n_objects), (2000, 2000));
    assert_eq!(taken.head.keys, head().keys);
    assert_eq!(taken.n_bytes, bytes.len() as u64);
    assert!(!format!("{:?}", taken.head).contains("PRIVATE"), "a key in a debug text");
}

#[test]
fn an_intake_does_not_care_how_its_bytes_are_cut() {
    let bytes = file(&state(3));
    for size in [1, 7, 33, 4096] {
        let mut intake = Intake::default();
        let state: Vec<u8> =
            bytes.chunks(size).flat_map(|it| intake.push(it).unwrap().to_vec()).collect();
        assert_eq!(intake.finish().unwrap().head.n_objects, 3);
        assert!(state.starts_with(b"KACTSNAP"));
    }
}

#[test]
fn no_cut_file_and_no_file_with_a_flipped_bit_is_taken() {
    let bytes = file(&state(3));
    for end in 0..bytes.len() {
        assert!(read_bytes(&bytes[..end]).is_err(), "cut after {end} bytes of {}", bytes.len());
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(read_bytes(&flipped).is_err(), "a bit of byte {at} flipped");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(read_bytes(&longer).is_err(), "a byte too many");
}

#[test]
fn a_refusal_says_what_the_file_is_instead() {
    let said = |bytes: &[u8]| match read_bytes(bytes) {
        Err(SnapshotFileError::Content { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    };
    let bytes = file(&state(3));
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert_eq!(said(&newer), "it has format 9, this kactor reads up to 1: use the newer kactor");
    assert_eq!(said(b"apiVersion: v1\nkind: List\n"), "this is no kactor snapshot");
    let half = bytes.len() / 2;
    assert_eq!(
        said(&bytes[..half]),
        format!("it ends after {half} bytes, before its end: it was not copied whole")
    );
}
