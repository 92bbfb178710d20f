//! The seam to the membership of the replicated log: who votes, who learns, how far each of them is.
//!
//! Deciding who shall be a member is not the log's business (`actors/cluster` decides); making the change safe is
//! (joint consensus, Raft §6). A member is known by its replica id and by the name of its host; where that host is
//! reached stands nowhere in the log, so a host may change its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use kactor_protocol::HostId;
use kactor_protocol::ids::ReplicaId;

/// The membership that this replica knows, committed or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MembersState {
    /// One set, or two while they change (joint consensus).
    pub voters: Vec<BTreeSet<ReplicaId>>,
    /// All members, voters and learners, by the host that each runs on.
    pub hosts: BTreeMap<ReplicaId, HostId>,
    /// Whether the membership is committed: a change under way is not.
    pub is_committed: bool,
    /// Present on the leader alone: how far it knows each member to be.
    pub progress: BTreeMap<ReplicaId, MemberProgress>,
    /// The last entry of this replica's own log.
    pub last_index: u64,
}

impl MembersState {
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.iter().any(|it| it.contains(&id))
    }

    /// Members that do not vote.
    pub fn learners(&self) -> impl Iterator<Item = (ReplicaId, &HostId)> {
        self.hosts.iter().filter(|(id, _)| !self.is_voter(**id)).map(|(id, host)| (*id, host))
    }
}

/// How far the leader knows a member to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemberProgress {
    /// The last entry that is known to be on its disk.
    pub matched_index: u64,
    /// Since it answered last; `None` when it never did under this leader.
    pub answered_ago: Option<Duration>,
}

/// Why a membership did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    #[error("this replica is not the leader")]
    NotLeader { leader: Option<ReplicaId> },
    #[error("another change of members is under way")]
    Busy,
    #[error("the members can't change so: {reason}")]
    Refused { reason: String },
    #[error("no quorum of replicas answers")]
    NoQuorum,
    #[error("the store stopped")]
    Stopped,
}

/// Changes the membership. Only the leader's succeed; each returns once the change is committed.
#[async_trait]
pub trait Members: Send + Sync {
    fn state(&self) -> MembersState;

    /// Begins to replicate to a new member, which does not vote. Does not wait until it has caught up.
    async fn add_learner(&self, id: ReplicaId, host: &HostId) -> Result<(), MembersError>;

    /// Makes exactly these members vote, in one joint change; former voters become learners.
    async fn set_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), MembersError>;

    /// Takes a member that does not vote out of the membership.
    async fn remove_learner(&self, id: ReplicaId) -> Result<(), MembersError>;

    /// Asks `to` to take over; returns when this replica no longer leads, or says why it still does.
    async fn transfer_leader(&self, to: ReplicaId) -> Result<(), MembersError>;
}
