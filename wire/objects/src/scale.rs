//! The `scale` subresource: replicas of a workload as an autoscaling/v1 `Scale` object.

use serde_json::{Value, json};

use crate::field_error::{FieldError, Path};
use crate::labels::Selector;
use crate::meta;
use crate::tree;

/// The `Scale` of a Deployment, ReplicaSet or any kind with `spec.replicas` and a LabelSelector.
pub fn of(object: &Value) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = tree::at(object, "metadata").get(key) {
            metadata[key] = value.clone();
        }
    }
    let mut status = json!({ "replicas": tree::integer(object, "status.replicas").unwrap_or(0) });
    if let Ok(selector) = Selector::from_object(tree::at(object, "spec.selector")) {
        let selector = selector.to_string();
        if !selector.is_empty() {
            status["selector"] = json!(selector);
        }
    }
    let mut spec = json!({});
    if let Some(replicas @ 1..) = tree::integer(object, "spec.replicas") {
        spec["replicas"] = json!(replicas);
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    })
}

/// Writes a `Scale`'s wish into its object, whose revision must be checked by the caller.
///
/// # Errors
/// Negative replicas, as field errors of the Scale.
pub fn apply(object: &mut Value, scale: &Value) -> Result<(), Vec<FieldError>> {
    let replicas = tree::integer(scale, "spec.replicas").unwrap_or(0);
    if replicas < 0 {
        return Err(vec![FieldError::invalid(
            Path::new("spec.replicas"),
            replicas,
            "must be greater than or equal to 0",
        )]);
    }
    if meta::name(scale) != meta::name(object) {
        return Err(vec![FieldError::invalid(
            Path::new("metadata.name"),
            meta::name(scale),
            "must match the scaled object's name",
        )]);
    }
    tree::put(object, "spec.replicas", replicas);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({
            "kind": "Deployment", "apiVersion": "apps/v1",
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"replicas": 2},
        })
    }

    #[test]
    fn a_scale_shows_wish_state_and_selector_and_no_labels() {
        expect_test::expect![[
            r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"web","namespace":"default","resourceVersion":"7","uid":"u"},"spec":{"replicas":3},"status":{"replicas":2,"selector":"app=web"}}"#
        ]]
        .assert_eq(&of(&deployment()).to_string());
    }

    #[test]
    fn scaling_to_zero_is_written_and_below_is_refused() {
        let mut object = deployment();
        let mut scale = of(&object);
        tree::remove(&mut scale, "spec.replicas");
        apply(&mut object, &scale).expect("an absent count means zero");
        assert_eq!(object["spec"]["replicas"], 0);
        scale["spec"]["replicas"] = json!(-1);
        let errors = apply(&mut object, &scale).expect_err("negative");
        assert_eq!(
            errors[0].to_string(),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}
