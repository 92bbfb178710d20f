//! Opens the sessions of nodes on other hosts, and ends those that nobody wants any more.
//!
//! A worker asks again and again; each answer says that its session lives. A session ends when its host is lost, when
//! the node's process began another life, or when nobody asked for it for a while: the node has another control host
//! then, whose feeds it follows. Ending loses nothing, a node follows again from where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kactor_api::Api;
use kactor_protocol::node::{
    CallApi, Follow, Heartbeat, ObjectsChanged, OpenSession, SessionOpened, SessionRefused,
};
use kactor_protocol::{ActorAddress, ActorName, HostId, Incarnation};
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use kactor_runtime::{Origin, PeerDown};
use serde_json::{Value, json};

use crate::pulses::Pulses;
use crate::session_actor::SessionActor;

/// The actor's name on every control host.
pub const NAME: &str = "sessions";
/// Room for requests of a node's pods, which come all at once after a restart.
pub const SESSION_MAILBOX: u32 = 1024;
/// Sessions of one control host; a node that is refused asks the next one.
pub const SESSIONS_LEN_MAX: usize = 8192;
/// A session that nobody asked for in this time is over.
const IDLE_MAX: Duration = Duration::from_secs(15);
const SWEEP_EVERY: Duration = Duration::from_secs(5);

pub struct SessionsActor {
    system: ActorSystem,
    api: Api,
    pulses: Pulses,
    /// By node.
    open: BTreeMap<String, Open>,
    /// Nodes whose session is being exchanged for another one.
    changing: BTreeSet<String>,
    /// Hosts whose loss we will be told of.
    watched: BTreeSet<HostId>,
    n_opened: u64,
    n_lost: u64,
}

struct Open {
    /// Of the node's process.
    life: Incarnation,
    /// Of the session's actor.
    session: Incarnation,
    /// On the monotonic clock.
    asked_at: Duration,
}

impl SessionsActor {
    pub fn new(system: ActorSystem, api: Api, pulses: Pulses) -> Self {
        Self {
            system,
            api,
            pulses,
            open: BTreeMap::new(),
            changing: BTreeSet::new(),
            watched: BTreeSet::new(),
            n_opened: 0,
            n_lost: 0,
        }
    }

    /// What stands against a session here; `Ok` with the node's host.
    fn admit(&self, request: &OpenSession, from: &Origin) -> Result<HostId, SessionRefused> {
        let host = match from {
            Origin::Peer { host, .. } => host.clone(),
            Origin::Local(_) => self.system.host().clone(),
        };
        // This host's own node has its session from the start and needs no other.
        if host.as_str() != request.node || host == *self.system.host() {
            let (host, node) = (host.to_string(), request.node.clone());
            return Err(SessionRefused::OtherNode { host, node });
        }
        let not_serving = |why: &str| Err(SessionRefused::NotServing { why: why.to_owned() });
        let store = self.api.store();
        let leadership = store.leadership().current();
        match leadership.leader {
            None => return not_serving("it knows no leader"),
            Some(leader) if leadership.ours.is_none() && leader == store.status().replica => {
                return not_serving("it leads, and no quorum answers it");
            }
            Some(_) => {}
        }
        if self.changing.contains(&request.node) {
            return not_serving("the node's session before is ending");
        }
        let is_new = !self.open.contains_key(&request.node);
        if is_new && self.open.len() + self.changing.len() >= SESSIONS_LEN_MAX {
            return Err(SessionRefused::Full { limit: SESSIONS_LEN_MAX as u32 });
        }
        Ok(host)
    }

    /// The session that this life of the node has, if it still runs.
    fn running(&mut self, request: &OpenSession) -> Option<SessionOpened> {
        let open = self.open.get_mut(&request.node)?;
        let session = self.system.find::<SessionActor>(&name_of(&request.node))?;
        let is_same =
            open.life == request.incarnation && open.session == session.address().incarnation;
        if !is_same {
            return None;
        }
        open.asked_at = self.system.env().monotonic();
        Some(SessionOpened { session: open.session })
    }

