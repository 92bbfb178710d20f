//! Keeps one session of this node with a control host that serves, and takes the next host when it fails.
//!
//! It asks its host every second whether the session lives, which keeps it alive too. A host that is lost, silent or
//! without the session is left at once. One that does not serve (it knows no leader) is left when another serves, and
//! kept when none does: its feeds still stand, and a cluster between two leaders is no reason to move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kactor_protocol::node::{OpenSession, SessionOpened, SessionRefused};
use kactor_protocol::{ActorAddress, ActorName, HostId, Incarnation};
use kactor_runtime::PeerDown;
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::agent_actor::{AgentActor, SessionRenewed};
use crate::uplink::Seat;

/// The actor's name on every worker.
pub const NAME: &str = "uplink";
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long a control host may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Wait before all hosts are tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// The control hosts that there are; changes while the cluster does.
pub type ControlHosts = watch::Receiver<Vec<HostId>>;

/// A request was refused by this session.
#[derive(Debug, Clone)]
pub struct SeatFailed {
    pub host: HostId,
    pub session: Incarnation,
}

impl Letter for SeatFailed {
    type Reply = ();
    const NAME: &'static str = "SeatFailed";
    const OVERLOAD: Overload = Overload::Coalesce;
}

pub struct UplinkActor {
    system: ActorSystem,
    /// This life of the process.
    life: Incarnation,
    hosts: ControlHosts,
    seat: watch::Sender<Option<Seat>>,
    /// Where the next search begins: behind the host that failed.
    first: usize,
    /// Hosts whose loss we will be told of.
    watched: BTreeSet<HostId>,
    /// Something failed: look now.
    doubt: Arc<Notify>,
    n_seats: u64,
    last_refusal: Option<String>,
}

/// What one host said.
enum Said {
    Opened(SessionOpened),
    /// It lives and cannot take the node now.
    NotServing(String),
    Gone(String),
}

impl UplinkActor {
    pub fn new(
        system: ActorSystem,
        life: Incarnation,
        hosts: ControlHosts,
        seat: watch::Sender<Option<Seat>>,
    ) -> Self {
        // Nodes begin at different hosts, so that sessions spread.
        let first = system.host().as_str().bytes().map(usize::from).sum();
        Self {
            system,
            life,
            hosts,
            seat,
            first,
            watched: BTreeSet::new(),
            doubt: Arc::default(),
            n_seats: 0,
            last_refusal: None,
        }
    }

    /// The host of now first, then the others in turn.
    fn order(&self) -> Vec<HostId> {
        let mut hosts = self.hosts.borrow().clone();
        if !hosts.is_empty() {
            let first = self.first % hosts.len();
            hosts.rotate_left(first);
        }
        if let Some(seat) = &*self.seat.borrow() {
            // Also when it left the list: the session is still there.
            hosts.retain(|it| *it != seat.host);
            hosts.insert(0, seat.host.clone());
        }
        hosts
    }

    /// Asks for the session, at the host of now first; takes the first host that gives one.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let (system, life, order) = (self.system.clone(), self.life, self.order());
        let look = async move {
            let mut refusals = Vec::new();
            for host in order {
                match ask(&system, &host, life).await {
                    Said::Opened(opened) => return (refusals, Some((host, opened))),
                    said => refusals.push((host, said)),
                }
            }
            (refusals, None)
        };
        ctx.spawn(look.into_actor(self).map(|(refusals, found), actor, ctx| {
            actor.told(refusals, found);
            actor.wait(ctx);
        }));
    }

    /// Until the next look is due, or something fails.
    fn wait(&self, ctx: &mut Context<Self>) {
        let pause = if self.seat.borrow().is_some() { PING_EVERY } else { AGAIN };
        let (env, doubt) = (self.system.env().clone(), self.doubt.clone());
        let waited = async move {
            tokio::select! {
                biased;
                () = doubt.notified() => {}
                () = env.sleep(pause) => {}
            }
        };
        ctx.spawn(waited.into_actor(self).map(|(), actor, ctx| actor.look(ctx)));
    }

    fn left(&mut self) {
        self.seat.send_replace(None);
        self.first = self.first.wrapping_add(1);
        self.doubt.notify_one();
    }

    fn told(&mut self, refusals: Vec<(HostId, Said)>, found: Option<(HostId, SessionOpened)>) {
        let held = self.seat.borrow().as_ref().map(|it| (it.host.clone(), it.session));
        for (host, said) in refusals {
            let (is_gone, why) = match said {
                Said::Opened(_) => continue,
                Said::NotServing(why) => (false, why),
                Said::Gone(why) => (true, why),
            };
            self.last_refusal = Some(format!("{host}: {why}"));
            if is_gone && held.as_ref().is_some_and(|(of, _)| *of == host) {
                self.left();
            }
        }
        let Some((host, opened)) = found else { return };
        if held == Some((host.clone(), opened.session)) {
            return;
        }
        if !self.watched.contains(&host)
            && let Some(own) = self.system.find::<Self>(NAME)
            // One that cannot be watched is found lost by the next question.
            && self.system.watch_peer(host.clone(), own.tells::<PeerDown>()).is_ok()
        {
            self.watched.insert(host.clone());
        }
        tracing::info!(%host, "this node's session is with another control host now");
        self.n_seats += 1;
        self.seat.send_replace(Some(Seat::new(&self.system, host.clone(), opened.session)));
        // An agent that is not there yet follows when it is.
        if let Some(agent) = self.system.find::<AgentActor>("agent") {
            let told = agent.tell(SessionRenewed);
            self.system.env().spawn(Lane::Node, FutureExt::map(told, drop));
        }
    }
}

async fn ask(system: &ActorSystem, host: &HostId, life: Incarnation) -> Said {
    let sessions = ActorAddress {
        host: host.clone(),
        name: ActorName::new("sessions").expect("the name is a constant"),
        incarnation: Incarnation::default(),
    };
    let request = OpenSession { node: system.host().to_string(), incarnation: life };
    let asked = system.remote_asks::<OpenSession>(sessions);
    match asked.ask(request, system.deadline(ANSWER_MAX)).await {
        Ok(Ok(opened)) => Said::Opened(opened),
        Ok(Err(refused @ SessionRefused::OtherNode { .. })) => Said::Gone(refused.to_string()),
        Ok(Err(refused)) => Said::NotServing(refused.to_string()),
        Err(Refusal::Overloaded) => Said::NotServing(Refusal::Overloaded.to_string()),
        Err(refusal) => Said::Gone(refusal.to_string()),
    }
}

impl Actor for UplinkActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Inspect for UplinkActor {
    const KIND: &'static str = "NodeUplink";

    fn state(&self) -> Value {
        json!({
            "session": self.seat.borrow().as_ref().map(|it| it.host.to_string()),
            "control_hosts": self.hosts.borrow().iter().map(HostId::as_str).collect::<Vec<_>>(),
            "sessions_so_far": self.n_seats,
            "last_refusal": self.last_refusal,
        })
    }
}

impl Handler<Tell<SeatFailed>> for UplinkActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<SeatFailed>, _: &mut Context<Self>) {
        let SeatFailed { host, session } = tell.body;
        let is_held =
            self.seat.borrow().as_ref().is_some_and(|it| it.host == host && it.session == session);
        if is_held {
            self.doubt.notify_one();
        }
    }
}

impl Handler<Tell<PeerDown>> for UplinkActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<PeerDown>, _: &mut Context<Self>) {
        let host = tell.body.host;
        self.watched.remove(&host);
        let is_held = self.seat.borrow().as_ref().is_some_and(|it| it.host == host);
        if is_held {
            self.left();
        }
    }
}
