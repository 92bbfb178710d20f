//! Accessors, setters and the checks of metadata.

use super::*;
use crate::registry::{Kind, registry};

fn config_maps() -> &'static Kind {
    registry().by_resource("", "v1", "configmaps").expect("configmaps")
}

fn printed(errors: &[crate::FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn absent_metadata_reads_as_empty() {
    let it = json!({});
    assert_eq!((name(&it), namespace(&it), uid(&it), generation(&it)), ("", "", "", 0));
    assert_eq!(resource_version(&it), None);
    assert!(!is_terminating(&it) && finalizers(&it).is_empty());
    assert_eq!(full_name(&json!({"metadata": {"name": "a", "namespace": "b"}})), "b/a");
}

#[test]
fn finalizers_are_added_once_and_leave_no_empty_list() {
    let mut it = json!({"metadata": {"name": "a"}});
    add_finalizer(&mut it, "x/y");
    add_finalizer(&mut it, "x/y");
    assert_eq!(finalizers(&it), ["x/y"]);
    remove_finalizer(&mut it, "x/y");
    assert_eq!(it, json!({"metadata": {"name": "a"}}));
}

#[test]
fn marking_deleted_adds_the_grace_period_to_now() {
    let mut it = json!({});
    mark_deleted(&mut it, Timestamp::from_seconds(100), 30);
    assert_eq!(deletion_timestamp(&it), Some(Timestamp::from_seconds(130)));
    assert_eq!(deletion_grace_period_seconds(&it), Some(30));
}

#[test]
fn metadata_of_a_new_object_is_checked_field_by_field() {
    let object = json!({"metadata": {
        "name": "Bad_Name",
        "generateName": "ok-",
        "namespace": "No.Dots",
        "labels": {"a/b/c": "x", "ok": "-x"},
        "annotations": {"Fine.Case/OK": "", "not fine": ""},
        "finalizers": ["orphan", "foregroundDeletion", "-x"],
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Event", "name": "a", "uid": "u", "controller": true},
            {"apiVersion": "", "kind": "", "name": "", "uid": "", "controller": true},
        ],
    }});
    expect_test::expect![[r#"
        metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        metadata.namespace: Invalid value: "No.Dots": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        metadata.labels: Invalid value: "a/b/c": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')
        metadata.labels[ok]: Invalid value: "-x": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
        metadata.annotations: Invalid value: "not fine": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        metadata.ownerReferences: Invalid value: {"apiVersion":"v1","controller":true,"kind":"Event","name":"a","uid":"u"}: /v1, Kind=Event is disallowed from being an owner
        metadata.ownerReferences.apiVersion: Invalid value: "": version must not be empty
        metadata.ownerReferences.kind: Invalid value: "": must not be empty
        metadata.ownerReferences.name: Invalid value: "": must not be empty
        metadata.ownerReferences.uid: Invalid value: "": must not be empty
        metadata.ownerReferences: Invalid value: [{"apiVersion":"v1","controller":true,"kind":"Event","name":"a","uid":"u"},{"apiVersion":"","controller":true,"kind":"","name":"","uid":""}]: Only one reference can have Controller set to true. Found "true" in references for Event/a and /
        metadata.finalizers: Invalid value: "-x": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        metadata.finalizers[2]: Invalid value: "-x": name is neither a standard finalizer name nor is it fully qualified
        metadata.finalizers: Invalid value: ["orphan","foregroundDeletion","-x"]: finalizer foregroundDeletion and orphan cannot be both set"#]].assert_eq(&printed(&validate::on_create(config_maps(), &object)));
}

#[test]
fn names_and_namespaces_are_required_where_they_belong() {
    let nodes = registry().by_resource("", "v1", "nodes").expect("nodes");
    expect_test::expect![[r#"
        metadata.name: Required value: name or generateName is required
        metadata.namespace: Required value"#]]
    .assert_eq(&printed(&validate::on_create(config_maps(), &json!({}))));
    let node = json!({"metadata": {"name": "n", "namespace": "x"}});
    expect_test::expect!["metadata.namespace: Forbidden: not allowed on this type"]
        .assert_eq(&printed(&validate::on_create(nodes, &node)));
}

#[test]
fn identity_never_changes_and_a_terminating_object_gets_no_new_finalizers() {
    let old = json!({"metadata": {
        "name": "a", "namespace": "n", "uid": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["x/a"],
    }});
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!(["x/a", "x/b"]);
    new["metadata"]["uid"] = json!("2");
    expect_test::expect![[r#"
        metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"x/b"}
        metadata.uid: Invalid value: "2": field is immutable"#]].assert_eq(&printed(&validate::on_update(&new, &old)));
    new["metadata"]["finalizers"] = json!([]);
    new["metadata"]["uid"] = json!("1");
    assert_eq!(
        printed(&validate::on_update(&new, &old)),
        "",
        "removing finalizers is how deletion ends"
    );
}

#[test]
fn annotations_have_a_size_limit() {
    let object = json!({"metadata": {"name": "a", "namespace": "b", "annotations": {"k": "x".repeat(262_144)}}});
    let errors = validate::on_create(config_maps(), &object);
    assert_eq!(
        printed(&errors),
        "metadata.annotations: Too long: may not be more than 262144 bytes"
    );
}
