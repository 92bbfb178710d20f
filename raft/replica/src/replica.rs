//! Starting a replica, and the `Log` that the store speaks to.
//!
//! Raft and its timers run on `Lane::Raft`, the journal's writer on `Lane::Journal`, sled on `Lane::Blocking`. A leader's
//! first command is `BeginReign`; leadership is published once that is applied here. One member now; nothing assumes
//! one. When a disk fails, `failed` resolves: the shell ends the process, and nothing is retried.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::store::{ProposeError, Write};
use kactor_protocol::time::Deadline;
use kactor_runtime::env::{Env, Lane, TaskHandle};
use kactor_state::{ClusterState, Command, FEATURE_LEVEL_MAX, Outcome};
use kactor_store::{LeadershipState, Log, LogStatus, ReadError, Store, Table, WriteState};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::impls::BasicNode;
use openraft::raft::ReadPolicy;
use openraft::{Config, Instant as _, RaftMetrics, ServerState, SnapshotPolicy};
use tokio::sync::oneshot;

use crate::applied::{AppliedError, AppliedStore};
use crate::data_dir::{self, DataDirError, Identity};
use crate::journal::{Journal, JournalError, Recovered, SEGMENT_BYTES};
use crate::log_store::LogStore;
use crate::network::{Links, RaftTransport};
use crate::quorum::{self, Standing};
use crate::raft_types::{Proposal, Types, seed_thread};
use crate::space::Space;
use crate::state_machine::{Progress, StateMachine};
use crate::writer::Writer;

pub(crate) type Raft = openraft::Raft<Types, StateMachine>;

/// Entries kept below a checkpoint, so that a follower that lags a little needs no snapshot. Few, because an entry may have
/// 3 MB, and the journal's bound counts them.
const ENTRIES_KEPT: u64 = 8;
/// Full segments of the journal after which a checkpoint is due, whatever changed.
const SEALED_CHECKPOINT: u64 = 4;
/// Full segments at which proposals wait for a checkpoint: the journal takes no more than this, one that is
/// written, and its spares.
const SEALED_MAX: u64 = 8;
/// How long a proposal waits for room before it is refused, and how long before its deadline.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);
const ROOM_WAIT_MARGIN: Duration = Duration::from_millis(50);

/// How a replica is set up.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    pub identity: Identity,
    /// What others reach this replica by.
    pub address: String,
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
            address: String::new(),
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
    tasks: Vec<TaskHandle>,
}

