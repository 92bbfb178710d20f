//! Hosts in one process: each with actors, links and a directory of its own, certificates of one CA.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kactor_links::{
    Authority, CertificatesActor, Directory, HostEntry, HostLinks, Issued, LinkPems, LinkSetup,
    LinksActor, RenewalActor, RenewalSetup, StartError, Whom,
};
use kactor_protocol::insight::{Insight, InsightReply};
use kactor_protocol::message::Role;
use kactor_protocol::node::StreamData;
use kactor_protocol::store::Propose;
use kactor_protocol::{ActorAddress, ActorName, Deadline, HostId, Incarnation};
use kactor_runtime::env::{Env, Lane};
use kactor_runtime::{ActorRef, ActorSystem, Child, Delivery};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData,
};
use tokio::sync::watch;

use crate::echo_actor::{Echo, Heard, PATIENCE};

/// Waits until something becomes true that has no event of its own.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

pub fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// A cluster's authority. Later certificates end later, so that they can be told apart.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    issued: AtomicU64,
}

impl Ca {
    pub fn new() -> Arc<Self> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Arc::new(Self { issuer: Issuer::new(params, key), pem, issued: AtomicU64::new(0) })
    }

    pub fn pems(&self, name: &str) -> LinkPems {
        self.pems_of(name, &KeyPair::generate().unwrap())
    }

    fn pems_of(&self, name: &str, key: &KeyPair) -> LinkPems {
        let cert = self.params(name).signed_by(key, &self.issuer).unwrap().pem();
        LinkPems { cert, key: key.serialize_pem(), ca: self.pem.clone() }
    }

    /// More than two thirds of its time are over.
    fn old_pems_of(&self, name: &str, key: &KeyPair) -> LinkPems {
        let mut params = self.params(name);
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = params.not_before + Duration::from_secs(60 * 366 * 86_400);
        let cert = params.signed_by(key, &self.issuer).unwrap().pem();
        LinkPems { cert, key: key.serialize_pem(), ca: self.pem.clone() }
    }

    fn params(&self, name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let nth = self.issued.fetch_add(1, Ordering::SeqCst);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(3000, 1, 1) + Duration::from_secs(nth);
        params
    }
}

impl Authority for Ca {
    fn issue(&self, host: &HostId, request: &str) -> Result<Issued, String> {
        let mut asked =
            CertificateSigningRequestParams::from_pem(request).map_err(|it| it.to_string())?;
        asked.params = self.params(host.as_str());
        let key_hash = hash(&asked.public_key.subject_public_key_info());
        let certificate = asked.signed_by(&self.issuer).unwrap().pem();
        Ok(Issued { certificate, key_hash, ca: self.pem.clone() })
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, key).as_ref().try_into().unwrap()
}

/// What the host's actor heard.
pub struct Ears(watch::Receiver<Heard>);

impl Ears {
    pub fn borrow(&self) -> Heard {
        self.0.borrow().clone()
    }

    pub async fn until(&self, what: &str, is_so: impl FnMut(&Heard) -> bool) {
        let mut heard = self.0.clone();
        let waited = tokio::time::timeout(PATIENCE, heard.wait_for(is_so)).await;
        assert!(waited.is_ok(), "waited in vain until {what}");
    }
}

pub struct Node {
    pub name: HostId,
    pub links: Arc<HostLinks>,
    pub directory: Directory,
    pub heard: Ears,
    system: ActorSystem,
    echo: ActorRef<Echo>,
    ca: Arc<Ca>,
    key: KeyPair,
}

impl Node {
    pub async fn try_start(
        env: &Env,
        name: &str,
        pems: LinkPems,
    ) -> Result<Arc<HostLinks>, StartError> {
        let listen = "127.0.0.1:0".parse().unwrap();
        let setup = LinkSetup { host: host(name), incarnation: Incarnation(1), pems, listen };
        HostLinks::start(env, setup, Directory::new()).await
    }

    pub async fn start(env: &Env, ca: &Arc<Ca>, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let links = Self::try_start(env, name, ca.pems_of(name, &key)).await.unwrap();
        let (env, incarnation) = (env.clone(), Incarnation(1));
        let transport = links.clone();
        let system =
            ActorSystem::with_transport(env, host(name), incarnation, Delivery::Encoded, transport);
        links.attach(&system);
        let (heard, ears) = watch::channel(Heard::default());
        let row = Child::new("echo", Lane::Control).mailbox(8_192);
        let echo = system.start(row, move || Echo { heard: heard.clone(), kept: Vec::new() });
        let echo = echo.unwrap();
        echo.open_to_tells::<StreamData>().open_to_asks::<Propose>();
        Self {
            name: host(name),
            directory: links.directory().clone(),
            links,
            heard: Ears(ears),
            system,
            echo,
            ca: ca.clone(),
            key,
        }
    }

