//! A worker: a host without a store and an API of its own, whose node has its session with whichever control host serves.
//!
//! Where the API would be it is relayed, byte by byte, to a live control host, so a kubeconfig or a pod may name any host.
//! Who the control hosts are is what they tell (`AnnounceActor`); links, the session, the relay and the next start follow it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_agent::ports::{ControlPlane, Session};
use kactor_agent::streams_actor::Ways;
use kactor_agent::uplink::Uplink;
use kactor_agent::uplink_actor::{self, UplinkActor};
use kactor_cluster::announce_actor::{ANNOUNCE, AnnounceActor, OwnWorker};
use kactor_cluster::host::{HostRole, KnownHost};
use kactor_cluster::hosts_actor::HostFacts;
use kactor_gateway::pki::{self, HostKey};
use kactor_gateway::tls::ServingCertificate;
use kactor_links::{
    Directory, HostEntry, HostLinks, LinkPems, LinkSetup, LinksActor, RenewalActor, RenewalSetup,
};
use kactor_protocol::message::Role;
use kactor_protocol::node::{ApiTarget, ApiVerb, CallApi};
use kactor_protocol::{HostId, Incarnation};
use kactor_relay::{Relay, RelayLimits};
use kactor_runtime::env::{Env, Lane};
use kactor_runtime::{ActorSystem, Child};
use tokio::sync::watch;

use super::host::entries;
use super::serving::bind;
use super::worker_door::LocalDoor;
use super::{DELIVERY, Plan, node_parts, open_files};
use crate::data_dir::DataDir;
use crate::join::HOST_KEY;
use crate::kept::{Kept, write_private};
use crate::kubelet::{Seat, Served};
use crate::machine_facts;
use crate::node_start::{self, NodeStart, Place};

/// What a worker runs.
pub struct Worker {
    pub system: ActorSystem,
    pub relay: Arc<Relay>,
    pub kubelet: Served,
    links: Arc<HostLinks>,
    session: Arc<Uplink>,
}

/// The control hosts, for all who follow them.
pub struct Known {
    dir: DataDir,
    host: HostId,
    links: Arc<HostLinks>,
    control: watch::Sender<Vec<HostId>>,
    kept: Mutex<Kept>,
    /// Whether the cluster knew this host when it was asked last.
    belongs: AtomicBool,
}

impl Known {
    fn take(&self, hosts: Vec<KnownHost>) {
        self.links.directory().set(entries(hosts.iter(), &self.host));
        self.control.send_if_modified(|it| {
            let names = control_hosts(&hosts);
            let changed = *it != names;
            *it = names;
            changed
        });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.hosts == hosts {
            return;
        }
        kept.hosts = hosts;
        if let Err(error) = kept.write(&self.dir) {
            // Only a start that finds none of the hosts from before would miss it.
            tracing::warn!(error = crate::print::chain(&error), "who the others are was not kept");
        }
    }

    /// The control hosts, those that are linked first.
    pub fn candidates(&self) -> Vec<HostId> {
        let live = self.links.live().borrow().clone();
        let mut hosts = self.control.borrow().clone();
        hosts.sort_by_key(|it| !live.contains(it));
        hosts
    }

    pub fn belongs(&self) -> bool {
        self.belongs.load(Ordering::Relaxed)
    }
}

fn control_hosts(hosts: &[KnownHost]) -> Vec<HostId> {
    let control = hosts.iter().filter(|it| it.role == HostRole::Control);
    control.map(|it| it.host.clone()).collect()
}

impl Worker {
    pub async fn start(env: &Env, plan: &Plan) -> anyhow::Result<Self> {
        let kept = plan.kept.clone().context("a worker knows its cluster from joining it")?;
        check(plan)?;
        let addresses = machine_facts::addresses(plan.listen.ip());
        let kubelet_socket = crate::kubelet::bind(&plan.dir, plan.kubelet_listen, plan.listen)?;
        let socket = bind(plan.listen)?;
        let own = OwnPlace::open(env, plan, &kept, socket.local_addr()?).await?;
        let system = own.system.clone();
        let seat = Seat::showing(&own.serving, &kept.ca, kubelet_socket)?;
        let kubelet = seat.served.clone();
        let known = own.known(plan, kept, kubelet.address());
        own.start_actors(plan, &known)?;

        let (seats, held) = watch::channel(None);
        let uplink = {
            let (in_lives, life, hosts) = (system.clone(), own.life, known.control.subscribe());
            let row = Child::new(uplink_actor::NAME, Lane::Node);
            let new =
                move || UplinkActor::new(in_lives.clone(), life, hosts.clone(), seats.clone());
            system.start(row, new)?
        };
        let session = Arc::new(Uplink::new(system.clone(), held, uplink.tells()));
        let parts = node_parts(env, plan).await?.context("a worker has a node")?;
        let driver = parts.driver.clone();
        let node = NodeStart {
            system: &system,
            plan,
            addresses: &addresses,
            kubelet: kubelet.address(),
            place: Place::Own,
        };
        let ways = Ways { system: system.clone(), local: None };
        let started = node_start::start_node(&node, session.clone(), ways, parts)
            .context("starting the node")?;

        let (told, targets) = watch::channel(Vec::new());
        env.spawn(Lane::Node, keep_targets(own.links.clone(), told));
        let connections_max = u32::try_from(open_files::connections_max()).unwrap_or(u32::MAX) / 2;
        let limits = RelayLimits { connections_max: connections_max.max(1), ..Default::default() };
        let relay = Relay::start(env, socket, targets, limits).context("relaying the API")?;
        let relay = Arc::new(relay);
        let door = LocalDoor {
            system: system.clone(),
            plan: super::inside::summary(plan),
            links: own.links.clone(),
            known: known.clone(),
            session: session.clone(),
            relay: relay.clone(),
            driver,
        };
        seat.serve_with(env, started.kubelet, Arc::new(door))?;
        Ok(Self { system, relay, kubelet, links: own.links, session })
    }

