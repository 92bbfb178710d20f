//! One host's links: what actors send goes out by them, what others send comes in.
//!
//! Every frame that comes in is judged by the directory as it is then: a host that was taken out of it, or bound to another
//! key, is cut off, and what it still sends meanwhile is permitted nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::frame::{Frame, PROTOCOL_VERSION, Refusal};
use kactor_protocol::message::{Lane, Peer, Role, Row};
use kactor_protocol::{HostId, Incarnation, Timestamp};
use kactor_quic::{
    Credentials, CredentialsError, Host, Identity, LinkError, LinkStatus, Links, LinksConfig,
    LinksError,
};
use kactor_runtime::env::{self, BoxFuture, Env, TaskHandle};
use kactor_runtime::{ActorSystem, Transport};
use tokio::sync::{oneshot, watch};

use crate::directory::{Directory, Known};
use crate::ground::EnvGround;

/// How long the other hosts have to hear that this one goes.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

/// What a host proves itself with, all PEM.
#[derive(Clone)]
pub struct LinkPems {
    /// Its certificate (CN `system:node:NAME`, O `system:nodes`), then what leads to the CA.
    pub cert: String,
    pub key: String,
    /// The cluster's CA; during its rotation the old and the new one.
    pub ca: String,
}

/// The key must not reach a log.
impl std::fmt::Debug for LinkPems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkPems").finish_non_exhaustive()
    }
}

/// How a host's links begin.
#[derive(Debug, Clone)]
pub struct LinkSetup {
    pub host: HostId,
    /// This life of the process.
    pub incarnation: Incarnation,
    pub pems: LinkPems,
    /// UDP; the same address and port as the API's.
    pub listen: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't listen on {address}/udp for other hosts; choose another with --listen IP:PORT")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("this host is {host}, and its certificate is that of {found}")]
    OtherHost { host: HostId, found: String },
    #[error(transparent)]
    Links(#[from] LinksError),
    #[error("the event loop for links ended")]
    Stopped,
}

/// The links of this host, as the transport of its actors.
pub struct HostLinks {
    host: HostId,
    links: Links,
    desk: Arc<Desk>,
    env: Env,
    address: SocketAddr,
    following: TaskHandle,
    /// From when until when the certificate is good.
    validity: Mutex<Validity>,
}

/// Between links and actors.
struct Desk {
    directory: Directory,
    /// Empty until the actors are there, and after the links were closed: the two know each other.
    system: Mutex<Option<ActorSystem>>,
    live: watch::Sender<Arc<BTreeSet<HostId>>>,
}

impl HostLinks {
    /// Binds, and dials whom the directory names. Until `attach`, hosts that dial are put off.
    pub async fn start(
        env: &Env,
        setup: LinkSetup,
        directory: Directory,
    ) -> Result<Arc<Self>, StartError> {
        let (credentials, validity) = credentials(&setup.host, &setup.pems)?;
        let socket = UdpSocket::bind(setup.listen)
            .map_err(|source| StartError::Bind { address: setup.listen, source })?;
        let desk = Arc::new(Desk {
            directory,
            system: Mutex::default(),
            live: watch::channel(Arc::default()).0,
        });
        let host = setup.host;
        let config = LinksConfig {
            host: host.clone(),
            incarnation: setup.incarnation.0,
            credentials,
            socket,
            runtime: kactor_quic::runtime(Arc::new(EnvGround(env.clone()))),
        };
        // The socket belongs to the event loop that links run on.
        let (made, links) = oneshot::channel();
        let listener = desk.clone();
        env.spawn(env::Lane::Links, async move {
            let _ = made.send(Links::new(config, listener));
        });
        let links = links.await.map_err(|_| StartError::Stopped)??;
        let address = links.local_addr().map_err(|it| StartError::Links(LinksError::Socket(it)))?;
        let following = env.spawn(env::Lane::Links, follow(links.clone(), desk.clone()));
        Ok(Arc::new(Self {
            host,
            links,
            desk,
            env: env.clone(),
            address,
            following,
            validity: Mutex::new(validity),
        }))
    }

    /// Gives the links the actors that they bring frames to.
    pub fn attach(&self, system: &ActorSystem) {
        *self.desk.system.lock().unwrap_or_else(PoisonError::into_inner) = Some(system.clone());
    }

    pub fn host(&self) -> &HostId {
        &self.host
    }

    /// Where it listens, with the port that the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn directory(&self) -> &Directory {
        &self.desk.directory
    }

    /// Both lanes to each host of the directory that was ever linked or is dialed.
    pub fn status(&self) -> Vec<LinkStatus> {
        let known = self.desk.directory.known();
        self.links.status().into_iter().filter(|it| known.contains_key(&it.host)).collect()
    }

    /// The hosts that are linked now, and every change of that.
    pub fn live(&self) -> watch::Receiver<Arc<BTreeSet<HostId>>> {
        self.desk.live.subscribe()
    }

    /// New handshakes use these; connections are replaced one by one, without a gap.
    pub fn set_credentials(&self, pems: &LinkPems) -> Result<(), StartError> {
        let (credentials, validity) = credentials(&self.host, pems)?;
        self.links.set_credentials(&credentials)?;
        *self.validity.lock().unwrap_or_else(PoisonError::into_inner) = validity;
        Ok(())
    }

