//! Carries to the leader whom this control host heard of: gathered for a second, one letter for all nodes.
//!
//! Ages travel instead of times, so that no two hosts' clocks are compared; the way itself makes a node look younger by
//! milliseconds, against a grace period of many seconds. What was not answered is told again with its true age.

use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::HostId;
use kactor_protocol::node::{HeardNode, NODES_PER_PULSES_MAX, Pulses as Heard};
use kactor_protocol::{ActorAddress, ActorName, Incarnation, Timestamp};
use kactor_runtime::prelude::*;
use kactor_store::Store;
use serde_json::{Value, json};

use crate::pulses::Pulses;

/// The actor's name on every control host.
pub const NAME: &str = "pulses";
const TELL_EVERY: Duration = Duration::from_secs(1);
const TELL_TIME_MAX: Duration = Duration::from_secs(1);

/// The host that the store's leader runs on, where it is known.
pub type LeaderHost = Arc<dyn Fn() -> Option<HostId> + Send + Sync>;

pub struct PulsesActor {
    system: ActorSystem,
    store: Store,
    leader_host: LeaderHost,
    pulses: Pulses,
    n_told: u64,
    n_heard: u64,
    last_refusal: Option<String>,
}

impl PulsesActor {
    pub fn new(system: ActorSystem, store: Store, leader_host: LeaderHost, pulses: Pulses) -> Self {
        Self { system, store, leader_host, pulses, n_told: 0, n_heard: 0, last_refusal: None }
    }

    /// The leader's actor, when another host leads.
    fn leader(&self) -> Option<Asker<Heard>> {
        if self.store.leadership().current().ours.is_some() {
            return None;
        }
        let host = (self.leader_host)().filter(|it| it != self.system.host())?;
        let name = ActorName::new(NAME).ok()?;
        Some(self.system.remote_asks(ActorAddress {
            host,
            name,
            incarnation: Incarnation::default(),
        }))
    }

    fn tell(&mut self, ctx: &mut Context<Self>) {
        let again = |ctx: &mut Context<Self>| {
            ctx.run_later(TELL_EVERY, Self::tell);
        };
        let Some(leader) = self.leader() else { return again(ctx) };
        let untold = self.pulses.take_untold(NODES_PER_PULSES_MAX);
        if untold.is_empty() {
            return again(ctx);
        }
        let now = self.system.env().wall();
        let heard =
            untold.iter().map(|(node, at)| HeardNode { node: node.clone(), ago_ms: ago(now, *at) });
        let asked =
            leader.ask(Heard { heard: heard.collect() }, self.system.deadline(TELL_TIME_MAX));
        ctx.spawn(asked.into_actor(self).map(move |answer, actor, ctx| {
            match answer {
                Ok(()) => actor.n_told += untold.len() as u64,
                Err(refusal) => {
                    actor.pulses.give_back(untold.iter().map(|(node, _)| node.as_str()));
                    actor.last_refusal = Some(refusal.to_string());
                }
            }
            again(ctx);
        }));
    }
}

fn ago(now: Timestamp, at: Timestamp) -> u64 {
    u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)
}

impl Actor for PulsesActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.tell(ctx);
    }
}

impl Inspect for PulsesActor {
    const KIND: &'static str = "NodePulses";

    fn state(&self) -> Value {
        json!({
            "told": self.n_told,
            "heard": self.n_heard,
            "last_refusal": self.last_refusal,
        })
    }
}

impl Handler<Ask<Heard>> for PulsesActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Heard>, _: &mut Context<Self>) {
        let now = self.system.env().wall();
        remark(format!("{} nodes", ask.body.heard.len()));
        for HeardNode { node, ago_ms } in ask.body.heard.iter().take(NODES_PER_PULSES_MAX) {
            self.pulses.heard_elsewhere(node, Timestamp(now.0.saturating_sub(*ago_ms)));
            self.n_heard += 1;
        }
        ask.reply.reply(());
    }
}
