//! What a node's agent may write: its own Node, its own pods' status, its own Lease, and nothing of another node.
//!
//! Authorization has let the verb through; this looks into the object. Reference: Kubernetes
//! plugin/pkg/admission/noderestriction. Invariant: no object that names another node is changed by this one.

use kactor_objects::status::Status;
use kactor_objects::{meta, tree};
use serde_json::Value;

use super::Admission;
use crate::api::Api;
use crate::request::Request;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels that only administrators set.
const RESTRICTED: &str = "node-restriction.kubernetes.io/";

/// `new` is absent for a deletion.
pub(super) fn check(admission: &Admission<'_>, new: Option<&Value>) -> Result<(), Status> {
    let Some(node) = admission.request.caller.user.node_name() else {
        return Ok(());
    };
    match (admission.kind.group, admission.kind.kind) {
        ("", "Pod") => check_pod(admission, node, new),
        ("", "Node") => check_node(admission, node, new),
        ("coordination.k8s.io", "Lease") => check_lease(admission, node, new),
        _ => Ok(()),
    }
}

fn check_pod(admission: &Admission<'_>, node: &str, new: Option<&Value>) -> Result<(), Status> {
    match (admission.old, new) {
        (None, Some(pod)) => {
            let name = meta::name(pod);
            if meta::annotation(pod, MIRROR).is_none() {
                let why = format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                );
                return Err(admission.forbid(name, &why));
            }
            own(admission, node, pod, "create")
        }
        (Some(old), None) => own(admission, node, old, "delete"),
        (Some(old), Some(new)) => {
            own(admission, node, old, "update")?;
            if admission.sub.is_none_or(|it| it.name != "status") {
                let why = format!("node {node:?} can only update pod status");
                return Err(admission.forbid(meta::name(old), &why));
            }
            if meta::labels(old) != meta::labels(new) {
                let why = format!("node {node:?} cannot update labels through pod status");
                return Err(admission.forbid(meta::name(old), &why));
            }
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

fn own(admission: &Admission<'_>, node: &str, pod: &Value, verb: &str) -> Result<(), Status> {
    if tree::text(pod, "spec.nodeName") == node {
        return Ok(());
    }
    let why = format!("node {node:?} can only {verb} pods with spec.nodeName set to itself");
    Err(admission.forbid(meta::name(pod), &why))
}

fn check_node(admission: &Admission<'_>, node: &str, new: Option<&Value>) -> Result<(), Status> {
    let Some(new) = new else {
        return Err(admission.forbid(node, &format!("node {node:?} may not delete nodes")));
    };
    let name = meta::name(new);
    if name != node {
        return Err(admission
            .forbid(name, &format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let before = admission.old;
    let restricted = |object: Option<&Value>| -> Vec<(String, Value)> {
        let object = object.cloned().unwrap_or_default();
        let labels = tree::entries(&object, "metadata.labels");
        labels
            .filter(|(key, _)| key.contains(RESTRICTED))
            .map(|(key, it)| (key.to_owned(), it.clone()))
            .collect()
    };
    if restricted(before) != restricted(Some(new)) {
        let why =
            format!("node {node:?} is not allowed to set labels of the prefix {RESTRICTED:?}");
        return Err(admission.forbid(name, &why));
    }
    if let Some(old) = before
        && tree::at(old, "spec.taints") != tree::at(new, "spec.taints")
    {
        return Err(
            admission.forbid(name, &format!("node {node:?} is not allowed to modify taints"))
        );
    }
    Ok(())
}

fn check_lease(admission: &Admission<'_>, node: &str, new: Option<&Value>) -> Result<(), Status> {
    let Some(lease) = new.or(admission.old) else {
        return Ok(());
    };
    if meta::namespace(lease) == "kube-node-lease" && meta::name(lease) == node {
        return Ok(());
    }
    let why = "can only access the node lease of the same name in kube-node-lease".to_owned();
    Err(admission.forbid(meta::name(lease), &why))
}

/// A node gets tokens only for pods that run on it: bound to such a pod, or not at all.
pub(crate) fn check_token_request(
    api: &Api,
    request: &Request,
    posted: &Value,
) -> Result<(), Status> {
    let Some(node) = request.caller.user.node_name() else {
        return Ok(());
    };
    let name = request.resource.name.as_deref().unwrap_or_default();
    let namespace = request.resource.namespace.as_deref().unwrap_or_default();
    let of = kactor_objects::status::GroupResource { group: "", resource: "serviceaccounts" };
    if tree::text(posted, "spec.boundObjectRef.kind") != "Pod" {
        return Err(Status::forbidden(of, name, "node requested token not bound to a pod"));
    }
    let pod = tree::text(posted, "spec.boundObjectRef.name");
    if tree::text(posted, "spec.boundObjectRef.uid").is_empty() {
        return Err(Status::forbidden(
            of,
            name,
            "node requested token with a pod binding without a uid",
        ));
    }
    if api.authorizers().with_nodes(api.store(), |it| it.has_pod(node, namespace, pod)) {
        return Ok(());
    }
    Err(Status::forbidden(
        of,
        name,
        "node requested token bound to a pod scheduled on a different node",
    ))
}
