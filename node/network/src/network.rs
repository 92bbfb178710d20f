//! One node's network: what the agent asks for, carried out on this host.
//!
//! A thin shell over `ipam`, `links`, `ruleset`, `ways`, `nft` and `dns`. Leases are on disk before an address is used.
//! Rules are written by one task that is woken by every change and writes the newest state only; before services
//! and endpoints are completely known it leaves a table that is there alone, so that a restart of kactor cuts no
//! connection off. Netlink calls run on a lane that may block.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::channel::oneshot;
use kactor_agent::environment::{LinkedPort, LinkedService};
use kactor_agent::perform::LinkedServices;
use kactor_agent::ports::{Duplex, HostPort, NetworkFeed, Plumbing, PlumbingError, PodDialer};
use kactor_protocol::node::Feed;
use kactor_runtime::env::{Env, Lane, OpenMode};
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::sync::{Notify, watch};

use crate::cidr::Cidr;
use crate::dns::zone::Zone;
use crate::dns::{self, Nameserver};
use crate::ipam::{Ledger, MappedPort, Protocol};
use crate::links::{self, Bridge};
use crate::names::Names;
use crate::ruleset::{self, Ruleset, Site};
use crate::view::View;
use crate::{netns, nft};

mod remote;

/// Where the cluster's nameserver stands in the network of services, as in other distributions.
const DNS_INDEX: u32 = 10;
/// The port of nameservers; exported with the address for the `kube-dns` Service.
pub const DNS_PORT: u16 = 53;
const LEDGER_FILE: &str = "addresses.json";
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How a node's network is set up.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    pub instance: String,
    pub node_name: String,
    /// `10.96.0.0/16`: services' addresses; its tenth is the nameserver's.
    pub service_cidr: String,
    /// `cluster.local`.
    pub domain: String,
    /// The folder for the addresses of this node's pods; made if it is not there.
    pub data_dir: PathBuf,
    /// The host's nameservers, for names that are not the cluster's.
    pub resolvers: Vec<IpAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("the network of services: {why}")]
    ServiceCidr { why: String },
    #[error("the cluster's domain {domain}: {why}")]
    Domain { domain: String, why: String },
}

