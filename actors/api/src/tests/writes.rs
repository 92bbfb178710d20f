//! Create, update and patch: identity, concurrency, validation, generated names, dry run, managed fields.

use kactor_objects::status::Reason;
use serde_json::{Value, json};

use super::world::{World, config_map, deployment, pod};
use crate::{Body, DryRun, FieldValidation, Operation, PatchType, User};

#[tokio::test]
async fn a_created_object_has_identity_and_an_owner_of_its_fields() {
    let world = World::new().await;
    let made = world.create("configmaps", config_map("a")).await.unwrap();
    let metadata = &made["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["creationTimestamp"].is_string());
    assert_eq!(metadata["managedFields"][0]["manager"], "test");
    assert_eq!(metadata["managedFields"][0]["operation"], "Update");
    assert_eq!(metadata["managedFields"][0]["fieldsV1"]["f:data"]["f:k"], json!({}));
    assert_eq!(world.get("configmaps/a").await.unwrap(), made, "what was answered is what stands");
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    let status = world.create("configmaps", config_map("a")).await.unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (409, r#"configmaps "a" already exists"#));
    let status = world.create("configmaps", json!({"metadata": {}})).await.unwrap_err();
    assert_eq!(status.reason, Reason::Invalid);
    assert!(status.message.contains("name or generateName is required"), "{status}");
}

#[tokio::test]
async fn a_stale_update_is_refused_and_leaves_the_object_untouched() {
    let world = World::new().await;
    let first = world.create("configmaps", config_map("a")).await.unwrap();
    let mut change = first.clone();
    change["data"]["k"] = json!("2");
    let second = world.update("configmaps/a", change.clone()).await.unwrap();
    assert_ne!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    change["data"]["k"] = json!("3");
    let status = world.update("configmaps/a", change.clone()).await.unwrap_err();
    assert_eq!(status.reason, Reason::Conflict);
    assert_eq!(
        status.message,
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
    assert_eq!(world.get("configmaps/a").await.unwrap(), second);
    change["metadata"]["resourceVersion"] = json!("");
    assert!(world.update("configmaps/a", change).await.is_ok(), "without a revision it overwrites");
}

#[tokio::test]
async fn a_write_that_changes_nothing_writes_nothing() {
    let world = World::new().await;
    let made = world.create("configmaps", config_map("a")).await.unwrap();
    let before = world.api.store().revision();
    let same = world.update("configmaps/a", made.clone()).await.unwrap();
    let patched =
        world.patch("configmaps/a", PatchType::Merge, json!({"data": {"k": "v"}})).await.unwrap();
    assert_eq!((&same, &patched), (&made, &made));
    assert_eq!(world.api.store().revision(), before);
}

#[tokio::test]
async fn a_body_that_names_another_object_is_refused() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    for (body, code) in [
        (config_map("b"), 400),
        (json!({"metadata": {"name": "a", "namespace": "kube-system"}}), 400),
        (json!({"metadata": {"name": "a", "uid": "other"}}), 409),
        (json!({"kind": "Secret", "metadata": {"name": "a"}}), 400),
        (json!({"metadata": {"name": "a"}, "data": {"k": 5}}), 400),
        (json!([]), 400),
    ] {
        let status = world.update("configmaps/a", body.clone()).await.unwrap_err();
        assert_eq!(status.code, code, "{body} {status}");
    }
    assert_eq!(world.update("configmaps/none", config_map("none")).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn unknown_fields_are_dropped_told_or_refused_as_asked() {
    let world = World::new().await;
    let mut body = pod("a");
    body["spec"]["containers"][0]["imagee"] = json!("x");
    let ask = |name: &str, validation| {
        let mut body = body.clone();
        body["metadata"]["name"] = json!(name);
        let mut request =
            world.request(&User::api(), Operation::Create, world.resource("pods"), Some(body));
        request.options.field_validation = validation;
        request
    };
    let strict = world.api.handle(ask("a", FieldValidation::Strict)).await.unwrap_err();
    assert_eq!(strict.code, 400);
    assert!(
        strict
            .message
            .contains(r#"strict decoding error: unknown field "spec.containers[0].imagee""#),
        "{strict}"
    );
    assert_eq!(world.get("pods/a").await.unwrap_err().code, 404, "nothing was stored");
    let warned = world.api.handle(ask("b", FieldValidation::Warn)).await.unwrap();
    assert_eq!(warned.warnings, [r#"unknown field "spec.containers[0].imagee""#]);
    assert!(warned.object.to_tree()["spec"]["containers"][0].get("imagee").is_none());
    let ignored = world.api.handle(ask("c", FieldValidation::Ignore)).await.unwrap();
    assert!(ignored.warnings.is_empty());
}

#[tokio::test]
async fn an_invalid_object_names_every_field() {
    let world = World::new().await;
    let status = world
        .create("pods", json!({"metadata": {"name": "A_"}, "spec": {"containers": []}}))
        .await
        .unwrap_err();
    assert_eq!((status.code, status.reason), (422, Reason::Invalid));
    let fields: Vec<String> =
        status.details.unwrap().causes.into_iter().map(|it| it.field).collect();
    assert!(
        fields.contains(&"metadata.name".to_owned())
            && fields.contains(&"spec.containers".to_owned()),
        "{fields:?}"
    );
}

#[tokio::test]
async fn generated_names_differ_and_keep_their_base() {
    let world = World::new().await;
    let body = json!({"metadata": {"generateName": "job-"}});
    let first = world.create("configmaps", body.clone()).await.unwrap();
    let second = world.create("configmaps", body).await.unwrap();
    let name = |it: &Value| it["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&first).starts_with("job-") && name(&first).len() == "job-".len() + 5);
    assert_ne!(name(&first), name(&second));
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    let before = world.api.store().revision();
    for (operation, path, body) in [
        (Operation::Create, "configmaps", Some(config_map("b"))),
        (
            Operation::Update,
            "configmaps/a",
            Some(json!({"metadata": {"name": "a"}, "data": {"k": "2"}})),
        ),
        (Operation::Patch(PatchType::Merge), "configmaps/a", Some(json!({"data": {"k": "2"}}))),
        (Operation::Delete, "configmaps/a", None),
        (
            Operation::Create,
            "services",
            Some(json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})),
        ),
    ] {
        let mut request = world.request(&User::api(), operation, world.resource(path), body);
        request.options.dry_run = DryRun::All;
        world.ask(request).await.unwrap();
    }
    assert_eq!(world.api.store().revision(), before);
}

#[tokio::test]
async fn the_four_patches_change_what_they_name() {
    let world = World::new().await;
    world.create("deployments", deployment("web")).await.unwrap();
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx"}]}}}});
    let it = world.patch("deployments/web", PatchType::Strategic, strategic).await.unwrap();
    assert_eq!(it["spec"]["template"]["spec"]["containers"][0]["image"], "nginx");
    assert_eq!(it["metadata"]["generation"], 2, "the spec changed");
    let it = world
        .patch("deployments/web", PatchType::Merge, json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap();
    assert_eq!(
        (&it["metadata"]["labels"]["a"], &it["metadata"]["generation"]),
        (&json!("b"), &json!(2))
    );
    let json_patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 5}]);
    let it = world.patch("deployments/web", PatchType::Json, json_patch).await.unwrap();
    assert_eq!(it["spec"]["replicas"], 5);
    let failing = json!([{"op": "test", "path": "/spec/replicas", "value": 4}]);
    let status = world.patch("deployments/web", PatchType::Json, failing).await.unwrap_err();
    assert_eq!(status.code, 422, "{status}");
    assert_eq!(
        world.patch("deployments/no", PatchType::Merge, json!({})).await.unwrap_err().code,
        404
    );
}

#[tokio::test]
async fn two_appliers_of_one_field_conflict_until_one_forces() {
    let world = World::new().await;
    let apply = |manager: &str, replicas: i64, force: crate::Conflicts| {
        let mut body = deployment("web");
        body["apiVersion"] = json!("apps/v1");
        body["kind"] = json!("Deployment");
        body["spec"]["replicas"] = json!(replicas);
        let operation = Operation::Patch(PatchType::Apply);
        let mut request =
            world.request(&User::api(), operation, world.resource("deployments/web"), Some(body));
        request.caller.field_manager = Some(manager.to_owned());
        request.options.conflicts = force;
        request
    };
    let made = world.api.handle(apply("one", 1, Default::default())).await.unwrap();
    assert_eq!(made.code, 201);
    let again = world.api.handle(apply("one", 1, Default::default())).await.unwrap();
    assert_eq!(
        (again.code, again.revision),
        (200, made.revision),
        "the same intent writes nothing"
    );
    let status = world.api.handle(apply("two", 3, Default::default())).await.unwrap_err();
    assert_eq!((status.code, status.reason), (409, Reason::Conflict));
    let cause = &status.details.as_ref().unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.field.as_str()),
        ("FieldManagerConflict", ".spec.replicas")
    );
    let forced = world.ask(apply("two", 3, crate::Conflicts::Force)).await.unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    let user = User::api();
    let nameless = world.as_user(
        &user,
        Operation::Patch(PatchType::Apply),
        "deployments/web",
        Some(json!({"apiVersion": "apps/v1", "kind": "Deployment"})),
    );
    assert_eq!(nameless.await.unwrap_err().code, 422, "an apply needs a manager");
}

#[tokio::test]
async fn concurrent_patches_without_a_revision_all_land() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    let patches = (0..8).map(|n| {
        let body = json!({"data": {format!("k{n}"): "v"}});
        world.patch("configmaps/a", PatchType::Merge, body)
    });
    for outcome in futures::future::join_all(patches).await {
        outcome.unwrap();
    }
    let it = world.get("configmaps/a").await.unwrap();
    assert_eq!(it["data"].as_object().unwrap().len(), 9);
}

#[tokio::test]
async fn status_and_spec_are_written_through_their_own_doors() {
    let world = World::new().await;
    world.create("deployments", deployment("web")).await.unwrap();
    let mut change = world.get("deployments/web").await.unwrap();
    change["status"] = json!({"replicas": 2});
    change["spec"]["replicas"] = json!(9);
    let it = world.update("deployments/web/status", change.clone()).await.unwrap();
    assert_eq!((&it["status"]["replicas"], &it["spec"]["replicas"]), (&json!(2), &json!(2)));
    change["metadata"]["resourceVersion"] = json!("");
    change["status"] = json!({"replicas": 7});
    let it = world.update("deployments/web", change).await.unwrap();
    assert_eq!((&it["status"]["replicas"], &it["spec"]["replicas"]), (&json!(2), &json!(9)));
}

#[tokio::test]
async fn scale_shows_and_sets_replicas() {
    let world = World::new().await;
    world.create("deployments", deployment("web")).await.unwrap();
    let mut scale = world.get("deployments/web/scale").await.unwrap();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    scale["spec"]["replicas"] = json!(4);
    let answer = world.update("deployments/web/scale", scale).await.unwrap();
    assert_eq!((&answer["kind"], &answer["spec"]["replicas"]), (&json!("Scale"), &json!(4)));
    world
        .patch("deployments/web/scale", PatchType::Merge, json!({"spec": {"replicas": 6}}))
        .await
        .unwrap();
    assert_eq!(world.get("deployments/web").await.unwrap()["spec"]["replicas"], 6);
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let world = World::new().await;
    let missing = crate::Resource::new("batch", "v9", "jobs").in_namespace("default");
    let status =
        world.ask(world.request(&User::api(), Operation::List, missing, None)).await.unwrap_err();
    assert_eq!(status.code, 404);
    assert_eq!(world.get("configmaps/a/status").await.unwrap_err().code, 404);
    assert_eq!(world.delete("deployments/web/scale", json!({})).await.unwrap_err().code, 405);
    let mut request = world.request(&User::api(), Operation::Create, world.resource("pods"), None);
    request.body = Some(Body::Encoded {
        content_type: "application/vnd.kubernetes.protobuf".into(),
        bytes: "k8s".into(),
    });
    assert_eq!(world.ask(request).await.unwrap_err().code, 415);
}

#[tokio::test]
async fn refusals_and_writes_are_noted_without_bodies() {
    let world = World::new().await;
    world.notes.0.lock().unwrap().clear();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "hidden-text"}});
    world.create("secrets", secret.clone()).await.unwrap();
    world.create("secrets", secret).await.unwrap_err();
    let notes = world.notes.0.lock().unwrap();
    assert_eq!(notes.len(), 2);
    assert!(matches!(notes[0].outcome, crate::Outcome::Written { .. }));
    assert!(matches!(&notes[1].outcome, crate::Outcome::Refused { code: 409, .. }));
    assert!(!format!("{notes:?}").contains("hidden-text"));
    let names: Vec<_> = notes.iter().map(|it| it.resource.name.as_deref()).collect();
    assert_eq!(names, [Some("s"), Some("s")], "a create is found under the object's name");
}

