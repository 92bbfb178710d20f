//! `links`, on every host: says how the links are, and answers what an operator asks of this host through another one.
//!
//! The gateway that the operator speaks to has authorized the question; only control hosts may pass it on.

use std::sync::Arc;

use kactor_protocol::certificates::renew_at;
use kactor_protocol::insight::LookInside;
use kactor_runtime::StartError;
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::host_links::HostLinks;

/// The name of the actor on each host.
pub const LINKS: &str = "links";

pub struct LinksActor {
    system: ActorSystem,
    links: Arc<HostLinks>,
}

impl LinksActor {
    /// Starts it, open to other hosts.
    pub fn start(
        system: &ActorSystem,
        links: &Arc<HostLinks>,
    ) -> Result<ActorRef<Self>, StartError> {
        let (in_lives, links) = (system.clone(), links.clone());
        let actor = system.start(Child::new(LINKS, Lane::Control), move || Self {
            system: in_lives.clone(),
            links: links.clone(),
        })?;
        actor.open_to_asks::<LookInside>();
        Ok(actor)
    }
}

impl Actor for LinksActor {
    type Context = Context<Self>;
}

impl Handler<Ask<LookInside>> for LinksActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<LookInside>, ctx: &mut Context<Self>) {
        let system = self.system.clone();
        // Beside the mailbox: the question may be about this very actor.
        let answer = async move { ask.reply.reply(system.insight(ask.body.question).await) };
        ctx.spawn(answer.into_actor(self));
    }
}

impl Inspect for LinksActor {
    const KIND: &'static str = "Links";

    fn state(&self) -> Value {
        self.links.report()
    }
}

impl HostLinks {
    /// The links and the certificates as inspection and `kactor status` show them.
    pub fn report(&self) -> Value {
        let (from, until) = self.certificate();
        let peers = self.status().into_iter().map(|it| {
            json!({
                "host": it.host,
                "lane": it.lane.to_string(),
                "live": it.is_live,
                "address": it.address.map(|it| it.to_string()),
                "round_trip_us": it.round_trip.map(|it| u64::try_from(it.as_micros()).ok()),
                "last_error": it.last_error,
                "certificate_until": it.certificate_ends.map(|it| it.rfc3339()),
                "sent_frames": it.sent_frames,
                "sent_bytes": it.sent_bytes,
                "received_frames": it.received_frames,
                "received_bytes": it.received_bytes,
                "waiting": it.waiting,
            })
        });
        json!({
            "host": self.host(),
            "listen": self.address().to_string(),
            "certificate": {
                "from": from.rfc3339(),
                "until": until.rfc3339(),
                "renews_at": renew_at(from, until).rfc3339(),
            },
            "links": peers.collect::<Vec<_>>(),
        })
    }
}
