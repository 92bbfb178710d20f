//! Starting a node of this host: its session, its agent, and the streams between them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use kactor_agent::agent_actor::{AgentActor, Session};
use kactor_agent::downward::NodeFacts;
use kactor_agent::node_object::{self, Machine};
use kactor_agent::perform::{Host, NodeConfig};
use kactor_agent::ports::{ControlPlane, KubeletDoor, PodDialer, Unanswered};
use kactor_agent::streams_actor::{ControlEnd, StreamsActor as NodeStreamsActor};
use kactor_agent::token_cache::TokenCache;
use kactor_api::Api;
use kactor_kubelet::Kubelet;
use kactor_protocol::node::{ApiReply, CallApi};
use kactor_runtime::env::Lane;
use kactor_runtime::{ActorSystem, Asker, Child};
use kactor_sessions::pulses::Pulses;
use kactor_sessions::session_actor::{AgentLink, SessionActor};
use kactor_sessions::streams::{NodeLink, SessionStreams};
use kactor_sessions::streams_actor::StreamsActor;

use crate::compose::{DOMAIN, Plan};
use crate::machine_facts;
use crate::node_parts::NodeParts;

/// Room for requests of a node's pods, which come all at once after a restart.
const SESSION_MAILBOX: u32 = 1024;
/// Takes what nodes send of logs, exec and the like.
const ARRIVING_STREAMS: &str = "streams";

/// What nodes send of logs, exec and the like arrives at one actor. Before the first node.
pub fn start_arriving_streams(
    system: &ActorSystem,
    streams: &SessionStreams,
) -> anyhow::Result<()> {
    let streams = streams.clone();
    let row = Child::new(ARRIVING_STREAMS, Lane::Control).mailbox(SESSION_MAILBOX);
    system.start(row, move || StreamsActor::new(streams.clone()))?;
    Ok(())
}

/// The session as the agent sees it.
struct SessionControl {
    system: ActorSystem,
    call: Asker<CallApi>,
}

/// Until when the session must have answered one request.
const CALL_MAX: Duration = Duration::from_secs(30);

#[async_trait::async_trait]
impl ControlPlane for SessionControl {
    async fn call(&self, call: CallApi) -> Result<ApiReply, Unanswered> {
        match self.call.ask(call, self.system.deadline(CALL_MAX)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Unanswered { why: error.why }),
            Err(refusal) => Err(Unanswered { why: refusal.to_string() }),
        }
    }
}

/// Whether a node is the host's own or one of those that pretend beside it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Own,
    Beside,
}

/// What a node is told of its host.
#[derive(Clone, Copy)]
pub struct NodeStart<'a> {
    pub system: &'a ActorSystem,
    pub api: &'a Api,
    pub plan: &'a Plan,
    pub addresses: &'a [IpAddr],
    pub streams: &'a SessionStreams,
    pub pulses: &'a Pulses,
    /// Where its kubelet's API is served.
    pub kubelet: SocketAddr,
    pub place: Place,
}

impl NodeStart<'_> {
    /// The own node's actors have plain names.
    fn actor_name(&self, base: &str) -> String {
        match self.place {
            Place::Own => base.to_owned(),
            Place::Beside => format!("{base}/{}", self.plan.node_name),
        }
    }
}

pub fn start_node(start: &NodeStart<'_>, parts: NodeParts) -> anyhow::Result<Kubelet> {
    let NodeStart { system, api, plan, addresses, streams, pulses, kubelet, .. } = *start;
    let env = system.env();
    let version = parts.driver.version();
    let machine = Arc::new(machine_facts::read(
        &plan.node_name,
        &version,
        addresses,
        plan.dir.root(),
        kubelet,
    ));
    let link: AgentLink = Arc::new(OnceLock::new());
    let session = {
        let (api, node, link) = (api.clone(), plan.node_name.clone(), link.clone());
        let pulses = pulses.clone();
        let row = Child::new(format!("session/{}", plan.node_name), Lane::Control)
            .mailbox(SESSION_MAILBOX);
        system.start(row, move || {
            SessionActor::new(api.clone(), node.clone(), 0, link.clone(), pulses.clone())
        })?
    };
    let control =
        Arc::new(SessionControl { system: system.clone(), call: session.asks::<CallApi>() });
    let host = Host {
        env: env.clone(),
        driver: parts.driver,
        control,
        plumbing: parts.plumbing,
        volumes: parts.volumes,
        config: Arc::new(node_config(start, &machine)),
        services: parts.services,
        prober: parts.prober,
        tokens: Arc::new(TokenCache::default()),
        probe_counts: Arc::default(),
    };
    let agent_name = start.actor_name("agent");
    let kubelet = crate::kubelet::make((system, &agent_name), plan, &host, &parts.dialer, kubelet);
    let door = Arc::new(kubelet.clone());
    start_streams(start, &host, (&parts.dialer, door), streams)?;
    let to_session = Session { follow: session.asks(), heartbeat: session.tells() };
    let agent = {
        let (system_of, host) = (system.clone(), host.clone());
        let network = parts.network;
        let row = Child::new(agent_name, Lane::Node).mailbox(SESSION_MAILBOX);
        system.start(row, move || {
            AgentActor::new(
                host.clone(),
                system_of.clone(),
                to_session.clone(),
                network.clone(),
                machine.clone(),
            )
        })?
    };
    // The session's `Follow` answers "unavailable" until this is set, and the agent asks again.
    let _ = link.set(agent.tells());
    Ok(kubelet)
}

fn start_streams(
    start: &NodeStart<'_>,
    host: &Host,
    (dialer, kubelet): (&Arc<dyn PodDialer>, Arc<dyn KubeletDoor>),
    streams: &SessionStreams,
) -> anyhow::Result<()> {
    let system = start.system;
    let arriving =
        system.find::<StreamsActor>(ARRIVING_STREAMS).context("the streams' actor does not run")?;
    let control =
        ControlEnd { data: arriving.tells(), credit: arriving.tells(), ended: arriving.tells() };
    let node = {
        let (host, dialer) = (host.clone(), dialer.clone());
        let row = Child::new(start.actor_name("node-streams"), Lane::Node).mailbox(SESSION_MAILBOX);
        system.start(row, move || {
            NodeStreamsActor::new(host.clone(), dialer.clone(), kubelet.clone(), control.clone())
        })?
    };
    let link = NodeLink {
        open: node.asks(),
        data: node.tells(),
        credit: node.tells(),
        resize: node.tells(),
        ended: node.tells(),
    };
    streams.link(&host.config.node_name, link);
    Ok(())
}

fn node_config(start: &NodeStart<'_>, machine: &Machine) -> NodeConfig {
    let plan = start.plan;
    let pod_logs = match start.place {
        Place::Own => plan.dir.pod_logs(),
        // A node removes logs of pods that it does not know.
        Place::Beside => plan.dir.pod_logs_beside(&plan.node_name),
    };
    let memory = node_object::allocatable_memory_bytes(machine);
    NodeConfig {
        node_name: plan.node_name.clone(),
        domain: DOMAIN.to_owned(),
        pod_logs,
        host_resolver: machine_facts::host_resolver(),
        facts: NodeFacts {
            node_name: plan.node_name.clone(),
            host_addresses: machine.addresses.clone(),
            pod_addresses: Vec::new(),
            allocatable_cpu_milli: i64::from(machine.cpus) * 1000,
            allocatable_memory_bytes: i64::try_from(memory).unwrap_or(i64::MAX),
        },
        memory_bytes: machine.memory_bytes,
    }
}
