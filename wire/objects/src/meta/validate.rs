//! Checks of `metadata`, the same for every kind: on create, and what an update may not change.

use serde_json::Value;

use crate::field_error::{FieldError, Path, quote};
use crate::labels;
use crate::meta;
use crate::names;
use crate::registry::{Kind, split_api_version};
use crate::tree;

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
pub const FIELD_IS_IMMUTABLE: &str = "field is immutable";

/// Checks the metadata of an object that is about to be created; its name was generated already.
pub fn on_create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    let (name, base) = (meta::name(object), meta::generate_name(object));
    if !base.is_empty() {
        for why in (kind.strategy.name)(&masked(base)) {
            errors.push(FieldError::invalid(path.child("generateName"), base, why));
        }
    }
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), "name or generateName is required"));
    } else {
        for why in (kind.strategy.name)(name) {
            errors.push(FieldError::invalid(path.child("name"), name, why));
        }
    }
    let namespace = meta::namespace(object);
    if !kind.is_namespaced() {
        if !namespace.is_empty() {
            let why = "not allowed on this type";
            errors.push(FieldError::forbidden(path.child("namespace"), why));
        }
    } else if namespace.is_empty() {
        errors.push(FieldError::required(path.child("namespace"), ""));
    } else {
        for why in names::dns1123_label(namespace) {
            errors.push(FieldError::invalid(path.child("namespace"), namespace, why));
        }
    }
    errors.extend(always(object, &path));
    errors
}

/// Checks the metadata of an update against the stored object.
pub fn on_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let path = Path::new("metadata");
    let mut errors = Vec::new();
    if meta::is_terminating(old) {
        let had = meta::finalizers(old);
        let mut added = meta::finalizers(new);
        added.retain(|it| !had.contains(it));
        added.sort_unstable();
        if !added.is_empty() {
            let added: Vec<String> = added.into_iter().map(quote).collect();
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden(path.child("finalizers"), why));
        }
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let full = path.child(field);
        errors.extend(immutable(new, old, full.as_str(), &full));
    }
    errors.extend(always(new, &path));
    errors
}

/// One error unless `at` is the same in both; absent and empty are the same.
pub fn immutable(new: &Value, old: &Value, at: &str, path: &Path) -> Option<FieldError> {
    let (new, old) = (tree::at(new, at), tree::at(old, at));
    let same = new == old || (tree::is_empty(new) && tree::is_empty(old));
    let shown = match new {
        Value::Null => Value::String(String::new()),
        it => it.clone(),
    };
    (!same).then(|| FieldError::invalid(path.clone(), shown, FIELD_IS_IMMUTABLE))
}

/// The base of a generated name may end in a dash, which the suffix follows: show the check a letter there.
fn masked(base: &str) -> String {
    match base.strip_suffix('-') {
        Some("") => "a".to_owned(),
        Some(rest) => format!("{rest}a"),
        None => base.to_owned(),
    }
}

fn always(object: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let generation = meta::generation(object);
    if generation < 0 {
        errors.push(FieldError::invalid(
            path.child("generation"),
            generation,
            "must be greater than or equal to 0",
        ));
    }
    errors.extend(labels::validate_labels(meta::labels(object), &path.child("labels")));
    errors.extend(annotations(object, &path.child("annotations")));
    errors.extend(owners(object, &path.child("ownerReferences")));
    errors.extend(finalizers(object, &path.child("finalizers")));
    errors
}

pub(crate) fn annotations(object: &Value, path: &Path) -> Vec<FieldError> {
    let (mut errors, mut bytes) = (Vec::new(), 0);
    for (key, value) in tree::entries(object, "metadata.annotations") {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        for why in names::qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(path.clone(), key, why));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path.clone(), ANNOTATIONS_BYTES_MAX));
    }
    errors
}

fn owners(object: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for it in tree::list(object, "metadata.ownerReferences") {
        let api_version = tree::text(it, "apiVersion");
        if split_api_version(api_version).1.is_empty() {
            errors.push(FieldError::invalid(
                path.child("apiVersion"),
                api_version,
                "version must not be empty",
            ));
        }
        for field in ["kind", "name", "uid"] {
            if tree::text(it, field).is_empty() {
                errors.push(FieldError::invalid(path.child(field), "", "must not be empty"));
            }
        }
        if (api_version, tree::text(it, "kind")) == ("v1", "Event") {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path.clone(), it.clone(), why));
        }
        if tree::is_true(it, "controller") {
            let this = format!("{}/{}", tree::text(it, "kind"), tree::text(it, "name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    let all = tree::at(object, "metadata.ownerReferences").clone();
                    errors.push(FieldError::invalid(path.clone(), all, why));
                }
            }
        }
    }
    errors
}

/// The names that Kubernetes itself gives; everybody else's have a domain in front.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

fn finalizers(object: &Value, path: &Path) -> Vec<FieldError> {
    let all = meta::finalizers(object);
    let mut errors = Vec::new();
    for (index, it) in all.iter().enumerate() {
        for why in names::qualified_name(it) {
            errors.push(FieldError::invalid(path.clone(), *it, why));
        }
        if !it.contains('/') && !STANDARD_FINALIZERS.contains(it) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path.index(index), *it, why));
        }
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        errors.push(FieldError::invalid(
            path.clone(),
            all,
            "finalizer foregroundDeletion and orphan cannot be both set",
        ));
    }
    errors
}
