//! What all workloads share: their pod template, selector and counts.

use serde_json::Value;

use super::pod;
use crate::field_error::{FieldError, Path};
use crate::labels::{self, Selector};
use crate::meta;
use crate::tree;

pub(crate) use super::pod::default::canonicalize_quantities;

/// Fills in a template's defaults.
pub(crate) fn default(template: &mut Value) {
    tree::fill(template, "metadata", serde_json::json!({}));
    pod::default::spec(tree::place(template, "spec"));
}

/// The Containers and Images cells.
pub(crate) fn names_and_images(template: &Value) -> (String, String) {
    let containers = tree::list(template, "spec.containers");
    let join = |field| {
        let all: Vec<&str> = containers.iter().map(|it| tree::text(it, field)).collect();
        all.join(",")
    };
    (join("name"), join("image"))
}

/// `spec.selector` is there, well formed and selects something.
pub(crate) fn validate_selector(workload: &Value, spec: &Path) -> Vec<FieldError> {
    let (selector, path) = (tree::at(workload, "spec.selector"), spec.child("selector"));
    if selector.is_null() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = labels::validate(selector, &path);
    if tree::entries(selector, "matchLabels").count() == 0
        && tree::list(selector, "matchExpressions").is_empty()
    {
        let why = "empty selector is invalid for deployment";
        errors.push(FieldError::invalid(path, selector.clone(), why));
    }
    errors
}

/// The template of a workload whose pods are restarted for ever.
pub(crate) fn validate_of_workload(workload: &Value, spec: &Path) -> Vec<FieldError> {
    let (template, path) = (tree::at(workload, "spec.template"), spec.child("template"));
    let mut errors = Vec::new();
    let own_labels = tree::at(template, "metadata.labels");
    if let Ok(selector) = Selector::from_object(tree::at(workload, "spec.selector"))
        && !selector.requirements().is_empty()
        && !selector.matches(own_labels)
    {
        errors.push(FieldError::invalid(
            path.child("metadata.labels"),
            own_labels.clone(),
            "`selector` does not match template `labels`",
        ));
    }
    errors.extend(labels::validate_labels(own_labels, &path.child("labels")));
    errors.extend(meta::validate::annotations(template, &path.child("annotations")));
    let pod_spec = path.child("spec");
    errors.extend(pod::validate::spec(tree::at(template, "spec"), &pod_spec));
    if !tree::list(template, "spec.ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(pod_spec.child("ephemeralContainers"), why));
    }
    let policy = tree::text(template, "spec.restartPolicy");
    if policy != "Always" {
        let path = pod_spec.child("restartPolicy");
        errors.push(FieldError::not_supported(path, policy, &["Always"]));
    }
    if !tree::at(template, "spec.activeDeadlineSeconds").is_null() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(pod_spec.child("activeDeadlineSeconds"), why));
    }
    errors
}

/// An error when the number at `path` is below zero.
pub(crate) fn not_negative(object: &Value, path: &str) -> Option<FieldError> {
    let value = tree::integer(object, path).unwrap_or(0);
    (value < 0)
        .then(|| FieldError::invalid(Path::new(path), value, "must be greater than or equal to 0"))
}

/// A count or a percentage such as `25%`.
pub(crate) fn validate_int_or_percent(value: &Value, path: &Path) -> Option<FieldError> {
    match value {
        Value::String(text) if percent(value).is_none() => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            Some(FieldError::invalid(path.clone(), text.as_str(), why))
        }
        Value::Number(it) if it.as_i64().is_some_and(|it| it < 0) => Some(FieldError::invalid(
            path.clone(),
            value.clone(),
            "must be greater than or equal to 0",
        )),
        _ => None,
    }
}

/// The number before `%`.
pub(crate) fn percent(value: &Value) -> Option<u64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    digits.bytes().all(|it| it.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}
