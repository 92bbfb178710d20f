//! Accessors over `metadata`, and the checks that every kind's metadata passes.
//!
//! Readers take any object and give what is there or an empty value. Writers change one field. The order of an
//! object's life (who sets uid, generation and timestamps when) is in `writes`.

use kactor_protocol::{Revision, Timestamp, Uid};
use serde_json::{Value, json};

use crate::tree;

pub mod validate;

pub fn api_version(object: &Value) -> &str {
    tree::text(object, "apiVersion")
}

pub fn kind(object: &Value) -> &str {
    tree::text(object, "kind")
}

pub fn name(object: &Value) -> &str {
    tree::text(object, "metadata.name")
}

pub fn generate_name(object: &Value) -> &str {
    tree::text(object, "metadata.generateName")
}

/// Empty for cluster-scoped objects.
pub fn namespace(object: &Value) -> &str {
    tree::text(object, "metadata.namespace")
}

/// Empty until the object is created.
pub fn uid(object: &Value) -> &str {
    tree::text(object, "metadata.uid")
}

/// `None` when absent, empty or no number.
pub fn resource_version(object: &Value) -> Option<Revision> {
    tree::text(object, "metadata.resourceVersion").parse().ok().map(Revision)
}

pub fn generation(object: &Value) -> i64 {
    tree::integer(object, "metadata.generation").unwrap_or(0)
}

/// The map, or `Null`.
pub fn labels(object: &Value) -> &Value {
    tree::at(object, "metadata.labels")
}

pub fn annotations(object: &Value) -> &Value {
    tree::at(object, "metadata.annotations")
}

pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object).get(key)?.as_str()
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object).get(key)?.as_str()
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = tree::list(object, "metadata.finalizers");
    list.iter().filter_map(Value::as_str).collect()
}

pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    time(object, "metadata.creationTimestamp")
}

pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    time(object, "metadata.deletionTimestamp")
}

pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    tree::integer(object, "metadata.deletionGracePeriodSeconds")
}

/// Marked for deletion: `deletionTimestamp` is set.
pub fn is_terminating(object: &Value) -> bool {
    !tree::text(object, "metadata.deletionTimestamp").is_empty()
}

/// The time at `path`; `None` when absent or malformed.
pub fn time(object: &Value, path: &str) -> Option<Timestamp> {
    tree::text(object, path).parse().ok()
}

/// `namespace/name`, or the name alone.
pub fn full_name(object: &Value) -> String {
    match namespace(object) {
        "" => name(object).to_owned(),
        namespace => format!("{namespace}/{}", name(object)),
    }
}

pub fn put_name(object: &mut Value, name: &str) {
    tree::put(object, "metadata.name", name);
}

pub fn put_namespace(object: &mut Value, namespace: &str) {
    tree::put(object, "metadata.namespace", namespace);
}

pub fn put_uid(object: &mut Value, uid: &Uid) {
    tree::put(object, "metadata.uid", uid.as_str());
}

pub fn put_resource_version(object: &mut Value, revision: Revision) {
    tree::put(object, "metadata.resourceVersion", revision.to_string());
}

/// Stored bodies carry no revision: the store knows it.
pub fn remove_resource_version(object: &mut Value) {
    tree::remove(object, "metadata.resourceVersion");
}

pub fn put_generation(object: &mut Value, generation: i64) {
    tree::put(object, "metadata.generation", generation);
}

pub fn put_label(object: &mut Value, key: &str, value: &str) {
    let labels = tree::object(tree::place(object, "metadata.labels"));
    labels.insert(key.to_owned(), json!(value));
}

pub fn put_annotation(object: &mut Value, key: &str, value: &str) {
    let annotations = tree::object(tree::place(object, "metadata.annotations"));
    annotations.insert(key.to_owned(), json!(value));
}

/// Marks for deletion after `grace_period_seconds` from `now`.
pub fn mark_deleted(object: &mut Value, now: Timestamp, grace_period_seconds: i64) {
    let grace = std::time::Duration::from_secs(grace_period_seconds.max(0).unsigned_abs());
    let at = now.plus(grace);
    tree::put(object, "metadata.deletionTimestamp", at.rfc3339());
    tree::put(object, "metadata.deletionGracePeriodSeconds", grace_period_seconds.max(0));
}

/// Adds a finalizer unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if !finalizers(object).contains(&finalizer) {
        let list = tree::place(object, "metadata.finalizers");
        match list.as_array_mut() {
            Some(it) => it.push(json!(finalizer)),
            None => *list = json!([finalizer]),
        }
    }
}

/// Removes a finalizer; the list goes with its last one.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let kept: Vec<Value> = tree::list(object, "metadata.finalizers")
        .iter()
        .filter(|it| it.as_str() != Some(finalizer))
        .cloned()
        .collect();
    if kept.is_empty() {
        tree::remove(object, "metadata.finalizers");
    } else {
        tree::put(object, "metadata.finalizers", kept);
    }
}

#[cfg(test)]
mod tests;
