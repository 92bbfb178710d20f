//! The log of one replica, as the store speaks to it: what is submitted here, and what this replica says of itself.
//!
//! The leader appends; a follower asks it (`forward.rs`). A leader's first command is `BeginReign`; leadership is published
//! once that is applied here, and while a quorum answers.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};
use kactor_protocol::HostId;
use kactor_protocol::ids::{Reign, ReplicaId};
use kactor_protocol::raft::{RaftRefusal, ReadIndexError};
use kactor_protocol::store::{ProposeError, Write};
use kactor_protocol::time::Deadline;
use kactor_runtime::env::{Env, Lane};
use kactor_state::{Command, FEATURE_LEVEL_MAX, Outcome};
use kactor_store::{LeadershipState, Log, LogStatus, ReadError, Table, WriteState};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::impls::BasicNode;
use openraft::raft::ReadPolicy;
use openraft::{ChangeMembers, Instant as _, RaftMetrics, ServerState};

use crate::findings::Findings;
use crate::network::RaftTransport;
use crate::quorum::{self, Standing};
use crate::raft_types::{Proposal, Types};
use crate::replica::Raft;
use crate::space::Space;
use crate::state_machine::{Progress, StateMachine};
use crate::writer::Writer;

/// Full segments of the journal after which a checkpoint is due, whatever changed.
const SEALED_CHECKPOINT: u64 = 4;
/// Full segments that may stay after a checkpoint, for followers that lag.
const SEALED_KEPT: u64 = 1;
/// Entries that stay whatever their size: one may have 4 MB.
const ENTRIES_KEPT_MIN: u64 = 8;
/// Full segments at which proposals wait for a checkpoint: the journal takes no more than this, one that is
/// written, and its spares.
const SEALED_MAX: u64 = 8;
/// After so long without a word status says so: an election takes less.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long a proposal waits for room before it is refused, and how long before its deadline.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);
const ROOM_WAIT_MARGIN: Duration = Duration::from_millis(50);

pub(crate) struct RaftLog {
    pub id: ReplicaId,
    /// The name of this replica's host; empty for one that nobody reaches.
    pub host: String,
    pub cluster: Arc<str>,
    pub findings: Arc<Findings>,
    /// When a leader sent something last, on the monotonic clock.
    pub heard_ms: AtomicU64,
    pub env: Env,
    pub space: Space,
    pub raft: Raft,
    pub writer: Writer,
    pub progress: Arc<Progress>,
    pub table: Arc<Table>,
    pub machine: StateMachine,
    pub transport: Arc<dyn RaftTransport>,
}

