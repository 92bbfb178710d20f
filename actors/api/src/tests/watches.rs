//! Watches: what a watcher sees of a selector, where it begins, and how it ends.

use kactor_objects::status::Reason;
use kactor_store::Command;
use serde_json::{Value, json};

use super::world::{World, config_map, pod, shown};
use crate::{
    Bookmarks, EventType, Form, IncludeObject, InitialEvents, ObjectWatch, PatchType, VersionMatch,
};

async fn next(watch: &mut ObjectWatch) -> String {
    shown(&watch.next().await.expect("the watch goes on"))
}

async fn labelled(world: &World, name: &str, value: &str) -> Value {
    let mut body = config_map(name);
    body["metadata"]["labels"] = json!({"app": value});
    world.create("configmaps", body).await.unwrap()
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_goes_on() {
    let world = World::new().await;
    labelled(&world, "a", "x").await;
    let mut watch = world.api.watch(world.watch_request("configmaps")).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED a");
    labelled(&world, "b", "x").await;
    world.patch("configmaps/a", PatchType::Merge, json!({"data": {"k": "2"}})).await.unwrap();
    world.delete("configmaps/a", json!({})).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED b");
    assert_eq!(next(&mut watch).await, "MODIFIED a");
    let gone = watch.next().await.unwrap();
    assert_eq!(shown(&gone), "DELETED a");
    let last: Value = serde_json::from_slice(&gone.object).unwrap();
    assert_eq!(last["data"]["k"], "2", "the last state");
    assert!(
        gone.to_line().starts_with(br#"{"type":"DELETED","object":{"#)
            && gone.to_line().ends_with(b"}\n")
    );
}

#[tokio::test]
async fn entering_and_leaving_a_selector_is_adding_and_deleting() {
    let world = World::new().await;
    labelled(&world, "a", "other").await;
    let mut request = world.watch_request("configmaps");
    request.label_selector = Some("app=x".into());
    let mut watch = world.api.watch(request).await.unwrap();
    for (value, expected) in [("x", "ADDED a"), ("x2", "DELETED a"), ("x", "ADDED a")] {
        world
            .patch(
                "configmaps/a",
                PatchType::Merge,
                json!({"metadata": {"labels": {"app": value}}}),
            )
            .await
            .unwrap();
        assert_eq!(next(&mut watch).await, expected);
    }
    world.patch("configmaps/a", PatchType::Merge, json!({"data": {"k": "2"}})).await.unwrap();
    assert_eq!(next(&mut watch).await, "MODIFIED a");
}

#[tokio::test]
async fn a_watch_from_a_revision_misses_nothing_after_it_and_repeats_nothing() {
    let world = World::new().await;
    let made = labelled(&world, "a", "x").await;
    labelled(&world, "b", "x").await;
    let mut request = world.watch_request("configmaps");
    request.resource_version = made["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let mut watch = world.api.watch(request).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED b");
}

#[tokio::test]
async fn one_object_is_watched_by_its_name() {
    let world = World::new().await;
    let mut request = world.watch_request("configmaps");
    request.field_selector = Some("metadata.name=a".into());
    let mut watch = world.api.watch(request).await.unwrap();
    labelled(&world, "ab", "x").await;
    labelled(&world, "a", "x").await;
    assert_eq!(next(&mut watch).await, "ADDED a");
}

#[tokio::test]
async fn the_initial_state_ends_with_an_annotated_bookmark() {
    let world = World::new().await;
    labelled(&world, "a", "x").await;
    let mut request = world.watch_request("configmaps");
    request.initial = InitialEvents::Send;
    request.bookmarks = Bookmarks::Allow;
    assert_eq!(
        world.api.watch(request.clone()).await.err().map(|it| it.reason),
        Some(Reason::Invalid)
    );
    request.version_match = Some(VersionMatch::NotOlderThan);
    let mut watch = world.api.watch(request).await.unwrap();
    assert_eq!(next(&mut watch).await, "ADDED a");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark.event_type, EventType::Bookmark);
    let object: Value = serde_json::from_slice(&bookmark.object).unwrap();
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(object["kind"], "ConfigMap");
}

#[tokio::test]
async fn a_watch_that_times_out_says_how_far_it_came() {
    let world = World::new().await;
    let mut request = world.watch_request("configmaps");
    request.timeout_seconds = Some(1);
    request.bookmarks = Bookmarks::Allow;
    let mut watch = world.api.watch(request).await.unwrap();
    let mut last = None;
    while let Some(event) = watch.next().await {
        last = Some(event);
    }
    let last = last.expect("a bookmark stands at the end");
    assert_eq!(
        (last.event_type, last.revision),
        (EventType::Bookmark, world.api.store().revision())
    );
}

#[tokio::test]
async fn a_table_watch_gives_its_columns_once() {
    let world = World::new().await;
    labelled(&world, "a", "x").await;
    labelled(&world, "b", "x").await;
    let mut request = world.watch_request("configmaps");
    request.form = Form::Table(IncludeObject::Metadata);
    let mut watch = world.api.watch(request).await.unwrap();
    let mut columns = Vec::new();
    for _ in 0..2 {
        let table: Value = serde_json::from_slice(&watch.next().await.unwrap().object).unwrap();
        assert_eq!(table["kind"], "Table");
        columns.push(table["columnDefinitions"].as_array().unwrap().len());
    }
    assert!(columns[0] > 0 && columns[1] == 0, "{columns:?}");
}

#[tokio::test]
async fn a_node_is_told_of_the_pods_that_come_to_it_and_go() {
    let world = World::new().await;
    let mut request = world.watch_request("pods");
    request.resource.namespace = None;
    request.field_selector = Some("spec.nodeName=n1".into());
    let mut watch = world.api.watch(request).await.unwrap();
    for (name, node) in [("a", "n2"), ("b", "n1")] {
        world.create("pods", pod(name)).await.unwrap();
        let binding = json!({"metadata": {"name": name}, "target": {"name": node}});
        world.create(&format!("pods/{name}/binding"), binding).await.unwrap();
    }
    assert_eq!(next(&mut watch).await, "ADDED b");
    world.delete("pods/b", json!({"gracePeriodSeconds": 0})).await.unwrap();
    assert_eq!(next(&mut watch).await, "DELETED b");
}

#[tokio::test]
async fn below_the_compacted_revision_clients_are_told_to_begin_anew() {
    let world = World::new().await;
    let first = labelled(&world, "a", "x").await;
    labelled(&world, "b", "x").await;
    let page = world.list("configmaps", |it| it.limit = 1).await.unwrap();
    labelled(&world, "c", "x").await;
    let store = world.api.store();
    let compact = Command::Compact { now: world.api.env().wall(), revision: store.revision() };
    store.submit(compact, world.deadline()).await.unwrap();

    let mut request = world.watch_request("configmaps");
    request.resource_version = first["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    let mut watch = world.api.watch(request).await.unwrap();
    let event = watch.next().await.unwrap();
    assert_eq!(event.event_type, EventType::Error);
    let status: Value = serde_json::from_slice(&event.object).unwrap();
    assert_eq!((&status["code"], &status["reason"]), (&json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none(), "it ends behind the error");

    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    let expired = world.list("configmaps", |it| it.continue_token = Some(token)).await.unwrap_err();
    assert_eq!((expired.code, expired.reason), (410, Reason::Expired));
    let goes_on = expired.continue_token.expect("the rest can be had without one snapshot");
    let rest = world.list("configmaps", |it| it.continue_token = Some(goes_on)).await.unwrap();
    assert_eq!(super::world::names(&rest), ["b", "c"]);
}
