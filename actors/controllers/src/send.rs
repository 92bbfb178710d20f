//! Plans on their way to the API: each effect becomes one request under the controller's own account, fenced by its reign.
//!
//! Outcomes come back in the plan's order. Nothing is tried again here: a refusal is a fact for the next pass.

use std::time::Duration;

use futures::future::join_all;
use kactor_api::request::{
    self as api, Body, Caller, Operation, Options, PatchType, Resource, User,
};
use kactor_api::{Api, Status};
use kactor_protocol::store::Key;
use kactor_protocol::{Deadline, Reign, Revision, TraceId, Uid};
use kactor_view::events::EventWrite;
use kactor_view::events::writer::Written;
use kactor_view::kinds;
use serde_json::Value;

use crate::merge_patch::merge;
use crate::plan::{Effect, Outcome, Pace, Plan, Propagation, Refusal, Request, Verb};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Deletions that are under way at once.
const ABREAST_MAX: usize = 64;
/// What Kubernetes' roles let a controller update but not patch: such patches are applied to what is stored, and the
/// whole is sent as an update of that very revision.
const UPDATED: &[(&str, Option<&str>)] = &[
    ("configmaps", None),
    ("deployments", None),
    ("deployments", Some("status")),
    ("endpoints", None),
    ("endpointslices", None),
    ("namespaces", Some("status")),
    ("replicasets", Some("status")),
];

/// Who sends.
#[derive(Clone)]
pub(crate) struct Sender {
    pub api: Api,
    pub name: &'static str,
    pub reign: Option<Reign>,
    pub trace: TraceId,
}

/// All that became of a plan.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Of the effects that were sent, in the plan's order, with their place in it.
    pub outcomes: Vec<(usize, Outcome)>,
    /// The last revision that one of them made.
    pub revision: Option<Revision>,
}

impl Sent {
    fn push(&mut self, at: usize, effect: &Effect, result: Result<api::Response, Refusal>) {
        let result = match result {
            Ok(response) => {
                if effect.request.verb() != Verb::Get {
                    self.revision = self.revision.max(response.revision);
                }
                Ok(uid_of(&effect.request, &response))
            }
            Err(refusal) => Err(refusal),
        };
        let (key, verb) = (effect.key.clone(), effect.request.verb());
        self.outcomes.push((at, Outcome { key, verb, result }));
    }
}

/// Only a live read answers with an object that somebody looks at.
fn uid_of(request: &Request, response: &api::Response) -> Option<Uid> {
    let tree = matches!(request, Request::Get).then(|| response.object.to_tree())?;
    tree.pointer("/metadata/uid").and_then(Value::as_str).map(Uid::from)
}

fn refusal(status: &Status) -> Refusal {
    Refusal {
        code: status.code,
        reason: status.reason.as_str().to_owned(),
        message: status.message.clone(),
    }
}

