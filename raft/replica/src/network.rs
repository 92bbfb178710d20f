//! The seam to the other replicas: whatever carries raft's messages (`MessageTransport`, or a test's own).
//!
//! `RaftTransport` is object-safe and speaks openraft's request types in memory; the implementation that crosses hosts
//! encodes them as frozen records. What a follower asks its leader goes the same way. A lone replica has `NoPeers`.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kactor_protocol::frame::Refusal;
use kactor_protocol::raft::{ReadIndex, StateSums, VoteKind};
use kactor_protocol::store::Propose;
use kactor_protocol::time::Deadline;
use kactor_protocol::{HostId, Message};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use crate::findings::Findings;
use crate::raft_types::{Types, Vote};
use crate::state_machine::{Snapshot, SnapshotBody, SnapshotMeta};

/// How long entries may take to be on the peer's disk: a slow one must not make them be sent again and again.
const ENTRIES_TTL: Duration = Duration::from_secs(2);
/// How long the news of a commit may take. Heartbeats have raft's own, shorter time, which raft keeps by itself.
const NEWS_TTL: Duration = Duration::from_millis(500);
/// Pauses between attempts to reach a peer; the last one repeats.
const BACKOFF_MS: [u64; 4] = [50, 100, 200, 400];

/// A state's bytes, made while they are sent.
pub type Chunks = Box<dyn Iterator<Item = Bytes> + Send>;

/// Reaches a peer. An error means "unreachable now", `TimedOut` "no answer in time"; raft tries again.
#[async_trait]
pub trait RaftTransport: Send + Sync {
    async fn append(
        &self,
        peer: &Peer,
        request: AppendEntriesRequest<Types>,
        ttl: Duration,
    ) -> io::Result<AppendEntriesResponse<Types>>;

    async fn vote(
        &self,
        peer: &Peer,
        kind: VoteKind,
        request: VoteRequest<Types>,
        ttl: Duration,
    ) -> io::Result<VoteResponse<Types>>;

    /// `ttl` is for each chunk.
    async fn snapshot(
        &self,
        peer: &Peer,
        vote: Vote,
        meta: SnapshotMeta,
        chunks: Chunks,
        ttl: Duration,
    ) -> io::Result<SnapshotResponse<Types>>;

    async fn transfer_leader(
        &self,
        peer: &Peer,
        request: TransferLeaderRequest<Types>,
        ttl: Duration,
    ) -> io::Result<TransferLeaderResponse<Types>>;

    /// The sums of the peer's state right after entry `index`.
    async fn compare(
        &self,
        peer: &Peer,
        index: u64,
        range: Option<String>,
        deadline: Deadline,
    ) -> io::Result<StateSums>;

    /// Asks the store of the leader's host.
    async fn propose(
        &self,
        leader: &HostId,
        propose: Propose,
        deadline: Deadline,
    ) -> Result<<Propose as Message>::Reply, Refusal>;

    /// Asks the store of the leader's host.
    async fn read_index(
        &self,
        leader: &HostId,
        deadline: Deadline,
    ) -> Result<<ReadIndex as Message>::Reply, Refusal>;
}

/// Another replica, as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: u64,
    /// The name of its host. Where that is reached now is the transport's business.
    pub host: String,
    /// Which cluster and replica asks.
    pub cluster: Arc<str>,
    pub from: u64,
}

/// The transport of a replica that is alone.
pub struct NoPeers;

fn alone<T>(peer: &Peer) -> io::Result<T> {
    let reason = format!("no transport to replica {} on {}", peer.id, peer.host);
    Err(io::Error::new(io::ErrorKind::NotConnected, reason))
}

fn no_leader<T>(leader: &HostId) -> Result<T, Refusal> {
    Err(Refusal::Unreachable { host: leader.to_string(), reason: "no transport".into() })
}

#[async_trait]
impl RaftTransport for NoPeers {
    async fn append(
        &self,
        peer: &Peer,
        _: AppendEntriesRequest<Types>,
        _: Duration,
    ) -> io::Result<AppendEntriesResponse<Types>> {
        alone(peer)
    }

    async fn vote(
        &self,
        peer: &Peer,
        _: VoteKind,
        _: VoteRequest<Types>,
        _: Duration,
    ) -> io::Result<VoteResponse<Types>> {
        alone(peer)
    }

    async fn snapshot(
        &self,
        peer: &Peer,
        _: Vote,
        _: SnapshotMeta,
        _: Chunks,
        _: Duration,
    ) -> io::Result<SnapshotResponse<Types>> {
        alone(peer)
    }

    async fn transfer_leader(
        &self,
        peer: &Peer,
        _: TransferLeaderRequest<Types>,
        _: Duration,
    ) -> io::Result<TransferLeaderResponse<Types>> {
        alone(peer)
    }