    fn start(&mut self, host: &HostId, life: Incarnation) -> Result<SessionOpened, SessionRefused> {
        let not_serving = |why: String| SessionRefused::NotServing { why };
        let own = self.system.find::<SessionsActor>(NAME);
        let own = own.ok_or_else(|| not_serving("it is stopping".to_owned()))?;
        if !self.watched.contains(host) {
            let watched = self.system.watch_peer(host.clone(), own.tells::<PeerDown>());
            watched.map_err(|it| not_serving(it.to_string()))?;
            self.watched.insert(host.clone());
        }
        let agent = ActorAddress {
            host: host.clone(),
            name: ActorName::new("agent").expect("the name is a constant"),
            incarnation: Incarnation::default(),
        };
        let link = Arc::new(OnceLock::from(self.system.remote_asks::<ObjectsChanged>(agent)));
        let (api, node, pulses) = (self.api.clone(), host.to_string(), self.pulses.clone());
        let row = Child::new(name_of(&node), Lane::Control)
            .under(NAME)
            .mailbox(SESSION_MAILBOX)
            .restart(Restart::THEN_GIVE_UP);
        let make =
            move || SessionActor::new(api.clone(), node.clone(), link.clone(), pulses.clone());
        let session = self.system.start(row, make).map_err(|it| not_serving(it.to_string()))?;
        session.open_to_asks::<CallApi>().open_to_asks::<Follow>().open_to_tells::<Heartbeat>();
        let session = session.address().incarnation;
        let asked_at = self.system.env().monotonic();
        self.open.insert(host.to_string(), Open { life, session, asked_at });
        self.n_opened += 1;
        Ok(SessionOpened { session })
    }

    /// Stops the node's session, then does what follows from it.
    fn end(&mut self, node: &str, ctx: &mut Context<Self>, then: impl FnOnce(&mut Self) + 'static) {
        self.open.remove(node);
        self.changing.insert(node.to_owned());
        let (system, node) = (self.system.clone(), node.to_owned());
        let stopped = async move {
            if let Ok(name) = ActorName::new(name_of(&node)) {
                system.stop(&name).await;
            }
            node
        };
        ctx.spawn(stopped.into_actor(self).map(|node, actor, _| {
            actor.changing.remove(&node);
            then(actor);
        }));
    }

    fn sweep(&mut self, ctx: &mut Context<Self>) {
        let now = self.system.env().monotonic();
        let is_idle = |it: &Open| now.saturating_sub(it.asked_at) > IDLE_MAX;
        let idle: Vec<String> =
            self.open.iter().filter(|(_, it)| is_idle(it)).map(|(node, _)| node.clone()).collect();
        for node in idle {
            tracing::debug!(node, "a session that nobody asked for ends");
            self.end(&node, ctx, |_| {});
        }
    }
}

fn name_of(node: &str) -> String {
    format!("session/{node}")
}

impl Actor for SessionsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(SWEEP_EVERY, Self::sweep);
    }
}

impl Inspect for SessionsActor {
    const KIND: &'static str = "NodeSessions";

    fn state(&self) -> Value {
        json!({
            "open": self.open.keys().collect::<Vec<_>>(),
            "opened": self.n_opened,
            "lost": self.n_lost,
        })
    }
}

impl Handler<Ask<OpenSession>> for SessionsActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<OpenSession>, ctx: &mut Context<Self>) {
        let (request, reply) = (ask.body, ask.reply);
        let host = match self.admit(&request, &ask.trail.from) {
            Ok(host) => host,
            Err(refused) => return reply.reply(Err(refused)),
        };
        if let Some(opened) = self.running(&request) {
            return reply.reply(Ok(opened));
        }
        remark(format!("{} life {}", request.node, request.incarnation));
        self.end(&request.node, ctx, move |actor| {
            reply.reply(actor.start(&host, request.incarnation));
        });
    }
}

impl Handler<Tell<PeerDown>> for SessionsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<PeerDown>, ctx: &mut Context<Self>) {
        let PeerDown { host, reason } = tell.body;
        remark(format!("{host}: {reason}"));
        self.watched.remove(&host);
        if self.open.contains_key(host.as_str()) {
            self.n_lost += 1;
            self.end(host.as_str(), ctx, |_| {});
        }
    }
}
