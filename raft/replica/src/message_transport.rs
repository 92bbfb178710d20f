//! Raft's messages as letters to the actor `raft` of the peer's host.
//!
//! A replica's host name stands in the membership; where that host is reached is the business of the system's transport.
//! Snapshots go chunk by chunk, each after the answer to the one before, so that one chunk of them is in memory here.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use kactor_protocol::frame::Refusal;
use kactor_protocol::raft::{
    CompareState, InstallSnapshot, RaftRefusal, ReadIndex, ReadIndexError, SnapshotEnd,
    SnapshotReply, StateSums, VoteKind,
};
use kactor_protocol::store::{Committed, Propose, ProposeError};
use kactor_protocol::time::Deadline;
use kactor_protocol::{ActorAddress, ActorName, HostId, Incarnation};
use kactor_runtime::{ActorRef, ActorSystem, Inspect};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::letters;
use crate::network::{Chunks, Peer, RaftTransport};
use crate::raft_actor::{RAFT, RaftActor};
use crate::raft_types::{Types, Vote};
use crate::state_machine::SnapshotMeta;
use crate::store_actor::{STORE, StoreActor};

/// How much longer the last chunk may take than another: the whole state is written to disk before it is answered.
const INSTALL_TIMES: u32 = 12;

/// A piece is sent when it has so many bytes; its last chunk may have one object more.
const PIECE_BYTES: usize = 1 << 20;

pub struct MessageTransport {
    system: ActorSystem,
    next_transfer: AtomicU64,
}

impl MessageTransport {
    /// Transfers of one process must not be taken for another's: they are numbered from a random place.
    pub fn new(system: ActorSystem) -> Self {
        let next_transfer = AtomicU64::new(system.env().random_u64() >> 1);
        Self { system, next_transfer }
    }

    fn remote<A: Inspect>(&self, host: HostId, name: &str) -> ActorRef<A> {
        let name = ActorName::new(name).expect("a name of ours");
        self.system.remote(ActorAddress { host, name, incarnation: Incarnation::default() })
    }

    fn raft(&self, peer: &Peer) -> io::Result<ActorRef<RaftActor>> {
        let host = HostId::new(&peer.host).map_err(|error| {
            let reason = format!("replica {} has no host to be reached on: {error}", peer.id);
            io::Error::new(io::ErrorKind::NotConnected, reason)
        })?;
        Ok(self.remote(host, RAFT))
    }

    async fn send_chunk(
        &self,
        peer: &Peer,
        letter: InstallSnapshot,
        ttl: Duration,
    ) -> io::Result<SnapshotReply> {
        let asked = self.raft(peer)?.ask(letter, self.system.deadline(ttl)).await;
        answered(peer, asked)
    }
}

/// Chunks put together, so that a far peer is not waited for too often.
fn pieces(mut chunks: Chunks) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let mut piece = BytesMut::from(chunks.next()?);
        while piece.len() < PIECE_BYTES {
            let Some(chunk) = chunks.next() else { break };
            piece.extend_from_slice(&chunk);
        }
        Some(piece.freeze())
    })
}

fn answered<T>(peer: &Peer, asked: Result<Result<T, RaftRefusal>, Refusal>) -> io::Result<T> {
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(refusal)) => {
            let reason = format!("replica {} on {}: {refusal}", peer.id, peer.host);
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, reason))
        }
        Err(refusal) => {
            let kind = match refusal {
                Refusal::DeadlinePassed | Refusal::Overloaded | Refusal::Lost { .. } => {
                    io::ErrorKind::TimedOut
                }
                _ => io::ErrorKind::NotConnected,
            };
            Err(io::Error::new(kind, format!("replica {} on {}: {refusal}", peer.id, peer.host)))
        }
    }
}

#[async_trait]
impl RaftTransport for MessageTransport {
    async fn append(
        &self,
        peer: &Peer,
        request: AppendEntriesRequest<Types>,
        ttl: Duration,
    ) -> io::Result<AppendEntriesResponse<Types>> {
        let letter = letters::append_out(letters::head(peer), request).map_err(io::Error::other)?;
        let asked = self.raft(peer)?.ask(letter, self.system.deadline(ttl)).await;
        answered(peer, asked).map(letters::append_reply_in)
    }

    async fn vote(
        &self,
        peer: &Peer,
        kind: VoteKind,
        request: VoteRequest<Types>,
        ttl: Duration,
    ) -> io::Result<VoteResponse<Types>> {
        let letter = letters::vote_request_out(letters::head(peer), kind, &request);
        let asked = self.raft(peer)?.ask(letter, self.system.deadline(ttl)).await;
        answered(peer, asked).map(letters::vote_reply_in)
    }

    async fn snapshot(
        &self,
        peer: &Peer,
        vote: Vote,
        meta: SnapshotMeta,
        chunks: Chunks,
        ttl: Duration,
    ) -> io::Result<SnapshotResponse<Types>> {
        let mut end: Option<SnapshotEnd> =
            Some(letters::snapshot_end_out(&meta).map_err(io::Error::other)?);
        let transfer = self.next_transfer.fetch_add(1, Ordering::Relaxed);
        let mut offset = 0;
        let mut chunks = pieces(chunks).peekable();
        while let Some(chunk) = chunks.next() {
            let is_last = chunks.peek().is_none();
            let next = offset + chunk.len() as u64;
            let letter = InstallSnapshot {
                head: letters::head(peer),
                vote: letters::vote_out(&vote),
                transfer,
                offset,
                chunk,
                end: end.take_if(|_| is_last),
            };
            let ttl = if is_last { ttl * INSTALL_TIMES } else { ttl };
            match self.send_chunk(peer, letter, ttl).await? {
                SnapshotReply::Next { offset: theirs } if theirs == next => offset = next,
                SnapshotReply::Done { vote } => {
                    return Ok(SnapshotResponse::new(letters::vote_in(vote)));
                }
                other => return Err(io::Error::other(format!("the snapshot failed: {other:?}"))),
            }
        }
        Err(io::Error::other("the snapshot ended without an answer"))
    }

    async fn transfer_leader(
        &self,
        peer: &Peer,
        request: TransferLeaderRequest<Types>,
        ttl: Duration,
    ) -> io::Result<TransferLeaderResponse<Types>> {
        let letter = letters::transfer_out(letters::head(peer), &request);
        let asked = self.raft(peer)?.ask(letter.clone(), self.system.deadline(ttl)).await;
        answered(peer, asked).map(|reply| letters::transfer_reply_in(&letter, reply))
    }

    async fn compare(
        &self,
        peer: &Peer,
        index: u64,
        range: Option<String>,
        deadline: Deadline,
    ) -> io::Result<StateSums> {
        let letter = CompareState { head: letters::head(peer), index, range };
        answered(peer, self.raft(peer)?.ask(letter, deadline).await)
    }

    async fn propose(
        &self,
        leader: &HostId,
        propose: Propose,
        deadline: Deadline,
    ) -> Result<Result<Committed, ProposeError>, Refusal> {
        self.remote::<StoreActor>(leader.clone(), STORE).ask(propose, deadline).await
    }

    async fn read_index(
        &self,
        leader: &HostId,
        deadline: Deadline,
    ) -> Result<Result<u64, ReadIndexError>, Refusal> {
        self.remote::<StoreActor>(leader.clone(), STORE).ask(ReadIndex {}, deadline).await
    }
}
