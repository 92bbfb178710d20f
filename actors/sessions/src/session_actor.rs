//! The session of one node on a control host: requests in, feeds out, heartbeats into the host's pulses.
//!
//! It decides nothing: `call` makes requests, `feed` makes batches. A node is who its host's certificate says: what
//! comes from another host than the node's own is refused, whatever it says. Every request runs beside the others.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kactor_api::Api;
use kactor_protocol::node::{
    ApiReply, CallApi, CallError, Feed, Follow, Following, Heartbeat, ObjectsChanged,
};
use kactor_protocol::time::Timestamp;
use kactor_runtime::Origin;
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::call;
use crate::feed::{FeedTask, epoch};
use crate::pulses::Pulses;

/// How long a request of a node may take.
const CALL_MAX: Duration = Duration::from_secs(30);

/// Where a node's feeds go; set once the node's agent is there.
pub type AgentLink = Arc<OnceLock<Asker<ObjectsChanged>>>;

pub struct SessionActor {
    api: Api,
    node: String,
    agent: AgentLink,
    pulses: Pulses,
    follows: BTreeMap<Feed, SpawnHandle>,
    last_beat: Option<Timestamp>,
    n_calls: u64,
    n_refused: u64,
    last_refusal: Option<String>,
}

impl SessionActor {
    pub fn new(api: Api, node: String, agent: AgentLink, pulses: Pulses) -> Self {
        Self {
            api,
            node,
            agent,
            pulses,
            follows: BTreeMap::new(),
            last_beat: None,
            n_calls: 0,
            n_refused: 0,
            last_refusal: None,
        }
    }

    /// Whether the node itself says it. Actors of this host are trusted, another host speaks for its own node alone.
    fn is_from_node(&self, trail: &Trail) -> bool {
        match &trail.from {
            Origin::Local(_) => true,
            Origin::Peer { host, .. } => host.as_str() == self.node,
        }
    }

    fn not_permitted(&self, message: &str) -> Refusal {
        let permitted = format!("the host of node {} alone", self.node);
        Refusal::NotPermitted { message: message.to_owned(), permitted }
    }

    fn answered(&mut self, reply: &ApiReply, what: String) {
        self.n_calls += 1;
        if reply.code >= 400 {
            self.n_refused += 1;
            self.last_refusal = Some(format!("{what}: {}", reply.code));
        }
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

impl Inspect for SessionActor {
    const KIND: &'static str = "NodeSession";

    fn state(&self) -> Value {
        json!({
            "node": self.node,
            "connected": self.agent.get().is_some(),
            "feeds": self.follows.keys().map(|it| format!("{it:?}")).collect::<Vec<_>>(),
            "last_heartbeat": self.last_beat.map(|it| it.to_string()),
            "calls": self.n_calls,
            "refused": self.n_refused,
            "last_refusal": self.last_refusal,
        })
    }
}

impl Handler<Ask<CallApi>> for SessionActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<CallApi>, ctx: &mut Context<Self>) {
        if !self.is_from_node(&ask.trail) {
            return ask.reply.refuse(self.not_permitted(CallApi::NAME));
        }
        let target = &ask.body.target;
        let name = target.name.as_deref().unwrap_or_default();
        let sub = target.subresource.as_deref().map(|it| format!("/{it}")).unwrap_or_default();
        let what = format!("{:?} {} {name}{sub}", ask.body.verb, target.resource);
        remark(&what);
        let reply_by = ask.deadline.min(self.deadline_of_calls());
        let request = call::request(&self.node, ask.body, ask.trail.trace, reply_by);
        let api = self.api.clone();
        let work = ask.trail.follow(async move { call::reply(api.handle(request).await) });
        let token = ask.reply;
        ctx.spawn(work.into_actor(self).map(move |reply, actor, _| {
            actor.answered(&reply, what);
            let answer: Result<ApiReply, CallError> = Ok(reply);
            token.reply(answer);
        }));
    }
}

impl SessionActor {
    fn deadline_of_calls(&self) -> kactor_protocol::time::Deadline {
        kactor_protocol::time::Deadline::after(self.api.env().monotonic(), CALL_MAX)
    }
}

impl Handler<Ask<Follow>> for SessionActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Follow>, ctx: &mut Context<Self>) {
        if !self.is_from_node(&ask.trail) {
            return ask.reply.refuse(self.not_permitted(Follow::NAME));
        }
        let Follow { feed, resume } = ask.body;
        remark(format!("{feed:?} from {resume:?}"));
        let Some(to) = self.agent.get().cloned() else {
            return ask.reply.reply(Following::Unavailable {
                why: "the node's agent is not linked yet".to_owned(),
            });
        };
        let epoch = epoch(&self.api);
        let position = resume.filter(|it| it.incarnation == epoch);
        let (api, node) = (self.api.clone(), self.node.clone());
        let task = FeedTask { api, node, feed, position, to };
        // A node that follows again has lost the feed before: that one ends.
        if let Some(before) = self.follows.insert(feed, ctx.spawn(task.run().into_actor(self))) {
            ctx.cancel_future(before);
        }
        ask.reply.reply(if position.is_some() { Following::Resumed } else { Following::Anew });
    }
}

impl Handler<Tell<Heartbeat>> for SessionActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<Heartbeat>, _: &mut Context<Self>) {
        if !self.is_from_node(&tell.trail) {
            return;
        }
        self.last_beat = Some(tell.body.at);
        // By this host's clock: the node's own may be wrong.
        self.pulses.beat(&self.node, self.api.env().wall());
    }
}
