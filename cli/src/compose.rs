//! The composition root: everything that one host runs, put together in order.
//!
//! Store → API → gateway; then, once the bootstrap objects are durable, view, controllers, scheduler and node. What each
//! part needs of another is passed here and nowhere else. Starting is quick because nothing waits for what it does not
//! need: the gateway listens as soon as the API exists, `/readyz` turns 200 when the bootstrap objects are durable, and
//! nobody who acts on the cluster begins before its own roles exist, so nobody is refused and backs off.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use kactor_api::{Api, ApiConfig, EncryptionKey, Endpoint, ServiceRange};
use kactor_controllers::cluster_dns::{ClusterDns, Served};
use kactor_controllers::node_ipam::CidrRange;
use kactor_controllers::start::{ControllersConfig, Liveness};
use kactor_drivers::driver::Driver;
use kactor_gateway::{
    ByteStream, Check, CheckAsked, Gateway, GatewayConfig, ImageOrder, InsightSource, Limits,
    Listener, Pki, ServingNames, Subject,
};
use kactor_protocol::insight::{Insight, InsightReply};
use kactor_protocol::{HostId, Incarnation, Timestamp};
use kactor_runtime::env::{Env, Lane, OpenMode};
use kactor_runtime::{ActorSystem, Child, Delivery};
use kactor_sessions::lease_actor::LeaseActor;
use kactor_sessions::pulses::Pulses;
use kactor_sessions::streams::SessionStreams;
use kactor_store::{Store, SyncLatency};
use kactor_streams::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::args::Runtime;
use crate::data_dir::DataDir;
use crate::kubelet::Seat;
use crate::node_parts::{self, NodeParts};
use crate::node_start::{self, NodeStart, Place, start_node};
use crate::{machine_facts, open_files};

/// What this host shall run.
#[derive(Clone)]
pub struct Plan {
    pub dir: DataDir,
    pub listen: SocketAddr,
    /// Where the kubelet's API was asked to be.
    pub kubelet_listen: Option<SocketAddr>,
    pub node_name: String,
    pub runtime: Runtime,
    /// Nodes of this host; more than one only where pods pretend.
    pub n_nodes: u32,
    pub pod_cidr: String,
    pub service_cidr: String,
}

impl Plan {
    /// As this plan, of another node of the same host: `myhost-2`.
    fn of_node(&self, nth: u32) -> Self {
        Self { node_name: format!("{}-{nth}", self.node_name), ..self.clone() }
    }
}

/// What runs, once it does.
pub struct Cluster {
    pub system: ActorSystem,
    pub gateway: Arc<Gateway>,
    pub listener: Arc<Listener>,
    /// The kubelet's API, where there is a node.
    pub kubelet: Option<crate::kubelet::Served>,
    pub api: Api,
    /// The administrator's kubeconfig document.
    pub kubeconfig: Value,
    /// What runs pods, where there is a node.
    pub driver: Option<Arc<dyn Driver>>,
    replica: crate::replica::RunningStore,
    /// Why what begins after bootstrap could not begin.
    broken: watch::Receiver<Option<String>>,
}

/// Where tests run, whatever could cross hosts shows that it survives the codec.
const DELIVERY: Delivery = if cfg!(debug_assertions) { Delivery::Encoded } else { Delivery::Moved };
/// `cluster.local`, as everywhere.
pub const DOMAIN: &str = "cluster.local";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const BOOTSTRAP_MAX: Duration = Duration::from_secs(60);

