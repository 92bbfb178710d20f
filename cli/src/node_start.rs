//! Starting a node of this host: its session, its agent, and the streams between them.
//!
//! The session is with this host's own control plane (`start_local_node`), or with whichever control host serves (`compose/worker.rs`).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use kactor_agent::agent_actor::AgentActor;
use kactor_agent::downward::NodeFacts;
use kactor_agent::node_object::{self, Machine};
use kactor_agent::perform::{Host, NodeConfig};
use kactor_agent::ports::{ControlPlane, Session, Unanswered};
use kactor_agent::streams_actor::{self, ControlEnd, StreamsActor as NodeStreamsActor, Ways};
use kactor_agent::token_cache::TokenCache;
use kactor_api::Api;
use kactor_kubelet::Kubelet;
use kactor_protocol::insight::{Insight, InsightReply};
use kactor_protocol::node::{
    ApiReply, CallApi, Follow, Following, Heartbeat, ObjectsChanged, OpenStream, StreamCredit,
    StreamData, StreamEnded, StreamResize,
};
use kactor_protocol::{ActorName, HostId};
use kactor_runtime::env::Lane;
use kactor_runtime::{ActorRef, ActorSystem, Asker, Child, Recipient};
use kactor_sessions::pulses::Pulses;
use kactor_sessions::session_actor::{AgentLink, SessionActor};
use kactor_sessions::sessions_actor::SESSION_MAILBOX;
use kactor_sessions::streams::{NodeLink, STREAMS_MAILBOX, SessionStreams};
use kactor_sessions::streams_actor::{self as arriving, StreamsActor};
use serde_json::Value;

use crate::compose::{DOMAIN, Plan};
use crate::machine_facts;
use crate::node_parts::NodeParts;

/// What nodes send of logs, exec and the like arrives at one actor, from this host and others. Before the first node.
pub fn start_arriving_streams(
    system: &ActorSystem,
    streams: &SessionStreams,
) -> anyhow::Result<()> {
    let streams = streams.clone();
    let row = Child::new(arriving::NAME, Lane::Control).mailbox(STREAMS_MAILBOX);
    let actor = system.start(row, move || StreamsActor::new(streams.clone()))?;
    actor
        .open_to_tells::<StreamData>()
        .open_to_tells::<StreamCredit>()
        .open_to_tells::<StreamEnded>();
    Ok(())
}

/// The session as the agent sees it, when it is with this very host.
struct LocalSession {
    system: ActorSystem,
    call: Asker<CallApi>,
    follow: Asker<Follow>,
    beat: Recipient<Heartbeat>,
}

/// Until when the session must have answered one request.
const CALL_MAX: Duration = Duration::from_secs(30);
const FOLLOW_MAX: Duration = Duration::from_secs(10);

fn unanswered(why: impl ToString) -> Unanswered {
    Unanswered { why: why.to_string() }
}

#[async_trait::async_trait]
impl ControlPlane for LocalSession {
    async fn call(&self, call: CallApi) -> Result<ApiReply, Unanswered> {
        let asked = self.call.ask(call, self.system.deadline(CALL_MAX));
        asked.await.map_err(unanswered)?.map_err(|it| unanswered(it.why))
    }
}

#[async_trait::async_trait]
impl Session for LocalSession {
    async fn follow(&self, follow: Follow) -> Result<Following, Unanswered> {
        self.follow.ask(follow, self.system.deadline(FOLLOW_MAX)).await.map_err(unanswered)
    }

    fn host(&self) -> Option<HostId> {
        None
    }

