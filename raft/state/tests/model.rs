//! The table against a naive model: a list of whole states, one per revision.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::collections::BTreeMap;

use bytes::Bytes;
use kactor_protocol::ids::{Reign, ReplicaId, Revision, TraceId, Uid};
use kactor_protocol::store::{Guard, Key, Precondition, Propose, Value, Write};
use kactor_protocol::time::Timestamp;
use kactor_state::{
    ClusterState, Command, Outcome, SnapshotError, SnapshotWriter, Stored, decode_snapshot,
};
use proptest::prelude::*;

fn key(nth: u8) -> Key {
    Key::new("", if nth.is_multiple_of(2) { "pods" } else { "nodes" }, "ns", &format!("k{nth}"))
        .unwrap()
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        4 => Just(Precondition::None),
        2 => Just(Precondition::Absent),
        1 => (0..30_u64).prop_map(|it| Precondition::Revision(Revision(it))),
        1 => (0..3_u8).prop_map(|it| Precondition::Uid(uid(it))),
        1 => (0..3_u8, 0..30_u64).prop_map(|(u, r)| Precondition::UidAndRevision(uid(u), Revision(r))),
    ]
}

fn uid(nth: u8) -> Uid {
    Uid::from(format!("u{nth}"))
}

fn write() -> impl Strategy<Value = Write> {
    let put = (0..6_u8, precondition(), 0..3_u8, 0..3_u8, prop::option::of(0..50_u64)).prop_map(
        |(k, precondition, u, body, expires)| Write::Put {
            key: key(k),
            precondition,
            value: Value {
                storage_version: 1,
                flags: 0,
                uid: uid(u),
                body: Bytes::from(vec![body; usize::from(body) + 1]),
            },
            expires_at: expires.map(Timestamp),
        },
    );
    prop_oneof![
        6 => put,
        3 => (0..6_u8, precondition()).prop_map(|(k, precondition)| Write::Delete { key: key(k), precondition }),
        1 => (0..8_u8).prop_map(|k| Write::Touch { key: key(k) }),
        2 => (6..8_u8, any::<i64>(), prop::option::of(any::<i64>())).prop_map(|(k, delta, at_most)| Write::Add { key: key(k), delta, at_most }),
        2 => (6..8_u8, -3..4_i64, Just(Some(5))).prop_map(|(k, delta, at_most)| Write::Add { key: key(k), delta, at_most }),
    ]
}

fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        (0..8_u8).prop_map(|k| Guard::Present { key: key(k) }),
        (0..8_u8).prop_map(|k| Guard::Absent { key: key(k) }),
        (0..8_u8, 0..30_u64)
            .prop_map(|(k, r)| Guard::Revision { key: key(k), revision: Revision(r) }),
        (6..8_u8, 0..5_i64).prop_map(|(k, value)| Guard::AtMost { key: key(k), value }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let transact = (
        prop::option::weighted(0.1, 0..3_u64),
        prop::collection::vec(guard(), 0..2),
        prop::collection::vec(write(), 0..4),
        0..100_000_u64,
    )
        .prop_map(|(reign, guards, writes, now)| Command::Transact {
            now: Timestamp(now),
            propose: Propose { reign: reign.map(Reign), guards, writes, trace: TraceId::NONE },
        });
    prop_oneof![
        20 => transact,
        1 => any::<u64>().prop_map(|now| Command::BeginReign { now: Timestamp(now), leader: ReplicaId(1) }),
        2 => (any::<u64>(), 0..60_u64).prop_map(|(now, r)| Command::Compact { now: Timestamp(now), revision: Revision(r) }),
        1 => any::<u32>().prop_map(|level| Command::SetFeatureLevel { now: Timestamp(0), level }),
    ]
}

type Objects = BTreeMap<Key, Stored>;