    /// Whether this start's agent speaks with a control host and the cluster calls the node Ready.
    pub async fn is_ready(&self) -> bool {
        if !node_start::is_registered(&self.system).await {
            return false;
        }
        let call = CallApi {
            verb: ApiVerb::Get,
            target: ApiTarget {
                group: String::new(),
                version: "v1".to_owned(),
                resource: "nodes".to_owned(),
                subresource: None,
                namespace: None,
                name: Some(self.system.host().to_string()),
            },
            options: Vec::new(),
            body: Default::default(),
        };
        let answer = self.session.call(call).await.ok().filter(|it| it.code == 200);
        answer.is_some_and(|it| node_start::says_ready(&it.body))
    }

    /// The control host that this node's session is with.
    pub fn session(&self) -> Option<HostId> {
        self.session.host()
    }

    /// Resolves when this host cannot go on, with the reason.
    pub async fn failed(&self) -> String {
        self.system.failed().await.to_string()
    }

    /// Ends requests in flight, then the actors. Pods stay.
    pub async fn stop(self, grace: Duration) {
        self.relay.close();
        self.kubelet.drain(grace).await;
        self.system.stop_all().await;
        self.links.close().await;
    }
}

/// What a worker can't be.
fn check(plan: &Plan) -> anyhow::Result<()> {
    if plan.runtime == crate::args::Runtime::None {
        bail!(
            "{} is a worker, and --runtime none has no node: there would be nothing for it to do; start it with --runtime embedded (needs root), docker or hollow",
            plan.node_name
        );
    }
    if plan.n_nodes > 1 {
        bail!(
            "--hollow-nodes is for control hosts: a worker has the one node that is named as it is"
        );
    }
    Ok(())
}

/// This host's actors, its links, and what it shows as a server.
struct OwnPlace {
    system: ActorSystem,
    links: Arc<HostLinks>,
    serving: Arc<ServingCertificate>,
    life: Incarnation,
    renewal: RenewalSetup,
}