impl Sender {
    /// Sends the plan's effects at its pace.
    pub(crate) async fn send(&self, plan: &Plan, version_of: impl Fn(&Key) -> String) -> Sent {
        let mut sent = Sent::default();
        let effects: Vec<(usize, &Effect, String)> =
            plan.effects.iter().enumerate().map(|(at, it)| (at, it, version_of(&it.key))).collect();
        let (creates, rest): (Vec<_>, Vec<_>) = effects
            .into_iter()
            .partition(|it| plan.pace == Pace::Abreast && it.1.request.verb() == Verb::Create);
        let (deletes, rest): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|it| plan.pace == Pace::Abreast && it.1.request.verb() == Verb::Delete);
        self.send_slowly(creates, &mut sent).await;
        self.send_abreast(deletes, &mut sent).await;
        for (at, effect, version) in rest {
            let result = self.send_one(effect, version).await;
            sent.push(at, effect, result);
        }
        sent.outcomes.sort_by_key(|it| it.0);
        sent
    }

    /// 1, 2, 4, …; none more once one was refused.
    async fn send_slowly(&self, mut left: Vec<(usize, &Effect, String)>, sent: &mut Sent) {
        let mut size = 1;
        while !left.is_empty() {
            let batch: Vec<_> = left.drain(..size.min(left.len())).collect();
            let from = sent.outcomes.len();
            self.send_at_once(batch, sent).await;
            if sent.outcomes[from..].iter().any(|it| it.1.result.is_err()) {
                return;
            }
            size *= 2;
        }
    }

    async fn send_abreast(&self, mut left: Vec<(usize, &Effect, String)>, sent: &mut Sent) {
        while !left.is_empty() {
            let batch: Vec<_> = left.drain(..ABREAST_MAX.min(left.len())).collect();
            self.send_at_once(batch, sent).await;
        }
    }

    async fn send_at_once(&self, batch: Vec<(usize, &Effect, String)>, sent: &mut Sent) {
        let under_way = batch.into_iter().map(|(at, effect, version)| async move {
            (at, effect, self.send_one(effect, version).await)
        });
        for (at, effect, result) in join_all(under_way).await {
            sent.push(at, effect, result);
        }
    }

    async fn send_one(&self, effect: &Effect, version: String) -> Result<api::Response, Refusal> {
        let request = match &effect.request {
            Request::Patch { subresource, patch }
                if UPDATED.contains(&(effect.key.resource(), *subresource)) =>
            {
                let mut resource = resource(&effect.key, version);
                resource.subresource = subresource.map(str::to_owned);
                let body = self.patched(&effect.key, patch)?;
                self.asked(resource, Operation::Update, Options::default(), Some(body))
            }
            _ => self.request(effect, version),
        };
        self.api.handle(request).await.map_err(|it| refusal(&it))
    }

    /// What is stored with the patch applied; its uid and `resourceVersion` are the preconditions.
    fn patched(&self, key: &Key, patch: &Value) -> Result<Value, Refusal> {
        let gone = || Refusal {
            code: 404,
            reason: "NotFound".to_owned(),
            message: format!("{key} is gone"),
        };
        let stored = self.api.store().get(key).ok_or_else(gone)?;
        let bytes = self.api.open_stored(&stored).ok_or_else(gone)?;
        let mut body: Value = serde_json::from_slice(&bytes).map_err(|_| gone())?;
        body["metadata"]["resourceVersion"] = stored.modified.to_string().into();
        merge(&mut body, patch);
        Ok(body)
    }

    fn request(&self, effect: &Effect, version: String) -> api::Request {
        let mut options = Options::default();
        let mut resource = resource(&effect.key, version);
        let (operation, body) = match &effect.request {
            Request::Get => (Operation::Get, None),
            Request::Create { body } => {
                resource.name = None;
                (Operation::Create, Some(body.clone()))
            }
            Request::Patch { subresource, patch } => {
                resource.subresource = subresource.map(str::to_owned);
                (Operation::Patch(PatchType::Merge), Some(patch.clone()))
            }
            Request::Update { subresource, body } => {
                resource.subresource = Some((*subresource).to_owned());
                (Operation::Update, Some(body.clone()))
            }
            Request::Delete { precondition, propagation, grace_seconds } => {
                options.preconditions.uid = Some(precondition.uid.to_string());
                options.preconditions.resource_version =
                    precondition.revision.map(|it| it.to_string());
                options.propagation = propagation.map(propagation_of);
                options.grace_period_seconds =
                    grace_seconds.map(|it| i64::try_from(it).unwrap_or(i64::MAX));
                (Operation::Delete, None)
            }
        };
        self.asked(resource, operation, options, body)
    }

    fn asked(
        &self,
        resource: Resource,
        operation: Operation,
        options: Options,
        body: Option<Value>,
    ) -> api::Request {
        let mut caller = Caller::internal(User::controller(self.name), self.name, self.trace);
        caller.reign = self.reign;
        let now = self.api.env().monotonic();
        api::Request {
            caller,
            resource,
            operation,
            options,
            body: body.map(Body::Tree),
            deadline: Deadline::after(now, REQUEST_TIMEOUT),
        }
    }

    /// Writes one Event.
    pub(crate) async fn write_event(&self, event: EventWrite) -> Written {
        let request = match event {
            EventWrite::Create { key, body } => {
                let mut resource = resource(&key, "v1".to_owned());
                resource.name = None;
                self.asked(resource, Operation::Create, Options::default(), Some(body))
            }
            EventWrite::CountUp { key, patch } => {
                let resource = resource(&key, "v1".to_owned());
                let operation = Operation::Patch(PatchType::Merge);
                self.asked(resource, operation, Options::default(), Some(patch))
            }
        };
        match self.api.handle(request).await {
            Ok(_) => Written::Yes,
            Err(status) if status.code == 404 => Written::Gone,
            Err(status) => {
                tracing::debug!(
                    controller = self.name,
                    status = status.message,
                    "an Event was refused"
                );
                Written::Refused
            }
        }
    }
}

fn propagation_of(propagation: Propagation) -> api::Propagation {
    match propagation {
        Propagation::Background => api::Propagation::Background,
        Propagation::Foreground => api::Propagation::Foreground,
        Propagation::Orphan => api::Propagation::Orphan,
    }
}

fn resource(key: &Key, version: String) -> Resource {
    let known = kinds::by_resource(key.group(), key.resource());
    let version = known.map_or(version, |it| it.version.to_owned());
    let mut resource = Resource::new(key.group(), &version, key.resource()).named(key.name());
    if !key.namespace().is_empty() {
        resource = resource.in_namespace(key.namespace());
    }
    resource
}