/// Begins a reign in each term that this replica leads, and publishes it while a quorum answers.
pub(crate) async fn watch_leadership(log: Arc<RaftLog>) {
    let mut metrics = log.raft.metrics();
    let mut began: Option<(u64, Reign)> = None;
    let mut named: Option<u64> = None;
    loop {
        let (mut standing, mut leader) = standing_of(&metrics.borrow_watched());
        if standing.leads && began.is_none_or(|(at, _)| at != standing.term) {
            began = log.begin_reign().await.map(|reign| (standing.term, reign)).or(began);
            // Since then a quorum took the reign's first command.
            (standing, leader) = standing_of(&metrics.borrow_watched());
        }
        log.table.set_leadership(LeadershipState { leader, ours: standing.ours(began) });
        if standing.leads && named != Some(standing.term) {
            named = Some(standing.term);
            let log = log.clone();
            log.env.clone().spawn(Lane::Raft, async move { log.name_host().await });
        }
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

pub(crate) async fn checkpoint_when_due(log: Arc<RaftLog>) {
    loop {
        log.machine.due.notified().await;
        if log.raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Lets the journal forget what a checkpoint holds as soon as it is more than a segment: few large entries must not make
/// it long. Below that, followers that lag get entries.
pub(crate) async fn purge_when_large(log: Arc<RaftLog>) {
    let mut made = log.raft.watch_snapshot_progress();
    loop {
        if let Some(last) = made.get()
            && log.writer.stats.n_sealed.load(Ordering::Relaxed) > SEALED_KEPT
        {
            let upto = last.index.saturating_sub(ENTRIES_KEPT_MIN);
            if log.raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
        if made.changed().await.is_err() {
            return;
        }
    }
}

impl RaftLog {
    async fn begin_reign(&self) -> Option<Reign> {
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

    /// A membership that does not say where this replica is reached (a first host's, a restored one) is completed.
    async fn name_host(&self) {
        let known = {
            let metrics = self.raft.metrics();
            let seen = metrics.borrow_watched();
            seen.membership_config.get_node(&self.id.0).map(|it| it.addr.clone())
        };
        if self.host.is_empty() || known.is_none_or(|it| it == self.host) {
            return;
        }
        let node = BasicNode { addr: self.host.clone() };
        let named = ChangeMembers::SetNodes([(self.id.0, node)].into());
        if let Err(error) = self.raft.change_membership(named, true).await {
            tracing::warn!(%error, "this replica's host could not be written into the membership");
        }
    }

    /// The leader as this replica knows it, and its host if that has a name.
    pub fn leader(&self) -> Option<(ReplicaId, Option<HostId>)> {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        let id = seen.current_leader?;
        let host = seen.membership_config.get_node(&id).and_then(|it| HostId::new(&it.addr).ok());
        Some((ReplicaId(id), host))
    }

    /// Submits to this replica's own log, which must be the leader's.
    pub async fn submit_here(
        &self,
        command: Command,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
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

    /// Confirms with a quorum that this replica leads, as of now.
    pub async fn read_index_here(&self) -> Result<u64, ReadIndexError> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((id, _)) => Ok(id.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(it))) => {
                Err(ReadIndexError::NotLeader { leader: it.leader_id.map(ReplicaId) })
            }
            Err(RaftError::APIError(_)) => Err(ReadIndexError::NoQuorum),
            Err(RaftError::Fatal(_)) => Err(ReadIndexError::Stopped),
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
    pub fn write_state(&self) -> WriteState {
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

    /// A leader sent something.
    pub fn hear(&self) {
        let now_ms = u64::try_from(self.env.monotonic().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether entries of the leader can be taken: what is refused here it sends again.
    pub fn room_for_entries(&self) -> Result<(), RaftRefusal> {
        if self.space.is_short() || !self.has_segment() {
            return Err(RaftRefusal::Full);
        }
        let n_sealed = self.writer.stats.n_sealed.load(Ordering::Relaxed);
        if n_sealed >= SEALED_CHECKPOINT {
            self.machine.due.notify_one();
        }
        if n_sealed >= SEALED_MAX { Err(RaftRefusal::Slow) } else { Ok(()) }
    }

    /// What is wrong with who leads, where several vote.
    fn leader_trouble(&self, seen: &RaftMetrics<Types>) -> Option<String> {
        let n_voters = seen.membership_config.voter_ids().count();
        if n_voters < 2 {
            return None;
        }
        if seen.state == ServerState::Leader {
            let ago = seen.last_quorum_acked.as_ref()?.elapsed();
            return (ago >= SILENCE_MAX).then(|| {
                format!(
                    "no quorum of the {n_voters} voters has answered for {} s: writes and consistent reads are refused until \
                     enough control hosts are reached again",
                    ago.as_secs()
                )
            });
        }
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        let silence = self.env.monotonic().saturating_sub(heard);
        let leader = seen.current_leader.map_or("a leader".to_owned(), |id| {
            let node = seen.membership_config.get_node(&id);
            format!("the leader, replica {id} on {}", node.map_or("?", |it| &it.addr))
        });
        (silence >= SILENCE_MAX).then(|| {
            format!(
                "nothing was heard of {leader} for {} s: writes and consistent reads are refused here until enough control \
                 hosts are reached again",
                silence.as_secs()
            )
        })
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

#[async_trait]
impl Log for RaftLog {
    async fn submit(&self, command: Command, deadline: Deadline) -> Result<Outcome, ProposeError> {
        self.submit_anywhere(command, deadline).await
    }

    async fn read_index(&self, deadline: Deadline) -> Result<u64, ReadError> {
        self.read_index_anywhere(deadline).await
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
            _ => self.leader_trouble(&seen).or_else(|| self.findings.trouble()),
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