    async fn compare(
        &self,
        peer: &Peer,
        _: u64,
        _: Option<String>,
        _: Deadline,
    ) -> io::Result<StateSums> {
        alone(peer)
    }

    async fn propose(
        &self,
        leader: &HostId,
        _: Propose,
        _: Deadline,
    ) -> Result<<Propose as Message>::Reply, Refusal> {
        no_leader(leader)
    }

    async fn read_index(
        &self,
        leader: &HostId,
        _: Deadline,
    ) -> Result<<ReadIndex as Message>::Reply, Refusal> {
        no_leader(leader)
    }
}

/// Gives openraft a link per peer.
#[derive(Clone)]
pub(crate) struct Links {
    pub transport: Arc<dyn RaftTransport>,
    pub cluster: Arc<str>,
    pub own: u64,
    pub acknowledged: Acknowledged,
}

/// What each peer said to have on its disk, under this leader: by peer, the leader's term and the entry.
#[derive(Clone)]
pub(crate) struct Acknowledged {
    entries: Arc<Mutex<BTreeMap<u64, (u64, u64)>>>,
    findings: Arc<Findings>,
}

impl Acknowledged {
    pub fn new(findings: Arc<Findings>) -> Self {
        Self { entries: Arc::default(), findings }
    }

    /// Notes what a peer acknowledged. One that lacks what it acknowledged to the same leader lost it: that is kept from
    /// raft, which would count on the peer as before; nothing more is sent to it until it is another replica.
    fn note(
        &self,
        peer: &Peer,
        sent: Sent,
        reply: &AppendEntriesResponse<Types>,
    ) -> Result<(), io::Error> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.get(&peer.id).filter(|it| it.0 == sent.term).map_or(0, |it| it.1);
        match reply {
            AppendEntriesResponse::Success if sent.last > known => {
                entries.insert(peer.id, (sent.term, sent.last));
            }
            AppendEntriesResponse::PartialSuccess(Some(last)) if last.index > known => {
                entries.insert(peer.id, (sent.term, last.index));
            }
            AppendEntriesResponse::Conflict if known > 0 && sent.previous <= known => {
                self.findings.lost(peer.id, &peer.host, sent.previous);
                let reason = format!("replica {} lost entry {}", peer.id, sent.previous);
                return Err(io::Error::new(io::ErrorKind::NotConnected, reason));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Which entries a request held.
#[derive(Clone, Copy)]
struct Sent {
    term: u64,
    previous: u64,
    last: u64,
}

impl Sent {
    fn of(request: &AppendEntriesRequest<Types>) -> Self {
        let previous = request.prev_log_id.map_or(0, |it| it.index);
        let last = request.entries.last().map_or(previous, |it| it.log_id.index);
        Self { term: request.vote.leader_id().term, previous, last }
    }
}

pub(crate) struct Link {
    transport: Arc<dyn RaftTransport>,
    peer: Peer,
    acknowledged: Acknowledged,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &openraft::impls::BasicNode) -> Link {
        let peer = Peer {
            id: target,
            host: node.addr.clone(),
            cluster: self.cluster.clone(),
            from: self.own,
        };
        Link { transport: self.transport.clone(), peer, acknowledged: self.acknowledged.clone() }
    }
}

/// What got no answer in time may be tried at once; who can't be reached is left alone for a moment.
fn failed(error: io::Error) -> RPCError<Types> {
    match error.kind() {
        io::ErrorKind::TimedOut => RPCError::Network(NetworkError::new(&error)),
        _ => RPCError::Unreachable(Unreachable::new(&error)),
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotBody;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let ttl = match request.entries.is_empty() {
            true => option.hard_ttl().max(NEWS_TTL),
            false => ENTRIES_TTL,
        };
        let sent = Sent::of(&request);
        let reply = self.transport.append(&self.peer, request, ttl).await.map_err(failed)?;
        self.acknowledged.note(&self.peer, sent, &reply).map_err(failed)?;
        Ok(reply)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let kind = match request.leadership_transfer {
            true => VoteKind::Transfer,
            false => VoteKind::Real,
        };
        self.transport.vote(&self.peer, kind, request, option.hard_ttl()).await.map_err(failed)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let ttl = option.hard_ttl();
        self.transport.vote(&self.peer, VoteKind::Pre, request, ttl).await.map_err(failed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let chunks = snapshot.snapshot.into_chunks();
        let ttl = option.hard_ttl();
        let sent = self.transport.snapshot(&self.peer, vote, snapshot.meta, chunks, ttl);
        let cancel = std::pin::pin!(cancel);
        match futures::future::select(sent, cancel).await {
            futures::future::Either::Left((sent, _)) => {
                sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
            futures::future::Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let ttl = option.hard_ttl();
        self.transport.transfer_leader(&self.peer, request, ttl).await.map_err(failed)
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        let pauses = BACKOFF_MS.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}