    async fn beat(&self, beat: Heartbeat) {
        let _ = self.beat.tell(beat).await; // The next one says it again.
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
    pub plan: &'a Plan,
    pub addresses: &'a [IpAddr],
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

/// This host's control plane, as a node of the same host meets it.
#[derive(Clone, Copy)]
pub struct LocalControl<'a> {
    pub api: &'a Api,
    pub streams: &'a SessionStreams,
    pub pulses: &'a Pulses,
}

/// A node whose session is with this host.
pub fn start_local_node(
    start: &NodeStart<'_>,
    control: &LocalControl<'_>,
    parts: NodeParts,
) -> anyhow::Result<Kubelet> {
    let (system, node) = (start.system, &start.plan.node_name);
    let link: AgentLink = Arc::new(OnceLock::new());
    let session = {
        let (api, node, link) = (control.api.clone(), node.clone(), link.clone());
        let pulses = control.pulses.clone();
        let row = Child::new(format!("session/{node}"), Lane::Control).mailbox(SESSION_MAILBOX);
        system.start(row, move || {
            SessionActor::new(api.clone(), node.clone(), link.clone(), pulses.clone())
        })?
    };
    let session = Arc::new(LocalSession {
        system: system.clone(),
        call: session.asks(),
        follow: session.asks(),
        beat: session.tells(),
    });
    let arriving =
        system.find::<StreamsActor>(arriving::NAME).context("the streams' actor does not run")?;
    let local =
        ControlEnd { data: arriving.tells(), credit: arriving.tells(), ended: arriving.tells() };
    let ways = Ways { system: system.clone(), local: Some(local) };
    let started = start_node(start, session, ways, parts)?;
    let node_streams = &started.streams;
    let way = NodeLink {
        open: node_streams.asks(),
        data: node_streams.tells(),
        credit: node_streams.tells(),
        resize: node_streams.tells(),
        ended: node_streams.tells(),
    };
    control.streams.link(node, way);
    // The session's `Follow` answers "unavailable" until this is set, and the agent asks again.
    let _ = link.set(started.agent.asks());
    Ok(started.kubelet)
}

/// A node's actors, and its kubelet.
pub struct StartedNode {
    pub kubelet: Kubelet,
    pub agent: ActorRef<AgentActor>,
    pub streams: ActorRef<NodeStreamsActor>,
}

/// A node whose session is `session`, wherever that is.
pub fn start_node(
    start: &NodeStart<'_>,
    session: Arc<dyn Session>,
    ways: Ways,
    parts: NodeParts,
) -> anyhow::Result<StartedNode> {
    let NodeStart { system, plan, addresses, kubelet, .. } = *start;
    let env = system.env();
    let version = parts.driver.version();
    let machine = Arc::new(machine_facts::read(
        &plan.node_name,
        &version,
        addresses,
        plan.dir.root(),
        kubelet,
    ));
    let host = Host {
        env: env.clone(),
        driver: parts.driver,
        control: session.clone(),
        plumbing: parts.plumbing,
        volumes: parts.volumes,
        config: Arc::new(node_config(start, &machine)),
        services: parts.services,
        prober: parts.prober,
        tokens: Arc::new(TokenCache::default()),
        probe_counts: Arc::default(),
    };
    let name = start.actor_name("agent");
    let kubelet = crate::kubelet::make((system, &name), plan, &host, &parts.dialer, kubelet);
    let streams = {
        let (host, dialer) = (host.clone(), parts.dialer.clone());
        let door = Arc::new(kubelet.clone());
        let row = Child::new(start.actor_name(streams_actor::NAME), Lane::Node)
            .mailbox(streams_actor::STREAMS_MAILBOX);
        system.start(row, move || {
            NodeStreamsActor::new(host.clone(), dialer.clone(), door.clone(), ways.clone())
        })?
    };
    streams
        .open_to_asks::<OpenStream>()
        .open_to_tells::<StreamData>()
        .open_to_tells::<StreamCredit>()
        .open_to_tells::<StreamResize>()
        .open_to_tells::<StreamEnded>();
    let agent = {
        let (system_of, network) = (system.clone(), parts.network);
        let row = Child::new(name.clone(), Lane::Node).mailbox(SESSION_MAILBOX);
        system.start(row, move || {
            AgentActor::new(
                host.clone(),
                (system_of.clone(), name.clone()),
                session.clone(),
                network.clone(),
                machine.clone(),
            )
        })?
    };
    agent.open_to_asks::<ObjectsChanged>();
    Ok(StartedNode { kubelet, agent, streams })
}

/// Whether the agent of this start speaks with the API: the Node object alone may be as an earlier start left it.
pub async fn is_registered(system: &ActorSystem) -> bool {
    let Ok(actor) = ActorName::new("agent") else { return false };
    let reply = system.insight(Insight::Inspect { actor }).await;
    let InsightReply::Inspect { report } = reply else { return false };
    let state = report.state.and_then(|it| serde_json::from_str::<Value>(&it).ok());
    state.is_some_and(|it| it["registered"] == true)
}

/// Whether a Node says that it is Ready.
pub fn says_ready(node: &[u8]) -> bool {
    let node: Value = serde_json::from_slice(node).unwrap_or_default();
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
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
