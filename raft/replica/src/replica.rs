//! Starting a replica, and holding it.
//!
//! Raft and its timers run on `Lane::Raft`, the journal's writer on `Lane::Journal`, sled on `Lane::Blocking`. The log that
//! the store speaks to is in `raft_log.rs`. When a disk fails, `failed` resolves: the shell ends the process, and nothing
//! is retried.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::future::{Either, select};
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::store::{Committed, Propose, ProposeError};
use kactor_protocol::time::Deadline;
use kactor_runtime::env::{Env, Lane, TaskHandle};
use kactor_state::{ClusterState, Command, Outcome};
use kactor_store::{Members, MembersError, Store, Table};
use openraft::async_runtime::WatchReceiver;
use openraft::impls::BasicNode;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::oneshot;

use crate::applied::{AppliedError, AppliedStore};
use crate::compare::{CompareError, Comparison, compare_now_and_then};
use crate::data_dir::{self, DataDirError, Identity};
use crate::findings::Findings;
use crate::journal::{Journal, JournalError, Recovered, SEGMENT_BYTES};
use crate::log_store::{LogStore, READ_LEN_MAX};
use crate::members::hand_over_when_slow;
use crate::network::{Acknowledged, Links, RaftTransport};
use crate::quorum;
use crate::raft_log::{RaftLog, checkpoint_when_due, purge_when_large, watch_leadership};
use crate::raft_types::{Types, seed_thread};
use crate::receiving::Receiving;
use crate::snapshot_intake::SnapshotIntake;
use crate::space::Space;
use crate::state_machine::StateMachine;
use crate::writer::Writer;

pub(crate) type Raft = openraft::Raft<Types, StateMachine>;

/// Entries kept below a checkpoint, so that a follower that lags a little needs no snapshot; fewer when they are large
/// (`purge_when_large`).
const ENTRIES_KEPT: u64 = 1000;

/// How a replica is set up.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    pub identity: Identity,
    /// The name of this replica's host, by which others reach it; empty for a replica that is alone.
    pub host: String,
    pub dir: PathBuf,
    pub segment_bytes: u64,
    /// Writes are refused while less than this is free.
    pub reserve_bytes: u64,
    pub start: Start,
}

impl ReplicaConfig {
    pub fn new(identity: Identity, dir: PathBuf) -> Self {
        Self {
            identity,
            host: String::new(),
            dir,
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: 128 << 20,
            start: Start::NewCluster,
        }
    }
}

/// What a replica without any state does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Becomes the first member of a new cluster.
    NewCluster,
    /// Waits to be added by others.
    Joining,
}

/// Why a replica does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Applied(#[from] AppliedError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("raft did not start: {reason}")]
    Raft { reason: String },
}

/// A running replica.
pub struct Replica {
    log: Arc<RaftLog>,
    store: Store,
    receiving: Arc<Receiving>,
    tasks: Vec<TaskHandle>,
}

