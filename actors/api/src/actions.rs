//! Subresources that act on their parent, and virtual kinds: binding, eviction, tokens, scale, reviews.

use kactor_objects::registry::{Kind, Subresource};
use kactor_objects::status::Status;
use kactor_objects::{meta, scale, tree, writes};
use kactor_protocol::store::{Precondition, Write};
use kactor_store::Stored;
use serde_json::{Value, json};

use crate::admission;
use crate::allocate::allocation_key;
use crate::api::Api;
use crate::commit::Plan;
use crate::delete;
use crate::disruption;
use crate::fields;
use crate::request::{Object, Request, Resource, Response};
use crate::reviews;
use crate::write::Writing;

impl Api {
    /// A posted object that is answered and never stored.
    pub(crate) async fn answer_virtual(
        &self,
        request: &Request,
        kind: &'static Kind,
    ) -> Result<Response, Status> {
        let (mut posted, warnings) = fields::decode(request, kind.group, kind.version, kind.kind)?;
        if let Some(namespace) = request.resource.namespace.as_deref() {
            tree::fill(&mut posted, "metadata.namespace", namespace);
        }
        writes::refuse(kind, &posted, &(kind.strategy.validate)(&posted))?;
        if kind.kind == "Binding" {
            let mut bound = request.clone();
            bound.resource =
                Resource::new("", "v1", "pods").named(meta::name(&posted)).subresource("binding");
            bound.resource.namespace.clone_from(&request.resource.namespace);
            let pods = crate::perform::kind_of(&bound.resource)?;
            return self.bind_pod(&bound, pods, &posted).await;
        }
        let answer = reviews::review(self, request, kind, &posted)
            .unwrap_or_else(|| Err(Status::method_not_allowed(kind, request.operation.verb())))?;
        Ok(Response {
            code: 201,
            object: Object::from_tree(&answer),
            warnings,
            revision: None,
            name: None,
        })
    }

    /// `binding`, `eviction`, `token`.
    pub(crate) async fn act(
        &self,
        request: &Request,
        kind: &'static Kind,
        sub: &'static Subresource,
    ) -> Result<Response, Status> {
        let (posted, warnings) = fields::decode(request, sub.group, sub.version, sub.kind)?;
        match sub.kind {
            "Binding" => self.bind_pod(request, kind, &posted).await,
            "Eviction" => self.evict(request, kind, &posted).await,
            "TokenRequest" => {
                admission::check_token_request(self, request, &posted)?;
                let answer = self.issue_token(request, kind, &posted)?;
                Ok(Response {
                    code: 201,
                    object: Object::from_tree(&answer),
                    warnings,
                    revision: None,
                    name: None,
                })
            }
            _ => Err(Status::method_not_allowed(kind, request.operation.verb())),
        }
    }

    pub(crate) async fn get_scale(
        &self,
        request: &Request,
        kind: &Kind,
    ) -> Result<Response, Status> {
        let named = crate::freshness::Named::parse(request.options.resource_version.as_deref())?;
        self.freshen(named, request.deadline).await?;
        let stored = self.current(request, kind)?;
        let tree = self.tree(kind, &stored, stored.modified)?;
        let object = Object::from_tree(&scale::of(&tree));
        Ok(Response {
            code: 200,
            object,
            warnings: Vec::new(),
            revision: Some(stored.modified),
            name: None,
        })
    }

    /// Puts the pod on the node, once; touches the node's allocation key in the same transaction.
    async fn bind_pod(
        &self,
        request: &Request,
        kind: &'static Kind,
        binding: &Value,
    ) -> Result<Response, Status> {
        let writing = Writing { api: self, request, kind, sub: None };
        let name = request.resource.name.as_deref().unwrap_or_default();
        if meta::name(binding) != name && !meta::name(binding).is_empty() {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let target = tree::text(binding, "target.kind");
        let node = tree::text(binding, "target.name");
        if node.is_empty() || !matches!(target, "" | "Node") {
            return Err(Status::bad_request("target.name: Required value: a binding names a Node"));
        }
        let decide = || {
            let current = self.current(request, kind)?;
            let old = self.tree(kind, &current, current.modified)?;
            let new = bound_pod(kind, &current, &old, binding, &self.env().wall().rfc3339())?;
            let precondition =
                Precondition::UidAndRevision(current.value.uid.clone(), current.modified);
            let mut writes = vec![writing.put(&current.key, &new, precondition)?];
            writes.extend(allocation_key(node).map(|key| Write::Touch { key }));
            Ok((Plan { guards: request.options.guards.clone(), writes }, ()))
        };
        let ((), fate) = self.commit(request, kind, decide).await?;
        Ok(created(fate.first_revision()))
    }

    /// A delete of the pod, with its preconditions and grace period, when the pod's budget permits it.
    async fn evict(
        &self,
        request: &Request,
        kind: &'static Kind,
        eviction: &Value,
    ) -> Result<Response, Status> {
        let name = request.resource.name.as_deref().unwrap_or_default();
        if meta::name(eviction) != name && !meta::name(eviction).is_empty() {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut options = request.options.clone();
        delete::overlay(&mut options, tree::at(eviction, "deleteOptions"))?;
        let key = self.key_of(request, kind)?;
        let (_, fate) = self
            .commit_delete(request, kind, (&key, &options), |pod| disruption::permit(self, pod))
            .await?;
        Ok(created(fate.first_revision()))
    }
}

/// The pod with its node, or why it can't have it.
fn bound_pod(
    kind: &Kind,
    current: &Stored,
    old: &Value,
    binding: &Value,
    now: &str,
) -> Result<Value, Status> {
    let name = meta::name(old);
    let conflict = |why: String| {
        Status::conflict(
            kactor_objects::status::GroupResource { group: kind.group, resource: "pods/binding" },
            name,
            &why,
        )
    };
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != current.value.uid.as_str() {
        return Err(Status::uid_precondition(kind, name, uid, current.value.uid.as_str()));
    }
    if meta::is_terminating(old) {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let placed = tree::text(old, "spec.nodeName");
    if !placed.is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node {placed:?}")));
    }
    if !tree::list(old, "spec.schedulingGates").is_empty() {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut new = old.clone();
    tree::put(&mut new, "spec.nodeName", tree::text(binding, "target.name"));
    for (key, value) in tree::entries(binding, "metadata.annotations") {
        meta::put_annotation(&mut new, key, value.as_str().unwrap_or_default());
    }
    for (key, value) in tree::entries(binding, "metadata.labels") {
        meta::put_label(&mut new, key, value.as_str().unwrap_or_default());
    }
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let mut conditions = tree::list(&new, "status.conditions").to_vec();
    match conditions.iter_mut().find(|it| tree::text(it, "type") == "PodScheduled") {
        Some(it) if tree::text(it, "status") == "True" => {}
        Some(it) => *it = scheduled,
        None => conditions.push(scheduled),
    }
    tree::put(&mut new, "status.conditions", conditions);
    tree::prune_nulls(&mut new);
    Ok(new)
}

/// 201 with a `Status` of success: what bindings and evictions answer.
fn created(revision: Option<kactor_protocol::ids::Revision>) -> Response {
    let mut status = Status::success().to_json();
    status["code"] = json!(201);
    Response {
        code: 201,
        object: Object::from_tree(&status),
        warnings: Vec::new(),
        revision,
        name: None,
    }
}
