//! The session of one node on a control host: requests in, feeds out, heartbeats into a Lease.
//!
//! It decides nothing: `call` makes requests, `feed` makes batches. Every request runs beside the others, bounded by
//! `CALLS_MAX`; a node that asks for more waits in its own mailbox.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kactor_api::request::Body;
use kactor_api::{Api, Operation, Request, Resource, Status};
use kactor_protocol::node::{
    ApiReply, CallApi, CallError, Feed, Follow, Following, Heartbeat, ObjectsChanged,
};
use kactor_protocol::time::Timestamp;
use kactor_runtime::current_trace;
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::call::{self, caller};
use crate::feed::FeedTask;

/// How long a request of a node may take.
const CALL_MAX: Duration = Duration::from_secs(30);
/// How often a node's Lease is renewed while it is heard of (kubelet: a quarter of 40 s).
const LEASE_EVERY: Duration = Duration::from_secs(10);
/// `leaseDurationSeconds` (kubelet nodeLeaseDurationSeconds).
const LEASE_SECONDS: u64 = 40;

/// Where a node's feeds go; set once the node's agent is there.
pub type AgentLink = Arc<OnceLock<Recipient<ObjectsChanged>>>;

pub struct SessionActor {
    api: Api,
    node: String,
    incarnation: u64,
    agent: AgentLink,
    follows: BTreeMap<Feed, SpawnHandle>,
    last_beat: Option<Timestamp>,
    lease_renewed: Option<Timestamp>,
    renewing: bool,
    n_calls: u64,
    n_refused: u64,
    last_refusal: Option<String>,
}

impl SessionActor {
    pub fn new(api: Api, node: String, incarnation: u64, agent: AgentLink) -> Self {
        Self {
            api,
            node,
            incarnation,
            agent,
            follows: BTreeMap::new(),
            last_beat: None,
            lease_renewed: None,
            renewing: false,
            n_calls: 0,
            n_refused: 0,
            last_refusal: None,
        }
    }

    fn renew(&mut self, ctx: &mut Context<Self>) {
        let now = self.api.env().wall();
        let fresh = self.lease_renewed.is_some_and(|it| now.since(it) < LEASE_EVERY);
        if fresh || self.renewing {
            return;
        }
        self.renewing = true;
        let (api, node) = (self.api.clone(), self.node.clone());
        let renewal = async move { renew_lease(&api, &node, now).await };
        ctx.spawn(renewal.into_actor(self).map(move |renewed, actor, _| {
            actor.renewing = false;
            match renewed {
                Ok(()) => actor.lease_renewed = Some(now),
                Err(status) => actor.last_refusal = Some(format!("lease: {status}")),
            }
        }));
    }

    fn answered(&mut self, reply: &ApiReply, what: String) {
        self.n_calls += 1;
        if reply.code >= 400 {
            self.n_refused += 1;
            self.last_refusal = Some(format!("{what}: {}", reply.code));
        }
    }
}

/// Writes the node's Lease, or makes it the first time.
async fn renew_lease(api: &Api, node: &str, now: Timestamp) -> Result<(), Status> {
    let collection =
        Resource::new("coordination.k8s.io", "v1", "leases").in_namespace("kube-node-lease");
    let request = |operation, resource: Resource, body| Request {
        caller: caller(node, current_trace().0),
        resource,
        operation,
        options: Default::default(),
        body: Some(Body::Tree(body)),
        deadline: kactor_protocol::time::Deadline::after(api.env().monotonic(), CALL_MAX),
    };
    let patch = json!({ "spec": { "renewTime": now.rfc3339_micro() } });
    let merge = Operation::Patch(kactor_api::PatchType::Merge);
    match api.handle(request(merge, collection.clone().named(node), patch)).await {
        Ok(_) => Ok(()),
        Err(status) if status.to_json()["code"] == 404 => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": { "name": node, "namespace": "kube-node-lease" },
                "spec": {
                    "holderIdentity": node,
                    "leaseDurationSeconds": LEASE_SECONDS,
                    "renewTime": now.rfc3339_micro(),
                },
            });
            api.handle(request(Operation::Create, collection, lease)).await.map(drop)
        }
        Err(status) => Err(status),
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
            "lease_renewed": self.lease_renewed.map(|it| it.to_string()),
            "calls": self.n_calls,
            "refused": self.n_refused,
            "last_refusal": self.last_refusal,
        })
    }
}

impl Handler<Ask<CallApi>> for SessionActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<CallApi>, ctx: &mut Context<Self>) {
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
        let Follow { feed, resume } = ask.body;
        remark(format!("{feed:?} from {resume:?}"));
        let Some(to) = self.agent.get().cloned() else {
            return ask.reply.reply(Following::Unavailable {
                why: "the node's agent is not linked yet".to_owned(),
            });
        };
        let position = resume.filter(|it| it.incarnation == self.incarnation);
        let incarnation = self.incarnation;
        let (api, node) = (self.api.clone(), self.node.clone());
        let task = FeedTask { api, node, feed, position, incarnation, to };
        // A node that follows again has lost the feed before: that one ends.
        if let Some(before) = self.follows.insert(feed, ctx.spawn(task.run().into_actor(self))) {
            ctx.cancel_future(before);
        }
        ask.reply.reply(if position.is_some() { Following::Resumed } else { Following::Anew });
    }
}

impl Handler<Tell<Heartbeat>> for SessionActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<Heartbeat>, ctx: &mut Context<Self>) {
        self.last_beat = Some(tell.body.at);
        self.renew(ctx);
    }
}
