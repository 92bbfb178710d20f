//! The replica on the machine's own disk: sled, the lock, snapshots to files.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::ids::{Revision, Uid};
use kactor_protocol::store::{Key, Precondition, Propose, ProposeError, Value, Write};
use kactor_protocol::time::{Deadline, Timestamp};
use kactor_replica::applied::{AppliedError, AppliedMeta, AppliedStore, Loaded, Rows, SledStore};
use kactor_replica::data_dir::{DataDirError, DirLock, Identity};
use kactor_replica::{NoPeers, Replica, ReplicaConfig, snapshot_file};
use kactor_runtime::env::{Env, Machine};
use kactor_state::{ClusterState, Command, RangeSum};
use kactor_store::Store;

fn identity(cluster: &str) -> Identity {
    Identity { cluster: cluster.into(), replica: 1 }
}

async fn start(env: &Env, dir: &Path, cluster: &str) -> Replica {
    let applied = Box::new(SledStore::open(&dir.join("applied")).unwrap());
    let config = ReplicaConfig::new(identity(cluster), dir.to_owned());
    started(env, config, applied).await
}

/// With a small journal.
async fn start_with(env: &Env, dir: &Path, applied: Box<dyn AppliedStore>) -> Replica {
    let mut config = ReplicaConfig::new(identity("c1"), dir.to_owned());
    config.segment_bytes = SEGMENT_BYTES;
    started(env, config, applied).await
}

async fn started(env: &Env, mut config: ReplicaConfig, applied: Box<dyn AppliedStore>) -> Replica {
    config.reserve_bytes = 1 << 20;
    let replica = Replica::start(env.clone(), config, applied, Arc::new(NoPeers)).await.unwrap();
    let mut leadership = replica.store().leadership();
    while leadership.current().ours.is_none() {
        leadership.changed().await.unwrap();
    }
    replica
}

fn put(name: &str, body: Vec<u8>) -> Write {
    Write::Put {
        key: Key::new("", "configmaps", "default", name).unwrap(),
        precondition: Precondition::None,
        value: Value { storage_version: 1, flags: 0, uid: Uid::from("u"), body: Bytes::from(body) },
        expires_at: None,
    }
}

async fn write(env: &Env, store: &Store, name: &str, body: Vec<u8>) {
    let deadline = Deadline::after(env.monotonic(), Duration::from_secs(60));
    store.propose(Propose::one(put(name, body)), deadline).await.unwrap();
}

async fn wait_until(env: &Env, mut holds: impl FnMut() -> bool) {
    while !holds() {
        env.sleep(Duration::from_millis(10)).await;
    }
}

async fn compact(env: &Env, replica: &Replica) {
    let store = replica.store();
    let deadline = Deadline::after(env.monotonic(), Duration::from_secs(60));
    let command = Command::Compact { now: env.wall(), revision: store.revision() };
    store.submit(command, deadline).await.unwrap();
}

/// Compacts everything and waits for a checkpoint to be on disk.
async fn compact_and_checkpoint(env: &Env, replica: &Replica) {
    compact(env, replica).await;
    replica.checkpoint().await.unwrap();
}

#[test]
fn a_restart_reads_the_checkpoint_and_the_journals_tail() {
    let machine = Machine::with_gateway_lanes(1);
    let env = machine.env().clone();
    let folder = tempfile::tempdir().unwrap();
    machine
        .block_on(async {
            let replica = start(&env, folder.path(), "c1").await;
            for nth in 0..200 {
                write(&env, replica.store(), &format!("a{nth}"), vec![b'x'; 100]).await;
            }
            compact_and_checkpoint(&env, &replica).await;
            for nth in 0..50 {
                write(&env, replica.store(), &format!("b{nth}"), vec![b'y'; 200_000]).await;
            }
            let before = replica.store().table().read().clone();
            replica.stop().await;
            // sled's threads keep its file locked for a moment; only tests open a database twice in one process.
            let applied = folder.path().join("applied");
            wait_until(&env, || SledStore::open(&applied).is_ok()).await;
            let replica = start(&env, folder.path(), "c1").await;
            let after = replica.store().table().read().clone();
            assert_eq!(after.revision(), before.revision());
            assert_eq!(after.checksums(), before.checksums());
            assert!(after.reign() > before.reign());
            replica.stop().await;
        })
        .unwrap();
}

