//! The steps of create and update, for kinds of each shape.

use super::*;
use crate::registry::registry;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn kind(resource: &str) -> &'static Kind {
    registry().iter().find(|it| it.resource == resource).expect(resource)
}

fn birth(namespace: &str) -> Birth<'_> {
    Birth { namespace, uid: Uid::from("uid-1"), now: NOW, suffix: "abcde" }
}

#[track_caller]
fn created(resource: &str, mut object: Value) -> Value {
    let kind = kind(resource);
    let namespace = if kind.is_namespaced() { "default" } else { "" };
    prepare_create(kind, &mut object, &birth(namespace)).expect("prepared");
    let errors = check_create(kind, &object);
    assert!(errors.is_empty(), "{errors:?}");
    object
}

pub(crate) fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "creationTimestamp": null, "labels": {"app": "web"}},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {},
            "template": {
                "metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
                "spec": {"containers": [{"name": "web", "image": "web:v1", "resources": {}}]},
            },
        },
        "status": {"replicas": 9},
    })
}

#[test]
fn a_created_deployment_is_complete_and_its_status_fresh() {
    let object = created("deployments", deployment());
    expect_test::expect![[r#"
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "creationTimestamp": "2027-01-15T08:00:00Z",
            "generation": 1,
            "labels": {
              "app": "web"
            },
            "name": "web",
            "namespace": "default",
            "uid": "uid-1"
          },
          "spec": {
            "progressDeadlineSeconds": 600,
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "selector": {
              "matchLabels": {
                "app": "web"
              }
            },
            "strategy": {
              "rollingUpdate": {
                "maxSurge": "25%",
                "maxUnavailable": "25%"
              },
              "type": "RollingUpdate"
            },
            "template": {
              "metadata": {
                "labels": {
                  "app": "web"
                }
              },
              "spec": {
                "containers": [
                  {
                    "image": "web:v1",
                    "imagePullPolicy": "IfNotPresent",
                    "name": "web",
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            }
          },
          "status": {}
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&object).expect("json"));
}

#[test]
fn names_are_generated_from_the_suffix() {
    let object = created("configmaps", json!({"metadata": {"generateName": "conf-"}}));
    assert_eq!(meta::name(&object), "conf-abcde");
}

#[test]
fn what_the_system_sets_cannot_be_sent_in() {
    let object = created(
        "configmaps",
        json!({"metadata": {
            "name": "a", "uid": "mine", "generation": 7, "creationTimestamp": "2000-01-01T00:00:00Z",
            "deletionTimestamp": "2000-01-01T00:00:00Z", "selfLink": "/x", "labels": {},
        }}),
    );
    let expected = json!({
        "name": "a", "namespace": "default", "uid": "uid-1", "creationTimestamp": NOW.rfc3339(),
    });
    assert_eq!(object["metadata"], expected);
}

#[test]
fn a_create_in_another_namespace_or_with_a_revision_is_refused() {
    let mut object = json!({"metadata": {"name": "a", "namespace": "other"}});
    let why =
        prepare_create(kind("configmaps"), &mut object, &birth("default")).expect_err("namespace");
    expect_test::expect![
        "the namespace of the provided object does not match the namespace sent on the request"
    ]
    .assert_eq(&why.message);
    let mut object = json!({"metadata": {"name": "a", "resourceVersion": "5"}});
    let why =
        prepare_create(kind("configmaps"), &mut object, &birth("default")).expect_err("revision");
    expect_test::expect!["resourceVersion should not be set on objects to be created"]
        .assert_eq(&why.message);
}

#[test]
fn an_update_keeps_identity_and_status_and_counts_spec_changes() {
    let deployments = kind("deployments");
    let mut old = created("deployments", deployment());
    old["status"] = json!({"replicas": 1});

    let mut same = old.clone();
    tree::remove(&mut same, "status");
    tree::remove(&mut same, "metadata.uid");
    tree::remove(&mut same, "metadata.creationTimestamp");
    prepare_update(deployments, &mut same, &old).expect("prepared");
    assert_eq!(same, old, "an update that says nothing new is none");

    let mut scaled = old.clone();
    scaled["spec"]["replicas"] = json!(3);
    scaled["status"]["replicas"] = json!(9);
    prepare_update(deployments, &mut scaled, &old).expect("prepared");
    assert_eq!((meta::generation(&scaled), &scaled["status"]), (2, &json!({"replicas": 1})));
    assert!(check_update(deployments, &scaled, &old).is_empty());

    let mut annotated = old.clone();
    meta::put_annotation(&mut annotated, "a", "b");
    prepare_update(deployments, &mut annotated, &old).expect("prepared");
    assert_eq!(meta::generation(&annotated), 2, "annotations of deployments count");

    let mut labelled = old.clone();
    meta::put_label(&mut labelled, "a", "b");
    prepare_update(deployments, &mut labelled, &old).expect("prepared");
    assert_eq!(meta::generation(&labelled), 1);
}

#[test]
fn an_update_with_another_uid_is_a_conflict() {
    let old = created("configmaps", json!({"metadata": {"name": "a"}}));
    let mut new = old.clone();
    new["metadata"]["uid"] = json!("other");
    let why = prepare_update(kind("configmaps"), &mut new, &old).expect_err("uid");
    assert_eq!(why.code, 409);
    expect_test::expect![[r#"Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: other, UID in object meta: uid-1"#]].assert_eq(&why.message);
}

#[test]
fn the_status_subresource_changes_status_and_annotations_only() {
    let deployments = kind("deployments");
    let old = created("deployments", deployment());
    let mut new = old.clone();
    new["status"] = json!({"replicas": 2, "readyReplicas": 1});
    new["spec"]["replicas"] = json!(7);
    new["metadata"]["labels"] = json!({"x": "y"});
    meta::put_annotation(&mut new, "a", "b");
    prepare_subresource(deployments, "status", &mut new, &old).expect("prepared");
    assert_eq!(new["status"], json!({"replicas": 2, "readyReplicas": 1}));
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["metadata"]["labels"], old["metadata"]["labels"]);
    assert_eq!(meta::annotation(&new, "a"), Some("b"));
    assert!(check_subresource(deployments, "status", &new, &old).is_empty());
    new["status"]["readyReplicas"] = json!(3);
    let errors = check_subresource(deployments, "status", &new, &old);
    assert_eq!(
        errors[0].to_string(),
        "status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas"
    );
    let gone =
        prepare_subresource(deployments, "scale", &mut new, &old).expect_err("not the object");
    assert_eq!(gone.code, 404);
}

#[test]
fn namespaces_carry_their_name_as_a_label_and_a_finalizer() {
    let old = created("namespaces", json!({"metadata": {"name": "team"}}));
    assert_eq!(meta::label(&old, "kubernetes.io/metadata.name"), Some("team"));
    assert_eq!(old["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(old["status"]["phase"], "Active");

    let namespaces = kind("namespaces");
    let mut new = old.clone();
    new["spec"]["finalizers"] = json!([]);
    prepare_update(namespaces, &mut new, &old).expect("prepared");
    assert_eq!(new["spec"], old["spec"], "only finalize removes them");
    new["spec"]["finalizers"] = json!([]);
    prepare_subresource(namespaces, "finalize", &mut new, &old).expect("prepared");
    assert_eq!(new["spec"]["finalizers"], json!([]));

    let mut ending = old.clone();
    ending["status"]["phase"] = json!("Terminating");
    let errors = check_subresource(namespaces, "status", &ending, &old);
    assert_eq!(
        errors[0].to_string(),
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
    );
}

#[test]
fn secrets_fold_string_data_into_data() {
    let secret = created(
        "secrets",
        json!({
            "metadata": {"name": "s"}, "data": {"a": "eA=="}, "stringData": {"b": "hello"},
        }),
    );
    assert_eq!(secret["data"], json!({"a": "eA==", "b": "aGVsbG8="}));
    assert_eq!(secret["type"], "Opaque");
    assert!(secret.get("stringData").is_none());
}

#[test]
fn only_fields_beyond_bookkeeping_make_a_change() {
    let old = json!({"metadata": {"name": "a", "resourceVersion": "1", "managedFields": []}, "data": {"a": "b"}});
    let mut new = old.clone();
    new["metadata"]["resourceVersion"] = json!("2");
    new["metadata"]["managedFields"] = json!([{"time": "x"}]);
    assert!(is_unchanged(&new, &old));
    new["data"]["a"] = json!("c");
    assert!(!is_unchanged(&new, &old));
    let mut more = old.clone();
    more["extra"] = json!(1);
    assert!(!is_unchanged(&more, &old) && !is_unchanged(&old, &more));
}

#[test]
fn reviews_need_no_name() {
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    assert!(check_create(kind("selfsubjectaccessreviews"), &review).is_empty());
    assert!(!check_create(kind("configmaps"), &json!({})).is_empty());
}
