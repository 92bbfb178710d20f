//! Deletion in all its ways, namespaces, bindings and evictions.

use kactor_objects::status::Reason;
use kactor_protocol::store::{Guard, Key};
use serde_json::json;

use super::world::{World, config_map, names, pod};
use crate::{Operation, PatchType, User, allocation_key};

#[tokio::test]
async fn a_plain_object_is_gone_at_once() {
    let world = World::new().await;
    let made = world.create("configmaps", config_map("a")).await.unwrap();
    let answer = world.delete("configmaps/a", json!({})).await.unwrap();
    assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(answer["details"]["uid"], made["metadata"]["uid"]);
    assert_eq!(world.get("configmaps/a").await.unwrap_err().code, 404);
    assert_eq!(world.delete("configmaps/a", json!({})).await.unwrap_err().code, 404);
}

#[tokio::test]
async fn preconditions_protect_another_life_of_a_name() {
    let world = World::new().await;
    let made = world.create("configmaps", config_map("a")).await.unwrap();
    for (preconditions, code) in [
        (json!({"uid": "other"}), 409),
        (json!({"resourceVersion": "1"}), 409),
        (
            json!({"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}),
            200,
        ),
    ] {
        let outcome = world.delete("configmaps/a", json!({"preconditions": preconditions})).await;
        assert_eq!(outcome.map_or_else(|it| it.code, |_| 200), code, "{preconditions}");
    }
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_taken_away() {
    let world = World::new().await;
    let mut body = config_map("a");
    body["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.create("configmaps", body).await.unwrap();
    let marked = world.delete("configmaps/a", json!({})).await.unwrap();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let revision = world.api.store().revision();
    world.delete("configmaps/a", json!({})).await.unwrap();
    assert_eq!(world.api.store().revision(), revision, "a second delete adds nothing");
    let mut change = world.get("configmaps/a").await.unwrap();
    change["metadata"]["finalizers"] = json!(["example.com/hold", "example.com/more"]);
    assert_eq!(
        world.update("configmaps/a", change.clone()).await.unwrap_err().reason,
        Reason::Invalid
    );
    change["metadata"]["finalizers"] = json!([]);
    world.update("configmaps/a", change).await.unwrap();
    assert_eq!(world.get("configmaps/a").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn the_propagation_policy_becomes_a_finalizer() {
    let world = World::new().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        world.create("configmaps", config_map("a")).await.unwrap();
        world.delete("configmaps/a", json!({"propagationPolicy": policy})).await.unwrap();
        let mut it = world.get("configmaps/a").await.unwrap();
        assert_eq!(it["metadata"]["finalizers"], json!([finalizer]));
        it["metadata"].as_object_mut().unwrap().remove("finalizers");
        world.update("configmaps/a", it).await.unwrap();
    }
    world.create("configmaps", config_map("a")).await.unwrap();
    assert_eq!(
        world.delete("configmaps/a", json!({"propagationPolicy": "Maybe"})).await.unwrap_err().code,
        422
    );
    world.delete("configmaps/a", json!({"propagationPolicy": "Background"})).await.unwrap();
    assert_eq!(world.get("configmaps/a").await.unwrap_err().code, 404);
}

/// A pod that runs on `n1`.
async fn bound_pod(world: &World, name: &str) {
    world.create("pods", pod(name)).await.unwrap();
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    world.create(&format!("pods/{name}/binding"), binding).await.unwrap();
}

#[tokio::test]
async fn a_running_pod_gets_its_grace_and_is_removed_when_the_node_says_so() {
    let world = World::new().await;
    bound_pod(&world, "a").await;
    let marked = world.delete("pods/a", json!({})).await.unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let longer = world.delete("pods/a", json!({"gracePeriodSeconds": 60})).await.unwrap();
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30, "grace is never lengthened");
    let shorter = world.delete("pods/a", json!({"gracePeriodSeconds": 5})).await.unwrap();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    world.delete("pods/a", json!({"gracePeriodSeconds": 0})).await.unwrap();
    assert_eq!(world.get("pods/a").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_pod_that_no_node_has_is_gone_at_once() {
    let world = World::new().await;
    world.create("pods", pod("a")).await.unwrap();
    world.delete("pods/a", json!({})).await.unwrap();
    assert_eq!(world.get("pods/a").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn a_pod_is_bound_once_and_binding_touches_the_nodes_allocation() {
    let world = World::new().await;
    bound_pod(&world, "a").await;
    let bound = world.get("pods/a").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let touched =
        |world: &World| world.api.store().get(&allocation_key("n1").unwrap()).unwrap().modified;
    let after_bind = touched(&world);
    let again = json!({"metadata": {"name": "a"}, "target": {"name": "n2"}});
    let status = world.create("pods/a/binding", again.clone()).await.unwrap_err();
    assert_eq!(status.code, 409);
    assert!(status.message.contains(r#"pod a is already assigned to node "n1""#), "{status}");
    world.create("pods", pod("b")).await.unwrap();
    let guard = Guard::Revision {
        key: allocation_key("n1").unwrap(),
        revision: kactor_protocol::Revision(1),
    };
    let binding = json!({"metadata": {"name": "b"}, "target": {"name": "n1"}});
    let mut request = world.request(
        &User::api(),
        Operation::Create,
        world.resource("pods/b/binding"),
        Some(binding),
    );
    request.options.guards = vec![guard];
    assert_eq!(
        world.ask(request).await.unwrap_err().code,
        409,
        "the node changed since the decision"
    );
    assert_eq!(world.get("pods/b").await.unwrap()["spec"].get("nodeName"), None);
    world.delete("pods/a", json!({"gracePeriodSeconds": 0})).await.unwrap();
    assert!(touched(&world) > after_bind, "the end of a pod touches it too");
}

#[tokio::test]
async fn an_eviction_is_a_delete_with_its_own_options() {
    let world = World::new().await;
    bound_pod(&world, "a").await;
    let eviction = json!({"metadata": {"name": "a"}, "deleteOptions": {"gracePeriodSeconds": 7}});
    let answer = world.create("pods/a/eviction", eviction).await.unwrap();
    assert_eq!(answer["status"], "Success");
    assert_eq!(world.get("pods/a").await.unwrap()["metadata"]["deletionGracePeriodSeconds"], 7);
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_is_missing_or_ending() {
    let world = World::new().await;
    let ask = |body| {
        let resource = crate::Resource::new("", "v1", "configmaps").in_namespace("work");
        world.ask(world.request(&User::api(), Operation::Create, resource, Some(body)))
    };
    let status = ask(config_map("a")).await.unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (404, r#"namespaces "work" not found"#));
    world.create("namespaces", json!({"metadata": {"name": "work"}})).await.unwrap();
    ask(config_map("a")).await.unwrap();
    let ending = world.delete("namespaces/work", json!({})).await.unwrap();
    assert_eq!(ending["status"]["phase"], "Terminating");
    let status = ask(config_map("b")).await.unwrap_err();
    assert_eq!((status.code, status.reason), (403, Reason::Forbidden));
    assert!(
        status.message.contains(
            "unable to create new content in namespace work because it is being terminated"
        )
    );
    let mut finalize = world.get("namespaces/work").await.unwrap();
    finalize["spec"]["finalizers"] = json!([]);
    world.update("namespaces/work/finalize", finalize).await.unwrap();
    assert_eq!(world.get("namespaces/work").await.unwrap_err().code, 404);
    assert_eq!(world.delete("namespaces/default", json!({})).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector_only() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        let mut body = config_map(name);
        body["metadata"]["labels"] = json!({"drop": if name == "b" { "no" } else { "yes" }});
        world.create("configmaps", body).await.unwrap();
    }
    let mut request = world.request(
        &User::api(),
        Operation::DeleteCollection,
        world.resource("configmaps"),
        None,
    );
    request.options.label_selector = Some("drop=yes".into());
    assert_eq!(names(&world.ask(request).await.unwrap()), ["a", "c"]);
    assert_eq!(names(&world.list("configmaps", |_| {}).await.unwrap()), ["b"]);
}

#[tokio::test]
async fn events_end_by_themselves() {
    let world = World::new().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}});
    world.create("events", event).await.unwrap();
    let stored = world.api.store().get(&Key::new("", "events", "default", "e").unwrap()).unwrap();
    assert!(stored.expires_at.is_some_and(|it| it > world.api.env().wall()));
}

#[tokio::test]
async fn evictions_leave_as_many_healthy_pods_as_the_budget_asks_for() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        let mut body = pod(name);
        body["metadata"]["labels"] = json!({"app": "web"});
        world.create("pods", body).await.unwrap();
        let binding = json!({"metadata": {"name": name}, "target": {"name": "n1"}});
        world.create(&format!("pods/{name}/binding"), binding).await.unwrap();
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        world.patch(&format!("pods/{name}/status"), PatchType::Strategic, ready).await.unwrap();
    }
    let budget = json!({"metadata": {"name": "web"},
                        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}});
    world.create("poddisruptionbudgets", budget).await.unwrap();
    let evict = async |name: &str| {
        let eviction = json!({"metadata": {"name": name}});
        world.create(&format!("pods/{name}/eviction"), eviction).await
    };
    let outcomes = futures::future::join_all(["a", "b", "c"].map(evict)).await;
    let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 2, "of three at once only one may go: {refused:?}");
    let status = &refused[0];
    assert_eq!(
        (status.code, status.message.as_str()),
        (429, "Cannot evict pod as it would violate the pod's disruption budget.")
    );
    assert_eq!(
        status.details.as_ref().unwrap().causes[0].message,
        "The disruption budget web needs 2 healthy pods and has 2 currently"
    );
}