#[tokio::test]
async fn an_applier_of_equal_values_becomes_their_owner_too() {
    let world = World::new().await;
    world.create("configmaps", config_map("a")).await.unwrap();
    let mut body = config_map("a");
    body["apiVersion"] = json!("v1");
    body["kind"] = json!("ConfigMap");
    let operation = Operation::Patch(PatchType::Apply);
    let mut request =
        world.request(&User::api(), operation, world.resource("configmaps/a"), Some(body));
    request.caller.field_manager = Some("second".to_owned());
    let it = world.ask(request).await.unwrap();
    let managers: Vec<&Value> = it["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["manager"])
        .collect();
    assert_eq!(managers, ["second", "test"]);
    assert_eq!(world.get("configmaps/a").await.unwrap(), it, "and that is stored");
}

#[tokio::test]
async fn an_event_is_one_object_in_both_groups_that_serve_it() {
    let world = World::new().await;
    let body = json!({"metadata": {"name": "e"}, "reason": "Started", "message": "told", "type": "Normal",
                      "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}});
    world.create("events", body).await.unwrap();
    let mut resource = world.resource("events/e");
    resource.group = "events.k8s.io".into();
    let it = world.ask(world.request(&User::api(), Operation::Get, resource, None)).await.unwrap();
    assert_eq!((&it["apiVersion"], &it["note"]), (&json!("events.k8s.io/v1"), &json!("told")));
    assert_eq!(it["regarding"]["name"], "a");
}

#[tokio::test]
async fn a_put_of_what_is_absent_creates_only_where_kubernetes_does_and_with_the_right_to() {
    let world = World::new().await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}});
    let response = world
        .api
        .handle(world.request(
            &User::api(),
            Operation::Update,
            world.resource("leases/l"),
            Some(lease.clone()),
        ))
        .await
        .unwrap();
    assert_eq!(response.code, 201);
    let role = json!({"metadata": {"name": "r"}, "rules": [
        {"verbs": ["update"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}]});
    world.create("roles", role).await.unwrap();
    let grant = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
                       "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]});
    world.create("rolebindings", grant).await.unwrap();
    let jane = User::authenticated("jane", &[]);
    let mut other = lease;
    other["metadata"]["name"] = json!("m");
    let status =
        world.as_user(&jane, Operation::Update, "leases/m", Some(other)).await.unwrap_err();
    assert!(status.code == 403 && status.message.contains("cannot create resource"), "{status}");
}
