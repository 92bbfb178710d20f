//! The store of this host: one raft replica on the data directory.

use std::sync::Arc;

use anyhow::Context;
use kactor_replica::applied::SledStore;
use kactor_replica::data_dir::{Identity, read_identity};
use kactor_replica::store_actor::{STORE, StoreActor};
use kactor_replica::{NoPeers, Replica, ReplicaConfig};
use kactor_runtime::env::{Env, Lane};
use kactor_runtime::{ActorSystem, Child, Stops};
use kactor_store::Store;

use crate::data_dir::DataDir;

/// The first member of a cluster; later ones are numbered by those that take them in.
pub const FIRST_REPLICA: u64 = 1;

pub struct RunningStore {
    replica: Arc<Replica>,
}

impl RunningStore {
    /// Recovers the store, or begins a new one in an empty directory.
    pub async fn start(env: &Env, dir: &DataDir) -> anyhow::Result<Self> {
        let folder = dir.store();
        let identity = match read_identity(env.disk.as_ref(), &folder)? {
            Some(identity) => identity,
            None => Identity { cluster: env.random_uuid(), replica: FIRST_REPLICA },
        };
        let config = ReplicaConfig::new(identity, folder.clone());
        let applied =
            SledStore::open(&folder.join("applied")).context("opening the applied state")?;
        let replica =
            Replica::start(env.clone(), config, Box::new(applied), Arc::new(NoPeers)).await;
        Ok(Self { replica: Arc::new(replica.context("starting the store")?) })
    }

    pub fn store(&self) -> &Store {
        self.replica.store()
    }

    /// Resolves with the reason when the store can't go on: a failed sync is never retried.
    pub async fn failed(&self) -> String {
        self.replica.failed().await.to_string()
    }

    /// Without supervision: for a command that opens the store of a stopped kactor.
    pub async fn stop(self) {
        self.replica.stop().await;
    }

    /// Puts it under supervision: from now on it stops with the system, after everybody else.
    pub fn supervise(&self, system: &ActorSystem) -> anyhow::Result<()> {
        let replica = self.replica.clone();
        let row = Child::new(STORE, Lane::Control).stops(Stops::Last);
        system.start(row, move || StoreActor::new(replica.clone()))?;
        Ok(())
    }
}
