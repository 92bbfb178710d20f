//! Hosts in one process, on loopback, with certificates of a CA of their own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kactor_protocol::HostId;
use kactor_protocol::frame::{Frame, FrameKind, Header};
use kactor_protocol::ids::{LetterId, MessageId, TraceId};
use kactor_quic::{Credentials, Host, Identity, Lane, Links, LinksConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use tokio::sync::watch;

/// Longer than anything here takes; what waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// A cluster's certificate authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { issuer: Issuer::new(params, key), roots: Arc::new(roots) }
    }

    pub fn credentials(&self, host: &str) -> Credentials {
        self.credentials_of(&format!("system:node:{host}"), "system:nodes")
    }

    pub fn credentials_of(&self, name: &str, group: &str) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            roots: self.roots.clone(),
        }
    }
}

/// What one host heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    pub found: Vec<HostId>,
    pub lost: Vec<HostId>,
    /// Bodies of tells, in order, as numbers.
    pub told: Vec<u64>,
    pub keys: Vec<[u8; 32]>,
}

/// Answers an ask with its body; an ask whose body is `never` is not answered.
pub struct Listener {
    heard: watch::Sender<Heard>,
    refused: Mutex<Option<String>>,
}

impl Listener {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { heard: watch::channel(Heard::default()).0, refused: Mutex::default() })
    }

    pub fn refuse_all(&self, why: &str) {
        *self.refused.lock().unwrap() = Some(why.to_owned());
    }

    pub fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// Waits until what was heard satisfies `is_so`.
    pub async fn until(&self, what: &str, is_so: impl FnMut(&Heard) -> bool) -> Heard {
        let mut heard = self.heard.subscribe();
        let waited = tokio::time::timeout(PATIENCE, heard.wait_for(is_so)).await;
        match waited {
            Ok(heard) => heard.unwrap().clone(),
            Err(_) => panic!("waited in vain until {what}"),
        }
    }
}

impl Host for Listener {
    fn admit(&self, _: &Identity) -> Result<(), String> {
        match &*self.refused.lock().unwrap() {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    fn receive(&self, peer: &Identity, frame: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let frame = Frame::decode(frame).unwrap();
        if frame.header.kind == FrameKind::Tell {
            let number = u64::from_le_bytes(frame.body[..8].try_into().unwrap());
            self.heard.send_modify(|it| {
                it.told.push(number);
                if it.keys.last() != Some(&peer.key_hash) {
                    it.keys.push(peer.key_hash);
                }
            });
            return Box::pin(std::future::ready(None));
        }
        if frame.body == "never" {
            return Box::pin(std::future::pending());
        }
        let answer = Frame::answer(&frame.header, FrameKind::Reply, frame.body);
        Box::pin(std::future::ready(Some(answer)))
    }

    fn found(&self, peer: &HostId) {
        self.heard.send_modify(|it| it.found.push(peer.clone()));
    }

    fn lost(&self, peer: &HostId, _: &str) {
        self.heard.send_modify(|it| it.lost.push(peer.clone()));
    }
}

pub struct Node {
    pub links: Links,
    pub listener: Arc<Listener>,
    pub address: SocketAddr,
}

pub fn start(name: &str, incarnation: u64, credentials: Credentials, at: &str) -> Node {
    let listener = Listener::new();
    let socket = UdpSocket::bind(at).unwrap();
    let address = socket.local_addr().unwrap();
    let config = LinksConfig {
        host: host(name),
        incarnation,
        credentials,
        socket,
        runtime: Arc::new(quinn::TokioRuntime),
    };
    Node { links: Links::new(config, listener.clone()).unwrap(), listener, address }
}

pub fn fresh(name: &str, ca: &Ca) -> Node {
    start(name, 1, ca.credentials(name), "127.0.0.1:0")
}

impl Node {
    pub fn dial(&self, name: &str, address: SocketAddr) {
        self.links.set_peers(&BTreeMap::from([(host(name), address)]));
    }

    pub async fn tell(&self, to: &str, lane: Lane, number: u64) {
        let frame = frame(FrameKind::Tell, number, &number.to_le_bytes());
        self.links.tell(&host(to), lane, frame).await.unwrap();
    }

    /// The answer's kind and body.
    pub async fn ask(&self, to: &str, lane: Lane, letter: u64, body: &[u8]) -> (FrameKind, Bytes) {
        let to = host(to);
        let asked = self.links.ask(&to, lane, frame(FrameKind::Ask, letter, body));
        let answer = tokio::time::timeout(PATIENCE, asked).await.expect("it is answered");
        let answer = Frame::decode(answer.unwrap()).unwrap();
        assert_eq!(answer.header.cause, LetterId(letter));
        (answer.header.kind, answer.body)
    }

    /// Waits until both lanes to the host are live (or both are not).
    pub async fn until_live(&self, peer: &str, live: bool) {
        let all = || {
            self.links
                .status()
                .iter()
                .filter(|it| it.host == host(peer))
                .all(|it| it.is_live == live)
        };
        let known = || self.links.status().iter().any(|it| it.host == host(peer));
        let waited = tokio::time::timeout(PATIENCE, async {
            while !(known() && all()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{:#?}", self.links.status()));
    }

    pub async fn until_error(&self, part: &str) {
        let has = || {
            let status = self.links.status();
            status.iter().any(|it| it.last_error.as_deref().is_some_and(|it| it.contains(part)))
        };
        let waited = tokio::time::timeout(PATIENCE, async {
            while !has() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("no {part:?} in {:#?}", self.links.status()));
    }
}

pub fn frame(kind: FrameKind, letter: u64, body: &[u8]) -> Bytes {
    let header = Header {
        message: MessageId(999),
        kind,
        letter: LetterId(letter),
        trace: TraceId(1),
        cause: LetterId::NONE,
        timeout_ms: 1000,
        to: None,
        from: None,
    };
    Frame { header, body: Bytes::copy_from_slice(body) }.encode().unwrap()
}
