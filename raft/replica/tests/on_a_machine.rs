//! The replica on the machine's own disk: sled, the lock, snapshots to files.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::ids::{Revision, Uid};
use kactor_protocol::store::{Key, Precondition, Propose, Value, Write};
use kactor_protocol::time::{Deadline, Timestamp};
use kactor_replica::applied::{AppliedStore, SledStore};
use kactor_replica::data_dir::{DataDirError, DirLock, Identity};
use kactor_replica::{NoPeers, Replica, ReplicaConfig, snapshot_file};
use kactor_runtime::env::{Env, Machine};
use kactor_state::Command;
use kactor_store::Store;

fn identity(cluster: &str) -> Identity {
    Identity { cluster: cluster.into(), replica: 1 }
}

async fn start(env: &Env, dir: &Path, cluster: &str) -> Replica {
    let applied = Box::new(SledStore::open(&dir.join("applied")).unwrap());
    let mut config = ReplicaConfig::new(identity(cluster), dir.to_owned());
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

/// Compacts everything and waits for a checkpoint to be on disk.
async fn compact_and_checkpoint(env: &Env, replica: &Replica) {
    let store = replica.store();
    let deadline = Deadline::after(env.monotonic(), Duration::from_secs(60));
    let command = Command::Compact { now: env.wall(), revision: store.revision() };
    store.submit(command, deadline).await.unwrap();
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

#[test]
fn disk_use_stays_bounded_under_churn() {
    let machine = Machine::with_gateway_lanes(1);
    let env = machine.env().clone();
    let folder = tempfile::tempdir().unwrap();
    let (most, live) = machine
        .block_on(async {
            let replica = start(&env, folder.path(), "c1").await;
            let mut most = 0;
            for round in 0..12_u8 {
                for nth in 0..40 {
                    write(&env, replica.store(), &format!("a{nth}"), vec![b'a' + round; 250_000])
                        .await;
                }
                compact_and_checkpoint(&env, &replica).await;
                most = most.max(bytes_under(folder.path()));
            }
            let live = replica.store().table().read().live_bytes();
            replica.stop().await;
            (most, live)
        })
        .unwrap();
    // 120 MB went through it. The constant: journal segments with their spares, sled's slack, and one rewrite.
    println!("live {live} bytes, most on disk {most} bytes");
    assert!(most <= 3 * live + (160 << 20), "{most} bytes on disk for {live} live ones");
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
