//! Several sled stores at work in one process: sled 0.34 keeps locks and deferred work for the whole process, and
//! databases were seen to stand still on each other.
//!
//! Whether they still do can't be shown by waiting for ever: a watchdog with far more patience than the work needs ends
//! the test instead. It judges progress, not speed.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::life::Life;
use crate::applied::{AppliedStore, SledStore};

const STORES: u64 = 4;
const ROUNDS: u64 = 12;
/// Between two rounds of any store. The work itself takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A database that was dropped keeps its file locked until sled's threads let go of it; a process never does this.
fn open_again(folder: &Path) -> SledStore {
    loop {
        match SledStore::open(folder) {
            Ok(store) => return store,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                assert!(cause.unwrap_or_default().contains("could not acquire lock"), "{error}");
                std::thread::yield_now();
            }
        }
    }
}

/// Opens, fills, rewrites, closes and reads back one store, again and again.
fn live_and_die(folder: &Path, seed: u64, round_done: &dyn Fn()) {
    let mut life = Life::new(seed);
    let mut store = SledStore::open(folder).unwrap();
    for round in 0..ROUNDS {
        for _ in 0..3 {
            life.work(40);
            let (rows, meta) = life.checkpoint();
            store.checkpoint(&rows, &meta, life.state().checksum()).unwrap();
        }
        if round % 3 == seed % 3 {
            store.replace(life.state(), &life.meta()).unwrap();
        }
        drop(store);
        store = open_again(folder);
        let loaded = store.load().unwrap().expect("a checkpoint was made");
        assert!(loaded.state == *life.state(), "seed {seed}, round {round}");
        round_done();
    }
}

#[test]
fn stores_in_one_process_never_wait_for_each_other_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (send, rounds) = sync_channel(64);
    for seed in 0..STORES {
        let (send, folder) = (send.clone(), folder.path().join(format!("s{seed}")));
        #[expect(
            clippy::disallowed_methods,
            reason = "no Env stands between sled and its threads"
        )]
        std::thread::spawn(move || live_and_die(&folder, seed, &|| send.send(()).unwrap()));
    }
    drop(send);
    for nth in 0..STORES * ROUNDS {
        match rounds.recv_timeout(PATIENCE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => panic!("the stores stand still after {nth} rounds"),
            Err(RecvTimeoutError::Disconnected) => panic!("a store failed after {nth} rounds"),
        }
    }
}
