//! The composition root: everything that one host runs, put together in order.
//!
//! Store → API → gateway; then, once the bootstrap objects are durable, view, controllers, scheduler and node. What each
//! part needs of another is passed here and nowhere else. Starting is quick because nothing waits for what it does not
//! need: the gateway listens as soon as the API exists, `/readyz` turns 200 when the bootstrap objects are durable, and
//! nobody who acts on the cluster begins before its own roles exist, so nobody is refused and backs off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use kactor_api::{Api, ApiConfig, Endpoint, ServiceRange};
use kactor_cluster::records::Records;
use kactor_controllers::node_ipam::CidrRange;
use kactor_drivers::driver::Driver;
use kactor_gateway::{Gateway, GatewayConfig, Limits, Listener, Pki};
use kactor_links::HostLinks;
use kactor_runtime::env::{Env, Lane};
use kactor_runtime::{ActorSystem, Delivery};
use kactor_sessions::streams::SessionStreams;
use serde_json::Value;
use tokio::sync::watch;

use self::control::{Rest, ServedAt, bootstrap};
use self::door::Door;
use self::host::OwnPlace;
use self::inside::{Inside, summary};
use self::serving::{bind, checks, encryption_key, kubeconfig, listen};
use crate::args::Runtime;
use crate::data_dir::DataDir;
use crate::kept::Kept;
use crate::node_parts::{self, NodeParts};
use crate::replica::RunningStore;
use crate::{machine_facts, open_files};

mod control;
mod door;
mod host;
mod hosts_status;
mod inside;
mod serving;
pub mod worker;
mod worker_door;

pub use self::worker_door::LocalDoor;

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
    /// What this host knew of its cluster when it stopped, or as it joined.
    pub kept: Option<Kept>,
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
    replica: RunningStore,
    links: Arc<HostLinks>,
    /// Why what begins after bootstrap could not begin.
    broken: watch::Receiver<Option<String>>,
}

/// Where tests run, whatever could cross hosts shows that it survives the codec.
const DELIVERY: Delivery = if cfg!(debug_assertions) { Delivery::Encoded } else { Delivery::Moved };
/// `cluster.local`, as everywhere.
pub const DOMAIN: &str = "cluster.local";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How long the leader's place may take to be handed over before this host stops.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

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
        let socket = bind(plan.listen)?;
        let listens_at = socket.local_addr().context("the API's address")?;
        let pki =
            Arc::new(Pki::open(env, &plan.dir.pki()).await.context("opening the cluster's keys")?);
        let encryption_key = encryption_key(env, &plan.dir.pki()).await?;
        let own = OwnPlace::open(env, plan, &pki, listens_at).await?;
        let system = own.system.clone();
        let joined = plan.kept.as_ref().is_some_and(|it| it.joined);
        let replica = RunningStore::start_among(&system, &plan.dir, joined).await?;
        let store = replica.store().clone();
        let records = Records::new(store.clone(), replica.cluster().to_owned());
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

        let parts = node_parts(env, plan).await?;
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
                records: records.clone(),
                members: replica.members(),
                own: replica.id(),
                links: own.links.clone(),
            }),
            door: Arc::new(Door {
                env: env.clone(),
                records: records.clone(),
                members: replica.members(),
                pki: pki.clone(),
                keys: plan.dir.pki(),
                host: system.host().clone(),
                pod_cidr: plan.pod_cidr.clone(),
                service_cidr: plan.service_cidr.clone(),
            }),
            checks: checks(&store, &ready),
            limits: Limits::default(),
            advertised: SocketAddr::new(addresses[0], plan.listen.port()).to_string(),
        });
        let (listener, shown) = listen((env, socket), &pki, &addresses, service_range, &gateway)?;
        gateway.watch_listener(&listener);
        own.start_actors(plan, &records, (replica.members(), replica.id()), (&pki, shown))?;
        let kubeconfig = kubeconfig(env, &pki, listener.address())?;

        let seat = kubelet_socket
            .map(|it| crate::kubelet::Seat::new(env, &pki, plan, &addresses, it))
            .transpose()?;
        let kubelet = seat.as_ref().map(|it| it.served.clone());
        let served = ServedAt {
            records: records.clone(),
            links: own.links.clone(),
            host: system.host().clone(),
            own: api.config().endpoint,
        };
        let rest = Rest {
            system: system.clone(),
            api: api.clone(),
            plan: plan.clone(),
            addresses,
            pod_cidr,
            service_range,
            root_ca: pki.ca_pem().to_owned(),
            streams,
            served,
            members: replica.members(),
            node: parts.zip(seat),
        };
        let (broke, broken) = watch::channel(None);
        env.spawn(Lane::Control, async move {
            bootstrap(&rest.api, &rest.served).await;
            ready.store(true, Ordering::Release);
            if let Err(error) = rest.start() {
                broke.send_replace(Some(format!("{error:#}")));
            }
            // Whoever waits for a failure goes on waiting.
            broke.closed().await;
        });
        let links = own.links;
        Ok(Self {
            system,
            gateway,
            listener,
            kubelet,
            api,
            kubeconfig,
            driver,
            replica,
            links,
            broken,
        })
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

    /// Lets another host lead, ends requests in flight, then the actors, the store last of them. Pods stay.
    pub async fn stop(self, grace: Duration) {
        self.gateway.drain();
        let env = self.system.env().clone();
        tokio::select! {
            biased;
            handed = self.replica.hand_over() => {
                if let Err(error) = handed {
                    tracing::warn!(%error, "no other host took over; they elect one when this one is gone");
                }
            }
            () = env.sleep(HAND_OVER_MAX) => {}
        }
        match &self.kubelet {
            Some(kubelet) => {
                futures::join!(self.listener.drain(grace), kubelet.drain(grace));
            }
            None => self.listener.drain(grace).await,
        }
        self.system.stop_all().await;
        self.links.close().await;
    }
}

/// What runs pods here, where there is a node.
async fn node_parts(env: &Env, plan: &Plan) -> anyhow::Result<Option<NodeParts>> {
    let (node, services) = (&plan.node_name, &plan.service_cidr);
    Ok(match plan.runtime {
        Runtime::None => None,
        Runtime::Hollow => Some(node_parts::hollow(env)),
        Runtime::Embedded => Some(node_parts::embedded(env, &plan.dir, node, services, DOMAIN)?),
        Runtime::Docker => Some(node_parts::docker(env, &plan.dir, node, services, DOMAIN).await?),
    })
}