impl Replica {
    /// Recovers what is in the directory and takes part in the cluster. Poll it on a lane that may block.
    pub async fn start(
        env: Env,
        config: ReplicaConfig,
        mut applied: Box<dyn AppliedStore>,
        transport: Arc<dyn RaftTransport>,
    ) -> Result<Self, StartError> {
        data_dir::claim(&env.disk, &config.dir, &config.identity).await?;
        let loaded = applied.load()?;
        let floor = loaded.as_ref().and_then(|it| it.meta.applied).map(|it| it.index);
        let (journal, recovered) = Journal::open(
            env.disk.clone(),
            &config.dir.join("journal"),
            config.segment_bytes,
            floor,
        )
        .await?;
        check_meet(floor, &recovered)?;
        let writer = Writer::start(&env, journal);
        let (meta, state) = match loaded {
            Some(loaded) => (Some(loaded.meta), loaded.state),
            None => (None, ClusterState::new()),
        };
        let table = Table::new(state);
        let space = Space::new(env.clone(), config.dir.clone(), config.reserve_bytes);
        let machine = StateMachine::new(&env, table.clone(), applied, meta.as_ref(), space.clone());
        let log_store = LogStore::new(recovered, writer.clone());
        let findings = Arc::new(Findings::default());
        let links = Links {
            transport: transport.clone(),
            cluster: config.identity.cluster.as_str().into(),
            own: config.identity.replica,
            acknowledged: Acknowledged::new(findings.clone()),
        };
        let cluster = links.cluster.clone();
        let raft = start_raft(&env, &config, log_store, machine.clone(), links).await?;
        let id = ReplicaId(config.identity.replica);
        let now_ms = u64::try_from(env.monotonic().as_millis()).unwrap_or(u64::MAX);
        let log = Arc::new(RaftLog {
            id,
            host: config.host,
            cluster,
            findings,
            heard_ms: AtomicU64::new(now_ms),
            env: env.clone(),
            space,
            raft,
            writer,
            progress: machine.progress.clone(),
            table: table.clone(),
            machine,
            transport,
        });
        let receiving =
            Arc::new(Receiving { log: log.clone(), intake: SnapshotIntake::new(env.clone()) });
        let store = Store::new(env.clone(), table, log.clone());
        let tasks = vec![
            env.spawn(Lane::Raft, watch_leadership(log.clone())),
            env.spawn(Lane::Raft, checkpoint_when_due(log.clone())),
            env.spawn(Lane::Raft, purge_when_large(log.clone())),
            env.spawn(Lane::Raft, compare_now_and_then(log.clone())),
            env.spawn(Lane::Raft, hand_over_when_slow(log.clone())),
        ];
        Ok(Self { log, store, receiving, tasks })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn id(&self) -> ReplicaId {
        self.log.id
    }

    /// Who belongs to the log, and how that is changed.
    pub fn members(&self) -> Arc<dyn Members> {
        self.log.clone()
    }

    /// Compares the states of all replicas now. Only the leader does; it also does so every few minutes.
    pub async fn compare_states(&self) -> Result<Comparison, CompareError> {
        self.log.compare().await
    }

    /// Lets another voter lead, so that this replica's end costs nobody an election. Bounded; says why it still leads.
    /// One that does not lead, or is the only voter, has nothing to hand over.
    pub async fn hand_over(&self) -> Result<(), MembersError> {
        let is_alone = self.log.raft.voter_ids().count() < 2;
        if is_alone || !self.log.raft.is_leader() {
            return Ok(());
        }
        self.log.hand_over().await
    }

    /// Proposes to this replica's own log, for another host: one that does not lead says so.
    pub(crate) async fn propose_here(
        &self,
        propose: Propose,
        deadline: Deadline,
    ) -> Result<Committed, ProposeError> {
        propose.check()?;
        let env = &self.log.env;
        let command = Command::Transact { now: env.wall(), propose };
        let submitted = pin!(self.log.submit_here(command, deadline));
        let outcome = match select(submitted, env.clock.sleep_until(deadline.at())).await {
            Either::Left((outcome, _)) => outcome?,
            Either::Right(_) => return Err(ProposeError::Timeout),
        };
        match outcome {
            Outcome::Committed(committed) => Ok(committed),
            Outcome::Refused(error) => Err(error),
            other => unreachable!("a transaction is committed or refused, not {other:?}"),
        }
    }

    pub(crate) fn log(&self) -> &Arc<RaftLog> {
        &self.log
    }

    pub(crate) fn receiving(&self) -> Arc<Receiving> {
        self.receiving.clone()
    }

    /// Resolves when the disk failed: the process must end, and must not be asked to sync again.
    pub async fn failed(&self) -> Arc<dyn std::error::Error + Send + Sync> {
        let mut journal = self.log.writer.fatal.clone();
        let mut applied = self.log.machine.broken.subscribe();
        let journal = pin!(journal.wait_for(Option::is_some));
        let applied = pin!(applied.wait_for(Option::is_some));
        match select(journal, applied).await {
            Either::Left((Ok(error), _)) => error.clone().expect("waited for it"),
            Either::Right((Ok(error), _)) => error.clone().expect("waited for it"),
            Either::Left((Err(_), _)) | Either::Right((Err(_), _)) => Arc::new(JournalError::Ended),
        }
    }

    /// Makes what is applied now durable outside the log, so that the log below it can be purged.
    pub async fn checkpoint(&self) -> Result<(), ProposeError> {
        let goal = self.log.table.read().applied_index();
        let mut metrics = self.log.raft.metrics();
        loop {
            // One that is under way swallows the request: asked again when it is done.
            self.log.raft.trigger().snapshot().await.map_err(|_| ProposeError::Stopped)?;
            let done = metrics.borrow_watched().snapshot.map(|it| it.index);
            if done.is_some_and(|done| done >= goal) {
                return Ok(());
            }
            metrics.changed().await.map_err(|_| ProposeError::Stopped)?;
        }
    }

    /// Ends this replica's part in the cluster and lets its directory go; the process may go on.
    pub async fn stop(self) {
        self.end().await;
    }

    /// Ends its part and closes what it holds open.
    pub async fn end(&self) {
        self.log.table.stop();
        let _ = self.log.raft.shutdown().await;
        self.log.machine.close().await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.tasks.iter().for_each(TaskHandle::abort);
    }
}

fn raft_config(cluster: &str) -> Config {
    Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: 100,
        election_timeout_min: quorum::LEASE.as_millis() as u64 / 2,
        election_timeout_max: quorum::LEASE.as_millis() as u64,
        max_payload_entries: READ_LEN_MAX as u64,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        enable_pre_vote: Some(true),
        ..Config::default()
    }
}