/// The state after every revision, rebuilt from the changes alone.
fn follow(commands: &[Command]) -> (ClusterState, BTreeMap<Revision, Objects>) {
    let mut state = ClusterState::new();
    let mut past = BTreeMap::from([(Revision::ZERO, Objects::new())]);
    let mut objects = Objects::new();
    for (nth, command) in commands.iter().enumerate() {
        let before = state.revision();
        let applied = state.apply(nth as u64 + 1, command.clone());
        let mut expected = before;
        for change in &applied.changes {
            expected = expected.next();
            assert_eq!(change.revision, expected, "one revision per changed object");
            assert_eq!(
                change.previous.as_ref(),
                objects.get(&change.key),
                "previous is what stood"
            );
            match &change.current {
                Some(it) => drop(objects.insert(change.key.clone(), it.clone())),
                None => drop(objects.remove(&change.key)),
            }
            past.insert(change.revision, objects.clone());
        }
        assert_eq!(state.revision(), expected);
        if let Outcome::Refused(_) = applied.outcome {
            assert!(applied.changes.is_empty(), "a refused transaction changes nothing");
        }
    }
    (state, past)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_retained_revision_reads_as_it_was(commands in prop::collection::vec(command(), 0..60)) {
        let (state, past) = follow(&commands);
        for (revision, objects) in &past {
            let page = state.range("", None, usize::MAX, Some(*revision));
            if *revision < state.compacted() {
                prop_assert!(page.is_err());
                continue;
            }
            let items: Vec<Stored> = objects.values().cloned().collect();
            prop_assert_eq!(page.unwrap().items, items);
            for nth in 0..8 {
                let found = state.get_at(&key(nth), *revision).unwrap();
                prop_assert_eq!(found, objects.get(&key(nth)));
            }
        }
    }

    #[test]
    fn a_watch_from_any_retained_revision_replays_to_the_present(commands in prop::collection::vec(command(), 0..60)) {
        let (state, past) = follow(&commands);
        let present = &past[&state.revision()];
        for (revision, objects) in past.range(state.compacted()..) {
            let mut replayed = objects.clone();
            for change in state.changes_after(*revision, usize::MAX).unwrap() {
                prop_assert_eq!(change.previous.as_ref(), replayed.get(&change.key));
                match change.current {
                    Some(it) => drop(replayed.insert(change.key, it)),
                    None => drop(replayed.remove(&change.key)),
                }
            }
            prop_assert_eq!(&replayed, present);
        }
    }

    #[test]
    fn equal_logs_give_equal_states_and_a_snapshot_is_the_state(commands in prop::collection::vec(command(), 0..60)) {
        let (state, _) = follow(&commands);
        let (again, _) = follow(&commands);
        prop_assert!(state == again);
        let bytes: Vec<u8> = SnapshotWriter::new(&state).flatten().collect();
        let back = decode_snapshot(&bytes).unwrap();
        prop_assert!(back == state);
        prop_assert_eq!(decode_snapshot(&bytes[..bytes.len() - 1]).err().map(|it| matches!(it, SnapshotError::Cut { .. })), Some(true));
    }

    #[test]
    fn a_retried_transaction_changes_nothing(commands in prop::collection::vec(command(), 0..30), create in 0..6_u8) {
        let (mut state, _) = follow(&commands);
        let value = Value { storage_version: 1, flags: 0, uid: Uid::from("fresh"), body: Bytes::from_static(b"{}") };
        let propose = Propose {
            reign: None,
            guards: Vec::new(),
            writes: vec![
                Write::Put { key: Key::new("", "new", "ns", &format!("n{create}")).unwrap(), precondition: Precondition::Absent, value, expires_at: None },
                Write::Add { key: Key::new("", "quota", "ns", "q").unwrap(), delta: 1, at_most: Some(1) },
            ],
            trace: TraceId::NONE,
        };
        let command = Command::Transact { now: Timestamp(0), propose };
        let Outcome::Committed(first) = state.apply(1000, command.clone()).outcome else { panic!("fresh keys") };
        let second = state.apply(1001, command);
        prop_assert!(second.changes.is_empty());
        let Outcome::Committed(second) = second.outcome else { panic!("a retry is committed") };
        prop_assert_eq!(first.outcomes[0].revision, second.outcomes[0].revision);
    }

    #[test]
    fn no_bytes_make_a_snapshot_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let _ = decode_snapshot(&bytes);
        let _ = Command::decode(&bytes);
        let (state, _) = follow(&[Command::BeginReign { now: Timestamp(1), leader: ReplicaId(1) }]);
        let mut whole: Vec<u8> = SnapshotWriter::new(&state).flatten().collect();
        let intact = whole.clone();
        for (at, byte) in flips {
            let at = at.index(whole.len());
            whole[at] ^= byte;
        }
        prop_assert_eq!(decode_snapshot(&whole).is_ok(), whole == intact);
    }
}

#[test]
fn a_newer_snapshot_is_refused_by_its_format() {
    let mut bytes: Vec<u8> = SnapshotWriter::new(&ClusterState::new()).flatten().collect();
    bytes[8] = 2;
    assert_eq!(decode_snapshot(&bytes).err(), Some(SnapshotError::Newer { found: 2 }));
}

#[test]
fn an_epoch_compacts_all_history_and_jumps() {
    let mut state = ClusterState::new();
    let put = Write::Put {
        key: key(0),
        precondition: Precondition::Absent,
        value: Value { storage_version: 1, flags: 0, uid: uid(1), body: Bytes::from_static(b"{}") },
        expires_at: None,
    };
    state.apply(1, Command::Transact { now: Timestamp(0), propose: Propose::one(put) });
    let applied = state.apply(2, Command::BeginEpoch { now: Timestamp(0) });
    assert_eq!(
        applied.outcome,
        Outcome::EpochBegan { epoch: 1, revision: Revision(1_000_000_001) }
    );
    assert_eq!((state.compacted(), state.reign()), (Revision(1_000_000_001), Reign(1)));
    assert!(state.changes_after(Revision(1), 1).is_err());
    assert!(state.get(&key(0)).is_some());
}
