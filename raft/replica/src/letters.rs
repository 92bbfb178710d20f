//! openraft's requests as letters of the wire, and back. Pure; entries and memberships as the journal's frozen records.

use bytes::Bytes;
use kactor_protocol::codec::{self, CodecError};
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::raft::{
    AppendEntries, AppendReply, LogId as WireLogId, RaftHead, RaftVote, RequestVote, SnapshotEnd,
    TransferLeader, TransferReply, VoteKind, VoteReply,
};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::network::Peer;
use crate::raft_types::{Committed, Entry, LogId, StoredMembership, Types, Vote};
use crate::record::{MembershipRecord, Record};
use crate::state_machine::SnapshotMeta;

/// Bytes that are no record of the kind that belongs there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LetterError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("a record that is no entry stands among the entries")]
    NoEntry,
}

pub(crate) fn head(peer: &Peer) -> RaftHead {
    RaftHead {
        cluster: peer.cluster.to_string(),
        from: ReplicaId(peer.from),
        to: ReplicaId(peer.id),
    }
}

pub(crate) fn log_id_out(id: LogId) -> WireLogId {
    WireLogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn log_id_in(id: WireLogId) -> LogId {
    LogId { leader_id: Committed::new(id.term), index: id.index }
}

pub(crate) fn vote_out(vote: &Vote) -> RaftVote {
    let leader = vote.leader_id();
    let voted_for = ReplicaId(leader.voted_for);
    RaftVote { term: leader.term, voted_for, committed: vote.is_committed() }
}

pub(crate) fn vote_in(vote: RaftVote) -> Vote {
    match vote.committed {
        true => Vote::new_committed(vote.term, vote.voted_for.0),
        false => Vote::new(vote.term, vote.voted_for.0),
    }
}

pub(crate) fn append_out(
    head: RaftHead,
    request: AppendEntriesRequest<Types>,
) -> Result<AppendEntries, LetterError> {
    let record = |entry: Entry| Ok(codec::encode(&Record::Entry((&entry).into()))?);
    Ok(AppendEntries {
        head,
        vote: vote_out(&request.vote),
        previous: request.prev_log_id.map(log_id_out),
        committed: request.leader_commit.map(log_id_out),
        entries: request.entries.into_iter().map(record).collect::<Result<_, LetterError>>()?,
    })
}

pub(crate) fn append_in(
    letter: &AppendEntries,
) -> Result<AppendEntriesRequest<Types>, LetterError> {
    let entry = |bytes: &Bytes| match codec::decode(bytes)? {
        Record::Entry(record) => Ok(record.into()),
        _ => Err(LetterError::NoEntry),
    };
    Ok(AppendEntriesRequest {
        vote: vote_in(letter.vote),
        prev_log_id: letter.previous.map(log_id_in),
        entries: letter.entries.iter().map(entry).collect::<Result<_, LetterError>>()?,
        leader_commit: letter.committed.map(log_id_in),
    })
}

pub(crate) fn append_reply_out(reply: AppendEntriesResponse<Types>) -> AppendReply {
    match reply {
        AppendEntriesResponse::Success => AppendReply::Success,
        AppendEntriesResponse::PartialSuccess(last) => {
            AppendReply::Partly { last: last.map(log_id_out) }
        }
        AppendEntriesResponse::Conflict => AppendReply::Conflict,
        AppendEntriesResponse::HigherVote(vote) => {
            AppendReply::HigherVote { vote: vote_out(&vote) }
        }
    }
}

pub(crate) fn append_reply_in(reply: AppendReply) -> AppendEntriesResponse<Types> {
    match reply {
        AppendReply::Success => AppendEntriesResponse::Success,
        AppendReply::Partly { last } => AppendEntriesResponse::PartialSuccess(last.map(log_id_in)),
        AppendReply::Conflict => AppendEntriesResponse::Conflict,
        AppendReply::HigherVote { vote } => AppendEntriesResponse::HigherVote(vote_in(vote)),
    }
}

pub(crate) fn vote_request_out(
    head: RaftHead,
    kind: VoteKind,
    request: &VoteRequest<Types>,
) -> RequestVote {
    let last = request.last_log_id.map(log_id_out);
    RequestVote { head, kind, vote: vote_out(&request.vote), last }
}

pub(crate) fn vote_request_in(letter: &RequestVote) -> VoteRequest<Types> {
    let mut request = VoteRequest::new(vote_in(letter.vote), letter.last.map(log_id_in));
    request.leadership_transfer = letter.kind == VoteKind::Transfer;
    request
}

pub(crate) fn vote_reply_out(reply: &VoteResponse<Types>) -> VoteReply {
    VoteReply {
        vote: vote_out(&reply.vote),
        granted: reply.vote_granted,
        last: reply.last_log_id.map(log_id_out),
    }
}

pub(crate) fn vote_reply_in(reply: VoteReply) -> VoteResponse<Types> {
    VoteResponse::new(vote_in(reply.vote), reply.last.map(log_id_in), reply.granted)
}

pub(crate) fn transfer_out(
    head: RaftHead,
    request: &TransferLeaderRequest<Types>,
) -> TransferLeader {
    TransferLeader {
        head,
        vote: vote_out(request.from_leader()),
        successor: ReplicaId(*request.to_node_id()),
        last: request.last_log_id().copied().map(log_id_out),
    }
}

pub(crate) fn transfer_in(letter: &TransferLeader) -> TransferLeaderRequest<Types> {
    let last = letter.last.map(log_id_in);
    TransferLeaderRequest::new(vote_in(letter.vote), letter.successor.0, last)
}

pub(crate) fn transfer_reply_out(reply: TransferLeaderResponse<Types>) -> TransferReply {
    match reply {
        Ok(()) => TransferReply::Taken,
        Err(TransferLeaderError::VoteChanged { actual, .. }) => {
            TransferReply::VoteChanged { vote: vote_out(&actual) }
        }
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            TransferReply::Behind { last: actual.map(log_id_out) }
        }
    }
}

pub(crate) fn transfer_reply_in(
    asked: &TransferLeader,
    reply: TransferReply,
) -> TransferLeaderResponse<Types> {
    match reply {
        TransferReply::Taken => Ok(()),
        TransferReply::VoteChanged { vote } => Err(TransferLeaderError::VoteChanged {
            expected: vote_in(asked.vote),
            actual: vote_in(vote),
        }),
        TransferReply::Behind { last } => Err(TransferLeaderError::LogNotFlushed {
            expected: asked.last.map(log_id_in),
            actual: last.map(log_id_in),
        }),
    }
}

pub(crate) fn snapshot_end_out(meta: &SnapshotMeta) -> Result<SnapshotEnd, LetterError> {
    let membership: MembershipRecord = meta.last_membership.membership().into();
    Ok(SnapshotEnd {
        last: meta.last_log_id.map(log_id_out),
        membership_id: meta.last_membership.log_id().map(log_id_out),
        membership: codec::encode(&membership)?,
    })
}

pub(crate) fn snapshot_end_in(end: &SnapshotEnd) -> Result<SnapshotMeta, LetterError> {
    let membership: MembershipRecord = codec::decode(&end.membership)?;
    let id = end.membership_id.map(log_id_in);
    Ok(SnapshotMeta {
        last_log_id: end.last.map(log_id_in),
        last_membership: StoredMembership::new(id, membership.into()),
    })
}
