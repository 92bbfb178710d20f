//! What Kubernetes refuses is refused here, with the same code and in words that name the field; nothing changes.

use kactor_objects::status::Status;
use serde_json::{Value, json};

use super::world::{World, config_map, pod};
use crate::{Body, Conflicts, FieldValidation, Operation, PatchType, User};

/// The refusal, after seeing that nothing was written.
async fn refusal(
    world: &World,
    operation: Operation,
    path: &str,
    body: Value,
) -> (u16, String, Vec<String>) {
    let before = world.api.store().revision();
    let status = world.as_user(&User::api(), operation, path, Some(body)).await.unwrap_err();
    assert_eq!(world.api.store().revision(), before, "a refused request changes nothing");
    told(&status)
}

fn told(status: &Status) -> (u16, String, Vec<String>) {
    let causes = status.details.iter().flat_map(|it| &it.causes);
    (status.code, status.message.clone(), causes.map(|it| it.field.clone()).collect())
}

#[tokio::test]
async fn delete_options_that_are_not_understood_delete_nothing() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    for (options, code, field) in [
        (json!({"dryRun": "All"}), 400, "dryRun"),
        (json!({"dryRun": ["Some"]}), 422, "dryRun"),
        (json!({"gracePeriodSeconds": "5"}), 400, "gracePeriodSeconds"),
        (json!({"propagationPolicy": "Sideways"}), 422, "propagationPolicy"),
        (
            json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            422,
            "propagationPolicy",
        ),
        (json!({"orphanDependents": "yes"}), 400, "orphanDependents"),
        (json!({"preconditions": {"uid": 7}}), 400, "preconditions.uid"),
        (json!({"preconditions": "uid"}), 400, "preconditions"),
    ] {
        let (is, message, causes) =
            refusal(&world, Operation::Delete, "configmaps/a", options.clone()).await;
        assert_eq!(is, code, "{options}: {message}");
        assert!(message.contains(field), "{options}: {message}");
        assert_eq!(causes.iter().any(|it| it == field), code == 422, "{options}: {causes:?}");
    }
}

#[tokio::test]
async fn reviews_that_ask_nothing_or_twice_are_invalid() {
    let world = World::new().await;
    let resource = json!({"verb": "get", "resource": "pods"});
    for (path, spec, field) in [
        ("subjectaccessreviews", json!({"user": "x"}), "spec.resourceAttributes"),
        ("subjectaccessreviews", json!({"resourceAttributes": resource}), "spec.user"),
        (
            "subjectaccessreviews",
            json!({"user": "x", "resourceAttributes": resource, "nonResourceAttributes": {"path": "/", "verb": "get"}}),
            "spec.nonResourceAttributes",
        ),
        ("selfsubjectaccessreviews", json!({}), "spec.resourceAttributes"),
    ] {
        let (code, message, causes) =
            refusal(&world, Operation::Create, path, json!({"spec": spec})).await;
        assert_eq!((code, causes), (422, vec![field.to_owned()]), "{message}");
    }
    let none = refusal(&world, Operation::Create, "tokenreviews", json!({"spec": {}})).await;
    assert_eq!(none.0, 400, "{none:?}");
}

#[tokio::test]
async fn a_patch_that_makes_no_object_of_the_kind_is_invalid_and_does_not_show_it() {
    let world = World::new().await;
    let mut secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    world.create("secrets", secret.take()).await.unwrap();
    for (patch_type, patch) in [
        (PatchType::Merge, json!({"type": 5, "stringData": {"other": "hunter3"}})),
        (PatchType::Strategic, json!({"metadata": {"labels": ["a"]}})),
        (PatchType::Json, json!([{"op": "replace", "path": "/data", "value": 1}])),
    ] {
        let operation = Operation::Patch(patch_type);
        let (code, message, causes) = refusal(&world, operation, "secrets/s", patch).await;
        assert_eq!((code, causes), (422, vec!["patch".to_owned()]), "{message}");
        assert!(message.contains("cannot be handled as a Secret"), "{message}");
        assert!(!message.contains("hunter") && !message.contains("aHVudGVy"), "{message}");
    }
}

