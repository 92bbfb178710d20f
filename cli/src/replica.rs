//! The store of this host: one raft replica on the data directory.
//!
//! Whose directory it is, and which format it has, is looked at before anything is opened or made: a directory that is
//! refused is left as it was, to the byte. The keys in `pki/` name the cluster too, because a store and the keys of
//! different clusters would be a cluster whose Secrets nobody can read.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use kactor_cluster::host::FIRST_REPLICA;
use kactor_protocol::ids::ReplicaId;
use kactor_replica::applied::SledStore;
use kactor_replica::data_dir::{DirLock, Identity, read_identity};
use kactor_replica::{
    MessageTransport, NoPeers, RaftTransport, Replica, ReplicaConfig, Start, raft_actor,
    store_actor,
};
use kactor_runtime::ActorSystem;
use kactor_runtime::env::Env;
use kactor_store::{Members, MembersError, Store};

use crate::data_dir::DataDir;

pub struct RunningStore {
    replica: Arc<Replica>,
    cluster: String,
    _lock: DirLock,
}

/// Refuses a directory that this kactor must not start from. Touches nothing.
pub fn check(env: &Env, dir: &DataDir) -> anyhow::Result<Option<Identity>> {
    let identity = read_identity(env.disk.as_ref(), &dir.store())?;
    let path = dir.cluster_name();
    let keys_of = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let (store, root) = (dir.store(), dir.root());
    match (&identity, keys_of) {
        (Some(found), Some(expected)) if found.cluster != expected => bail!(
            "the store in {} belongs to cluster {}, the keys in {} to cluster {expected}; nothing was touched. Put back the \
             folder that belongs here, or name another --data-dir",
            store.display(),
            found.cluster,
            dir.pki().display()
        ),
        (None, Some(expected)) => bail!(
            "{} holds the keys of cluster {expected}, but its store is not in {}; nothing was touched. Mount or put back the \
             store, or restore a snapshot; for a new cluster, empty the directory (`kactor down --purge`)",
            root.display(),
            store.display()
        ),
        _ => Ok(identity),
    }
}

/// The store holds every object: nobody else on this machine needs to read its files.
fn keep_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("making {} readable to its owner alone", folder.display()))
}

/// Writes whose keys these are, once; the store's name is durable by then.
fn name_cluster(path: &Path, cluster: &str) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let new = path.with_extension("new");
    let written = std::fs::File::create(&new).and_then(|mut file| {
        writeln!(file, "{cluster}")?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    });
    written.with_context(|| format!("writing {}", path.display()))
}

impl RunningStore {
    /// Recovers the store of a stopped host, alone: for commands that read it.
    pub async fn start(env: &Env, dir: &DataDir) -> anyhow::Result<Self> {
        let identity = check(env, dir)?.with_context(|| {
            format!("{} holds no cluster; name another --data-dir", dir.root().display())
        })?;
        let config = ReplicaConfig::new(identity, dir.store());
        Self::open(env, dir, config, Arc::new(NoPeers)).await
    }

    /// Recovers the store, or begins a new one in an empty directory, as one of the hosts that `system` reaches. One that
    /// `joined` waits for the others to take it in.
    pub async fn start_among(
        system: &ActorSystem,
        dir: &DataDir,
        joined: bool,
    ) -> anyhow::Result<Self> {
        let env = system.env();
        let identity = match check(env, dir)? {
            Some(identity) => identity,
            None => Identity { cluster: env.random_uuid(), replica: FIRST_REPLICA.0 },
        };
        let config = ReplicaConfig {
            host: system.host().to_string(),
            start: if joined { Start::Joining } else { Start::NewCluster },
            ..ReplicaConfig::new(identity, dir.store())
        };
        let transport = Arc::new(MessageTransport::new(system.clone()));
        let running = Self::open(env, dir, config, transport).await?;
        running.supervise(system)?;
        Ok(running)
    }

    async fn open(
        env: &Env,
        dir: &DataDir,
        config: ReplicaConfig,
        transport: Arc<dyn RaftTransport>,
    ) -> anyhow::Result<Self> {
        let folder = dir.store();
        keep_private(&folder)?;
        let lock = DirLock::take(&folder)?;
        let cluster = config.identity.cluster.clone();
        let applied =
            SledStore::open(&folder.join("applied")).context("opening the applied state")?;
        let replica = Replica::start(env.clone(), config, Box::new(applied), transport).await;
        let replica = replica.context("starting the store")?;
        name_cluster(&dir.cluster_name(), &cluster)?;
        Ok(Self { replica: Arc::new(replica), cluster, _lock: lock })
    }

    /// The id of the cluster that this store is of.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn id(&self) -> ReplicaId {
        self.replica.id()
    }

    pub fn members(&self) -> Arc<dyn Members> {
        self.replica.members()
    }

    /// Lets another voter lead, if this one does and there is another.
    pub async fn hand_over(&self) -> Result<(), MembersError> {
        self.replica.hand_over().await
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
        self.replica.end().await;
    }

    /// Puts it under supervision and opens it to other hosts: from now on it stops with the system, after everybody else.
    fn supervise(&self, system: &ActorSystem) -> anyhow::Result<()> {
        raft_actor::start(system, &self.replica)?;
        store_actor::start(system, &self.replica)?;
        Ok(())
    }
}
