//! What replicas say to each other, and what control hosts ask the leader: raft's own letters, reads, checksums.
//!
//! The log's entries and memberships travel as the bytes of the journal's frozen records, so this crate knows no raft
//! types; `raft/replica` makes and reads them. Each letter names the cluster and both replicas: after a restore or a
//! wiped disk a host of the same name is another replica, and must take nothing that was meant for the former one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ReplicaId, Revision};
use crate::store::Key;

/// Bytes of entries in one `AppendEntries`, unless one entry alone is larger. With a largest entry of about 4 MB beside
/// them the message stays below the codec's limit.
pub const APPEND_BYTES_MAX: usize = 3 << 20;

/// Names an entry of the log: terms have one leader each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogId {
    pub term: u64,
    pub index: u64,
}

/// A vote; committed once a quorum gave it, so that it is a leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftVote {
    pub term: u64,
    pub voted_for: ReplicaId,
    pub committed: bool,
}

/// Which replica of which cluster speaks to which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftHead {
    pub cluster: String,
    pub from: ReplicaId,
    pub to: ReplicaId,
}

/// Why a replica took nothing of a letter. Raft tries again, or learns that it speaks to the wrong one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RaftRefusal {
    #[error("the receiver belongs to cluster {ours}")]
    OtherCluster { ours: String },
    #[error("the receiver is replica {}", ours.0)]
    OtherReplica { ours: ReplicaId },
    /// Its disk is almost full: it takes no entries, and votes all the same.
    #[error("the receiver's disk is almost full")]
    Full,
    #[error("what was sent can't be read: {reason}")]
    Malformed { reason: String },
    #[error("the receiver stopped")]
    Stopped,
    /// Its journal is as long as it may be, until a checkpoint is written.
    #[error("the receiver's disk is slow")]
    Slow,
}

/// Take these entries after `previous`; without entries it is a heartbeat.
///
/// From: the leader's replica. To: `raft` of a member. Limit: `APPEND_BYTES_MAX`. Overload: the sender tries again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendEntries {
    pub head: RaftHead,
    pub vote: RaftVote,
    pub previous: Option<LogId>,
    pub committed: Option<LogId>,
    /// Each a record of the journal.
    pub entries: Vec<Bytes>,
}

/// What became of `AppendEntries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendReply {
    /// All of it is on the receiver's disk.
    Success,
    /// The entries up to this one are.
    Partly { last: Option<LogId> },
    /// The receiver has no entry `previous`.
    Conflict,
    /// The receiver knows a later leader or candidate.
    HigherVote { vote: RaftVote },
}

/// Whether a vote is asked for, or whether it would be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoteKind {
    /// Nothing is promised and nothing written.
    Pre,
    Real,
    /// The leader itself asked for this election: its lease is no reason to refuse.
    Transfer,
}

/// Vote for me.
///
/// From: a candidate's replica. To: `raft` of every voter. Durable there before it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestVote {
    pub head: RaftHead,
    pub kind: VoteKind,
    pub vote: RaftVote,
    pub last: Option<LogId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteReply {
    pub vote: RaftVote,
    pub granted: bool,
    pub last: Option<LogId>,
}

/// One piece of a whole state, for a member that is too far behind for entries. Pieces of one transfer go in order, each
/// after the one before was answered; the state is checked whole before it replaces anything.
///
/// From: the leader's replica, on the bulk lane. To: `raft` of a member, which holds one transfer at a time: a later one
/// ends the earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallSnapshot {
    pub head: RaftHead,
    pub vote: RaftVote,
    /// Names the transfer among all of this sender.
    pub transfer: u64,
    /// Where in the transfer this piece begins.
    pub offset: u64,
    pub chunk: Bytes,
    /// Present in the last piece alone.
    pub end: Option<SnapshotEnd>,
}

/// What the state of a snapshot belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    pub last: Option<LogId>,
    pub membership_id: Option<LogId>,
    /// The journal's record of a membership.
    pub membership: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotReply {
    /// The next piece begins here.
    Next { offset: u64 },
    /// It is installed and durable, or was of a leader that the receiver no longer follows: then the vote is higher.
    Done { vote: RaftVote },
    /// The transfer is not known (any more), or a piece is missing: begin again.
    Unknown,
    /// What came is no state; nothing was changed.
    Damaged { reason: String },
}

/// The leader wants `to` of its head to lead.
///
/// From: the leader's replica. To: `raft` of every voter, so that none of them holds on to the leader's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLeader {
    pub head: RaftHead,
    pub vote: RaftVote,
    pub successor: ReplicaId,
    pub last: Option<LogId>,
}

/// Whether the successor takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferReply {
    Taken,
    /// Another vote was given meanwhile.
    VoteChanged {
        vote: RaftVote,
    },
    /// The successor lacks entries.
    Behind {
        last: Option<LogId>,
    },
}

/// Which index must a read that begins now have applied, to see every write acknowledged before?
///
/// From: control hosts. To: `store` of the leader, which confirms with a quorum that it still leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadIndex {}

/// Why the leader, or who was taken for it, does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReadIndexError {
    #[error("this replica is not the leader")]
    NotLeader { leader: Option<ReplicaId> },
    #[error("no quorum of replicas answers")]
    NoQuorum,
    #[error("the store stopped")]
    Stopped,
}

/// Tell the checksums of your state as it is right after entry `index`, which is still to come.
///
/// From: the leader's replica. To: `raft` of every member. Answered when that entry is applied, or at the deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareState {
    pub head: RaftHead,
    pub index: u64,
    /// Of each object of this range; of all ranges when there is none.
    pub range: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateSums {
    /// The receiver is past that entry already.
    Passed {
        applied: u64,
    },
    Ranges(Vec<RangeSums>),
    /// The first `OBJECT_SUMS_MAX` objects of the range, by key.
    Objects(Vec<ObjectSums>),
}

/// Most objects that one answer names.
pub const OBJECT_SUMS_MAX: usize = 10_000;

/// The sum over the live objects of one resource, `/{group}/{resource}/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeSums {
    pub range: String,
    pub n_objects: u64,
    pub sum: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectSums {
    pub key: Key,
    pub modified: Revision,
    pub hash: u64,
}