#[tokio::test]
async fn fields_that_stand_twice_in_a_patch_are_refused_when_strict_and_warned_of_else() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    for patch_type in [PatchType::Merge, PatchType::Strategic] {
        let operation = Operation::Patch(patch_type);
        let mut request =
            world.request(&User::api(), operation, world.resource("configmaps/a"), None);
        request.body = Some(Body::json(&br#"{"data":{"x":"1","x":"2"}}"#[..]));
        request.options.field_validation = FieldValidation::Strict;
        let (code, message, _) = told(&world.ask(request.clone()).await.unwrap_err());
        assert_eq!(code, 422, "{message}");
        assert!(
            message.contains(r#"strict decoding error: duplicate field "data.x""#),
            "{message}"
        );
        request.options.field_validation = FieldValidation::Warn;
        let warned = world.api.handle(request).await.unwrap();
        assert_eq!(warned.warnings, [r#"duplicate field "data.x""#]);
    }
}

#[tokio::test]
async fn options_of_a_patch_must_fit_its_type() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    let mut request = world.request(
        &User::api(),
        Operation::Patch(PatchType::Merge),
        world.resource("configmaps/a"),
        Some(json!({})),
    );
    request.options.conflicts = Conflicts::Force;
    let (code, message, causes) = told(&world.ask(request).await.unwrap_err());
    assert_eq!((code, causes), (422, vec!["force".to_owned()]), "{message}");
    let apply = Operation::Patch(PatchType::Apply);
    let (code, message, causes) = refusal(&world, apply, "configmaps/a", json!({})).await;
    assert_eq!((code, causes), (422, vec!["fieldManager".to_owned()]), "{message}");
}

#[tokio::test]
async fn names_in_a_body_must_be_there_and_agree_with_the_path() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    let (code, message, _) =
        refusal(&world, Operation::Update, "configmaps/a", json!({"data": {}})).await;
    assert!(code == 400 && message.contains("name must be provided"), "{message}");
    world.create("pods", pod("p")).await.unwrap();
    let binding = json!({"metadata": {"name": "q"}, "target": {"kind": "Node", "name": "n"}});
    let (code, message, _) = refusal(&world, Operation::Create, "pods/p/binding", binding).await;
    assert!(code == 400 && message.contains("does not match name in Binding"), "{message}");
}

#[tokio::test]
async fn a_finalizer_has_a_domain_unless_it_is_one_of_kubernetes_own() {
    let world = World::new().await;
    for (finalizer, fits) in [("hold", false), ("example.com/hold", true), ("orphan", true)] {
        let mut body = config_map("a");
        body["metadata"]["generateName"] = json!("a-");
        body["metadata"]["name"] = Value::Null;
        body["metadata"]["finalizers"] = json!([finalizer]);
        let outcome = world.create("configmaps", body).await;
        assert_eq!(outcome.is_ok(), fits, "{finalizer}: {outcome:?}");
        if let Err(status) = outcome {
            assert_eq!(told(&status).2, ["metadata.finalizers[0]"], "{status}");
        }
    }
}

#[tokio::test]
async fn a_token_lives_at_least_ten_minutes() {
    let world = World::new().await;
    let request = json!({"spec": {"expirationSeconds": 599}});
    let (code, message, causes) =
        refusal(&world, Operation::Create, "serviceaccounts/default/token", request).await;
    assert_eq!((code, causes), (422, vec!["spec.expirationSeconds".to_owned()]), "{message}");
    assert!(message.contains("Invalid value: 599"), "{message}");
}

#[tokio::test]
async fn a_revision_that_is_no_number_is_named_with_its_option() {
    let world = World::new().await;
    let abc = |it: &mut crate::Options| it.resource_version = Some("abc".into());
    let (code, message, causes) = told(&world.list("configmaps", abc).await.unwrap_err());
    assert_eq!((code, causes), (422, vec!["resourceVersion".to_owned()]));
    let words = r#"resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc""#;
    assert!(message.contains(words), "{message}");
    let mut watch = world.watch_request("configmaps");
    watch.resource_version = Some("abc".into());
    let status = world.api.watch(watch).await.map(drop).unwrap_err();
    assert_eq!(told(&status).0, 422, "{status}");
}