    pub fn echo_at(&self, name: &str) -> ActorRef<Echo> {
        self.system.remote(ActorAddress {
            host: host(name),
            name: ActorName::new("echo").unwrap(),
            incarnation: Incarnation(0),
        })
    }

    pub fn deadline(&self, timeout: Duration) -> Deadline {
        self.system.deadline(timeout)
    }

    pub fn watch(&self, name: &str) {
        self.system.watch_peer(host(name), self.echo.tells()).unwrap();
    }

    pub fn renew(&self) {
        let pems = self.ca.pems_of(self.name.as_str(), &self.key);
        self.links.set_credentials(&pems).unwrap();
    }

    pub fn show_inside(&self) {
        LinksActor::start(&self.system, &self.links).unwrap();
    }

    pub async fn look(&self, whom: Whom, question: Insight) -> serde_json::Value {
        self.links.look(&self.system, whom, question).await
    }

    /// This host certifies others.
    pub fn certify(&self) {
        let authority: Arc<dyn Authority> = self.ca.clone();
        CertificatesActor::start(&self.system, &authority, &self.directory).unwrap();
    }

    /// From now on the host shows a certificate that is due, for `key` or its own, and has it renewed. What it keeps comes out.
    pub fn keep_fresh(&self, key: Option<KeyPair>) -> watch::Receiver<Option<LinkPems>> {
        self.links.set_credentials(&self.ca.old_pems_of(self.name.as_str(), &self.key)).unwrap();
        let key = key.as_ref().unwrap_or(&self.key);
        let request = CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
        let (keep, kept) = watch::channel(None);
        let setup = RenewalSetup {
            links: self.links.clone(),
            key: self.key.serialize_pem(),
            request,
            keep: Arc::new(move |pems: &LinkPems| {
                keep.send_replace(Some(pems.clone()));
                Ok(())
            }),
        };
        RenewalActor::start(&self.system, setup).unwrap();
        kept
    }

    pub async fn report(&self, actor: &str) -> serde_json::Value {
        let actor = ActorName::new(actor).unwrap();
        let reply = self.system.insight(Insight::Inspect { actor }).await;
        let InsightReply::Inspect { report } = reply else { panic!("{reply:?}") };
        serde_json::from_str(&report.state.unwrap()).unwrap()
    }

    pub fn live(&self) -> BTreeSet<HostId> {
        (**self.links.live().borrow()).clone()
    }

    /// Waits until both lanes are up.
    pub async fn until_live(&self, name: &str) {
        let both = || {
            let status = self.links.status();
            status.iter().filter(|it| it.host == host(name) && it.is_live).count() == 2
        };
        until("both lanes are live", async || both()).await;
    }

    pub async fn until_error(&self, part: &str) {
        let has = || {
            let status = self.links.status();
            status.iter().any(|it| it.last_error.as_deref().is_some_and(|it| it.contains(part)))
        };
        until(part, async || has()).await;
    }
}

/// As a peer's directory has this host.
pub fn entry(node: &Node, roles: &[Role]) -> HostEntry {
    HostEntry {
        key_hash: Some(hash(&node.key.subject_public_key_info())),
        roles: roles.to_vec(),
        address: Some(node.links.address()),
        dial: true,
    }
}

/// `node` knows itself and these.
pub fn introduce(node: &Node, others: &[(&Node, &[Role])]) {
    let mut hosts = BTreeMap::from([(node.name.clone(), entry(node, &[Role::Control]))]);
    hosts.extend(others.iter().map(|(it, roles)| (it.name.clone(), entry(it, roles))));
    node.directory.set(hosts);
}

/// Two linked hosts with what each is to the other.
pub async fn pair<const N: usize, const M: usize>(
    env: &Env,
    a_is: [Role; N],
    b_is: [Role; M],
) -> (Node, Node) {
    let ca = Ca::new();
    let (a, b) = (Node::start(env, &ca, "a").await, Node::start(env, &ca, "b").await);
    introduce(&a, &[(&b, &b_is)]);
    introduce(&b, &[(&a, &a_is)]);
    a.until_live("b").await;
    b.until_live("a").await;
    (a, b)
}
