//! What a replica does with the letters of others: everything between the actor `raft` and openraft.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use kactor_protocol::raft::{
    AppendEntries, AppendReply, CompareState, InstallSnapshot, RaftHead, RaftRefusal, RequestVote,
    SnapshotEnd, SnapshotReply, StateSums, TransferLeader, TransferReply, VoteKind, VoteReply,
};
use kactor_state::ClusterState;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use serde_json::{Value, json};

use crate::letters::{self, LetterError};
use crate::raft_log::RaftLog;
use crate::raft_types::{Types, Vote};
use crate::snapshot_intake::{SnapshotIntake, Taken};
use crate::state_machine::{Snapshot, SnapshotBody, install_bytes};

/// A heartbeat that is not answered so soon waits for an earlier sync.
const HEARTBEAT_WAIT_MAX: Duration = Duration::from_millis(20);
/// How long sums of an entry are waited for.
const COMPARE_WAIT_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Receiving {
    pub log: Arc<RaftLog>,
    pub intake: SnapshotIntake,
}

type Answer<T> = Result<T, RaftRefusal>;

fn stopped(_: RaftError<Types>) -> RaftRefusal {
    RaftRefusal::Stopped
}

fn malformed(error: LetterError) -> RaftRefusal {
    RaftRefusal::Malformed { reason: error.to_string() }
}

impl Receiving {
    /// Whether this replica is the one that is meant.
    pub fn check(&self, head: &RaftHead) -> Answer<()> {
        if *head.cluster != *self.log.cluster {
            return Err(RaftRefusal::OtherCluster { ours: self.log.cluster.to_string() });
        }
        if head.to != self.log.id {
            return Err(RaftRefusal::OtherReplica { ours: self.log.id });
        }
        Ok(())
    }

    /// A heartbeat is taken on a full disk too: it writes nothing, and without it this replica would call elections.
    pub async fn append(&self, letter: AppendEntries) -> Answer<AppendReply> {
        self.log.hear();
        if !letter.entries.is_empty() {
            self.log.room_for_entries()?;
        }
        let request = letters::append_in(&letter).map_err(malformed)?;
        let appended = pin!(self.log.raft.append_entries(request));
        let reply = match letter.entries.is_empty() {
            false => appended.await,
            true => match select(appended, self.log.env.sleep(HEARTBEAT_WAIT_MAX)).await {
                Either::Left((reply, _)) => reply,
                // Raft has it by now, and answers after a sync that is under way: a slow disk must not look like a
                // leader that nobody follows. What is answered here was on the disk before.
                Either::Right((_, _)) if self.has(&letter) => return Ok(AppendReply::Success),
                Either::Right((_, appended)) => appended.await,
            },
        };
        Ok(letters::append_reply_out(reply.map_err(stopped)?))
    }

    /// Whether this leader's vote and the entry that its heartbeat names are on the disk.
    fn has(&self, letter: &AppendEntries) -> bool {
        let Some(flushed) = self.log.raft.watch_log_progress().get() else { return false };
        let last = flushed.last_log_id.map(letters::log_id_out);
        letters::vote_out(&flushed.vote) == letter.vote && letter.previous <= last
    }

    pub async fn compare(&self, letter: CompareState) -> Answer<StateSums> {
        let sums = self.log.machine.probes.ask(&self.log.table, letter.index, letter.range);
        match select(sums, self.log.env.sleep(COMPARE_WAIT_MAX)).await {
            Either::Left((Ok(sums), _)) => Ok(sums),
            _ => Ok(StateSums::Passed { applied: self.log.table.read().applied_index() }),
        }
    }

    pub async fn vote(&self, letter: RequestVote) -> Answer<VoteReply> {
        let request = letters::vote_request_in(&letter);
        let reply = match letter.kind {
            VoteKind::Pre => self.log.raft.pre_vote(request).await,
            VoteKind::Real | VoteKind::Transfer => self.log.raft.vote(request).await,
        };
        Ok(letters::vote_reply_out(&reply.map_err(stopped)?))
    }

    pub async fn install(&self, letter: InstallSnapshot) -> Answer<SnapshotReply> {
        let vote = letters::vote_in(letter.vote);
        if let Some(later) = self.later_than(&vote) {
            return Ok(SnapshotReply::Done { vote: letters::vote_out(&later) });
        }
        if self.log.space.is_short() {
            return Err(RaftRefusal::Full);
        }
        match self.intake.take(letter).await {
            Taken::Next { offset } => Ok(SnapshotReply::Next { offset }),
            Taken::Unknown => Ok(SnapshotReply::Unknown),
            Taken::Damaged { reason } => Ok(SnapshotReply::Damaged { reason }),
            Taken::Whole { state, end } => self.install_whole(vote, state, &end).await,
        }
    }

    async fn install_whole(
        &self,
        vote: Vote,
        state: Box<ClusterState>,
        end: &SnapshotEnd,
    ) -> Answer<SnapshotReply> {
        let meta = letters::snapshot_end_in(end).map_err(malformed)?;
        // A disk that becomes full in the middle would end the process.
        if self.log.space.free_bytes() < install_bytes(&state) {
            return Err(RaftRefusal::Full);
        }
        let snapshot = Snapshot { meta, snapshot: SnapshotBody::State(state) };
        let installed = self.log.raft.install_full_snapshot(vote, snapshot).await;
        let reply = installed.map_err(|_| RaftRefusal::Stopped)?;
        Ok(SnapshotReply::Done { vote: letters::vote_out(&reply.vote) })
    }

    /// Our vote, if it is for a later leader.
    fn later_than(&self, vote: &Vote) -> Option<Vote> {
        let ours = self.log.raft.metrics().borrow_watched().vote;
        (ours.leader_id().term > vote.leader_id().term).then_some(ours)
    }

    pub async fn transfer(&self, letter: TransferLeader) -> Answer<TransferReply> {
        let asked = self.log.raft.handle_transfer_leader(letters::transfer_in(&letter)).await;
        Ok(letters::transfer_reply_out(asked.map_err(|_| RaftRefusal::Stopped)?))
    }

    pub fn report(&self) -> Value {
        let metrics = self.log.raft.metrics();
        let seen = metrics.borrow_watched();
        json!({
            "replica": self.log.id.0,
            "state": format!("{:?}", seen.state),
            "term": seen.current_term,
            "leader": seen.current_leader,
            "voters": seen.membership_config.membership().get_joint_config(),
            "members": seen.membership_config.nodes().map(|(id, node)| (id.to_string(), node.addr.clone()))
                .collect::<std::collections::BTreeMap<_, _>>(),
        })
    }
}
