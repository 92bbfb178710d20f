//! What begins once the bootstrap objects are durable: those who act on the cluster.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kactor_api::{Api, Endpoint, ServiceRange, Status};
use kactor_cluster::host::HostRecord;
use kactor_cluster::records::Records;
use kactor_controllers::cluster_dns::{ClusterDns, Served};
use kactor_controllers::node_ipam::CidrRange;
use kactor_controllers::start::{ControllersConfig, Liveness};
use kactor_links::HostLinks;
use kactor_protocol::node::{OpenSession, Pulses as HeardNodes};
use kactor_protocol::store::Key;
use kactor_protocol::{Deadline, HostId, Timestamp};
use kactor_runtime::env::Lane;
use kactor_runtime::{ActorSystem, Child};
use kactor_sessions::lease_actor::LeaseActor;
use kactor_sessions::pulses::Pulses;
use kactor_sessions::pulses_actor::{self, LeaderHost, PulsesActor};
use kactor_sessions::sessions_actor::{self, SessionsActor};
use kactor_sessions::streams::SessionStreams;
use kactor_store::Members;

use super::Plan;
use crate::args::Runtime;
use crate::kubelet::Seat;
use crate::node_parts::{self, NodeParts};
use crate::node_start::{self, LocalControl, NodeStart, Place, start_local_node};

const BOOTSTRAP_MAX: Duration = Duration::from_secs(60);
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(50);
const READ_MAX: Duration = Duration::from_secs(5);
/// How often the leader looks which control hosts serve.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// What begins once the bootstrap objects are durable: those who act on the cluster.
pub(super) struct Rest {
    pub system: ActorSystem,
    pub api: Api,
    pub plan: Plan,
    pub addresses: Vec<IpAddr>,
    pub pod_cidr: CidrRange,
    pub service_range: ServiceRange,
    pub root_ca: String,
    pub streams: SessionStreams,
    pub served: ServedAt,
    pub members: Arc<dyn Members>,
    /// With the place that its kubelet's API has.
    pub node: Option<(NodeParts, Seat)>,
}

impl Rest {
    pub fn start(mut self) -> anyhow::Result<()> {
        let pulses = Pulses::default();
        node_start::start_arriving_streams(&self.system, &self.streams)?;
        self.start_control(&pulses).context("starting the controllers")?;
        let published = keep_published(self.api.clone(), self.served.clone());
        self.system.env().spawn(Lane::Control, published);
        let Some((parts, seat)) = self.node.take() else { return Ok(()) };
        let node = NodeStart {
            system: &self.system,
            plan: &self.plan,
            addresses: &self.addresses,
            kubelet: seat.served.address(),
            place: Place::Own,
        };
        let control = LocalControl { api: &self.api, streams: &self.streams, pulses: &pulses };
        let kubelet = start_local_node(&node, &control, parts).context("starting the node")?;
        for nth in 2..=self.plan.n_nodes {
            let plan = self.plan.of_node(nth);
            let more = NodeStart { plan: &plan, place: Place::Beside, ..node };
            let parts = node_parts::hollow(self.system.env());
            start_local_node(&more, &control, parts)
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
        self.start_sessions(pulses)
    }

    /// What nodes say: sessions of those on other hosts, who was heard of, and their Leases.
    fn start_sessions(&self, pulses: &Pulses) -> anyhow::Result<()> {
        let system = &self.system;
        let row = Child::new(sessions_actor::NAME, Lane::Control);
        let sessions = {
            let (system, api, pulses) = (system.clone(), self.api.clone(), pulses.clone());
            move || SessionsActor::new(system.clone(), api.clone(), pulses.clone())
        };
        system.start(row, sessions)?.open_to_asks::<OpenSession>();
        let row = Child::new(pulses_actor::NAME, Lane::Control);
        let teller = {
            let (system, store) = (system.clone(), self.api.store().clone());
            let (leader, pulses) = (self.leader_host(), pulses.clone());
            move || PulsesActor::new(system.clone(), store.clone(), leader.clone(), pulses.clone())
        };
        system.start(row, teller)?.open_to_asks::<HeardNodes>();
        let (api, pulses) = (self.api.clone(), pulses.clone());
        let row = Child::new("node-leases", Lane::Control);
        system.start(row, move || LeaseActor::new(api.clone(), pulses.clone()))?;
        Ok(())
    }

    /// Where the store's leader is, as this replica knows it.
    fn leader_host(&self) -> LeaderHost {
        let (members, leadership) = (self.members.clone(), self.api.store().leadership());
        Arc::new(move || members.state().hosts.remove(&leadership.current().leader?))
    }
}

/// What sessions heard, as node lifecycle asks for it.
struct Heard(Pulses);

impl Liveness for Heard {
    fn last_heard(&self, node: &str) -> Option<Timestamp> {
        self.0.last_heard(node)
    }
}

/// Returns when the default objects are there, however long it takes: the leader writes them, others wait for them.
pub(super) async fn bootstrap(api: &Api, served: &ServedAt) {
    let mut leadership = api.store().leadership();
    loop {
        match bootstrapped(api, served).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(status) => {
                tracing::info!(%status, "the default objects could not be written yet; tried again");
            }
        }
        tokio::select! {
            biased;
            _ = leadership.changed() => {}
            () = api.env().sleep(BOOTSTRAP_PAUSE) => {}
        }
    }
}