/// Small, so that its bounds are met after few writes.
const SEGMENT_BYTES: u64 = 2 << 20;
/// The journal's bound (eight full segments, the one that is written, two spares), and one that is being made.
const JOURNAL_BYTES_MAX: u64 = 12 * SEGMENT_BYTES;

/// Nobody waits for a checkpoint here: bytes alone make them due.
#[test]
fn disk_use_stays_bounded_under_churn() {
    let machine = Machine::with_gateway_lanes(1);
    let env = machine.env().clone();
    let folder = tempfile::tempdir().unwrap();
    let (most, live) = machine
        .block_on(async {
            let applied = Box::new(SledStore::open(&folder.path().join("applied")).unwrap());
            let replica = start_with(&env, folder.path(), applied).await;
            let mut most = 0;
            for round in 0..24_u8 {
                for nth in 0..40 {
                    write(&env, replica.store(), &format!("a{nth}"), vec![b'a' + round; 250_000])
                        .await;
                    most = most.max(bytes_under(folder.path()));
                }
                compact(&env, &replica).await;
            }
            let live = replica.store().table().read().live_bytes();
            replica.stop().await;
            (most, live)
        })
        .unwrap();
    // 240 MB went through it. The constant: the journal, the past of one round, sled's slack of 32 MiB, and one rewrite.
    println!("live {live} bytes, most on disk {most} bytes");
    assert!(most <= 3 * live + (160 << 20), "{most} bytes on disk for {live} live ones");
}

