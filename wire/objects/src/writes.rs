//! The steps that turn a client's object into one that may be stored, in upstream's order.
//!
//! Create: defaults, preparation, metadata, name, checks. Update: defaults, metadata that only the system sets,
//! preparation, checks against the stored object. The api runs admission between preparation and checks, so both
//! halves are functions of their own. managedFields are not touched here (kactor-schema keeps them), and the
//! stored body carries no resourceVersion.

use kactor_protocol::{Timestamp, Uid};
use serde_json::{Value, json};

use crate::field_error::FieldError;
use crate::meta;
use crate::names;
use crate::registry::{Access, Kind};
use crate::status::Status;
use crate::tree;

/// What the system decides about a new object.
#[derive(Debug, Clone)]
pub struct Birth<'a> {
    /// From the URL; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    pub uid: Uid,
    pub now: Timestamp,
    /// `names::GENERATED_SUFFIX_LEN` letters of `names::GENERATED_SUFFIX_ALPHABET`, used with `generateName`.
    pub suffix: &'a str,
}

/// First half of a create: defaults, metadata and preparation.
///
/// # Errors
/// A namespace that is not the URL's, or a resourceVersion that has no place in a create.
pub fn prepare_create(kind: &Kind, object: &mut Value, birth: &Birth<'_>) -> Result<(), Status> {
    tree::prune_nulls(object);
    if !tree::text(object, "metadata.resourceVersion").is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    check_namespace(kind, object, birth.namespace)?;
    tree::put(object, "apiVersion", kind.api_version());
    tree::put(object, "kind", kind.kind);
    for field in [
        "metadata.resourceVersion",
        "metadata.deletionTimestamp",
        "metadata.deletionGracePeriodSeconds",
        "metadata.selfLink",
        "metadata.generation",
    ] {
        tree::remove(object, field);
    }
    if kind.is_namespaced() {
        meta::put_namespace(object, birth.namespace);
    }
    let base = meta::generate_name(object);
    if meta::name(object).is_empty() && !base.is_empty() {
        let name = names::generated(base, birth.suffix);
        meta::put_name(object, &name);
    }
    meta::put_uid(object, &birth.uid);
    tree::put(object, "metadata.creationTimestamp", birth.now.rfc3339());
    (kind.strategy.default)(object);
    (kind.strategy.prepare_create)(object);
    prune_metadata(object);
    Ok(())
}

/// Second half of a create. What is never stored (reviews) needs no name, so its metadata is not looked at.
pub fn check_create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = match kind.stored() {
        Some(_) => meta::validate::on_create(kind, object),
        None => Vec::new(),
    };
    errors.extend((kind.strategy.validate)(object));
    errors
}

/// First half of an update of the main resource.
///
/// # Errors
/// A name or namespace that is not the stored object's.
pub fn prepare_update(kind: &Kind, new: &mut Value, old: &Value) -> Result<(), Status> {
    keep_identity(kind, new, old)?;
    (kind.strategy.default)(new);
    (kind.strategy.prepare_update)(new, old);
    prune_metadata(new);
    Ok(())
}

/// Second half of an update of the main resource.
pub fn check_update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = meta::validate::on_update(new, old);
    errors.extend((kind.strategy.validate)(new));
    errors.extend((kind.strategy.validate_update)(new, old));
    errors
}

/// First half of an update through a subresource that is the object itself (`Access::Object`).
///
/// # Errors
/// A name or namespace that is not the stored object's, or no such subresource.
pub fn prepare_subresource(
    kind: &Kind,
    name: &str,
    new: &mut Value,
    old: &Value,
) -> Result<(), Status> {
    let Some(Access::Object(strategy)) = kind.subresource(name).map(|it| it.access) else {
        return Err(Status::path_not_found());
    };
    keep_identity(kind, new, old)?;
    (kind.strategy.default)(new);
    (strategy.prepare)(new, old);
    prune_metadata(new);
    Ok(())
}

/// Second half of an update through a subresource.
pub fn check_subresource(kind: &Kind, name: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = meta::validate::on_update(new, old);
    if let Some(Access::Object(strategy)) = kind.subresource(name).map(|it| it.access) {
        errors.extend((strategy.validate)(new, old));
    }
    errors
}

/// `Err` with the 422 unless `errors` is empty.
pub fn refuse(kind: &Kind, object: &Value, errors: &[FieldError]) -> Result<(), Status> {
    match errors {
        [] => Ok(()),
        _ => Err(Status::invalid(kind, meta::name(object), errors)),
    }
}

/// Whether an update changes nothing: the same but for `managedFields` times and the revision.
pub fn is_unchanged(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return new == old;
    };
    let bare = |metadata: Option<&Value>| {
        let mut metadata = metadata.cloned().unwrap_or(Value::Null);
        tree::remove(&mut metadata, "resourceVersion");
        tree::remove(&mut metadata, "managedFields");
        metadata
    };
    new.len() == old.len()
        && new.iter().all(|(key, value)| match key.as_str() {
            "metadata" => bare(Some(value)) == bare(old.get(key)),
            _ => old.get(key) == Some(value),
        })
}

fn check_namespace(kind: &Kind, object: &Value, from_url: &str) -> Result<(), Status> {
    let given = meta::namespace(object);
    if kind.is_namespaced() && !given.is_empty() && given != from_url {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// What the system set stays, whatever the client sent or left out.
fn keep_identity(kind: &Kind, new: &mut Value, old: &Value) -> Result<(), Status> {
    tree::prune_nulls(new);
    check_namespace(kind, new, meta::namespace(old))?;
    let name = meta::name(new);
    if !name.is_empty() && name != meta::name(old) {
        return Err(Status::bad_request(
            "the name of the object does not match the name on the URL",
        ));
    }
    let given_uid = meta::uid(new);
    if !given_uid.is_empty() && given_uid != meta::uid(old) {
        return Err(Status::uid_precondition(kind, meta::name(old), given_uid, meta::uid(old)));
    }
    tree::put(new, "apiVersion", kind.api_version());
    tree::put(new, "kind", kind.kind);
    for field in [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.creationTimestamp",
        "metadata.generation",
        "metadata.deletionTimestamp",
        "metadata.deletionGracePeriodSeconds",
    ] {
        tree::copy(new, old, field);
    }
    tree::remove(new, "metadata.selfLink");
    Ok(())
}

/// Empty metadata fields are never printed, so they are never stored.
fn prune_metadata(object: &mut Value) {
    let metadata = tree::object(tree::place(object, "metadata"));
    metadata.retain(|_, it| !tree::is_empty(it));
}

/// Raises the generation when `changed`; for `prepare_update` of kinds that have one.
pub(crate) fn bump_generation(new: &mut Value, old: &Value, changed: bool) {
    let generation = meta::generation(old) + i64::from(changed);
    if generation > 0 {
        meta::put_generation(new, generation);
    }
}

/// How `status` is written: `new` keeps its status, labels, annotations and finalizers, as upstream's status
/// strategies let pass; everything else is the old object's.
pub(crate) fn only_status(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for field in [
        "status",
        "metadata.labels",
        "metadata.annotations",
        "metadata.finalizers",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ] {
        tree::copy(&mut kept, new, field);
    }
    *new = kept;
}

/// A status that a client sent with a create is dropped.
pub(crate) fn reset_status(object: &mut Value) {
    tree::put(object, "status", json!({}));
}

#[cfg(test)]
mod tests;
