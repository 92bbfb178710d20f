//! What the scheduler asks of the API, as `system:kube-scheduler` and fenced by its reign: bindings, conditions, Events.

use std::time::Duration;

use kactor_api::{
    Api, Body, Caller, Operation, Options, PatchType, Request, Resource, Status, User,
    allocation_key,
};
use kactor_protocol::store::{Guard, Key};
use kactor_protocol::{Deadline, Reign, TraceId, Uid};
use kactor_view::events::EventWrite;
use kactor_view::events::writer::Written;
use kactor_view::json::text;
use serde_json::{Value, json};

use crate::scheduler::{BindOutcome, BindRequest};

const USER: &str = "system:kube-scheduler";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Sender {
    pub api: Api,
    pub reign: Option<Reign>,
    pub trace: TraceId,
}

impl Sender {
    /// `pods/binding`, guarded by what was known of the node. Also says why it did not come to be.
    pub(crate) async fn bind(&self, request: &BindRequest) -> (BindOutcome, String) {
        let Some(key) = allocation_key(&request.node) else {
            return (BindOutcome::Failed, format!("{} cannot name a node", request.node));
        };
        let guard = match request.allocation {
            Some(revision) => Guard::Revision { key, revision },
            None => Guard::Absent { key },
        };
        let options = Options { guards: vec![guard], ..Options::default() };
        let resource = pod(&request.pod, "binding");
        let asked = self.asked(resource, Operation::Create, options, request.body.clone());
        match self.api.handle(asked).await {
            Ok(_) => (BindOutcome::Bound, String::new()),
            Err(status) if status.code == 409 => (BindOutcome::Conflict, status.message),
            Err(status) => (BindOutcome::Failed, status.message),
        }
    }

    /// `PodScheduled` is false, for this reason.
    pub(crate) async fn tell_unschedulable(
        &self,
        key: &Key,
        uid: &Uid,
        message: &str,
        now: &str,
    ) -> Result<(), Status> {
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": now,
        });
        let patch = json!({
            "metadata": {"uid": uid.as_str()},
            "status": {"conditions": [condition]},
        });
        let operation = Operation::Patch(PatchType::Strategic);
        let asked = self.asked(pod(key, "status"), operation, Options::default(), patch);
        self.api.handle(asked).await.map(|_| ())
    }

    pub(crate) async fn write_event(&self, event: EventWrite) -> Written {
        let events = |key: &Key| Resource::new("", "v1", "events").in_namespace(key.namespace());
        let request = match event {
            EventWrite::Create { key, body } => {
                self.asked(events(&key), Operation::Create, Options::default(), body)
            }
            EventWrite::CountUp { key, patch } => {
                let resource = events(&key).named(key.name());
                self.asked(resource, Operation::Patch(PatchType::Merge), Options::default(), patch)
            }
        };
        match self.api.handle(request).await {
            Ok(_) => Written::Yes,
            Err(status) if status.code == 404 => Written::Gone,
            Err(status) => {
                tracing::debug!(status = status.message, "an Event was refused");
                Written::Refused
            }
        }
    }

    fn asked(
        &self,
        resource: Resource,
        operation: Operation,
        options: Options,
        body: Value,
    ) -> Request {
        let user = User::authenticated(USER, &[]);
        let mut caller = Caller::internal(user, "kube-scheduler", self.trace);
        caller.reign = self.reign;
        debug_assert!(text(&body, "/kind") != "Binding" || resource.subresource.is_some());
        let deadline = Deadline::after(self.api.env().monotonic(), REQUEST_TIMEOUT);
        Request { caller, resource, operation, options, body: Some(Body::Tree(body)), deadline }
    }
}

fn pod(key: &Key, subresource: &str) -> Resource {
    let mut pod = Resource::new("", "v1", "pods").in_namespace(key.namespace()).named(key.name());
    pod.subresource = Some(subresource.to_owned());
    pod
}
