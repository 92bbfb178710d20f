//! Hosts that hold a replica each, joined by a `Mesh`. A host's disk outlives its crashes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::ids::{ReplicaId, Uid};
use kactor_protocol::message::Role;
use kactor_protocol::store::{Committed, Key, Precondition, Propose, ProposeError, Value, Write};
use kactor_protocol::time::Deadline;
use kactor_protocol::{HostId, Incarnation};
use kactor_replica::applied::{AppliedStore, ModelStore};
use kactor_replica::data_dir::Identity;
use kactor_replica::{MessageTransport, Replica, ReplicaConfig, Start, raft_actor, store_actor};
use kactor_runtime::{ActorSystem, Delivery};
use kactor_simulations::{Mesh, SimHost, World};
use kactor_state::ClusterState;
use kactor_store::Store;

/// Longest wait of a test for what must happen, in the world's time.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Cluster {
    pub world: Rc<World>,
    pub mesh: Mesh,
    hosts: RefCell<BTreeMap<u64, Rc<SimHost>>>,
    disks: RefCell<BTreeMap<u64, ModelStore>>,
    running: RefCell<BTreeMap<u64, Running>>,
    n_lives: RefCell<u64>,
}

struct Running {
    replica: Arc<Replica>,
    _system: ActorSystem,
}

pub fn host_of(id: u64) -> HostId {
    HostId::new(format!("h{id}")).unwrap()
}

pub fn key(name: &str) -> Key {
    Key::new("", "configmaps", "default", name).unwrap()
}

pub fn put(name: &str, precondition: Precondition, body: &[u8]) -> Write {
    let body = Bytes::copy_from_slice(body);
    let value = Value { storage_version: 1, flags: 0, uid: Uid::from("u"), body };
    Write::Put { key: key(name), precondition, value, expires_at: None }
}

/// Runs a scenario in a world of its own.
pub fn run<F>(seed: u64, scenario: impl FnOnce(Rc<Cluster>) -> F)
where
    F: Future<Output = ()>,
{
    World::run(seed, |world| async move {
        let clock = world.host("network");
        let cluster = Rc::new(Cluster {
            mesh: Mesh::new(clock.env().clone()),
            world,
            hosts: RefCell::default(),
            disks: RefCell::default(),
            running: RefCell::default(),
            n_lives: RefCell::new(0),
        });
        scenario(cluster.clone()).await;
        cluster.running.borrow_mut().clear();
    });
}

impl Cluster {
    /// Three voters that agree, led by the first.
    pub async fn three(self: &Rc<Self>) {
        self.start(1, Start::NewCluster).await;
        self.until("the first leads", || self.leads(1)).await;
        for id in [2, 3] {
            self.start(id, Start::Joining).await;
            self.replica(1).members().add_learner(ReplicaId(id), &host_of(id)).await.unwrap();
        }
        self.set_voters(1, [1, 2, 3]).await;
        let index = self.store(1).status().committed_index;
        self.until("all have the log", || [2, 3].iter().all(|id| self.applied(*id) >= index)).await;
    }

    pub async fn set_voters(&self, leader: u64, ids: impl IntoIterator<Item = u64>) {
        let voters: BTreeSet<_> = ids.into_iter().map(ReplicaId).collect();
        self.replica(leader).members().set_voters(voters).await.unwrap();
    }

    /// Starts a replica on what its disk holds.
    pub async fn start(&self, id: u64, start: Start) {
        let host = self.host(id);
        let name = host_of(id);
        let env = host.env().clone();
        *self.n_lives.borrow_mut() += 1;
        let incarnation = Incarnation(*self.n_lives.borrow());
        let port = self.mesh.transport(&name);
        let system = ActorSystem::with_transport(
            env.clone(),
            name.clone(),
            incarnation,
            Delivery::Moved,
            port,
        );
        self.mesh.attach(&system, &[Role::Replica, Role::Control]);
        let identity = Identity { cluster: "c1".into(), replica: id };
        let mut config = ReplicaConfig::new(identity, PathBuf::from("/data"));
        config.host = name.to_string();
        config.segment_bytes = 256 << 10;
        config.reserve_bytes = 1 << 20;
        config.start = start;
        let applied = self.disks.borrow_mut().entry(id).or_default().clone();
        let transport = Arc::new(MessageTransport::new(system.clone()));
        let replica = Replica::start(env, config, Box::new(applied), transport).await.unwrap();
        let replica = Arc::new(replica);
        raft_actor::start(&system, &replica).unwrap();
        store_actor::start(&system, &replica).unwrap();
        self.running.borrow_mut().insert(id, Running { replica, _system: system });
    }