/// An applied store whose disk stands still until it is let go.
struct Gated {
    store: SledStore,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Gated {
    fn pass(&self) {
        let (open, told) = &*self.gate;
        drop(told.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
    }
}

impl AppliedStore for Gated {
    fn load(&mut self) -> Result<Option<Loaded>, AppliedError> {
        self.store.load()
    }

    fn checkpoint(
        &mut self,
        rows: &Rows,
        meta: &AppliedMeta,
        sum: RangeSum,
    ) -> Result<(), AppliedError> {
        self.pass();
        self.store.checkpoint(rows, meta, sum)
    }

    fn replace(&mut self, state: &ClusterState, meta: &AppliedMeta) -> Result<(), AppliedError> {
        self.pass();
        self.store.replace(state, meta)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.store.bytes_on_disk()
    }
}

async fn try_write(env: &Env, store: &Store, name: &str) -> Result<(), ProposeError> {
    let deadline = Deadline::after(env.monotonic(), Duration::from_secs(1));
    store.propose(Propose::one(put(name, vec![b'x'; 100_000])), deadline).await.map(drop)
}

#[test]
fn writes_wait_for_a_slow_checkpoint_and_the_journal_takes_only_so_much() {
    let machine = Machine::with_gateway_lanes(1);
    let env = machine.env().clone();
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let journal = folder.path().join("journal");
    machine
        .block_on(async {
            let store = SledStore::open(&folder.path().join("applied")).unwrap();
            let applied = Box::new(Gated { store, gate: gate.clone() });
            let replica = start_with(&env, folder.path(), applied).await;
            let store = replica.store();
            let mut n_written = 0;
            let refused = loop {
                assert!(n_written < 400, "the journal takes everything");
                match try_write(&env, store, &format!("a{n_written}")).await {
                    Ok(()) => n_written += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(refused, ProposeError::Overloaded);
            assert!(!refused.outcome_is_unknown(), "what waited for room was not proposed");
            assert!(n_written > 100, "only {n_written} writes were taken");
            assert!(bytes_under(&journal) <= JOURNAL_BYTES_MAX, "{}", bytes_under(&journal));
            let trouble = store.status().trouble.unwrap_or_default();
            assert!(trouble.contains("disk is slow"), "{trouble:?}");
            let key = |nth| Key::new("", "configmaps", "default", &format!("a{nth}")).unwrap();
            assert!(store.get(&key(0)).is_some(), "reads go on");
            assert!(store.get(&key(n_written)).is_none(), "what was refused is not there");
            *gate.0.lock().unwrap() = true;
            gate.1.notify_all();
            while try_write(&env, store, "after").await == Err(ProposeError::Overloaded) {}
            assert_eq!(store.status().trouble, None);
            let before = store.table().read().checksums().clone();
            replica.stop().await;
            wait_until(&env, || SledStore::open(&folder.path().join("applied")).is_ok()).await;
            let replica = start(&env, folder.path(), "c1").await;
            assert_eq!(*replica.store().table().read().checksums(), before);
            replica.stop().await;
        })
        .unwrap();
}

fn bytes_under(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|it| match it.metadata() {
            Ok(meta) if meta.is_dir() => bytes_under(&it.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0, // Removed meanwhile.
        })
        .sum()
}

fn head() -> snapshot_file::Head {
    snapshot_file::Head {
        kactor: "0.1.0".into(),
        cluster: "c1".into(),
        saved_at: Timestamp(1),
        is_current: true,
        revision: Revision(0),
        n_objects: 0,
        setup: Vec::new(),
        keys: Vec::new(),
    }
}

#[test]
fn a_restored_snapshot_begins_a_new_epoch() {
    let machine = Machine::with_gateway_lanes(1);
    let env = machine.env().clone();
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let file = folder.path().join("state.snapshot");
    machine
        .block_on(async {
            let replica = start(&env, &old, "c1").await;
            write(&env, replica.store(), "a", b"{}".to_vec()).await;
            let table = replica.store().table().clone();
            let before = table.read().clone();
            let saved: Vec<u8> =
                snapshot_file::chunks(head(), &before).flat_map(|it| it.to_vec()).collect();
            std::fs::write(&file, saved).unwrap();
            replica.stop().await;
            {
                let mut applied = SledStore::open(&new.join("applied")).unwrap();
                let identity = identity("c2");
                let (_, state) = snapshot_file::read(env.disk.as_ref(), &file).unwrap();
                snapshot_file::restore(&env, state, &new, &identity, &mut applied).await.unwrap();
                assert!(applied.load().unwrap().is_some());
            }
            let replica = start(&env, &new, "c2").await;
            let store = replica.store();
            let key = Key::new("", "configmaps", "default", "a").unwrap();
            assert!(store.get(&key).is_some());
            assert!(store.revision().0 >= before.revision().0 + 1_000_000_000);
            assert!(store.watch("", before.revision()).is_err(), "old watchers list anew");
            assert!(store.reign() > before.reign());
            write(&env, store, "b", b"{}".to_vec()).await;
            replica.stop().await;
        })
        .unwrap();
}

#[test]
fn two_processes_cannot_use_one_directory() {
    let folder = tempfile::tempdir().unwrap();
    let held = DirLock::take(folder.path()).unwrap();
    assert!(matches!(DirLock::take(folder.path()), Err(DataDirError::InUse { .. })));
    drop(held);
    assert!(DirLock::take(folder.path()).is_ok());
}

/// The last revision there is: the next one can't be counted, so no entry after it can be applied.
#[test]
fn an_entry_that_cannot_be_applied_stops_the_replica_before_it_and_is_named() {
    let machine = Machine::with_gateway_lanes(1);
    let env = machine.env().clone();
    let folder = tempfile::tempdir().unwrap();
    machine
        .block_on(async {
            let replica = start(&env, folder.path(), "c1").await;
            write(&env, replica.store(), "a", b"{}".to_vec()).await;
            let mut meta = replica.store().table().read().meta_record();
            meta.revision = Revision(u64::MAX);
            let rows: Vec<_> = replica.store().table().read().version_records().collect();
            let end = kactor_state::ClusterState::from_records(meta, rows).unwrap();
            replica.store().table().install(end);
            let deadline = Deadline::after(env.monotonic(), Duration::from_secs(60));
            let refused = replica.store().propose(Propose::one(put("b", b"{}".to_vec())), deadline);
            assert!(refused.await.is_err());
            let status = replica.store().status();
            let stopped = status.stopped.expect("it names the entry");
            assert_eq!(stopped.index, status.applied_index + 1);
            assert!(status.trouble.unwrap().contains(&format!("before entry {}", stopped.index)));
            let key = Key::new("", "configmaps", "default", "a").unwrap();
            assert!(replica.store().get(&key).is_some(), "reads go on");
            replica.stop().await;
        })
        .unwrap();
}