/// Makes raft on its own lane: everything that it spawns stays there.
async fn start_raft(
    env: &Env,
    config: &ReplicaConfig,
    log_store: LogStore,
    machine: StateMachine,
    links: Links,
) -> Result<Raft, StartError> {
    let (done, made) = oneshot::channel();
    let seed = env.random_u64();
    let config = config.clone();
    env.spawn(Lane::Raft, async move {
        seed_thread(seed);
        let _ = done.send(build_raft(config, log_store, machine, links).await);
    });
    let failed = |reason: String| StartError::Raft { reason };
    match made.await {
        Ok(raft) => raft.map_err(failed),
        Err(_) => Err(failed("its lane ended".into())),
    }
}

async fn build_raft(
    config: ReplicaConfig,
    log_store: LogStore,
    machine: StateMachine,
    links: Links,
) -> Result<Raft, String> {
    let id = config.identity.replica;
    let settings = raft_config(&config.identity.cluster).validate().map_err(|it| it.to_string())?;
    let raft = Raft::new(id, Arc::new(settings), links, log_store, machine)
        .await
        .map_err(|error| error.to_string())?;
    let is_known = raft.is_initialized().await.map_err(|error| error.to_string())?;
    if !is_known && config.start == Start::NewCluster {
        let members = BTreeMap::from([(id, BasicNode { addr: config.host })]);
        raft.initialize(members).await.map_err(|error| error.to_string())?;
    } else if raft.voter_ids().eq([id]) {
        // Nobody else can lead: there is nothing to wait for.
        raft.trigger().elect(false).await.map_err(|error| error.to_string())?;
    }
    Ok(raft)
}

/// What the journal forgot must be in the applied state.
fn check_meet(applied: Option<u64>, recovered: &Recovered) -> Result<(), AppliedError> {
    match recovered.purged.map(|it| it.index) {
        Some(purged) if applied.is_none_or(|it| it < purged) => {
            Err(AppliedError::Behind { applied: applied.unwrap_or(0), purged })
        }
        _ => Ok(()),
    }
}