/// Why an instance's traces could not all be removed.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    #[error("removing the instance's rules")]
    Rules(#[source] nft::NftError),
    #[error("removing the instance's links")]
    Links(#[source] links::LinkError),
}

/// Removes everything that the instance's network made in this network namespace. Nothing there is fine.
pub fn purge(instance: &str) -> Result<(), PurgeError> {
    let names = Names::of(instance);
    let rules = nft::remove(&names.table).map_err(PurgeError::Rules);
    links::remove_all(&names).map_err(PurgeError::Links)?;
    rules
}

/// Implements the agent's `Plumbing`, `NetworkFeed`, `PodDialer` and `LinkedServices`.
pub struct Network {
    env: Env,
    config: NetworkConfig,
    names: Names,
    service_cidr: Cidr,
    dns_address: Ipv4Addr,
    view: Arc<Mutex<View>>,
    /// Known once the node has a pod CIDR.
    ledger: Mutex<Option<Ledger>>,
    /// One change of leases and links at a time, so that the file never goes back.
    changing: tokio::sync::Mutex<()>,
    nameserver: Nameserver,
    started: AtomicBool,
    wake: Notify,
    /// Counts changes; the rules in the kernel hold what `written` says.
    wanted: AtomicU64,
    written: watch::Sender<u64>,
    problem: Mutex<Option<String>>,
    /// The same three for the ways to other nodes' pods.
    wake_ways: Notify,
    ways_written: watch::Sender<u64>,
    ways_problem: Mutex<Option<String>>,
    /// For the tasks, which hold the network for as long as their lanes run.
    me: Weak<Network>,
}

impl Network {
    pub fn new(env: Env, config: NetworkConfig) -> Result<Arc<Self>, NetworkError> {
        let wrong = |why: String| NetworkError::ServiceCidr { why };
        let service_cidr: Cidr =
            config.service_cidr.parse().map_err(|it| wrong(format!("{it}")))?;
        let dns_address = service_cidr.nth(DNS_INDEX).ok_or_else(|| {
            wrong(format!("{service_cidr} is too small, at least a prefix of 28 bits is needed"))
        })?;
        let zone = Zone::new(&config.domain, service_cidr)
            .map_err(|why| NetworkError::Domain { domain: config.domain.clone(), why })?;
        let others = config.resolvers.iter().filter(|it| **it != IpAddr::V4(dns_address));
        let resolvers = others.map(|it| SocketAddr::new(*it, DNS_PORT)).collect();
        let view = Arc::new(Mutex::new(View::default()));
        let (env_, view_) = (env.clone(), view.clone());
        let nameserver = Nameserver { env: env_, zone: Arc::new(zone), view: view_, resolvers };
        Ok(Arc::new_cyclic(|me| Self {
            names: Names::of(&config.instance),
            env,
            config,
            service_cidr,
            dns_address,
            view,
            ledger: Mutex::new(None),
            changing: tokio::sync::Mutex::new(()),
            nameserver,
            started: AtomicBool::new(false),
            wake: Notify::new(),
            wanted: AtomicU64::new(0),
            written: watch::Sender::new(0),
            problem: Mutex::new(None),
            wake_ways: Notify::new(),
            ways_written: watch::Sender::new(0),
            ways_problem: Mutex::new(None),
            me: me.clone(),
        }))
    }

    /// The nameserver's address, for the `kube-dns` Service.
    pub fn dns_address(&self) -> Ipv4Addr {
        self.dns_address
    }

    /// What is wrong now, if anything: rules or routes that the kernel refuses, a nameserver that cannot listen.
    pub fn problem(&self) -> Option<String> {
        let read =
            |it: &Mutex<Option<String>>| it.lock().unwrap_or_else(PoisonError::into_inner).clone();
        read(&self.problem).or_else(|| read(&self.ways_problem))
    }

    /// Completes when the kernel's rules and routes hold everything that was told before this call.
    pub async fn settled(&self) {
        let wanted = self.wanted.load(Ordering::SeqCst);
        for written in [&self.written, &self.ways_written] {
            // The senders are part of `self`, so they cannot be gone.
            let _ = written.subscribe().wait_for(|it| *it >= wanted).await;
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Option<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn touch(&self) {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        self.wake.notify_one();
        self.wake_ways.notify_one();
    }

    fn ledger_path(&self) -> PathBuf {
        self.config.data_dir.join(LEDGER_FILE)
    }

    fn read_ledger(&self, cidr: Cidr) -> Result<Ledger, String> {
        let path = self.ledger_path();
        let disk = &self.env.disk;
        if !disk.exists(&path) {
            return Ledger::new(cidr).map_err(|it| it.to_string());
        }
        let failed = |it: std::io::Error| format!("{}: {it}", path.display());
        let file = disk.open(&path, OpenMode::Read).map_err(failed)?;
        let mut text = vec![0; usize::try_from(file.len().map_err(failed)?).unwrap_or(0)];
        let len = file.read_at(0, &mut text).map_err(failed)?;
        Ledger::from_json(cidr, &text[..len]).map_err(|it| format!("{}: {it}", path.display()))
    }

    /// The leases as they are now become durable. Runs where it may block.
    async fn write_ledger(&self) -> Result<(), String> {
        let Some(text) = self.ledger().as_ref().map(Ledger::to_json) else { return Ok(()) };
        let (disk, folder) = (self.env.disk.clone(), self.config.data_dir.clone());
        let path = self.ledger_path();
        let work = async move {
            let fresh = path.with_extension("new");
            disk.create_dir_all(&folder)?;
            let file = disk.open(&fresh, OpenMode::ReadWriteCreate)?;
            file.truncate(0)?;
            file.write_all_at(0, &text)?;
            file.sync_data().await?;
            disk.rename(&fresh, &path)?;
            disk.sync_dir(&folder).await
        };
        let written = self.on_blocking_lane(work).await?;
        written.map_err(|it: std::io::Error| format!("{}: {it}", self.ledger_path().display()))
    }

    async fn on_blocking_lane<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let (done, result) = oneshot::channel();
        let task = async move {
            // Nobody waits any more: the work is done all the same, and doing it again does nothing.
            let _ = done.send(work.await);
        };
        self.env.spawn(Lane::Blocking, task);
        result.await.map_err(|_| "kactor is stopping".to_owned())
    }

    /// Starts the tasks that live as long as the node's network.
    fn start(&self) {
        if self.started.swap(true, Ordering::SeqCst) {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        self.env.spawn(Lane::Blocking, me.clone().keep_rules());
        self.env.spawn(Lane::Blocking, me.clone().keep_ways());
        self.env.spawn(Lane::Node, me.keep_nameserver());
    }

    async fn keep_rules(self: Arc<Self>) {
        let mut last: Option<Ruleset> = None;
        let mut retry = RETRY_MIN;
        loop {
            self.wake.notified().await;
            let wanted = self.wanted.load(Ordering::SeqCst);
            let Some(rules) = self.plan(last.as_ref()) else { continue };
            if last.as_ref() != Some(&rules) {
                if rules.left_out > 0 {
                    tracing::warn!(
                        left_out = rules.left_out,
                        "too many service ports: some are not served"
                    );
                }
                if let Err(error) = nft::replace(&rules) {
                    let text = chain(&error);
                    tracing::error!(%text, "services are not up to date on this host");
                    self.note(Some(text));
                    self.env.sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                    self.wake.notify_one();
                    continue;
                }
                self.note(None);
                retry = RETRY_MIN;
                last = Some(rules);
            }
            self.written.send_replace(wanted);
        }
    }

    /// `None` while what is there must stay: not all services are known, and an earlier run left its rules.
    /// What this run wrote itself may be replaced at any time.
    fn plan(&self, written: Option<&Ruleset>) -> Option<Ruleset> {
        let site = self.site()?;
        let view = self.view();
        let kept = || written.is_none() && nft::exists(&self.names.table).unwrap_or(false);
        if !view.is_complete() && kept() {
            return None;
        }
        Some(ruleset::plan(&site, &view))
    }

    fn site(&self) -> Option<Site> {
        let ledger = self.ledger();
        let ledger = ledger.as_ref()?;
        Some(Site {
            table: self.names.table.clone(),
            bridge: self.names.bridge.clone(),
            node_name: self.config.node_name.clone(),
            pod_cidr: ledger.cidr(),
            service_cidr: self.service_cidr,
            dns_address: self.dns_address,
            pods: ledger.leases().map(|(_, it)| (it.address, it.ports.clone())).collect(),
        })
    }

    async fn keep_nameserver(self: Arc<Self>) {
        let mut retry = RETRY_MIN;
        loop {
            match dns::listen(self.dns_address, DNS_PORT).await {
                Ok(listening) => {
                    self.note(None);
                    return self.nameserver.serve(&listening).await;
                }
                Err(error) => {
                    let text = chain(&error);
                    tracing::error!(%text, "pods have no nameserver");
                    self.note(Some(text));
                }
            }
            self.env.sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(it) = source {
        out.push_str(": ");
        out.push_str(&it.to_string());
        source = it.source();
    }
    out
}

fn mapped(port: &HostPort) -> Result<MappedPort, String> {
    let host_address = match port.host_address {
        Some(IpAddr::V4(it)) if !it.is_unspecified() => Some(it),
        Some(IpAddr::V6(it)) => return Err(format!("hostPort on {it}: only IPv4 is served")),
        _ => None,
    };
    let protocol = Protocol::parse(&port.protocol)
        .ok_or_else(|| format!("hostPort of protocol {}: it is not known", port.protocol))?;
    let (host_port, pod_port) = (port.host_port, port.container_port);
    Ok(MappedPort { host_address, host_port, pod_port, protocol })
}

#[async_trait]
impl Plumbing for Network {
    async fn attach(
        &self,
        pod_uid: &str,
        netns: &Path,
        ports: &[HostPort],
    ) -> Result<Vec<IpAddr>, PlumbingError> {
        let failed = |why: String| PlumbingError { why };
        let ports: Vec<MappedPort> =
            ports.iter().map(mapped).collect::<Result<_, _>>().map_err(failed)?;
        let _turn = self.changing.lock().await;
        let (address, gateway, is_new) = {
            let mut ledger = self.ledger();
            let ledger =
                ledger.as_mut().ok_or_else(|| failed("the node has no pod CIDR yet".to_owned()))?;
            let before = ledger.clone();
            let address = ledger.take(pod_uid, ports).map_err(|it| failed(it.to_string()))?;
            (address, ledger.gateway(), *ledger != before)
        };
        if is_new {
            self.write_ledger().await.map_err(failed)?;
            self.touch();
        }
        let (names, uid, netns) = (self.names.clone(), pod_uid.to_owned(), netns.to_owned());
        let work = async move { links::connect_pod(&names, &uid, &netns, (address, gateway)) };
        let connected = self.on_blocking_lane(work).await.map_err(failed)?;
        connected.map_err(|it| failed(chain(&it)))?;
        Ok(vec![IpAddr::V4(address)])
    }

    async fn detach(&self, pod_uid: &str) -> Result<(), PlumbingError> {
        let failed = |why: String| PlumbingError { why };
        let _turn = self.changing.lock().await;
        let (names, uid) = (self.names.clone(), pod_uid.to_owned());
        let work = async move { links::disconnect_pod(&names, &uid) };
        let gone = self.on_blocking_lane(work).await.map_err(failed)?;
        gone.map_err(|it| failed(chain(&it)))?;
        // Only now: another pod must not get the address while this one still answers on it.
        let had = self.ledger().as_mut().is_some_and(|it| it.release(pod_uid).is_some());
        if had {
            self.write_ledger().await.map_err(failed)?;
            self.touch();
        }
        Ok(())
    }

    fn cluster_dns(&self) -> Option<IpAddr> {
        Some(IpAddr::V4(self.dns_address))
    }
}

impl NetworkFeed for Network {
    fn configure(&self, pod_cidr: &str) -> Result<(), String> {
        let cidr: Cidr = pod_cidr.parse().map_err(|it| format!("the pod CIDR: {it}"))?;
        if cidr.overlaps(self.service_cidr) {
            return Err(format!("pods ({cidr}) and services ({}) overlap", self.service_cidr));
        }
        let known = self.ledger().clone();
        let ledger = match &known {
            Some(known) if known.cidr() != cidr => {
                return Err(format!(
                    "the node's pod CIDR was {} and is {cidr}: restart the node after its pods are gone",
                    known.cidr()
                ));
            }
            Some(known) => known.clone(),
            None => self.read_ledger(cidr)?,
        };
        let bridge = Bridge {
            gateway: ledger.gateway(),
            pod_cidr: cidr,
            service_cidr: self.service_cidr,
            dns_address: self.dns_address,
        };
        links::set_up_bridge(&self.names, &bridge).map_err(|it| chain(&it))?;
        // Not over leases that were taken in between.
        self.ledger().get_or_insert(ledger);
        self.start();
        self.touch();
        Ok(())
    }

    fn begin(&self, feed: Feed) {
        self.view().begin(feed);
    }

    fn changed(&self, feed: Feed, namespace: &str, name: &str, object: Option<&Value>) {
        let at = (namespace.to_owned(), name.to_owned());
        if let Err(why) = self.view().change(feed, at, object) {
            tracing::warn!(?feed, why, "an object is not served because it cannot be read");
        }
        self.touch();
    }

    fn complete(&self, feed: Feed) {
        self.view().complete(feed);
        self.touch();
    }
}

impl LinkedServices for Network {
    fn of(&self, namespace: &str) -> Vec<LinkedService> {
        let view = self.view();
        let is_linked = |at: &(String, String)| {
            at.0 == namespace || (at.0 == "default" && at.1 == "kubernetes")
        };
        let linked = view.services().filter(|(at, _)| is_linked(at));
        let linked = linked.filter_map(|(at, service)| {
            let ports = service.ports.iter().map(|it| LinkedPort {
                name: it.name.clone(),
                port: it.port,
                protocol: it.protocol.to_string(),
            });
            let address = service.cluster_ip?.to_string();
            Some(LinkedService { name: at.1.clone(), address, ports: ports.collect() })
        });
        linked.collect()
    }
}

#[async_trait]
impl PodDialer for Network {
    async fn connect(&self, netns: Option<&Path>, port: u16) -> Result<Box<dyn Duplex>, String> {
        let open = || -> std::io::Result<_> { Ok((TcpSocket::new_v4()?, TcpSocket::new_v6()?)) };
        let opened = match netns {
            None => open(),
            Some(path) => {
                let path = path.to_owned();
                let work = async move { netns::inside(&path, open) };
                self.on_blocking_lane(work).await?.map_err(|it| chain(&it))?
            }
        };
        let (v4, v6) = opened.map_err(|it| format!("opening a socket in the pod: {it}"))?;
        // As runtimes do: whatever the program listens on, it is reached on localhost.
        let first = v4.connect(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).await;
        let connected = match first {
            Ok(it) => Ok(it),
            Err(error) => v6
                .connect(SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port))
                .await
                .map_err(|_| error),
        };
        match connected {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(format!("connecting to port {port} inside the pod: {error}")),
        }
    }
}
