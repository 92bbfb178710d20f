//! All links of one host: whom it dials, who dialed it, what waits for an answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kactor_protocol::HostId;
use kactor_protocol::frame::{Frame, FrameKind, Peek, Refusal};
use kactor_protocol::ids::LetterId;
use kactor_protocol::message::Lane;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, EndpointConfig, Runtime};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::connection::{
    CLOSE_GOING, CLOSE_REFUSED, CLOSE_SUPERSEDED, Channel, Halves, ReadEnd, Traffic, read,
    read_hello, write,
};
use crate::dial::{self, Wanted};
use crate::hello::{Follows, Hello};
use crate::identity::{Credentials, Identity, IdentityError};
use crate::lane::{index, of_protocol};
use crate::peer::{LaneState, LinkStatus, Peer, Waiting, status};
use crate::settings;
use crate::turn::Turns;

/// Handshakes under way; above the first number a caller must prove its address, above the second it is ignored.
const HANDSHAKES_PROVEN: usize = 32;
const HANDSHAKES_MAX: usize = 256;
/// How long a connection that we gave up waits for the other end to begin to use it.
const UNUSED_TIME_MAX: Duration = Duration::from_secs(5);
const SUPERSEDED: &[u8] = b"another connection took over";
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// What the links hand on, and whom they ask about peers.
pub trait Host: Send + Sync + 'static {
    /// Whether the peer may be linked at all (a removed host, a name bound to another key): the reason goes to the peer.
    fn admit(&self, peer: &Identity) -> Result<(), String>;
    /// Takes a tell or an ask. It must not wait; the future gives the answering frame.
    fn receive(&self, peer: &Identity, frame: Bytes) -> BoxFuture<'static, Option<Bytes>>;
    /// The first connection to a host came about.
    fn found(&self, peer: &HostId);
    /// The last connection to a host is gone.
    fn lost(&self, peer: &HostId, why: &str);
}

/// How a host's links are set up.
pub struct LinksConfig {
    pub host: HostId,
    /// This life of the process; differs from every earlier one.
    pub incarnation: u64,
    pub credentials: Credentials,
    pub socket: UdpSocket,
    pub runtime: Arc<dyn Runtime>,
}

#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    #[error("this host's certificate, key or the cluster's CA can't be used for links: {0}")]
    Credentials(String),
    #[error("the UDP socket for links can't be used")]
    Socket(#[source] io::Error),
}

/// Why a frame was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nothing was sent: it is safe to send again.
    #[error("host {host} can't be reached: {reason}")]
    Unreachable { host: HostId, reason: String },
    /// It was sent, the link broke, and whether it arrived is not known.
    #[error("the link to host {host} broke before an answer came: {reason}")]
    Lost { host: HostId, reason: String },
}

#[derive(Clone)]
pub struct Links(Arc<Inner>);

struct Inner {
    me: HostId,
    incarnation: u64,
    host: Arc<dyn Host>,
    endpoint: Endpoint,
    runtime: Arc<dyn Runtime>,
    clients: Mutex<[quinn::ClientConfig; 2]>,
    peers: Mutex<BTreeMap<HostId, Peer>>,
}