impl Cluster {
    /// Starts everything. The futures that sync files are polled here, on the calling thread, before anything serves.
    pub async fn start(env: &Env, plan: &Plan) -> anyhow::Result<Self> {
        let service_range: ServiceRange = plan
            .service_cidr
            .parse()
            .with_context(|| format!("--service-cidr {}", plan.service_cidr))?;
        let pod_cidr = CidrRange::parse(&plan.pod_cidr).with_context(|| {
            format!("--pod-cidr {:?} is no IPv4 network such as 10.244.0.0/16", plan.pod_cidr)
        })?;
        let addresses = machine_facts::addresses(plan.listen.ip());
        let kubelet_socket = match plan.runtime {
            Runtime::None => None,
            _ => Some(crate::kubelet::bind(&plan.dir, plan.kubelet_listen, plan.listen)?),
        };
        let pki = Pki::open(env, &plan.dir.pki()).await.context("opening the cluster's keys")?;
        let encryption_key = encryption_key(env, &plan.dir.pki()).await?;
        let replica = crate::replica::RunningStore::start(env, &plan.dir).await?;
        let store = replica.store().clone();

        let host = HostId::new(&plan.node_name)
            .with_context(|| format!("--node-name {}", plan.node_name))?;
        let incarnation = Incarnation(env.wall().0);
        let system = ActorSystem::new(env.clone(), host, incarnation, DELIVERY);
        replica.supervise(&system)?;
        let notes = Arc::new(crate::notes::RecorderSink::new(system.clone()));
        let api = Api::new(
            store.clone(),
            env.clone(),
            ApiConfig {
                service_range,
                node_ports: 30000..=32767,
                encryption_keys: vec![encryption_key],
                token_keys: vec![pki.token_key_pkcs8()],
                issuer: ISSUER.to_owned(),
                audiences: vec![ISSUER.to_owned()],
                endpoint: Endpoint { address: addresses[0], port: plan.listen.port() },
                notes,
                audit: Arc::new(kactor_api::Discard),
            },
        )
        .context("setting up the API")?;

        let parts = match plan.runtime {
            Runtime::None => None,
            Runtime::Hollow => Some(node_parts::hollow(env)),
            Runtime::Embedded => {
                let (node, services) = (&plan.node_name, &plan.service_cidr);
                Some(node_parts::embedded(env, &plan.dir, node, services, DOMAIN)?)
            }
            Runtime::Docker => {
                let (node, services) = (&plan.node_name, &plan.service_cidr);
                Some(node_parts::docker(env, &plan.dir, node, services, DOMAIN).await?)
            }
        };
        let driver = parts.as_ref().map(|it| it.driver.clone());
        let streams = SessionStreams::new(system.clone());
        let ready = Arc::new(AtomicBool::new(false));
        let gateway = Gateway::new(GatewayConfig {
            api: api.clone(),
            env: env.clone(),
            nodes: Arc::new(streams.clone()),
            insight: Arc::new(Inside {
                system: system.clone(),
                store: store.clone(),
                dir: plan.dir.clone(),
                plan: summary(plan),
                ready: ready.clone(),
                driver: driver.clone(),
            }),
            checks: checks(&store, &ready),
            limits: Limits::default(),
            advertised: SocketAddr::new(addresses[0], plan.listen.port()).to_string(),
        });
        let listener = listen(env, &pki, plan, &addresses, service_range, &gateway)?;
        gateway.watch_listener(&listener);
        let kubeconfig = kubeconfig(env, &pki, listener.address())?;

        let seat = kubelet_socket
            .map(|it| crate::kubelet::Seat::new(env, &pki, plan, &addresses, it))
            .transpose()?;
        let kubelet = seat.as_ref().map(|it| it.served.clone());
        let rest = Rest {
            system: system.clone(),
            api: api.clone(),
            plan: plan.clone(),
            addresses,
            pod_cidr,
            service_range,
            root_ca: pki.ca_pem().to_owned(),
            streams,
            node: parts.zip(seat),
        };
        let (broke, broken) = watch::channel(None);
        env.spawn(Lane::Control, async move {
            bootstrap(&rest.api).await;
            ready.store(true, Ordering::Release);
            if let Err(error) = rest.start() {
                broke.send_replace(Some(format!("{error:#}")));
            }
            // Whoever waits for a failure goes on waiting.
            broke.closed().await;
        });
        Ok(Self { system, gateway, listener, kubelet, api, kubeconfig, driver, replica, broken })
    }

