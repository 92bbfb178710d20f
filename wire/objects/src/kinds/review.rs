//! Checks of reviews: what a question must contain to be answered.

use serde_json::Value;

use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::tree;

pub fn validate_self_subject_access_review(review: &Value) -> Vec<FieldError> {
    exactly_one_kind_of_attributes(review)
}

pub fn validate_subject_access_review(review: &Value) -> Vec<FieldError> {
    let mut errors = exactly_one_kind_of_attributes(review);
    let no_user = tree::text(review, "spec.user").is_empty();
    if no_user && tree::list(review, "spec.groups").is_empty() {
        errors.push(FieldError::invalid(
            Path::new("spec.user"),
            "",
            "at least one of user or group must be specified",
        ));
    }
    errors
}

/// Asks about its own namespace only.
pub fn validate_local_subject_access_review(review: &Value) -> Vec<FieldError> {
    let mut errors = validate_subject_access_review(review);
    let namespace = tree::text(review, "spec.resourceAttributes.namespace");
    if namespace != meta::namespace(review) {
        errors.push(FieldError::invalid(
            Path::new("spec.resourceAttributes.namespace"),
            namespace,
            "must match metadata.namespace",
        ));
    }
    if !tree::at(review, "spec.nonResourceAttributes").is_null() {
        errors.push(FieldError::invalid(
            Path::new("spec.nonResourceAttributes"),
            Value::Null,
            "disallowed on this kind of request",
        ));
    }
    errors
}

fn exactly_one_kind_of_attributes(review: &Value) -> Vec<FieldError> {
    let resource = !tree::at(review, "spec.resourceAttributes").is_null();
    let path = !tree::at(review, "spec.nonResourceAttributes").is_null();
    match (resource, path) {
        (true, true) => vec![FieldError::invalid(
            Path::new("spec.nonResourceAttributes"),
            tree::at(review, "spec.nonResourceAttributes").clone(),
            "cannot be specified in combination with resourceAttributes",
        )],
        (false, false) => vec![FieldError::invalid(
            Path::new("spec.resourceAttributes"),
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    }
}
