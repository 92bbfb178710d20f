//! The Leases of all nodes: renewed together by the leader, one proposal every ten seconds, for those that were heard of.
//!
//! A Lease is written as its own node, through the API like everything else; only the proposal is shared. A node that
//! is heard of for the first time gets its Lease at once, because tools look for it. What fails is tried at the next
//! turn: liveness itself is in `pulses` and waits for no disk.

use std::time::Duration;

use kactor_api::request::Body;
use kactor_api::{Api, Operation, PatchType, Reason, Request, Resource, Status};
use kactor_protocol::TraceId;
use kactor_protocol::store::Key;
use kactor_protocol::time::{Deadline, Timestamp};
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::call::caller;
use crate::pulses::Pulses;

/// How often Leases are renewed (kubelet: a quarter of 40 s).
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// `leaseDurationSeconds` (kubelet nodeLeaseDurationSeconds).
const LEASE_SECONDS: u64 = 40;
/// Less than a turn: the next one must not wait for this one.
const RENEWAL_MAX: Duration = Duration::from_secs(8);

pub struct LeaseActor {
    api: Api,
    pulses: Pulses,
    /// On the monotonic clock.
    next: Duration,
    n_renewed: u64,
    n_turns: u64,
    last_refusal: Option<String>,
}

impl LeaseActor {
    pub fn new(api: Api, pulses: Pulses) -> Self {
        let next = api.env().monotonic() + RENEW_EVERY;
        Self { api, pulses, next, n_renewed: 0, n_turns: 0, last_refusal: None }
    }

    /// Waits for the turn or for somebody new, writes, and waits again.
    fn wait(&self, ctx: &mut Context<Self>) {
        let (api, pulses, next) = (self.api.clone(), self.pulses.clone(), self.next);
        let turn = async move {
            tokio::select! {
                biased;
                () = api.env().clock.sleep_until(next) => {}
                () = pulses.newcomer() => {}
            }
            // Other control hosts tell the leader whom they hear.
            let leads = api.store().leadership().current().ours.is_some();
            let nodes = if leads { pulses.take_fresh(api.env().wall()) } else { Vec::new() };
            (renew(&api, &nodes).await, nodes.len())
        };
        ctx.spawn(turn.into_actor(self).map(|(refusals, n_nodes), actor, ctx| {
            actor.told(refusals, n_nodes);
            actor.wait(ctx);
        }));
    }

    fn told(&mut self, refusals: Vec<String>, n_nodes: usize) {
        let now = self.api.env().monotonic();
        while self.next <= now {
            self.next += RENEW_EVERY;
        }
        self.n_turns += u64::from(n_nodes > 0);
        self.n_renewed += (n_nodes - refusals.len()) as u64;
        self.last_refusal = refusals.into_iter().next_back().or(self.last_refusal.take());
    }
}

/// Renews these nodes' Leases and makes those that are missing. What was refused, in words.
async fn renew(api: &Api, nodes: &[String]) -> Vec<String> {
    let now = api.env().wall();
    let patch = json!({ "spec": { "renewTime": now.rfc3339_micro() } });
    let merge = Operation::Patch(PatchType::Merge);
    let patches: Vec<Request> =
        nodes.iter().map(|it| request(api, it, merge, patch.clone())).collect();
    let mut refusals = Vec::new();
    for (node, answer) in nodes.iter().zip(api.merge_together(&patches).await) {
        let answer = match answer {
            Err(status) if status.reason == Reason::NotFound => create(api, node, now).await,
            other => other.map(drop),
        };
        if let Err(status) = answer {
            refusals.push(format!("{node}: {status}"));
        }
    }
    refusals
}

/// A new Lease, owned by its Node: it goes when that goes.
async fn create(api: &Api, node: &str, now: Timestamp) -> Result<(), Status> {
    let owner = Key::new("", "nodes", "", node).ok().and_then(|it| api.store().get(&it));
    let Some(owner) = owner else {
        return Err(Status::service_unavailable("the Node is not registered yet".to_owned()));
    };
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": node,
            "namespace": "kube-node-lease",
            "ownerReferences": [
                { "apiVersion": "v1", "kind": "Node", "name": node, "uid": owner.value.uid.as_str() },
            ],
        },
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": now.rfc3339_micro(),
        },
    });
    api.handle(request(api, node, Operation::Create, lease)).await.map(drop)
}

fn request(api: &Api, node: &str, operation: Operation, body: Value) -> Request {
    let collection =
        Resource::new("coordination.k8s.io", "v1", "leases").in_namespace("kube-node-lease");
    let resource = match operation {
        Operation::Create => collection,
        _ => collection.named(node),
    };
    Request {
        caller: caller(node, TraceId::NONE),
        resource,
        operation,
        options: Default::default(),
        body: Some(Body::Tree(body)),
        deadline: Deadline::after(api.env().monotonic(), RENEWAL_MAX),
    }
}

impl Actor for LeaseActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.wait(ctx);
    }
}

impl Inspect for LeaseActor {
    const KIND: &'static str = "NodeLeases";

    fn state(&self) -> Value {
        json!({
            "turns": self.n_turns,
            "renewed": self.n_renewed,
            "last_refusal": self.last_refusal,
        })
    }
}
