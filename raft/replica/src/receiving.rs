//! What a replica does with the letters of others: everything between the actor `raft` and openraft.

use kactor_protocol::ids::ReplicaId;
use kactor_protocol::raft::{
    AppendEntries, AppendReply, InstallSnapshot, RaftHead, RaftRefusal, RequestVote, SnapshotEnd,
    SnapshotReply, TransferLeader, TransferReply, VoteKind, VoteReply,
};
use kactor_state::ClusterState;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use serde_json::{Value, json};

use crate::letters::{self, LetterError};
use crate::raft_types::{Types, Vote};
use crate::replica::Raft;
use crate::snapshot_intake::{SnapshotIntake, Taken};
use crate::space::Space;
use crate::state_machine::{Snapshot, SnapshotBody, install_bytes};

pub(crate) struct Receiving {
    pub cluster: String,
    pub replica: ReplicaId,
    pub raft: Raft,
    pub space: Space,
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
        if head.cluster != self.cluster {
            return Err(RaftRefusal::OtherCluster { ours: self.cluster.clone() });
        }
        if head.to != self.replica {
            return Err(RaftRefusal::OtherReplica { ours: self.replica });
        }
        Ok(())
    }

    /// A heartbeat is taken on a full disk too: it writes nothing, and without it this replica would call elections.
    pub async fn append(&self, letter: AppendEntries) -> Answer<AppendReply> {
        if !letter.entries.is_empty() && self.space.is_short() {
            return Err(RaftRefusal::Full);
        }
        let request = letters::append_in(&letter).map_err(malformed)?;
        let reply = self.raft.append_entries(request).await.map_err(stopped)?;
        Ok(letters::append_reply_out(reply))
    }

    pub async fn vote(&self, letter: RequestVote) -> Answer<VoteReply> {
        let request = letters::vote_request_in(&letter);
        let reply = match letter.kind {
            VoteKind::Pre => self.raft.pre_vote(request).await,
            VoteKind::Real | VoteKind::Transfer => self.raft.vote(request).await,
        };
        Ok(letters::vote_reply_out(&reply.map_err(stopped)?))
    }

    pub async fn install(&self, letter: InstallSnapshot) -> Answer<SnapshotReply> {
        let vote = letters::vote_in(letter.vote);
        if let Some(later) = self.later_than(&vote) {
            return Ok(SnapshotReply::Done { vote: letters::vote_out(&later) });
        }
        if self.space.is_short() {
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
        if self.space.free_bytes() < install_bytes(&state) {
            return Err(RaftRefusal::Full);
        }
        let snapshot = Snapshot { meta, snapshot: SnapshotBody::State(state) };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        let reply = installed.map_err(|_| RaftRefusal::Stopped)?;
        Ok(SnapshotReply::Done { vote: letters::vote_out(&reply.vote) })
    }

    /// Our vote, if it is for a later leader.
    fn later_than(&self, vote: &Vote) -> Option<Vote> {
        let ours = self.raft.metrics().borrow_watched().vote;
        (ours.leader_id().term > vote.leader_id().term).then_some(ours)
    }

    pub async fn transfer(&self, letter: TransferLeader) -> Answer<TransferReply> {
        let asked = self.raft.handle_transfer_leader(letters::transfer_in(&letter)).await;
        Ok(letters::transfer_reply_out(asked.map_err(|_| RaftRefusal::Stopped)?))
    }

    pub fn report(&self) -> Value {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        json!({
            "replica": self.replica.0,
            "state": format!("{:?}", seen.state),
            "term": seen.current_term,
            "leader": seen.current_leader,
            "voters": seen.membership_config.membership().get_joint_config(),
            "members": seen.membership_config.nodes().map(|(id, node)| (id.to_string(), node.addr.clone()))
                .collect::<std::collections::BTreeMap<_, _>>(),
        })
    }
}
