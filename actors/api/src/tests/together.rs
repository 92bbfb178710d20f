//! Many callers' small writes in one proposal: what is shared, and what is not.

use serde_json::json;

use super::world::World;
use crate::{Operation, PatchType, Request, Resource, User};

fn lease(node: &str) -> Resource {
    Resource::new("coordination.k8s.io", "v1", "leases").in_namespace("kube-node-lease").named(node)
}

fn renewal(world: &World, by: &str, of: &str, at: &str) -> Request {
    let patch = json!({"spec": {"renewTime": format!("2026-01-01T00:00:{at}.000000Z")}});
    world.request(&User::node(by), Operation::Patch(PatchType::Merge), lease(of), Some(patch))
}

async fn with_leases(nodes: &[&str]) -> World {
    let world = World::new().await;
    for node in nodes {
        let body = json!({"metadata": {"name": node}, "spec": {"holderIdentity": node}});
        let mut at = lease(node);
        at.name = None;
        let request = world.request(&User::node(node), Operation::Create, at, Some(body));
        world.ask(request).await.unwrap();
    }
    world
}

#[tokio::test]
async fn the_leases_of_many_nodes_are_renewed_by_one_proposal() {
    let world = with_leases(&["a", "b", "c"]).await;
    let renewals = ["a", "b", "c"].map(|it| renewal(&world, it, it, "07"));
    let before = world.api.store().status().last_index;
    let answers = world.api.merge_together(&renewals).await;
    assert_eq!(world.api.store().status().last_index, before + 1, "one entry of the log");
    let mut revisions = Vec::new();
    for (node, answer) in ["a", "b", "c"].iter().zip(answers) {
        let answer = answer.unwrap();
        let read = world.request(&User::api(), Operation::Get, lease(node), None);
        let stands = world.ask(read).await.unwrap();
        assert_eq!(answer.object.to_tree(), stands, "each is answered with its own object");
        assert_eq!(stands["spec"]["renewTime"], "2026-01-01T00:00:07.000000Z");
        assert_eq!(stands["metadata"]["name"], *node);
        revisions.push(answer.revision.unwrap());
    }
    assert!(revisions.is_sorted() && revisions[0] < revisions[2], "{revisions:?}");
}

#[tokio::test]
async fn one_that_is_refused_takes_none_of_the_others_with_it() {
    let world = with_leases(&["a", "b"]).await;
    let renewals = [
        renewal(&world, "a", "a", "07"),
        renewal(&world, "a", "b", "08"),
        renewal(&world, "gone", "gone", "09"),
    ];
    let answers = world.api.merge_together(&renewals).await;
    let codes: Vec<u16> = answers
        .iter()
        .map(|it| it.as_ref().map_or_else(|status| status.code, |response| response.code))
        .collect();
    assert_eq!(codes, [200, 403, 404], "a node renews its own Lease, and one that exists");
    let before = world.api.store().status().last_index;
    let same = [renewal(&world, "a", "a", "07")];
    assert!(world.api.merge_together(&same).await[0].is_ok());
    assert_eq!(world.api.store().status().last_index, before, "nothing new writes nothing");
    let noted = world.notes.0.lock().unwrap().iter().filter(|it| it.verb == "patch").count();
    assert_eq!(noted, 4, "each is noted by itself");
}
