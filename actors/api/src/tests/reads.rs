//! Get and list: selectors, pages of one revision, resourceVersion, forms.

use serde_json::{Value, json};

use super::world::{World, config_map, names, pod};
use crate::{Form, IncludeObject, Operation, User, VersionMatch};

async fn with_maps(names: &[&str]) -> World {
    let world = World::new().await;
    for name in names {
        let mut body = config_map(name);
        body["metadata"]["labels"] = json!({"first": &name[..1]});
        world.create("configmaps", body).await.unwrap();
    }
    world
}

fn revision(list: &Value) -> String {
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn selectors_choose_by_labels_and_fields() {
    let world = with_maps(&["a1", "a2", "b1"]).await;
    for (labels, fields, expected) in [
        ("first=a", "", vec!["a1", "a2"]),
        ("first in (b)", "", vec!["b1"]),
        ("first notin (a)", "", vec!["b1"]),
        ("!first", "", vec![]),
        ("", "metadata.name=a2", vec!["a2"]),
        ("", "metadata.name!=a2", vec!["a1", "b1"]),
        ("first=b", "metadata.name=a2", vec![]),
        ("", "metadata.namespace=default", vec!["a1", "a2", "b1"]),
        ("", "metadata.namespace=other", vec![]),
    ] {
        let list = world.list("configmaps", |it| {
            it.label_selector = Some(labels.into());
            it.field_selector = Some(fields.into());
        });
        assert_eq!(names(&list.await.unwrap()), expected, "{labels:?} {fields:?}");
    }
    let bad = world
        .list("configmaps", |it| it.field_selector = Some("data.k=v".into()))
        .await
        .unwrap_err();
    assert!(bad.code == 400 && bad.message.contains("data.k"), "{bad}");
    let bad =
        world.list("configmaps", |it| it.label_selector = Some("a=(".into())).await.unwrap_err();
    assert_eq!(bad.code, 400);
}

#[tokio::test]
async fn a_paged_list_is_of_one_revision_whatever_changes_meanwhile() {
    let world = with_maps(&["a", "b", "c", "d"]).await;
    let first = world.list("configmaps", |it| it.limit = 2).await.unwrap();
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".into(), "b".into()], &json!(2))
    );
    world.delete("configmaps/c", json!({})).await.unwrap();
    world.create("configmaps", config_map("bb")).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let second = world
        .list("configmaps", |it| {
            it.limit = 2;
            it.continue_token = Some(token);
        })
        .await
        .unwrap();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(revision(&second), revision(&first));
    assert!(second["metadata"].get("continue").is_none());
    let bad = world
        .list("configmaps", |it| it.continue_token = Some("nonsense".into()))
        .await
        .unwrap_err();
    assert_eq!(bad.code, 400);
}

#[tokio::test]
async fn the_past_can_be_read_exactly_and_the_future_is_refused() {
    let world = with_maps(&["a"]).await;
    let then = revision(&world.list("configmaps", |_| {}).await.unwrap());
    world.create("configmaps", config_map("b")).await.unwrap();
    let exact = world.list("configmaps", |it| {
        it.resource_version = Some(then.clone());
        it.version_match = Some(VersionMatch::Exact);
    });
    assert_eq!(names(&exact.await.unwrap()), ["a"]);
    let newer = world.list("configmaps", |it| it.resource_version = Some(then.clone()));
    assert_eq!(names(&newer.await.unwrap()), ["a", "b"]);
    let mut request =
        world.request(&User::api(), Operation::List, world.resource("configmaps"), None);
    request.options.resource_version = Some("999999".into());
    request.deadline = kactor_protocol::Deadline::after(
        world.api.env().monotonic(),
        std::time::Duration::from_millis(20),
    );
    let status = world.ask(request).await.unwrap_err();
    assert_eq!(status.code, 504);
    assert_eq!(status.details.unwrap().causes[0].reason, "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_list_over_all_namespaces_and_an_empty_one_are_lists() {
    let world = with_maps(&["a"]).await;
    let mut everywhere = world.resource("configmaps");
    everywhere.namespace = None;
    let list =
        world.ask(world.request(&User::api(), Operation::List, everywhere, None)).await.unwrap();
    assert_eq!((&list["kind"], names(&list)), (&json!("ConfigMapList"), vec!["a".to_owned()]));
    let empty = world.list("secrets", |_| {}).await.unwrap();
    assert_eq!(empty["items"], json!([]));
}

#[tokio::test]
async fn a_thousand_objects_come_in_chunks_that_join_to_one_list() {
    let world = World::new().await;
    let big = "x".repeat(3000);
    for n in 0..60 {
        let body = json!({"metadata": {"name": format!("m{n:03}")}, "data": {"k": big}});
        world.create("configmaps", body).await.unwrap();
    }
    let request = world.request(&User::api(), Operation::List, world.resource("configmaps"), None);
    let response = world.api.handle(request).await.unwrap();
    assert!(response.object.chunks().len() > 2, "it is never one buffer");
    assert_eq!(names(&response.object.to_tree()).len(), 60);
}

#[tokio::test]
async fn tables_and_metadata_are_forms_of_the_same_answer() {
    let world = World::new().await;
    world.create("pods", pod("a")).await.unwrap();
    let table =
        world.list("pods", |it| it.form = Form::Table(IncludeObject::Metadata)).await.unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let metadata = world.list("pods", |it| it.form = Form::Metadata).await.unwrap();
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert!(metadata["items"][0].get("spec").is_none());
    let mut one = world.request(&User::api(), Operation::Get, world.resource("pods/a"), None);
    one.options.form = Form::Table(IncludeObject::None);
    assert_eq!(world.ask(one).await.unwrap()["rows"][0]["object"], Value::Null);
}
