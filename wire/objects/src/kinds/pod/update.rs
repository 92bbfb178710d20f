//! What may change in a pod that exists: little, and each subresource its own part.
//!
//! The rule is upstream's: copy what may change from the new spec into the old one; if they still differ, the
//! rest was changed too, and that is forbidden.

use serde_json::Value;

use super::validate::containers;
use crate::field_error::{FieldError, Path};
use crate::tree;

const ONLY_THESE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        let (new, old) = (tree::at(new, "spec"), tree::at(old, "spec"));
        if tree::list(new, list).len() != tree::list(old, list).len() {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(spec.child(list), why));
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    errors.extend(deadline(new, old, &spec));
    errors.extend(tolerations(new, old, &spec));
    errors.extend(gates(new, old, &spec));
    let mut munged = tree::at(new, "spec").clone();
    let old_spec = tree::at(old, "spec");
    for list in ["containers", "initContainers"] {
        for (container, old) in tree::each_mut(&mut munged, list).zip(tree::list(old_spec, list)) {
            tree::copy(container, old, "image");
        }
    }
    let mut free = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    let old_grace = tree::integer(old_spec, "terminationGracePeriodSeconds").unwrap_or(0);
    if old_grace < 0 && tree::integer(&munged, "terminationGracePeriodSeconds") == Some(1) {
        free.push("terminationGracePeriodSeconds");
    }
    if !tree::list(old_spec, "schedulingGates").is_empty() {
        free.push("nodeSelector"); // A gated pod may still be narrowed.
        free.push("affinity");
    }
    for field in free {
        tree::copy(&mut munged, old_spec, field);
    }
    if munged != *old_spec {
        let why = format!("{ONLY_THESE}\n{}", difference(&munged, old_spec));
        errors.push(FieldError::forbidden(spec, why));
    }
    errors
}

/// The fields of the spec that differ, for the reader of the error.
fn difference(new: &Value, old: &Value) -> String {
    let keys = tree::entries(new, "").chain(tree::entries(old, ""));
    let mut changed: Vec<&str> =
        keys.map(|(key, _)| key).filter(|key| new.get(key) != old.get(key)).collect();
    changed.sort_unstable();
    changed.dedup();
    format!("changed: {}", changed.join(", "))
}

fn deadline(new: &Value, old: &Value, spec: &Path) -> Option<FieldError> {
    let field = "spec.activeDeadlineSeconds";
    let old = tree::integer(old, field)?;
    let path = spec.child("activeDeadlineSeconds");
    match tree::integer(new, field) {
        None => Some(FieldError::invalid(
            path,
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
        Some(new) if new > old => {
            Some(FieldError::invalid(path, new, "must be less than or equal to previous value"))
        }
        Some(_) => None,
    }
}

/// Tolerations may be added; those that are there may only get another `tolerationSeconds`.
fn tolerations(new: &Value, old: &Value, spec: &Path) -> Vec<FieldError> {
    let bare = |it: &Value| {
        let mut it = it.clone();
        tree::remove(&mut it, "tolerationSeconds");
        it
    };
    let new_list = tree::list(new, "spec.tolerations");
    let kept: Vec<Value> = new_list.iter().map(bare).collect();
    let lost = tree::list(old, "spec.tolerations").iter().any(|it| !kept.contains(&bare(it)));
    match lost {
        true => vec![FieldError::forbidden(
            spec.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        )],
        false => Vec::new(),
    }
}

/// Gates are only ever removed.
fn gates(new: &Value, old: &Value, spec: &Path) -> Vec<FieldError> {
    let old = tree::list(old, "spec.schedulingGates");
    let added: Vec<&str> = tree::list(new, "spec.schedulingGates")
        .iter()
        .filter(|it| !old.contains(it))
        .map(|it| tree::text(it, "name"))
        .collect();
    match added.is_empty() {
        true => Vec::new(),
        false => vec![FieldError::forbidden(
            spec.child("schedulingGates"),
            format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                added.join(", ")
            ),
        )],
    }
}

pub(super) fn validate_status(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let class = |it: &Value| tree::text(it, "status.qosClass").to_owned();
    if !class(old).is_empty() && class(new) != class(old) {
        let path = Path::new("status.qosClass");
        errors.push(FieldError::invalid(path, class(new), "field is immutable"));
    }
    let nominated = tree::text(new, "status.nominatedNodeName");
    for why in crate::names::dns1123_subdomain(nominated) {
        if !nominated.is_empty() {
            let path = Path::new("status.nominatedNodeName");
            errors.push(FieldError::invalid(path, nominated, why));
        }
    }
    for list in ["containerStatuses", "initContainerStatuses"] {
        errors.extend(no_resurrection(new, old, list));
    }
    errors
}

/// A container that ended for good stays ended: Never restarts nothing, OnFailure nothing that succeeded.
fn no_resurrection(new: &Value, old: &Value, list: &str) -> Vec<FieldError> {
    let policy = tree::text(old, "spec.restartPolicy");
    let ended_for_good = |status: &Value| {
        let ended = tree::at(status, "state.terminated");
        let failed = tree::integer(ended, "exitCode").unwrap_or(0) != 0;
        !ended.is_null() && (policy != "OnFailure" || !failed)
    };
    if policy == "Always" {
        return Vec::new();
    }
    let ended: Vec<&str> = tree::list(tree::at(old, "status"), list)
        .iter()
        .filter(|it| ended_for_good(it))
        .map(|it| tree::text(it, "name"))
        .collect();
    let sidecars: Vec<&str> = tree::list(old, "spec.initContainers")
        .iter()
        .filter(|it| tree::text(it, "restartPolicy") == "Always")
        .map(|it| tree::text(it, "name"))
        .collect();
    tree::list(tree::at(new, "status"), list)
        .iter()
        .enumerate()
        .filter(|(_, it)| {
            let name = tree::text(it, "name");
            ended.contains(&name)
                && !sidecars.contains(&name)
                && tree::at(it, "state.terminated").is_null()
        })
        .map(|(at, _)| {
            let path = Path::new("status").child(list).index(at).child("state");
            FieldError::forbidden(path, "may not be transitioned to non-terminated state")
        })
        .collect()
}

/// Ephemeral containers may be added, and never changed or removed.
pub(super) fn validate_ephemeral_containers(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("spec.ephemeralContainers");
    let all = tree::list(new, "spec.ephemeralContainers");
    let mut errors = super::validate::spec(tree::at(new, "spec"), &Path::new("spec"));
    for it in tree::list(old, "spec.ephemeralContainers") {
        let name = tree::text(it, "name");
        match all.iter().find(|other| tree::text(other, "name") == name) {
            None => errors.push(FieldError::forbidden(
                path.clone(),
                format!(
                    "existing ephemeral containers {} may not be removed\n",
                    crate::field_error::quote(name)
                ),
            )),
            Some(other) if other != it => errors.push(FieldError::forbidden(
                path.clone(),
                format!(
                    "existing ephemeral containers {} may not be changed\n",
                    crate::field_error::quote(name)
                ),
            )),
            Some(_) => {}
        }
    }
    errors
}

pub(super) fn validate_resize(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        let spec = tree::at(new, "spec");
        for (at, container) in tree::list(spec, list).iter().enumerate() {
            let path = Path::new("spec").child(list).index(at).child("resources");
            let resources = tree::at(container, "resources");
            errors.extend(containers::validate_resources(resources, &path));
        }
    }
    if super::qos_class(new) != super::qos_class(old) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(Path::new("spec"), super::qos_class(new), why));
    }
    errors
}