impl Links {
    /// Begins to answer on the socket. Must be called on the runtime's own thread.
    pub fn new(config: LinksConfig, host: Arc<dyn Host>) -> Result<Self, LinksError> {
        let LinksConfig { host: me, incarnation, credentials, socket, runtime } = config;
        let server = settings::server(&credentials)?;
        let clients = clients(&credentials)?;
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime.clone())
                .map_err(LinksError::Socket)?;
        let inner = Inner {
            me,
            incarnation,
            host,
            endpoint,
            runtime,
            clients: Mutex::new(clients),
            peers: Mutex::default(),
        };
        let links = Self(Arc::new(inner));
        let accepting = links.clone();
        links.spawn(async move { accepting.accept().await });
        Ok(links)
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.endpoint.local_addr()
    }

    /// Dials and keeps these hosts; who left the list is no longer dialed and cut off. A host that dials us needs no entry.
    pub fn set_peers(&self, addresses: &BTreeMap<HostId, SocketAddr>) {
        let mut begun = Vec::new();
        let mut peers = self.peers();
        for (host, peer) in peers.iter_mut().filter(|(host, _)| !addresses.contains_key(host)) {
            for state in &mut peer.lanes {
                if state.wanted.take().is_some()
                    && let Some(channel) = &state.current
                {
                    channel.connection.close(CLOSE_GOING, b"it is no peer any more");
                    tracing::debug!(%host, "no longer a peer");
                }
            }
        }
        for (host, address) in addresses.iter().filter(|(host, _)| **host != self.0.me) {
            let peer = peers.entry(host.clone()).or_default();
            for lane in Lane::ALL {
                let state = &mut peer.lanes[index(lane)];
                if let Some(wanted) = &state.wanted {
                    let address = Some(*address);
                    wanted.send_if_modified(|it| {
                        std::mem::replace(&mut it.address, address) != address
                    });
                    continue;
                }
                let is_live = state.current.is_some();
                let wanted = Wanted { address: Some(*address), is_live, renewal: 0 };
                let (sender, receiver) = watch::channel(wanted);
                state.wanted = Some(sender);
                begun.push((host.clone(), lane, receiver));
            }
        }
        drop(peers);
        for (host, lane, wanted) in begun {
            self.spawn(dial::keep(self.clone(), host, lane, wanted));
        }
    }

    /// New handshakes use these; live connections are replaced one by one, without a gap.
    pub fn set_credentials(&self, credentials: &Credentials) -> Result<(), LinksError> {
        let server = settings::server(credentials)?;
        let clients = clients(credentials)?;
        self.0.endpoint.set_server_config(Some(server));
        *self.0.clients.lock().unwrap_or_else(PoisonError::into_inner) = clients;
        for peer in self.peers().values() {
            for wanted in peer.lanes.iter().filter_map(|it| it.wanted.as_ref()) {
                wanted.send_modify(|it| it.renewal += 1);
            }
        }
        Ok(())
    }

    /// Completes when the frame is queued; waits while the lane's queue is full.
    pub async fn tell(&self, to: &HostId, lane: Lane, frame: Bytes) -> Result<(), LinkError> {
        let channel = self.channel(to, lane)?;
        channel.send(frame).await.map_err(|()| self.unreachable(to, lane))
    }

    /// Completes with the answering frame. Dropped, the answer is dropped when it comes.
    pub async fn ask(&self, to: &HostId, lane: Lane, frame: Bytes) -> Result<Bytes, LinkError> {
        let letter = Frame::peek(&frame).map_or(LetterId::NONE, |it| it.letter);
        let (answer, answered) = oneshot::channel();
        let channel = {
            let mut peers = self.peers();
            let state = peers.get_mut(to).map(|it| &mut it.lanes[index(lane)]);
            let current = state.and_then(|it| it.current.clone().map(|channel| (it, channel)));
            let Some((state, channel)) = current else {
                drop(peers);
                return Err(self.unreachable(to, lane));
            };
            let waiting = Waiting { generation: channel.generation, answer };
            state.waiting.insert(letter, waiting);
            channel
        };
        let _forget = Forget { links: self, to, lane, letter };
        channel.send(frame).await.map_err(|()| self.unreachable(to, lane))?;
        drop(channel); // A superseded channel's writer ends when nobody holds it.
        let lost = |reason: String| LinkError::Lost { host: to.clone(), reason };
        match answered.await {
            Ok(answer) => answer.map_err(lost),
            Err(_) => Err(lost("this host is stopping".to_owned())),
        }
    }

    /// Asks the host again about every peer that is linked, and cuts off those that it no longer admits.
    pub fn review(&self) {
        let live: Vec<_> = {
            let peers = self.peers();
            let lanes = peers.values().flat_map(|it| &it.lanes);
            lanes.filter_map(|it| it.current.clone()).collect()
        };
        for channel in live {
            if let Err(reason) = self.0.host.admit(&channel.identity) {
                channel.connection.close(CLOSE_REFUSED, reason.as_bytes());
            }
        }
    }

    pub fn status(&self) -> Vec<LinkStatus> {
        let peers = self.peers();
        let lanes = peers
            .iter()
            .flat_map(|(host, peer)| Lane::ALL.map(|lane| (host, lane, &peer.lanes[index(lane)])));
        lanes.map(|(host, lane, state)| status(host, lane, state)).collect()
    }

    /// Says goodbye and waits until the other ends heard it.
    pub async fn close(&self) {
        for lane in self.peers().values_mut().flat_map(|it| &mut it.lanes) {
            lane.wanted = None; // Its dialer ends.
        }
        self.0.endpoint.close(CLOSE_GOING, b"the host is stopping");
        self.0.endpoint.wait_idle().await;
    }

    // --- for the dialer

    pub(crate) fn me(&self) -> &HostId {
        &self.0.me
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.0.runtime
    }

    pub(crate) fn note_error(&self, peer: &HostId, lane: Lane, error: &str) {
        if let Some(peer) = self.peers().get_mut(peer) {
            peer.lanes[index(lane)].last_error = Some(error.to_owned());
        }
    }

    pub(crate) async fn dial(
        &self,
        peer: &HostId,
        lane: Lane,
        address: SocketAddr,
    ) -> Result<(), DialError> {
        let config = {
            let clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
            clients[index(lane)].clone()
        };
        let connecting = self.0.endpoint.connect_with(config, address, settings::SERVER_NAME)?;
        let connection = tokio::select! {
            biased;
            connected = connecting => connected?,
            () = dial::sleep(&self.0.runtime, dial::DIAL_TIME_MAX) => {
                return Err(DialError::Silent { address });
            }
        };
        let identity = identity_of(&connection)?;
        if identity.host != *peer {
            let found = identity.host.clone();
            connection.close(CLOSE_REFUSED, b"another host was expected at this address");
            return Err(DialError::OtherHost { address, found, expected: peer.clone() });
        }
        if let Err(reason) = self.0.host.admit(&identity) {
            connection.close(CLOSE_REFUSED, reason.as_bytes());
            return Err(DialError::Refused { reason });
        }
        self.adopt(&connection, identity, lane, self.0.me.clone());
        Ok(())
    }

    // --- connections

    async fn accept(self) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        while let Some(incoming) = self.0.endpoint.accept().await {
            let Ok(place) = handshakes.clone().try_acquire_owned() else {
                incoming.ignore();
                continue;
            };
            let under_way = HANDSHAKES_MAX - handshakes.available_permits();
            if under_way > HANDSHAKES_PROVEN && !incoming.remote_address_validated() {
                let _ = incoming.retry(); // It fails only for a proven address.
                continue;
            }
            let links = self.clone();
            self.spawn(async move {
                let _place = place;
                let Ok(connecting) = incoming.accept() else { return };
                tokio::select! {
                    biased;
                    connected = connecting => match connected {
                        Ok(connection) => links.greet(&connection),
                        Err(error) => tracing::debug!(%error, "a handshake failed"),
                    },
                    () = dial::sleep(&links.0.runtime, HANDSHAKE_TIME_MAX) => {}
                }
            });
        }
    }

    /// A host dialed us.
    fn greet(&self, connection: &Connection) {
        let refuse = |reason: &str| {
            tracing::warn!(address = %connection.remote_address(), reason, "refused a link");
            connection.close(CLOSE_REFUSED, reason.as_bytes());
        };
        let identity = match identity_of(connection) {
            Ok(identity) if identity.host == self.0.me => {
                return refuse("it has this host's own name");
            }
            Ok(identity) => identity,
            Err(error) => return refuse(&error.to_string()),
        };
        let Some(lane) = lane_of(connection) else { return refuse("no lane was agreed on") };
        match self.0.host.admit(&identity) {
            Ok(()) => {
                let dialer = identity.host.clone();
                self.adopt(connection, identity, lane, dialer);
            }
            Err(reason) => refuse(&reason),
        }
    }

    /// Reads what comes on the connection, and sends on it if it is the lane's first, or better than the present one.
    fn adopt(&self, connection: &Connection, identity: Identity, lane: Lane, dialer: HostId) {
        let halves = Arc::new(Halves::default());
        let is_new_host = {
            let mut peers = self.peers();
            let peer = peers.entry(identity.host.clone()).or_default();
            let state = &mut peer.lanes[index(lane)];
            let takes_over = match &state.current {
                None => true,
                // Of two that crossed, the smaller name's; of two by one host, the newer (it renewed its certificate).
                Some(current) => dialer <= current.dialer,
            };
            match takes_over {
                true => self.take_over(state, connection, &halves, (dialer, &identity)),
                false => self.retire(connection, &halves),
            }
            takes_over && !std::mem::replace(&mut peer.is_found, true)
        };
        if is_new_host {
            self.0.host.found(&identity.host);
        }
        let (links, connection) = (self.clone(), connection.clone());
        self.spawn(async move { links.serve(connection, halves, identity, lane).await });
    }

    fn take_over(
        &self,
        state: &mut LaneState,
        connection: &Connection,
        halves: &Arc<Halves>,
        (dialer, identity): (HostId, &Identity),
    ) {
        if state.current.is_some() {
            state.follows = Follows::Finished; // Its writer writes what is queued, then finishes.
        }
        state.generation += 1;
        let hello = Hello {
            incarnation: self.0.incarnation,
            generation: state.generation,
            follows: state.follows,
        };
        let traffic = state.traffic.clone();
        let (channel, outgoing) =
            Channel::new(connection.clone(), (dialer, identity), hello, traffic);
        state.current = Some(channel);
        state.last_error = None;
        state.tell_dialer();
        let (links, connection, halves) = (self.clone(), connection.clone(), halves.clone());
        self.spawn(async move {
            if write(outgoing).await {
                links.retire(&connection, &halves);
            }
        });
    }

    /// We send no more on the connection. It is closed when the other end does not either; one that was never used by it
    /// is closed after a while.
    fn retire(&self, connection: &Connection, halves: &Arc<Halves>) {
        halves.we_are_done.store(true, Ordering::SeqCst);
        if halves.are_done() {
            return connection.close(CLOSE_SUPERSEDED, SUPERSEDED);
        }
        let (links, connection, halves) = (self.clone(), connection.clone(), halves.clone());
        self.spawn(async move {
            dial::sleep(&links.0.runtime, UNUSED_TIME_MAX).await;
            if !halves.they_began.load(Ordering::SeqCst) {
                connection.close(CLOSE_SUPERSEDED, SUPERSEDED);
            }
        });
    }

    async fn serve(self, on: Connection, halves: Arc<Halves>, identity: Identity, lane: Lane) {
        while let Ok(mut stream) = on.accept_uni().await {
            halves.they_began.store(true, Ordering::SeqCst);
            let links = self.clone();
            let (on, halves, identity) = (on.clone(), halves.clone(), identity.clone());
            self.spawn(async move {
                let Some(hello) = read_hello(&mut stream).await else { return };
                let (turns, traffic) = links.reading(&identity.host, lane);
                let Ok(turn) = turns.take(hello).await else { return };
                let reading = read(&mut stream, &traffic, |frame| {
                    links.take(&identity, lane, frame);
                });
                let end = tokio::select! {
                    biased;
                    end = reading => end,
                    () = turn.told_to_end() => return,
                };
                match end {
                    ReadEnd::Broken => {}
                    ReadEnd::Malformed(reason) => {
                        tracing::error!(peer = %identity.host, %lane, reason, "a peer sent what is no frame");
                        on.close(CLOSE_REFUSED, reason.as_bytes());
                    }
                    ReadEnd::Finished => {
                        halves.they_are_done.store(true, Ordering::SeqCst);
                        if halves.are_done() {
                            on.close(CLOSE_SUPERSEDED, SUPERSEDED);
                        }
                    }
                }
            });
        }
        let why = on.close_reason().map_or_else(String::new, |it| it.to_string());
        self.forget(&on, &identity.host, lane, &why);
    }

    fn reading(&self, peer: &HostId, lane: Lane) -> (Arc<Turns>, Arc<Traffic>) {
        let mut peers = self.peers();
        let state = &mut peers.entry(peer.clone()).or_default().lanes[index(lane)];
        (state.turns.clone(), state.traffic.clone())
    }

    /// The connection ended: asks that it carried get no answer any more.
    fn forget(&self, connection: &Connection, peer: &HostId, lane: Lane, why: &str) {
        let mut unanswered = Vec::new();
        let is_lost = {
            let mut peers = self.peers();
            let Some(entry) = peers.get_mut(peer) else { return };
            let state = &mut entry.lanes[index(lane)];
            let is_current = state
                .current
                .as_ref()
                .is_some_and(|it| it.connection.stable_id() == connection.stable_id());
            if is_current {
                let generation = state.generation;
                state.current = None;
                state.follows = Follows::Abandoned;
                state.last_error = Some(why.to_owned());
                let all = std::mem::take(&mut state.waiting);
                let (gone, kept) = all.into_iter().partition(|(_, it)| it.generation <= generation);
                (unanswered, state.waiting) = (Vec::from_iter::<BTreeMap<_, _>>(gone), kept);
                state.tell_dialer();
            }
            let is_lost = entry.is_found && entry.lanes.iter().all(|it| it.current.is_none());
            if is_lost {
                entry.is_found = false;
            }
            is_lost
        };
        for (_, it) in unanswered {
            let _ = it.answer.send(Err(why.to_owned()));
        }
        if is_lost {
            self.0.host.lost(peer, why);
        }
    }

    // --- frames

    fn take(&self, peer: &Identity, lane: Lane, frame: Bytes) {
        let Some(head) = Frame::peek(&frame) else { return };
        if matches!(head.kind, Some(FrameKind::Reply | FrameKind::Refusal)) {
            let waiting = self
                .peers()
                .get_mut(&peer.host)
                .and_then(|it| it.lanes[index(lane)].waiting.remove(&head.cause));
            if let Some(waiting) = waiting {
                let _ = waiting.answer.send(Ok(frame)); // Nobody waits any more: its deadline passed.
            }
            return;
        }
        let work = match self.peers().get(&peer.host) {
            Some(it) => it.lanes[index(lane)].work.clone(),
            None => return,
        };
        let Ok(place) = work.try_acquire_owned() else {
            return self.refuse(peer, lane, &head, &frame);
        };
        let answer = self.0.host.receive(peer, frame);
        if head.kind == Some(FrameKind::Tell) {
            return; // It is in its mailbox, or a dead letter.
        }
        let (links, peer) = (self.clone(), peer.host.clone());
        self.spawn(async move {
            let answer = answer.await;
            drop(place);
            if let Some(answer) = answer {
                let _ = links.tell(&peer, lane, answer).await; // Else the asker hears `Lost`.
            }
        });
    }

    fn refuse(&self, peer: &Identity, lane: Lane, head: &Peek, frame: &Bytes) {
        if head.kind != Some(FrameKind::Ask) {
            return;
        }
        let Ok(question) = Frame::decode(frame.clone()) else { return };
        let answer = Frame::refuse(&question.header, &Refusal::Overloaded);
        // Without waiting: a flood must not pile up tasks.
        if let Ok(channel) = self.channel(&peer.host, lane) {
            let _ = futures::FutureExt::now_or_never(channel.send(answer));
        }
    }

    fn channel(&self, to: &HostId, lane: Lane) -> Result<Arc<Channel>, LinkError> {
        let current = self.peers().get(to).and_then(|it| it.lanes[index(lane)].current.clone());
        current.ok_or_else(|| self.unreachable(to, lane))
    }

    fn unreachable(&self, host: &HostId, lane: Lane) -> LinkError {
        let peers = self.peers();
        let error = peers.get(host).and_then(|it| it.lanes[index(lane)].last_error.clone());
        let reason = error.unwrap_or_else(|| match peers.contains_key(host) {
            true => "it was not reached yet".to_owned(),
            false => "its address is not known".to_owned(),
        });
        LinkError::Unreachable { host: host.clone(), reason }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<HostId, Peer>> {
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(Box::pin(future));
    }
}