    /// Resolves when this host cannot go on, with the reason.
    pub async fn failed(&self) -> String {
        let mut broken = self.broken.clone();
        let broken = async move {
            match broken.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_default(),
                Err(_) => std::future::pending().await, // the lanes are stopping
            }
        };
        tokio::select! {
            biased;
            why = self.replica.failed() => why,
            why = broken => why,
            why = self.system.failed() => why.to_string(),
        }
    }

    /// Ends requests in flight, then the actors, the store last of them. Pods stay.
    pub async fn stop(self, grace: Duration) {
        self.gateway.drain();
        match &self.kubelet {
            Some(kubelet) => {
                futures::join!(self.listener.drain(grace), kubelet.drain(grace));
            }
            None => self.listener.drain(grace).await,
        }
        self.system.stop_all().await;
    }
}

fn summary(plan: &Plan) -> Value {
    json!({
        "node": plan.node_name,
        "data_dir": plan.dir.root().display().to_string(),
        "listen": plan.listen.to_string(),
        "runtime": format!("{:?}", plan.runtime).to_lowercase(),
        "pod_cidr": plan.pod_cidr,
        "service_cidr": plan.service_cidr,
        "letters": format!("{DELIVERY:?}").to_lowercase(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// The key of secrets at rest: 32 random bytes, made once, readable by the owner alone.
async fn encryption_key(env: &Env, folder: &Path) -> anyhow::Result<EncryptionKey> {
    let path = folder.join("secrets.key");
    let doing = || format!("the key of secrets at rest, {}", path.display());
    if env.disk.exists(&path) {
        let file = env.disk.open(&path, OpenMode::Read).with_context(doing)?;
        let mut secret = [0; 32];
        let n = file.read_at(0, &mut secret).with_context(doing)?;
        anyhow::ensure!(
            n == secret.len(),
            "{} is cut off; restore it from a backup, secrets cannot be read without it",
            path.display()
        );
        return Ok(EncryptionKey { id: 1, secret });
    }
    let key = EncryptionKey::generate(env, 1);
    let beside = path.with_extension("new");
    let file = env.disk.open(&beside, OpenMode::ReadWriteCreate).with_context(doing)?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))
        .with_context(doing)?;
    file.write_all_at(0, &key.secret).with_context(doing)?;
    file.sync_data().await.with_context(doing)?;
    env.disk.rename(&beside, &path).with_context(doing)?;
    env.disk.sync_dir(folder).await.with_context(doing)?;
    Ok(key)
}

fn checks(store: &Store, ready: &Arc<AtomicBool>) -> Vec<Check> {
    let (store, ready) = (store.clone(), ready.clone());
    let leads = move || match store.leadership().current().leader {
        Some(_) => Ok(()),
        None => Err("no leader is known".to_owned()),
    };
    let bootstrapped = move || match ready.load(Ordering::Acquire) {
        true => Ok(()),
        false => Err("the default objects are still being written".to_owned()),
    };
    vec![
        Check { name: "store".to_owned(), asked: CheckAsked::ForReadiness, probe: Arc::new(leads) },
        Check {
            name: "bootstrap".to_owned(),
            asked: CheckAsked::ForReadiness,
            probe: Arc::new(bootstrapped),
        },
    ]
}

fn listen(
    env: &Env,
    pki: &Pki,
    plan: &Plan,
    addresses: &[IpAddr],
    services: ServiceRange,
    gateway: &Arc<Gateway>,
) -> anyhow::Result<Arc<Listener>> {
    let mut names = vec![IpAddr::from(Ipv4Addr::LOCALHOST), services.first().into()];
    names.extend(addresses);
    let serving = ServingNames {
        host: machine_facts::hostname(),
        cluster_domain: DOMAIN.to_owned(),
        addresses: names,
    };
    let identity = pki.issue_serving(env, &serving).context("issuing the serving certificate")?;
    let tls = kactor_gateway::tls::server(&identity, pki.ca_pem()).context("setting up TLS")?;
    let listener =
        Listener::start(env, plan.listen, tls, gateway.clone(), open_files::connections_max())?;
    Ok(Arc::new(listener))
}

fn kubeconfig(env: &Env, pki: &Pki, listen: SocketAddr) -> anyhow::Result<Value> {
    let admin = pki
        .issue_client(env, &Subject::admin())
        .context("issuing the administrator's certificate")?;
    let mut server = listen;
    if server.ip().is_unspecified() {
        server.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let name = if listen.port() == 6443 {
        "kactor".to_owned()
    } else {
        format!("kactor-{}", listen.port())
    };
    Ok(kactor_gateway::kubeconfig::document(
        &name,
        &format!("https://{server}"),
        pki.ca_pem(),
        &admin,
    ))
}

/// What begins once the bootstrap objects are durable: those who act on the cluster.
struct Rest {
    system: ActorSystem,
    api: Api,
    plan: Plan,
    addresses: Vec<IpAddr>,
    pod_cidr: CidrRange,
    service_range: ServiceRange,
    root_ca: String,
    streams: SessionStreams,
    /// With the place that its kubelet's API has.
    node: Option<(NodeParts, Seat)>,
}

impl Rest {
    fn start(mut self) -> anyhow::Result<()> {
        let pulses = Pulses::default();
        self.start_control(&pulses).context("starting the controllers")?;
        let Some((parts, seat)) = self.node.take() else { return Ok(()) };
        let node = NodeStart {
            system: &self.system,
            api: &self.api,
            plan: &self.plan,
            addresses: &self.addresses,
            streams: &self.streams,
            pulses: &pulses,
            kubelet: seat.served.address(),
            place: Place::Own,
        };
        node_start::start_arriving_streams(&self.system, &self.streams)?;
        let kubelet = start_node(&node, parts).context("starting the node")?;
        for nth in 2..=self.plan.n_nodes {
            let plan = self.plan.of_node(nth);
            let more = NodeStart { plan: &plan, place: Place::Beside, ..node };
            let parts = node_parts::hollow(self.system.env());
            start_node(&more, parts)
                .with_context(|| format!("starting node {}", plan.node_name))?;
        }
        seat.serve(self.system.env(), kubelet)
    }

    /// Pods of a hollow node ask nobody, and without a node nobody answers.
    fn dns_served(&self) -> Served {
        match self.plan.runtime {
            Runtime::Embedded | Runtime::Docker => Served::ByNodes,
            Runtime::Hollow | Runtime::None => Served::ByNobody,
        }
    }

    fn start_control(&self, pulses: &Pulses) -> anyhow::Result<()> {
        let (system, api) = (&self.system, &self.api);
        let view = kactor_controllers::start::start_view(system, api);
        let config = ControllersConfig {
            pod_cidr: Some(self.pod_cidr),
            node_prefix: 24,
            root_ca: self.root_ca.clone(),
            liveness: Some(Arc::new(Heard(pulses.clone()))),
            cluster_dns: Some(ClusterDns {
                address: self.service_range.dns(),
                served: self.dns_served(),
            }),
            #[cfg(debug_assertions)]
            before_pass: crate::trial::panics()?,
            #[cfg(not(debug_assertions))]
            before_pass: None,
        };
        kactor_controllers::start::start_all(system, api, &view, &config)?;
        let profiles = vec![kactor_scheduler::Profile::default_scheduler()];
        kactor_scheduler::start(system, api, &view, profiles)?;
        let (api, pulses) = (api.clone(), pulses.clone());
        let row = Child::new("node-leases", Lane::Control);
        system.start(row, move || LeaseActor::new(api.clone(), pulses.clone()))?;
        Ok(())
    }
}

/// What sessions heard, as node lifecycle asks for it.
struct Heard(Pulses);

impl Liveness for Heard {
    fn last_heard(&self, node: &str) -> Option<Timestamp> {
        self.0.last_heard(node)
    }
}

/// Writes the default objects, however long it takes until this host can.
async fn bootstrap(api: &Api) {
    loop {
        let deadline = kactor_protocol::Deadline::after(api.env().monotonic(), BOOTSTRAP_MAX);
        let Err(status) = api.bootstrap(deadline).await else { return };
        tracing::info!(%status, "the default objects could not be written yet; tried again");
        api.env().sleep(Duration::from_millis(50)).await;
    }
}

/// How long a snapshot waits for a leader to confirm that it is current; without one it is sent all the same.
const CONFIRM_MAX: Duration = Duration::from_secs(2);

/// What the gateway answers operators from.
struct Inside {
    system: ActorSystem,
    store: Store,
    dir: DataDir,
    plan: Value,
    ready: Arc<AtomicBool>,
    /// The node's driver, where there is a node.
    driver: Option<Arc<dyn Driver>>,
}

impl InsightSource for Inside {
    fn images(&self, order: ImageOrder) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async move {
            let driver = self.driver.as_ref().ok_or("no node runs here, so there are no images")?;
            let told = |it: kactor_drivers::DriverError| it.to_string();
            let images = match order {
                ImageOrder::Import { path } => driver.import_images(&path).await.map_err(told)?,
                ImageOrder::List => driver.images().await.map_err(told)?,
                ImageOrder::Remove { reference } => {
                    driver.remove_image(&reference).await.map_err(told)?;
                    Vec::new()
                }
            };
            serde_json::to_value(images).map_err(|it| it.to_string())
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<ByteStream, String>> {
        Box::pin(async move {
            let deadline = self.system.deadline(CONFIRM_MAX);
            let is_current = self.store.read_index(deadline).await.is_ok();
            let setup = self.plan.as_object().into_iter().flatten();
            let word = |it: &Value| it.as_str().map(str::to_owned);
            let setup = setup.filter_map(|(name, value)| Some((name.clone(), word(value)?)));
            let chunks =
                crate::snapshot::chunks(&self.store, &self.dir, setup.collect(), is_current);
            let chunks = chunks.map_err(|it| crate::print::chain(&it))?;
            Ok(Box::pin(futures::stream::iter(chunks)) as ByteStream)
        })
    }

    fn ask(&self, question: Insight) -> BoxFuture<'_, InsightReply> {
        Box::pin(self.system.insight(question))
    }

    fn status(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let leadership = self.store.leadership().current();
            let serves = self.ready.load(Ordering::Acquire) && leadership.leader.is_some();
            json!({
                "host": self.plan,
                "serves": serves,
                "wrong": wrong(&self.store, serves),
                "store": kactor_replica::report(&self.store),
                "uptime_seconds": self.system.env().monotonic().as_secs(),
            })
        })
    }
}

/// Syncs that take longer make every write slow (etcd's advice is a 99th percentile of 10 ms).
const SLOW_SYNC_US: u64 = 250_000;
/// Fewer syncs are no ground to call a disk slow.
const SYNCS_JUDGED: u64 = 64;

/// What is wrong, in a sentence; `null` when nothing is.
fn wrong(store: &Store, serves: bool) -> Value {
    let log = store.status();
    if let Some(trouble) = log.trouble {
        return json!(trouble);
    }
    if store.leadership().current().leader.is_none() {
        return json!("the store has no leader yet: writes wait");
    }
    if let Some(trouble) = store.status().trouble {
        return json!(trouble);
    }
    if !serves {
        return json!("the default objects are still being written");
    }
    let SyncLatency { n_recent, us_p50, us_p99 } = log.sync_latency;
    if n_recent >= SYNCS_JUDGED && us_p99 >= SLOW_SYNC_US {
        return json!(format!(
            "the disk is slow: of the last {n_recent} syncs half took {} ms or more and one in a hundred {} ms; every write waits for one. `kactor doctor` measures the disk",
            us_p50 / 1000,
            us_p99 / 1000
        ));
    }
    Value::Null
}
