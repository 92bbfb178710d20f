//! A whole replica — raft, journal, state machine, store — on a simulated host whose power fails at any moment.
//!
//! Asserted after every restart: no acknowledged write is lost, no revision is given twice, and the state's indexes
//! and checksums are those of its objects.

#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is the failure")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::ids::{Revision, Uid};
use kactor_protocol::store::{Key, Precondition, Propose, ProposeError, Value, Write};
use kactor_protocol::time::Deadline;
use kactor_replica::applied::ModelStore;
use kactor_replica::data_dir::Identity;
use kactor_replica::{NoPeers, Replica, ReplicaConfig, StartError};
use kactor_runtime::env::Lane;
use kactor_simulations::{SimHost, World};
use kactor_state::ClusterState;
use kactor_store::Store;

const CLIENTS: u64 = 4;

fn config(cluster: &str) -> ReplicaConfig {
    let identity = Identity { cluster: cluster.into(), replica: 1 };
    let mut config = ReplicaConfig::new(identity, PathBuf::from("/data"));
    config.segment_bytes = 64 << 10;
    config.reserve_bytes = 1 << 20;
    config
}

async fn start(host: &SimHost, applied: &ModelStore) -> Result<Replica, StartError> {
    let applied = Box::new(applied.clone());
    let replica =
        Replica::start(host.env().clone(), config("c1"), applied, Arc::new(NoPeers)).await?;
    let mut leadership = replica.store().leadership();
    while leadership.current().ours.is_none() {
        leadership.changed().await.expect("the replica lives");
    }
    Ok(replica)
}

fn key(nth: u64) -> Key {
    Key::new("", "pods", "default", &format!("p{nth}")).unwrap()
}

fn put(nth: u64, text: &str) -> Write {
    Write::Put {
        key: key(nth),
        precondition: Precondition::None,
        value: Value {
            storage_version: 1,
            flags: 0,
            uid: Uid::from("u"),
            body: Bytes::from(text.to_owned().into_bytes()),
        },
        expires_at: None,
    }
}

/// What clients were told, and what they asked last, by key.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<u64, (Revision, String)>,
    /// The write that was under way when the power failed.
    unknown: BTreeMap<u64, String>,
    n_acknowledged: u64,
    highest: Revision,
}

fn client(
    host: &SimHost,
    store: Store,
    told: Arc<Mutex<Told>>,
    nth: u64,
    chance: kactor_simulations::Chance,
) {
    let env = host.env().clone();
    host.env().spawn(Lane::Control, async move {
        for round in 0.. {
            let which = nth + CLIENTS * chance.below(4);
            let text = format!("{nth}-{round}-{}", "x".repeat(chance.below(2000) as usize));
            told.lock().unwrap().unknown.insert(which, text.clone());
            let deadline = Deadline::after(env.monotonic(), Duration::from_secs(5));
            let answer = store.propose(Propose::one(put(which, &text)), deadline).await;
            if let Ok(committed) = answer {
                let mut told = told.lock().unwrap();
                let revision = committed.outcomes[0].revision;
                assert!(revision > told.acknowledged.get(&which).map_or(Revision::ZERO, |it| it.0));
                told.acknowledged.insert(which, (revision, text));
                told.unknown.remove(&which);
                told.n_acknowledged += 1;
                told.highest = told.highest.max(revision);
            }
            env.sleep(Duration::from_millis(chance.below(4))).await;
        }
    });
}

/// From now on what was found counts as acknowledged: it was read.
fn check(store: &Store, told: &mut Told, seed: u64) {
    for (which, (revision, text)) in &mut told.acknowledged {
        let found = store.get(&key(*which));
        let found = found.unwrap_or_else(|| panic!("seed {seed}: p{which} is lost"));
        let body = String::from_utf8(found.value.body.to_vec()).unwrap();
        if body == *text {
            assert_eq!(found.modified, *revision, "seed {seed}: p{which} has another revision");
        } else {
            assert_eq!(told.unknown.get(which), Some(&body), "seed {seed}: p{which} went back");
            assert!(found.modified > *revision, "seed {seed}: p{which} reused a revision");
        }
        (*revision, *text) = (found.modified, body);
    }
    assert!(store.revision() >= told.highest, "seed {seed}: the revision went back");
    let state = store.table().read();
    let rebuilt = ClusterState::from_records(state.meta_record(), state.version_records()).unwrap();
    assert!(rebuilt == *state, "seed {seed}: an index or sum is wrong");
}

