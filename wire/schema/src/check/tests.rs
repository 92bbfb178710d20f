//! Texts and pruning, as kubectl's users see them.

use super::*;
use serde_json::json;

fn schema(kind: &str) -> &'static Schema {
    let group = if kind == "Deployment" { "apps" } else { "" };
    Schema::of(group, "v1", kind).expect("a built-in kind")
}

#[test]
fn unknown_fields_are_pruned_and_reported_with_indices() {
    let mut pod = json!({
        "kind": "Pod", "foo": 1,
        "metadata": {"name": "a", "labels": {"any": "label"}, "creationTimestamp": null},
        "spec": {"containers": [{"name": "c", "image": "i", "imagee": "x"}], "nodeSelector": null},
    });
    let problems = check_fields(schema("Pod"), &mut pod);
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(shown, [r#"unknown field "foo""#, r#"unknown field "spec.containers[0].imagee""#]);
    assert_eq!(
        pod,
        json!({
            "kind": "Pod", "metadata": {"name": "a", "labels": {"any": "label"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        })
    );
    assert_eq!(
        strict_message(&problems),
        r#"strict decoding error: unknown field "foo", unknown field "spec.containers[0].imagee""#
    );
}

#[test]
fn reports_are_bounded_and_pruning_is_not() {
    let mut pod = json!({});
    for index in 0..PROBLEMS_MAX * 2 {
        pod[format!("unknown{index}")] = json!(index);
    }
    assert_eq!(check_fields(schema("Pod"), &mut pod).len(), PROBLEMS_MAX);
    assert_eq!(pod, json!({}));
}

#[test]
fn fields_inside_raw_extensions_are_left_alone() {
    let mut revision = json!({"data": {"anything": {"goes": null}}, "revision": 1});
    let schema = Schema::of("apps", "v1", "ControllerRevision").expect("a built-in kind");
    assert_eq!(check_fields(schema, &mut revision), []);
    assert_eq!(revision, json!({"data": {"anything": {"goes": null}}, "revision": 1}));
}

#[track_caller]
fn refuses(kind: &str, value: Value, path: &str, message: &str) {
    let error = check_types(schema(kind), &value).expect_err("a wrong type");
    assert_eq!((error.path.as_str(), error.message.as_str()), (path, message));
}

#[test]
fn wrong_types_are_told_in_the_words_of_gos_decoder() {
    refuses(
        "Deployment",
        json!({"spec": {"replicas": "3"}}),
        "spec.replicas",
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refuses(
        "Deployment",
        json!({"spec": {"template": {"spec": {"containers": [{"env": [{"value": 5}]}]}}}}),
        "spec.template.spec.containers[0].env[0].value",
        "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
    );
    refuses(
        "Deployment",
        json!({"metadata": {"labels": {"a": true}}}),
        "metadata.labels.a",
        "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
    );
    refuses(
        "Deployment",
        json!({"spec": {"replicas": 3_000_000_000_u64}}),
        "spec.replicas",
        "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    refuses(
        "Deployment",
        json!({"spec": []}),
        "spec",
        "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
    );
    refuses("Pod", json!("a"), "", "json: cannot unmarshal string into Go value of type v1.Pod");
}

#[test]
fn values_that_decode_themselves_have_their_own_texts() {
    let limits =
        |value: Value| json!({"spec": {"containers": [{"resources": {"limits": {"cpu": value}}}]}});
    let at = "spec.containers[0].resources.limits.cpu";
    for wrong in [json!(""), json!("abc"), json!("1..2"), json!(true), json!("1 Gi")] {
        refuses("Pod", limits(wrong), at, scalar_quantity_text());
    }
    refuses("Pod", limits(json!("1Kib")), at, scalar_quantity_text());
    refuses("Pod", limits(json!("1K")), at, "unable to parse quantity's suffix");
    refuses("Pod", limits(json!("1iK")), at, "unable to parse quantity's suffix");
    for right in [
        json!("100m"),
        json!(1),
        json!(0.5),
        json!("1e3"),
        json!("+1.5Gi"),
        json!("12E"),
        json!(".5"),
    ] {
        check_types(schema("Pod"), &limits(right)).expect("a quantity");
    }
    refuses(
        "Pod",
        json!({"metadata": {"creationTimestamp": "yesterday"}}),
        "metadata.creationTimestamp",
        r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
    );
    for right in ["2026-11-21T12:15:00Z", "2026-11-21T12:15:00.5+02:00"] {
        check_types(schema("Pod"), &json!({"metadata": {"creationTimestamp": right}}))
            .expect("a time");
    }
    refuses(
        "Secret",
        json!({"data": {"a": "!!"}}),
        "data.a",
        "illegal base64 data at input byte 0",
    );
    check_types(
        schema("Service"),
        &json!({"spec": {"ports": [{"targetPort": "http"}, {"targetPort": 80}]}}),
    )
    .expect("names and numbers are ports");
    refuses(
        "Service",
        json!({"spec": {"ports": [{"targetPort": true}]}}),
        "spec.ports[0].targetPort",
        "json: cannot unmarshal bool into Go value of type int32",
    );
}

fn scalar_quantity_text() -> &'static str {
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
}

#[test]
fn nulls_and_unknown_fields_are_not_type_errors() {
    let value = json!({"spec": {"replicas": null, "unknown": []}, "metadata": null});
    check_types(schema("Deployment"), &value).expect("null is absent");
}
