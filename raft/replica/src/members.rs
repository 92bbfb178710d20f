//! The membership of the log, changed through openraft: joint consensus is its business, deciding is `actors/cluster`'s.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{Either, select};
use kactor_protocol::HostId;
use kactor_protocol::ids::ReplicaId;
use kactor_store::{MemberProgress, Members, MembersError, MembersState, WriteState};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::impls::BasicNode;
use openraft::{ChangeMembers, Instant as _, ServerState};

use crate::raft_log::RaftLog;
use crate::raft_types::Types;

/// How long a change may take to be committed; after that it may still be, and the state says so.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// How long a successor may take to win: a few election timeouts.
const TRANSFER_MAX: Duration = Duration::from_secs(5);
/// A voter that answered so lately may take over.
const ANSWERED_MAX: Duration = Duration::from_secs(2);
/// A sync that takes longer than others wait before they elect is too slow for a leader.
const SYNC_MAX: Duration = Duration::from_secs(1);
const SLOW_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two attempts: where all disks are slow, leading must not go round.
const SLOW_PAUSE: Duration = Duration::from_secs(60);
/// How often one looks who leads while another is to take over.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A leader whose syncs take longer than others wait before they elect hands over, for its disk would make every write
/// slow; and so does one whose disk is almost full, for it refuses writes that others can take.
pub(crate) async fn hand_over_when_slow(log: Arc<RaftLog>) {
    loop {
        log.env.sleep(SLOW_LOOK_EVERY).await;
        let took = log.writer.stats.sync_time(log.env.monotonic());
        let is_full = matches!(log.write_state(), WriteState::Full { .. });
        let is_fit = took < SYNC_MAX && !is_full;
        if is_fit || !log.leads() || log.successors().is_empty() {
            continue;
        }
        tracing::warn!(?took, is_full, "this leader's disk is slow or full; another shall lead");
        if let Err(error) = log.hand_over().await {
            tracing::warn!(%error, "nobody took over");
        }
        log.env.sleep(SLOW_PAUSE).await;
    }
}

impl RaftLog {
    fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), MembersError> {
        self.within(CHANGE_MAX, async {
            let changed = self.raft.change_membership(change, true).await;
            changed.map(drop).map_err(refused)
        })
        .await
    }

    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, MembersError>>,
    ) -> Result<T, MembersError> {
        match select(std::pin::pin!(work), self.env.sleep(time)).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => Err(MembersError::NoQuorum),
        }
    }

    /// The other voters, best first: those that answer, by how much of the log is on their disks.
    fn successors(&self) -> Vec<ReplicaId> {
        let state = self.state();
        let mut found: Vec<(u64, ReplicaId)> = state
            .progress
            .iter()
            .filter(|(id, _)| **id != self.id && state.is_voter(**id))
            .filter(|(_, it)| it.answered_ago.is_some_and(|ago| ago < ANSWERED_MAX))
            .map(|(id, it)| (it.matched_index, *id))
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Lets another lead, so that ending this replica costs nobody an election timeout.
    pub(crate) async fn hand_over(&self) -> Result<(), MembersError> {
        let mut last = Err(MembersError::Refused { reason: "no other voter answers".into() });
        for successor in self.successors() {
            if !self.leads() {
                return Ok(());
            }
            last = self.transfer_leader(successor).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> MembersError {
    match error {
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(it) | ClientWriteError::LogEntryDiscarded(it),
        ) => MembersError::NotLeader { leader: it.leader_id.map(ReplicaId) },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => MembersError::Busy,
            other => MembersError::Refused { reason: other.to_string() },
        },
        RaftError::APIError(other) => MembersError::Refused { reason: other.to_string() },
        RaftError::Fatal(_) => MembersError::Stopped,
    }
}

#[async_trait]
impl Members for RaftLog {
    fn state(&self) -> MembersState {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        let effective = &seen.membership_config;
        let ids = |it: &BTreeSet<u64>| it.iter().copied().map(ReplicaId).collect();
        // A name that is none is a member that was never told where it runs.
        let hosts = effective.nodes().filter_map(|(id, node)| {
            HostId::new(&node.addr).ok().map(|host| (ReplicaId(*id), host))
        });
        let heard = seen.heartbeat.as_ref();
        let progress = seen.replication.iter().flatten().map(|(id, matched)| {
            let answered = heard.and_then(|it| it.get(id).copied().flatten());
            let progress = MemberProgress {
                matched_index: matched.as_ref().map_or(0, |it| it.index),
                answered_ago: answered.map(|it| it.elapsed()),
            };
            (ReplicaId(*id), progress)
        });
        MembersState {
            voters: effective.get_joint_config().iter().map(ids).collect(),
            hosts: hosts.collect(),
            is_committed: effective.log_id() == seen.committed_membership_config.log_id(),
            progress: progress.collect(),
            last_index: seen.last_log_index.unwrap_or(0),
        }
    }

    async fn add_learner(&self, id: ReplicaId, host: &HostId) -> Result<(), MembersError> {
        let node = BasicNode { addr: host.to_string() };
        self.change(ChangeMembers::AddNodes([(id.0, node)].into())).await
    }

    async fn set_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), MembersError> {
        let ids = voters.into_iter().map(|it| it.0).collect();
        self.change(ChangeMembers::ReplaceAllVoters(ids)).await
    }

    async fn remove_learner(&self, id: ReplicaId) -> Result<(), MembersError> {
        self.change(ChangeMembers::RemoveNodes([id.0].into())).await
    }

    async fn transfer_leader(&self, to: ReplicaId) -> Result<(), MembersError> {
        if !self.leads() {
            let leader = self.leader().map(|(id, _)| id);
            return Err(MembersError::NotLeader { leader });
        }
        if to == self.id || !self.state().is_voter(to) {
            let reason = format!("replica {} is no other voter", to.0);
            return Err(MembersError::Refused { reason });
        }
        self.raft.trigger().transfer_leader(to.0).await.map_err(|_| MembersError::Stopped)?;
        let until = self.env.monotonic() + TRANSFER_MAX;
        while self.leads() {
            if self.env.monotonic() >= until {
                let reason = format!("replica {} did not take over in time", to.0);
                return Err(MembersError::Refused { reason });
            }
            self.env.sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}