    /// From when until when the certificate is good that new handshakes use.
    pub fn certificate(&self) -> (Timestamp, Timestamp) {
        *self.validity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says goodbye to the other hosts. Afterwards nothing is sent and nothing comes.
    pub async fn close(&self) {
        self.following.abort();
        let closed = self.links.close();
        tokio::select! {
            biased;
            () = closed => {}
            () = self.env.sleep(GOODBYE_TIME_MAX) => {}
        }
        self.desk.system.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

type Validity = (Timestamp, Timestamp);

fn credentials(host: &HostId, pems: &LinkPems) -> Result<(Credentials, Validity), StartError> {
    let credentials = Credentials::from_pem(&pems.cert, &pems.key, &pems.ca)?;
    let other = |found: String| StartError::OtherHost { host: host.clone(), found };
    let identity = credentials.identity().map_err(|it| other(it.to_string()))?;
    match identity.host == *host {
        true => Ok((credentials, (identity.not_before, identity.not_after))),
        false => Err(other(format!("host {}", identity.host))),
    }
}

/// Dials whom the directory names, and cuts off whom it names no more.
async fn follow(links: Links, desk: Arc<Desk>) {
    let mut changes = desk.directory.changed();
    loop {
        let known = desk.directory.known();
        let dialed = known.iter().filter(|(_, it)| it.entry.dial);
        let dialed: BTreeMap<_, _> =
            dialed.filter_map(|(host, it)| Some((host.clone(), it.entry.address?))).collect();
        links.set_peers(&dialed);
        links.review();
        if !changes.next().await {
            return;
        }
    }
}

impl Desk {
    fn system(&self) -> Option<ActorSystem> {
        self.system.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The host as the directory has it, if this is its key.
    fn admitted<'a>(
        known: &'a BTreeMap<HostId, Known>,
        peer: &Identity,
    ) -> Result<&'a Known, String> {
        let Some(it) = known.get(&peer.host) else {
            return Err(format!("host {} is not in this cluster's directory", peer.host));
        };
        match it.entry.key_hash {
            Some(bound) if bound != peer.key_hash => {
                Err(format!("the name {} is bound to another host's key", peer.host))
            }
            _ => Ok(it),
        }
    }
}

impl Host for Desk {
    fn admit(&self, peer: &Identity) -> Result<(), String> {
        if self.system().is_none() {
            return Err("this host is starting or stopping".to_owned());
        }
        Self::admitted(&self.directory.known(), peer).map(drop)
    }

    fn receive(&self, peer: &Identity, frame: Bytes) -> BoxFuture<Option<Bytes>> {
        let known = self.directory.known();
        match (self.system(), Self::admitted(&known, peer)) {
            (Some(system), Ok(it)) => system.receive(&it.peer, frame),
            _ => Box::pin(std::future::ready(None)), // Its link is being cut: the asker hears `Lost`.
        }
    }

    fn found(&self, peer: &HostId) {
        tracing::info!(host = %peer, "linked");
        self.live.send_modify(|it| {
            Arc::make_mut(it).insert(peer.clone());
        });
    }

    fn lost(&self, peer: &HostId, why: &str) {
        tracing::info!(host = %peer, why, "lost the link");
        // Before the watchers are told: who watches from now on sees that it is gone.
        self.live.send_modify(|it| {
            Arc::make_mut(it).remove(peer);
        });
        if let Some(system) = self.system() {
            system.peer_down(peer, why);
        }
    }
}

/// The lane that the message's row names.
fn lane_of(frame: &Bytes) -> Lane {
    let row = Frame::peek(frame).and_then(|it| Row::of(it.message, PROTOCOL_VERSION).ok());
    row.map_or(Lane::Latency, |it| it.lane)
}

fn refusal(error: LinkError) -> Refusal {
    match error {
        LinkError::Unreachable { host, reason } => {
            Refusal::Unreachable { host: host.to_string(), reason }
        }
        LinkError::Lost { host, reason } => Refusal::Lost { host: host.to_string(), reason },
    }
}

impl HostLinks {
    /// Whoever addresses this host by its name needs no link. It may send itself what any host may: it is the same process.
    fn to_self(&self, frame: Bytes) -> Result<BoxFuture<Option<Bytes>>, Refusal> {
        let system = self.desk.system().ok_or_else(|| Refusal::Unreachable {
            host: self.host.to_string(),
            reason: "it is starting or stopping".to_owned(),
        })?;
        let roles = vec![Role::Replica, Role::Control, Role::Worker];
        Ok(system.receive(&Peer { host: self.host.clone(), roles }, frame))
    }
}

impl Transport for HostLinks {
    fn tell(&self, to: &HostId, frame: Bytes) -> BoxFuture<Result<(), Refusal>> {
        if *to == self.host {
            return Box::pin(std::future::ready(self.to_self(frame).map(drop)));
        }
        let (links, to) = (self.links.clone(), to.clone());
        Box::pin(async move { links.tell(&to, lane_of(&frame), frame).await.map_err(refusal) })
    }

    fn ask(&self, to: &HostId, frame: Bytes) -> BoxFuture<Result<Bytes, Refusal>> {
        if *to == self.host {
            let answer = self.to_self(frame);
            return Box::pin(async move { answer?.await.ok_or(Refusal::Ignored) });
        }
        let (links, to) = (self.links.clone(), to.clone());
        Box::pin(async move { links.ask(&to, lane_of(&frame), frame).await.map_err(refusal) })
    }

    fn is_linked(&self, host: &HostId) -> bool {
        *host == self.host || self.desk.live.borrow().contains(host)
    }
}