fn crash_and_restart(seed: u64) -> u64 {
    World::run(seed, |world| async move {
        let host: Rc<SimHost> = world.host("n1");
        let applied = ModelStore::default();
        let chance = world.chance("test");
        let mut told = Told::default();
        let mut n_acknowledged = 0;
        let mut reign = 0;
        for _ in 0..4 {
            host.disk().set_sync_time(Duration::from_micros(chance.below(3000)));
            let replica =
                start(&host, &applied).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            check(replica.store(), &mut told, seed);
            assert!(replica.store().reign().0 > reign, "seed {seed}: a reign came again");
            reign = replica.store().reign().0;
            let shared = Arc::new(Mutex::new(Told { unknown: BTreeMap::new(), ..told }));
            for nth in 0..CLIENTS {
                client(&host, replica.store().clone(), shared.clone(), nth, chance.clone());
            }
            world.sleep(Duration::from_millis(20 + chance.below(200))).await;
            if chance.happens(50) {
                // The power may fail before, while or after it is written.
                let pause = world.sleep(Duration::from_millis(chance.below(20)));
                let (checkpoint, pause) = (pin!(replica.checkpoint()), pin!(pause));
                futures::future::select(checkpoint, pause).await;
            }
            host.crash().await;
            drop(replica);
            told = std::mem::take(&mut *shared.lock().unwrap());
            n_acknowledged += told.n_acknowledged;
            told.n_acknowledged = 0;
        }
        n_acknowledged
    })
}

#[test]
fn no_acknowledged_write_is_lost_whenever_the_power_fails() {
    let total: u64 = (0..100).map(crash_and_restart).sum();
    assert!(total > 5_000, "only {total} writes were acknowledged: the test shows little");
}

#[test]
fn each_acknowledged_write_waited_for_a_sync_of_its_own_or_one_shared() {
    World::run(7, |world| async move {
        let host = world.host("n1");
        let replica = start(&host, &ModelStore::default()).await.unwrap();
        let deadline = Deadline(u64::MAX >> 1);
        for nth in 0..50 {
            let before = host.disk().syncs();
            replica.store().propose(Propose::one(put(nth, "x")), deadline).await.unwrap();
            assert!(host.disk().syncs() > before, "write {nth} was acknowledged before its sync");
        }
        // Sixty at once share syncs, and all of them waited for one.
        host.disk().set_sync_time(Duration::from_millis(5));
        let before = (host.disk().syncs(), world.now());
        let many =
            (0..60).map(|nth| replica.store().propose(Propose::one(put(nth, "y")), deadline));
        for answer in futures::future::join_all(many).await {
            answer.unwrap();
        }
        let n_syncs = host.disk().syncs() - before.0;
        assert!((1..20).contains(&n_syncs), "{n_syncs} syncs for sixty writes at once");
        assert!(world.now() - before.1 >= Duration::from_millis(5));
    });
}

#[test]
fn an_idle_replica_syncs_nothing() {
    World::run(3, |world| async move {
        let host = world.host("n1");
        let replica = start(&host, &ModelStore::default()).await.unwrap();
        world.sleep(Duration::from_secs(5)).await;
        let before = host.disk().syncs();
        world.sleep(Duration::from_secs(60)).await;
        assert_eq!(host.disk().syncs(), before);
        assert!(replica.store().leadership().current().ours.is_some());
    });
}

#[test]
fn a_failed_sync_ends_the_replica_and_acknowledges_nothing() {
    World::run(5, |world| async move {
        let host = world.host("n1");
        let replica = start(&host, &ModelStore::default()).await.unwrap();
        host.disk().fail_syncs(1);
        let deadline = Deadline::after(host.env().monotonic(), Duration::from_secs(5));
        let refused = replica.store().propose(Propose::one(put(1, "x")), deadline).await;
        assert!(refused.as_ref().is_err_and(ProposeError::outcome_is_unknown), "{refused:?}");
        let error = replica.failed().await;
        assert!(error.to_string().contains("/data/journal"), "{error}");
        let again = replica.store().propose(Propose::one(put(2, "x")), deadline).await;
        assert_eq!(again, Err(ProposeError::Stopped));
    });
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_reading() {
    World::run(6, |world| async move {
        let host = world.host("n1");
        let replica = start(&host, &ModelStore::default()).await.unwrap();
        let store = replica.store();
        let deadline = Deadline(u64::MAX >> 1);
        store.propose(Propose::one(put(1, "x")), deadline).await.unwrap();
        host.disk().set_capacity(600 << 10);
        world.sleep(Duration::from_secs(1)).await;
        let refused = store.propose(Propose::one(put(2, "x")), deadline).await;
        assert_eq!(refused, Err(ProposeError::Full));
        assert!(store.get(&key(1)).is_some());
        store.read_index(deadline).await.unwrap();
        let trouble = store.status().trouble.unwrap_or_default();
        assert!(trouble.contains("almost full"), "{trouble:?}");
        host.disk().set_capacity(1 << 40);
        world.sleep(Duration::from_secs(1)).await;
        store.propose(Propose::one(put(2, "x")), deadline).await.unwrap();
    });
}

#[test]
fn a_directory_of_another_cluster_is_refused_and_not_touched() {
    World::run(8, |world| async move {
        let host = world.host("n1");
        let replica = start(&host, &ModelStore::default()).await.unwrap();
        replica.stop().await;
        let before = host.disk().syncs();
        let applied = Box::new(ModelStore::default());
        let other =
            Replica::start(host.env().clone(), config("c2"), applied, Arc::new(NoPeers)).await;
        let error = other.err().expect("refused").to_string();
        assert!(error.contains("belongs to cluster c1"), "{error}");
        assert_eq!(host.disk().syncs(), before);
    });
}