struct RaftLog {
    id: ReplicaId,
    env: Env,
    space: Space,
    raft: Raft,
    writer: Writer,
    progress: Arc<Progress>,
    table: Arc<Table>,
    machine: StateMachine,
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
        let raft = start_raft(&env, &config, log_store, machine.clone(), transport).await?;
        let log = Arc::new(RaftLog {
            id: ReplicaId(config.identity.replica),
            env: env.clone(),
            space,
            raft,
            writer,
            progress: machine.progress.clone(),
            table: table.clone(),
            machine,
        });
        let store = Store::new(env.clone(), table, log.clone());
        let tasks = vec![
            env.spawn(Lane::Raft, watch_leadership(log.clone())),
            env.spawn(Lane::Raft, checkpoint_when_due(log.clone())),
        ];
        Ok(Self { log, store, tasks })
    }

    pub fn store(&self) -> &Store {
        &self.store
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
        election_timeout_min: quorum::ELECTION_TIMEOUT_MIN.as_millis() as u64,
        election_timeout_max: 1000,
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
    transport: Arc<dyn RaftTransport>,
) -> Result<Raft, StartError> {
    let (done, made) = oneshot::channel();
    let seed = env.random_u64();
    let config = config.clone();
    env.spawn(Lane::Raft, async move {
        seed_thread(seed);
        let _ = done.send(build_raft(config, log_store, machine, transport).await);
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
    transport: Arc<dyn RaftTransport>,
) -> Result<Raft, String> {
    let id = config.identity.replica;
    let settings = raft_config(&config.identity.cluster).validate().map_err(|it| it.to_string())?;
    let raft = Raft::new(id, Arc::new(settings), Links(transport), log_store, machine)
        .await
        .map_err(|error| error.to_string())?;
    let is_known = raft.is_initialized().await.map_err(|error| error.to_string())?;
    if !is_known && config.start == Start::NewCluster {
        let members = BTreeMap::from([(id, BasicNode { addr: config.address })]);
        raft.initialize(members).await.map_err(|error| error.to_string())?;
    } else if raft.voter_ids().eq([id]) {
        // Nobody else can lead: there is nothing to wait for.
        raft.trigger().elect(false).await.map_err(|error| error.to_string())?;
    }
    Ok(raft)
}

/// Begins a reign in each term that this replica leads, and publishes it while a quorum answers.
async fn watch_leadership(log: Arc<RaftLog>) {
    let mut metrics = log.raft.metrics();
    let mut began: Option<(u64, kactor_protocol::ids::Reign)> = None;
    loop {
        let (mut standing, mut leader) = standing_of(&metrics.borrow_watched());
        if standing.leads && began.is_none_or(|(at, _)| at != standing.term) {
            began = log.begin_reign().await.map(|reign| (standing.term, reign)).or(began);
            // Since then a quorum took the reign's first command.
            (standing, leader) = standing_of(&metrics.borrow_watched());
        }
        log.table.set_leadership(LeadershipState { leader, ours: standing.ours(began) });
        let look = async {
            match standing.can_lapse() {
                true => log.env.sleep(quorum::LOOK_EVERY).await,
                false => std::future::pending().await,
            }
        };
        let told = tokio::select! {
            biased;
            told = metrics.changed() => told.is_ok(),
            () = look => true,
        };
        if !told {
            log.table.stop();
            return;
        }
    }
}

fn standing_of(seen: &RaftMetrics<Types>) -> (Standing, Option<ReplicaId>) {
    let standing = Standing {
        leads: seen.state == ServerState::Leader,
        term: seen.current_term,
        n_voters: seen.membership_config.voter_ids().count(),
        acknowledged_ago: seen.last_quorum_acked.as_ref().map(|it| it.elapsed()),
    };
    (standing, seen.current_leader.map(ReplicaId))
}

async fn checkpoint_when_due(log: Arc<RaftLog>) {
    loop {
        log.machine.due.notified().await;
        if log.raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

impl RaftLog {
    async fn begin_reign(&self) -> Option<kactor_protocol::ids::Reign> {
        let now = self.env.wall();
        if self.table.read().feature_level() == 0 {
            let level = Command::SetFeatureLevel { now, level: FEATURE_LEVEL_MAX };
            self.write(level).await.ok()?;
        }
        match self.write(Command::BeginReign { now, leader: self.id }).await.ok()? {
            Outcome::ReignBegan(reign) => Some(reign),
            _ => None,
        }
    }

    async fn write(&self, command: Command) -> Result<Outcome, ProposeError> {
        let written = self.raft.client_write(Proposal(command)).await;
        let response = written.map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(it)) => {
                ProposeError::NotLeader { leader: it.leader_id.map(ReplicaId) }
            }
            // Replaced in our log; another leader may commit it all the same.
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Timeout,
            RaftError::APIError(_) => ProposeError::NoQuorum,
            RaftError::Fatal(_) => ProposeError::Stopped,
        })?;
        response.data.0.ok_or(ProposeError::Stopped)
    }

    /// Refuses before the disk is full, so that what was taken can be finished.
    fn write_state(&self) -> WriteState {
        if self.writer.fatal.borrow().is_some() {
            return WriteState::Stopped;
        }
        let is_full = self.writer.stats.is_full.load(Ordering::Relaxed);
        if is_full || self.space.is_short() {
            let (free_bytes, reserve_bytes) = (self.space.free_bytes(), self.space.reserve_bytes);
            return WriteState::Full { free_bytes, reserve_bytes };
        }
        WriteState::Open
    }

    fn has_segment(&self) -> bool {
        !self.writer.stats.is_full.load(Ordering::Relaxed)
    }

    /// Keeps the journal from growing while checkpoints are slow: waits for one, as long as the caller can wait. What
    /// is refused here was not proposed.
    async fn room(&self, deadline: Deadline) -> Result<(), ProposeError> {
        let stats = &self.writer.stats;
        if stats.n_sealed.load(Ordering::Relaxed) < SEALED_CHECKPOINT {
            return Ok(());
        }
        let last = deadline.at().saturating_sub(ROOM_WAIT_MARGIN);
        let last = last.min(self.env.monotonic() + ROOM_WAIT_MAX);
        let mut patience = pin!(self.env.clock.sleep_until(last));
        loop {
            let mut freed = pin!(stats.freed.notified());
            freed.as_mut().enable();
            let n_sealed = stats.n_sealed.load(Ordering::Relaxed);
            if n_sealed >= SEALED_CHECKPOINT {
                self.machine.due.notify_one();
            }
            if n_sealed < SEALED_MAX {
                return Ok(());
            }
            if let Either::Right(_) = select(freed, patience.as_mut()).await {
                return Err(ProposeError::Overloaded);
            }
        }
    }
}

/// Compaction, and deletions, without which nobody could make room by way of the API.
fn frees_space(command: &Command) -> bool {
    match command {
        Command::Compact { .. } => true,
        Command::Transact { propose, .. } => {
            propose.writes.iter().all(|it| matches!(it, Write::Delete { .. }))
        }
        _ => false,
    }
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

#[async_trait]
impl Log for RaftLog {
    async fn submit(&self, command: Command, deadline: Deadline) -> Result<Outcome, ProposeError> {
        match self.write_state() {
            WriteState::Open => {
                self.room(deadline).await?;
                self.write(command).await
            }
            // While there is room in the journal, what gives space back is taken on a full disk too.
            WriteState::Full { .. } if self.has_segment() && frees_space(&command) => {
                self.room(deadline).await?;
                self.write(command).await
            }
            WriteState::Full { .. } => Err(ProposeError::Full),
            WriteState::Stopped => Err(ProposeError::Stopped),
        }
    }

    async fn read_index(&self, _: Deadline) -> Result<u64, ReadError> {
        let confirmed = self.raft.get_read_log_id(ReadPolicy::ReadIndex).await;
        match confirmed {
            Ok((id, _)) => Ok(id.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(it))) => {
                Err(ReadError::NoLeader { leader: it.leader_id.map(ReplicaId) })
            }
            Err(RaftError::APIError(_)) => Err(ReadError::NoLeader { leader: None }),
            Err(RaftError::Fatal(_)) => Err(ReadError::Stopped),
        }
    }

    fn status(&self) -> LogStatus {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        let stats = &self.writer.stats;
        let writes = self.write_state();
        let stopped = self.progress.stopped();
        let trouble = match (self.writer.fatal.borrow().as_ref(), &stopped, writes) {
            (Some(error), ..) => Some(error.to_string()),
            (None, Some(at), _) => Some(format!(
                "the store stopped before entry {}, which could not be applied ({}): writes are refused, reads are of that moment",
                at.index, at.cause
            )),
            (None, None, WriteState::Full { free_bytes, reserve_bytes }) => Some(format!(
                "the disk of the data directory is almost full: {} MiB free, {} MiB are kept; writes are refused until \
                 there is space again, reads go on",
                free_bytes >> 20,
                reserve_bytes >> 20
            )),
            (None, None, WriteState::Open)
                if stats.n_sealed.load(Ordering::Relaxed) >= SEALED_MAX =>
            {
                Some("the disk is slow: writes wait until the state is checkpointed".to_owned())
            }
            _ => None,
        };
        LogStatus {
            replica: self.id,
            term: seen.current_term,
            leader: seen.current_leader.map(ReplicaId),
            last_index: seen.last_log_index.unwrap_or(0),
            committed_index: seen.local_committed.map_or(0, |it| it.index),
            applied_index: match &stopped {
                Some(at) => at.index.saturating_sub(1),
                None => self.table.read().applied_index(),
            },
            checkpoint: self.progress.checkpoint(self.env.monotonic()),
            journal_bytes: stats.journal_bytes.load(Ordering::Relaxed),
            journal_segments: stats.journal_segments.load(Ordering::Relaxed),
            n_syncs: stats.n_syncs.load(Ordering::Relaxed),
            sync_us_last: stats.sync_us_last.load(Ordering::Relaxed),
            sync_us_max: stats.sync_us_max.load(Ordering::Relaxed),
            sync_latency: stats.latency(),
            stopped,
            writes,
            trouble,
        }
    }
}