async fn bootstrapped(api: &Api, served: &ServedAt) -> Result<bool, Status> {
    let store = api.store();
    let within = |time| Deadline::after(api.env().monotonic(), time);
    if store.leadership().current().ours.is_some() {
        api.bootstrap_at(&served.endpoints(), within(BOOTSTRAP_MAX)).await?;
        return Ok(true);
    }
    // What this host knows may be old, or nothing: it joined a moment ago.
    let is_current = store.read_index(within(READ_MAX)).await.is_ok();
    // Written last: where it is, the others are.
    let last = Key::new("", "services", "default", "kubernetes").ok();
    Ok(is_current && last.is_some_and(|it| store.get(&it).is_some()))
}

/// Where the API is served now.
#[derive(Clone)]
pub(super) struct ServedAt {
    pub records: Records,
    pub links: Arc<HostLinks>,
    pub host: HostId,
    pub own: Endpoint,
}

impl ServedAt {
    /// The control hosts that this one reaches, itself included.
    fn endpoints(&self) -> Vec<Endpoint> {
        let live = self.links.live().borrow().clone();
        let hosts = self.records.hosts();
        let serves = |(host, it): &(&HostId, &HostRecord)| {
            **host != self.host && it.is_control() && !it.leaving && live.contains(*host)
        };
        let endpoint = |(_, it): (&HostId, &HostRecord)| Endpoint {
            address: it.address.ip(),
            port: it.address.port(),
        };
        let others = hosts.iter().filter(serves).map(endpoint);
        std::iter::once(self.own).chain(others).collect()
    }
}

/// Keeps the Service `kubernetes` leading to the control hosts that serve, where this host leads; and writes what a new
/// leader's release adds to the default objects.
pub(super) async fn keep_published(api: Api, served: ServedAt) {
    let env = api.env().clone();
    let mut published = None;
    loop {
        env.sleep(PUBLISH_EVERY).await;
        let Some(reign) = api.store().leadership().current().ours else {
            published = None;
            continue;
        };
        let wanted = (reign, served.endpoints());
        if published.as_ref() == Some(&wanted) {
            continue;
        }
        let deadline = Deadline::after(env.monotonic(), BOOTSTRAP_MAX);
        let done = match published.as_ref().is_some_and(|(before, _)| *before == reign) {
            true => api.publish(&wanted.1, deadline).await,
            false => api.bootstrap_at(&wanted.1, deadline).await,
        };
        match done {
            Ok(()) => published = Some(wanted),
            Err(status) => {
                tracing::warn!(%status, "where the API is served could not be written; tried again");
            }
        }
    }
}