/// Forgets an ask whose asker went away.
struct Forget<'a> {
    links: &'a Links,
    to: &'a HostId,
    lane: Lane,
    letter: LetterId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.links.peers().get_mut(self.to) {
            peer.lanes[index(self.lane)].waiting.remove(&self.letter);
        }
    }
}

fn clients(credentials: &Credentials) -> Result<[quinn::ClientConfig; 2], LinksError> {
    Ok([settings::client(credentials, Lane::Latency)?, settings::client(credentials, Lane::Bulk)?])
}

fn identity_of(connection: &Connection) -> Result<Identity, IdentityError> {
    let shown = connection.peer_identity().ok_or(IdentityError::Absent)?;
    let chain =
        shown.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| IdentityError::Unreadable)?;
    Identity::of(chain.first().ok_or(IdentityError::Absent)?)
}

fn lane_of(connection: &Connection) -> Option<Lane> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    of_protocol(data.protocol.as_ref()?)
}

/// Why a host was not reached, as `status` shows it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("it can't be dialed: {0}")]
    Connect(#[from] quinn::ConnectError),
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("{address} does not answer")]
    Silent { address: SocketAddr },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{address} is host {found}, not {expected}")]
    OtherHost { address: SocketAddr, found: HostId, expected: HostId },
    #[error("this host refuses it: {reason}")]
    Refused { reason: String },
}
