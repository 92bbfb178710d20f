//! The seam to the other replicas: whatever carries raft's messages (QUIC later, a channel in the simulator).
//!
//! `RaftTransport` is object-safe and speaks openraft's request types in memory; the implementation that crosses hosts
//! encodes them as frozen records. A lone replica has `NoPeers`, which reaches nobody.

use std::future::Future;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use crate::raft_types::{Types, Vote};
use crate::state_machine::{Snapshot, SnapshotBody, SnapshotMeta};

/// Reaches a peer by its id and present address. An error means "unreachable now"; raft tries again.
#[async_trait]
pub trait RaftTransport: Send + Sync {
    async fn append(
        &self,
        peer: &Peer,
        request: AppendEntriesRequest<Types>,
    ) -> io::Result<AppendEntriesResponse<Types>>;

    async fn vote(
        &self,
        peer: &Peer,
        request: VoteRequest<Types>,
    ) -> io::Result<VoteResponse<Types>>;

    async fn pre_vote(
        &self,
        peer: &Peer,
        request: VoteRequest<Types>,
    ) -> io::Result<VoteResponse<Types>>;

    async fn snapshot(
        &self,
        peer: &Peer,
        vote: Vote,
        meta: SnapshotMeta,
        chunks: Vec<Bytes>,
    ) -> io::Result<SnapshotResponse<Types>>;
}

/// Another replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: u64,
    pub address: String,
}

/// The transport of a replica that is alone.
pub struct NoPeers;

fn alone<T>(peer: &Peer) -> io::Result<T> {
    let reason = format!("no transport to replica {} at {}", peer.id, peer.address);
    Err(io::Error::new(io::ErrorKind::NotConnected, reason))
}

#[async_trait]
impl RaftTransport for NoPeers {
    async fn append(
        &self,
        peer: &Peer,
        _: AppendEntriesRequest<Types>,
    ) -> io::Result<AppendEntriesResponse<Types>> {
        alone(peer)
    }

    async fn vote(&self, peer: &Peer, _: VoteRequest<Types>) -> io::Result<VoteResponse<Types>> {
        alone(peer)
    }

    async fn pre_vote(
        &self,
        peer: &Peer,
        _: VoteRequest<Types>,
    ) -> io::Result<VoteResponse<Types>> {
        alone(peer)
    }

    async fn snapshot(
        &self,
        peer: &Peer,
        _: Vote,
        _: SnapshotMeta,
        _: Vec<Bytes>,
    ) -> io::Result<SnapshotResponse<Types>> {
        alone(peer)
    }
}

/// Gives openraft a link per peer.
#[derive(Clone)]
pub(crate) struct Links(pub Arc<dyn RaftTransport>);

pub(crate) struct Link {
    transport: Arc<dyn RaftTransport>,
    peer: Peer,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &openraft::impls::BasicNode) -> Link {
        let peer = Peer { id: target, address: node.addr.clone() };
        Link { transport: self.0.clone(), peer }
    }
}

fn unreachable(error: io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&error))
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotBody;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.transport.append(&self.peer, request).await.map_err(unreachable)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.transport.vote(&self.peer, request).await.map_err(unreachable)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.transport.pre_vote(&self.peer, request).await.map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let chunks = snapshot.snapshot.into_chunks();
        let sent = self.transport.snapshot(&self.peer, vote, snapshot.meta, chunks);
        let cancel = std::pin::pin!(cancel);
        match futures::future::select(sent, cancel).await {
            futures::future::Either::Left((sent, _)) => {
                sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
            futures::future::Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}
