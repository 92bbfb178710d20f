//! Node affinity, pod affinity and spread constraints: terms that the scheduler can read.

use serde_json::Value;

use crate::field_error::{FieldError, Path};
use crate::labels;
use crate::names;
use crate::tree;

const NODE_OPERATORS: &[&str] = &["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn validate(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let affinity = path.child("affinity");
    let node = tree::at(spec, "affinity.nodeAffinity");
    errors.extend(node_affinity(node, &affinity.child("nodeAffinity")));
    for field in ["podAffinity", "podAntiAffinity"] {
        let value = tree::at(tree::at(spec, "affinity"), field);
        errors.extend(pod_affinity(value, &affinity.child(field)));
    }
    errors.extend(spread(spec, &path.child("topologySpreadConstraints")));
    errors
}

fn node_affinity(affinity: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let required = tree::at(affinity, REQUIRED);
    if !required.is_null() {
        let path = path.child(REQUIRED).child("nodeSelectorTerms");
        let terms = tree::list(required, "nodeSelectorTerms");
        if terms.is_empty() {
            let why = "must have at least one node selector term";
            errors.push(FieldError::required(path.clone(), why));
        }
        for (at, term) in terms.iter().enumerate() {
            errors.extend(node_term(term, &path.index(at)));
        }
    }
    for (at, it) in tree::list(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(at);
        errors.extend(weight(it, &path));
        errors.extend(node_term(tree::at(it, "preference"), &path.child("preference")));
    }
    errors
}

fn node_term(term: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, it) in tree::list(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(at);
        let (key, operator) = (tree::text(it, "key"), tree::text(it, "operator"));
        let n_values = tree::list(it, "values").len();
        let values = path.child("values");
        match operator {
            "In" | "NotIn" if n_values == 0 => errors.push(FieldError::required(
                values,
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if n_values > 0 => errors.push(FieldError::forbidden(
                values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Gt" | "Lt" if n_values != 1 => errors.push(FieldError::required(
                values,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            it if NODE_OPERATORS.contains(&it) => {}
            other => errors.push(FieldError::invalid(
                path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        for why in names::qualified_name(key) {
            errors.push(FieldError::invalid(path.child("key"), key, why));
        }
    }
    errors
}

fn pod_affinity(affinity: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, it) in tree::list(affinity, REQUIRED).iter().enumerate() {
        errors.extend(pod_term(it, &path.child(REQUIRED).index(at)));
    }
    for (at, it) in tree::list(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(at);
        errors.extend(weight(it, &path));
        let term = tree::at(it, "podAffinityTerm");
        errors.extend(pod_term(term, &path.child("podAffinityTerm")));
    }
    errors
}

fn pod_term(term: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["labelSelector", "namespaceSelector"] {
        errors.extend(labels::validate(tree::at(term, field), &path.child(field)));
    }
    let key = tree::text(term, "topologyKey");
    let path = path.child("topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(path, "can not be empty"));
    } else {
        for why in names::qualified_name(key) {
            errors.push(FieldError::invalid(path.clone(), key, why));
        }
    }
    errors
}

fn weight(preference: &Value, path: &Path) -> Option<FieldError> {
    let weight = tree::integer(preference, "weight").unwrap_or(0);
    (!(1..=100).contains(&weight))
        .then(|| FieldError::invalid(path.child("weight"), weight, "must be in the range 1-100"))
}

fn spread(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, it) in tree::list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.index(at);
        let skew = tree::integer(it, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(
                path.child("maxSkew"),
                skew,
                "must be greater than zero",
            ));
        }
        let key = tree::text(it, "topologyKey");
        if key.is_empty() {
            errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        }
        let action = tree::text(it, "whenUnsatisfiable");
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        if !known.contains(&action) {
            let path = path.child("whenUnsatisfiable");
            errors.push(FieldError::not_supported(path, action, &known));
        }
        let selector = tree::at(it, "labelSelector");
        errors.extend(labels::validate(selector, &path.child("labelSelector")));
    }
    errors
}