impl OwnPlace {
    async fn open(env: &Env, plan: &Plan, kept: &Kept, listen: SocketAddr) -> anyhow::Result<Self> {
        let host = HostId::new(&plan.node_name)?;
        let key = HostKey::open(env, &plan.dir.host(), HOST_KEY).await.context("the host's key")?;
        let file = plan.dir.host_certificate();
        let cert = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}; put it back, or join anew", file.display()))?;
        if let Some((_, until)) = pki::validity(&cert).filter(|(_, until)| *until <= env.wall()) {
            bail!(
                "this host's certificate ended at {} while it was off; start it once more with the line of a new `kactor token create --role worker`",
                until.rfc3339()
            );
        }
        let pems = LinkPems { cert, key: key.pem(), ca: kept.ca.clone() };
        let serving = Arc::new(ServingCertificate::new(&identity(&pems))?);
        let directory = Directory::new();
        directory.set(entries(kept.hosts.iter(), &host));
        let life = Incarnation(env.wall().0);
        let setup = LinkSetup { host: host.clone(), incarnation: life, pems, listen };
        let links = HostLinks::start(env, setup, directory).await?;
        let system = ActorSystem::with_transport(env.clone(), host, life, DELIVERY, links.clone());
        links.attach(&system);
        let shown = serving.clone();
        let keep = move |pems: &LinkPems| {
            shown.set(&identity(pems)).map_err(|it| it.to_string())?;
            write_private(&file, pems.cert.as_bytes()).map_err(|it| crate::print::chain(&it))
        };
        let renewal = RenewalSetup {
            links: links.clone(),
            key: key.pem(),
            request: key.request(&plan.node_name)?,
            keep: Arc::new(keep),
        };
        Ok(Self { system, links, serving, life, renewal })
    }

    fn known(&self, plan: &Plan, kept: Kept, kubelet: SocketAddr) -> Arc<Known> {
        let hosts = kept.hosts.clone();
        let kept =
            Kept { listen: plan.listen, runtime: plan.runtime, kubelet: Some(kubelet), ..kept };
        if let Err(error) = kept.write(&plan.dir) {
            tracing::warn!(error = crate::print::chain(&error), "how this host runs was not kept");
        }
        Arc::new(Known {
            dir: plan.dir.clone(),
            host: self.system.host().clone(),
            links: self.links.clone(),
            control: watch::Sender::new(control_hosts(&hosts)),
            kept: Mutex::new(kept),
            belongs: AtomicBool::new(true),
        })
    }

    /// Starts those who keep certificate, links and hosts true.
    fn start_actors(&self, plan: &Plan, known: &Arc<Known>) -> anyhow::Result<()> {
        RenewalActor::start(&self.system, self.renewal.clone())?;
        LinksActor::start(&self.system, &self.links)?;
        let (listen, started_at, of) = (plan.listen, self.life.0, known.clone());
        let facts = move || HostFacts {
            address: machine_facts::reached_at(listen, of.spoken_from()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            level: kactor_state::FEATURE_LEVEL_MAX,
            started_at: kactor_protocol::Timestamp(started_at),
        };
        let (asked, told, belongs) = (known.clone(), known.clone(), known.clone());
        let own = OwnWorker {
            facts: Arc::new(facts),
            candidates: Arc::new(move || asked.candidates()),
            seen: Arc::new(move |hosts| told.take(hosts)),
            belongs: Arc::new(move |it| belongs.belongs.store(it, Ordering::Relaxed)),
        };
        let (system, row) = (self.system.clone(), Child::new(ANNOUNCE, Lane::Control));
        self.system.start(row, move || AnnounceActor::new(system.clone(), own.clone()))?;
        Ok(())
    }
}

impl Known {
    /// The address of this host that control hosts are spoken to from.
    fn spoken_from(&self) -> Option<std::net::IpAddr> {
        let directory = self.links.directory();
        let first = self.candidates().into_iter().find_map(|it| directory.get(&it)?.address);
        first.and_then(machine_facts::towards)
    }
}

fn identity(pems: &LinkPems) -> kactor_gateway::Identity {
    kactor_gateway::Identity { cert_pem: pems.cert.clone(), key_pem: pems.key.clone() }
}

/// Tells the relay which control hosts live, as links find them.
async fn keep_targets(links: Arc<HostLinks>, told: watch::Sender<Vec<SocketAddr>>) {
    let (mut live, mut changes) = (links.live(), links.directory().changed());
    loop {
        let now = targets(&links.directory().snapshot(), &live.borrow_and_update());
        told.send_if_modified(|it| {
            let changed = *it != now;
            *it = now;
            changed
        });
        let goes_on = tokio::select! {
            biased;
            it = live.changed() => it.is_ok(),
            it = changes.next() => it,
        };
        if !goes_on {
            return;
        }
    }
}

/// The control hosts that are linked; all of them while none is, because a dial may still succeed.
fn targets(directory: &BTreeMap<HostId, HostEntry>, live: &BTreeSet<HostId>) -> Vec<SocketAddr> {
    let control = || directory.iter().filter(|(_, it)| it.roles.contains(&Role::Control));
    let linked: Vec<SocketAddr> =
        control().filter(|(host, _)| live.contains(*host)).filter_map(|it| it.1.address).collect();
    if linked.is_empty() { control().filter_map(|it| it.1.address).collect() } else { linked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_goes_to_linked_control_hosts_and_to_any_while_none_is() {
        let host = |name: &str| HostId::new(name).unwrap();
        let entry = |last: u8, role: Role| HostEntry {
            key_hash: None,
            roles: vec![role],
            address: Some(([192, 0, 2, last], 6443).into()),
            dial: role == Role::Control,
        };
        let directory = BTreeMap::from([
            (host("a"), entry(1, Role::Control)),
            (host("b"), entry(2, Role::Control)),
            (host("w"), entry(3, Role::Worker)),
        ]);
        let to = |live: &[&str]| {
            let live = live.iter().map(|it| host(it)).collect();
            let words = targets(&directory, &live).into_iter().map(|it| it.ip().to_string());
            words.collect::<Vec<_>>()
        };
        assert_eq!(to(&["b", "w"]), ["192.0.2.2"]);
        assert_eq!(to(&["w"]), ["192.0.2.1", "192.0.2.2"]);
    }
}
