//! Durable writes per second of one replica, in process, at 1, 64 and 1,000 clients of 512 bytes each.
//!
//! `cargo run --release -p kactor-replica --example writes -- FOLDER`. The network figures are tests/benches'.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::ids::Uid;
use kactor_protocol::store::{Key, Precondition, Propose, Value, Write};
use kactor_protocol::time::Deadline;
use kactor_replica::applied::SledStore;
use kactor_replica::data_dir::Identity;
use kactor_replica::{NoPeers, Replica, ReplicaConfig};
use kactor_runtime::env::{Env, Machine};
use kactor_store::Store;

const RUN: Duration = Duration::from_secs(5);

fn put(client: usize, nth: u64) -> Propose {
    Propose::one(Write::Put {
        key: Key::new("", "bench", "default", &format!("c{client}-{}", nth % 100)).expect("a key"),
        precondition: Precondition::None,
        value: Value {
            storage_version: 1,
            flags: 0,
            uid: Uid::from("u"),
            body: Bytes::from(nth.to_le_bytes().repeat(64)),
        },
        expires_at: None,
    })
}

async fn client(env: &Env, store: &Store, nth: usize) -> u64 {
    let end = env.monotonic() + RUN;
    let mut n_done = 0;
    while env.monotonic() < end {
        let deadline = Deadline::after(env.monotonic(), Duration::from_secs(30));
        store.propose(put(nth, n_done), deadline).await.expect("the write is taken");
        n_done += 1;
    }
    n_done
}

fn main() {
    let folder = std::env::args().nth(1).expect("usage: writes FOLDER");
    let folder = std::path::PathBuf::from(folder);
    let machine = Machine::with_gateway_lanes(1);
    let env = machine.env().clone();
    let bench = async {
        let applied = Box::new(SledStore::open(&folder.join("applied")).expect("sled opens"));
        let identity = Identity { cluster: "bench".into(), replica: 1 };
        let config = ReplicaConfig::new(identity, folder.clone());
        let replica = Replica::start(env.clone(), config, applied, Arc::new(NoPeers)).await;
        let replica = replica.expect("the replica starts");
        let mut leadership = replica.store().leadership();
        while leadership.current().ours.is_none() {
            leadership.changed().await;
        }
        for n_clients in [1, 64, 1000] {
            let syncs = replica.store().status().n_syncs;
            let clients = (0..n_clients).map(|nth| client(&env, replica.store(), nth));
            let done: u64 = futures::future::join_all(clients).await.into_iter().sum();
            let syncs = replica.store().status().n_syncs - syncs;
            println!("{n_clients:>5} clients: {:>8} writes/s, {syncs} syncs", done / RUN.as_secs());
        }
        replica.stop().await;
    };
    machine.block_on(bench).expect("an event loop");
}