    pub fn host(&self, id: u64) -> Rc<SimHost> {
        let make = || self.world.host(host_of(id).as_str());
        self.hosts.borrow_mut().entry(id).or_insert_with(make).clone()
    }

    /// The host comes back with an empty disk, and does not know it.
    pub async fn wipe(&self, id: u64) {
        self.crash(id).await;
        self.hosts.borrow_mut().remove(&id);
        self.disks.borrow_mut().remove(&id);
    }

    /// One object of a host's disk changes while the host is off, and no checksum of the disk finds it.
    pub async fn tamper(&self, id: u64, name: &str, body: &'static [u8]) {
        self.replica(id).checkpoint().await.unwrap();
        self.crash(id).await;
        let mut disk = self.disks.borrow()[&id].clone();
        let loaded = disk.load().unwrap().unwrap();
        let rows = loaded.state.version_records().map(|mut row| {
            if row.key == key(name) {
                row.object.as_mut().unwrap().value.body = Bytes::from_static(body);
            }
            row
        });
        let rows: Vec<_> = rows.collect();
        let state = ClusterState::from_records(loaded.state.meta_record(), rows).unwrap();
        disk.replace(&state, &loaded.meta).unwrap();
    }

    /// The power of a host goes.
    pub async fn crash(&self, id: u64) {
        self.mesh.detach(&host_of(id));
        self.running.borrow_mut().remove(&id);
        self.host(id).crash().await;
    }

    pub async fn restart(&self, id: u64) {
        self.start(id, Start::Joining).await;
    }

    pub fn replica(&self, id: u64) -> Arc<Replica> {
        self.running.borrow()[&id].replica.clone()
    }

    pub fn store(&self, id: u64) -> Store {
        self.replica(id).store().clone()
    }

    /// Whether its leader actors may act.
    pub fn leads(&self, id: u64) -> bool {
        self.store(id).leadership().current().ours.is_some()
    }

    pub fn applied(&self, id: u64) -> u64 {
        self.store(id).status().applied_index
    }

    /// The one of these that leads, once one does.
    pub async fn leader_of(&self, ids: &[u64]) -> u64 {
        self.until("one of them leads", || ids.iter().any(|id| self.leads(*id))).await;
        *ids.iter().find(|id| self.leads(**id)).unwrap()
    }

    pub fn deadline(&self, id: u64, seconds: u64) -> Deadline {
        Deadline::after(self.host(id).env().monotonic(), Duration::from_secs(seconds))
    }

    /// Writes through one replica's store, whoever leads.
    pub async fn write(&self, id: u64, name: &str, body: &[u8]) -> Result<Committed, ProposeError> {
        let propose = Propose::one(put(name, Precondition::None, body));
        self.store(id).propose(propose, self.deadline(id, 30)).await
    }

    pub fn body(&self, id: u64, name: &str) -> Option<Bytes> {
        self.store(id).get(&key(name)).map(|it| it.value.body.clone())
    }

    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = self.world.now() + PATIENCE;
        while !holds() {
            assert!(self.world.now() < end, "{what}: not after {PATIENCE:?}");
            self.world.sleep(Duration::from_millis(5)).await;
        }
    }

    /// All of these hold the same, to the last object, once what was committed is applied.
    pub async fn agree(&self, ids: &[u64]) {
        let index = ids.iter().map(|id| self.store(*id).status().committed_index).max().unwrap();
        self.until("all caught up", || ids.iter().all(|id| self.applied(*id) >= index)).await;
        let sums = |id: &u64| self.store(*id).table().read().checksums().clone();
        let first = sums(&ids[0]);
        assert!(ids.iter().all(|id| sums(id) == first), "the states differ");
    }
}
