//! Built-in admission: what the API adds to an object, demands of its surroundings, or forbids to its author.
//!
//! Runs between preparation and checks, on the local state, and may add guards and writes to the transaction: the
//! namespace must still be the one that was looked at, a Service takes its address with it. The order is upstream's.
//! Pure changes of an object are kactor-objects' `admission`; what needs the store or the caller is here.

use kactor_objects::registry::{Kind, Subresource};
use kactor_objects::status::{Cause, GroupResource, Status};
use kactor_objects::{meta, tree};
use kactor_protocol::store::{Guard, Key, Write};
use kactor_store::Stored;
use serde_json::Value;

use crate::allocate::{self, allocation_key};
use crate::api::Api;
use crate::request::Request;

mod node_restriction;
mod pods;

pub(crate) use node_restriction::check_token_request;

/// One write, as admission sees it.
pub(crate) struct Admission<'a> {
    pub api: &'a Api,
    pub request: &'a Request,
    pub kind: &'static Kind,
    pub sub: Option<&'static Subresource>,
    /// `None`: a create.
    pub old: Option<&'a Value>,
}

impl Admission<'_> {
    /// Changes the object, and refuses it where there is no place for it.
    pub fn mutate(&self, object: &mut Value) -> Result<(), Status> {
        if self.old.is_some() {
            return Ok(());
        }
        self.check_namespace(object)?;
        if self.is("", "Pod") {
            pods::complete(self, object)?;
        }
        Ok(())
    }

    /// Refuses what its author may not do. `object` is complete and valid.
    pub fn validate(&self, object: &Value) -> Result<(), Status> {
        node_restriction::check(self, Some(object))
    }

    /// Refuses a deletion that its author may not do.
    pub fn delete(&self) -> Result<(), Status> {
        node_restriction::check(self, None)
    }

    /// What a create relied on.
    pub fn guards(&self, object: &Value) -> Result<Vec<Guard>, Status> {
        let mut guards = self.request.options.guards.clone();
        if self.kind.is_namespaced() {
            let namespace = self.check_namespace(object)?;
            guards
                .extend(namespace.map(|it| Guard::Revision { key: it.key, revision: it.modified }));
        }
        Ok(guards)
    }

    /// Completes what is given out by the API, and the writes beside the object's own.
    pub fn allocate(&self, object: &mut Value) -> Result<Vec<Write>, Status> {
        if self.is("", "Service") && self.sub.is_none() {
            return allocate::service(self.api, self.kind, self.old, object);
        }
        if self.is("", "Pod") {
            let changes = self.old.is_some_and(holds_node) != holds_node(object);
            return Ok(if changes { touch(object) } else { Vec::new() });
        }
        Ok(Vec::new())
    }

    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.kind.group == group && self.kind.kind == kind
    }

    pub fn forbid(&self, name: &str, why: &str) -> Status {
        Status::forbidden(self.kind, name, why)
    }

    /// The namespace exists and is not being removed.
    fn check_namespace(&self, object: &Value) -> Result<Option<Stored>, Status> {
        if !self.kind.is_namespaced() {
            return Ok(None);
        }
        let name = self.request.resource.namespace.as_deref().unwrap_or_default();
        let not_found =
            || Status::not_found(GroupResource { group: "", resource: "namespaces" }, name);
        let key = Key::new("", "namespaces", "", name).map_err(|_| not_found())?;
        let stored = self.api.store().get(&key).ok_or_else(not_found)?;
        let namespace: Value = serde_json::from_slice(&stored.value.body).unwrap_or_default();
        if meta::is_terminating(&namespace)
            || tree::text(&namespace, "status.phase") == "Terminating"
        {
            let why = format!(
                "unable to create new content in namespace {name} because it is being terminated"
            );
            return Err(self.forbid(meta::name(object), &why).with_causes(vec![Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".to_owned(),
            }]));
        }
        Ok(Some(stored))
    }
}

/// The writes that give back what a removed object held.
pub(crate) fn release(kind: &Kind, old: &Value) -> Vec<Write> {
    match (kind.group, kind.kind) {
        ("", "Service") => allocate::release_service(old),
        ("", "Pod") if holds_node(old) => touch(old),
        _ => Vec::new(),
    }
}

/// On a node and not yet ended: it counts against what the node may give.
fn holds_node(pod: &Value) -> bool {
    !tree::text(pod, "spec.nodeName").is_empty()
        && !matches!(tree::text(pod, "status.phase"), "Succeeded" | "Failed")
}

fn touch(pod: &Value) -> Vec<Write> {
    allocation_key(tree::text(pod, "spec.nodeName"))
        .map(|key| Write::Touch { key })
        .into_iter()
        .collect()
}
