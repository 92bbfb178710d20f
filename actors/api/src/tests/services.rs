//! Service addresses and node ports: given out once, given back with the Service.

use futures::FutureExt;
use serde_json::{Value, json};

use super::world::World;
use crate::PatchType;

fn service(name: &str, kind: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}})
}

#[tokio::test]
async fn the_api_has_the_first_address() {
    let world = World::new().await;
    let own = world.get("services/kubernetes").await.unwrap();
    assert_eq!(own["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(own["spec"]["ports"][0]["targetPort"], 6443);
    let before = world.api.store().revision();
    world.api.bootstrap(world.deadline()).await.unwrap();
    assert_eq!(world.api.store().revision(), before, "a second start changes nothing");
}

#[tokio::test]
async fn no_two_services_ever_have_one_address() {
    let world = World::new().await;
    // 14 addresses, one of them taken: as many Services at once as there are left, and one more.
    let all =
        (0..14).map(|n| world.create("services", service(&format!("s{n}"), "ClusterIP")).boxed());
    let outcomes = futures::future::join_all(all).await;
    let mut addresses: Vec<String> = outcomes
        .iter()
        .flatten()
        .map(|it| it["spec"]["clusterIP"].as_str().unwrap().to_owned())
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 13);
    assert_eq!(outcomes.iter().filter(|it| it.is_err()).count(), 1, "the range is full");
    world.delete("services/s0", json!({})).await.ok();
    world.delete("services/s1", json!({})).await.ok();
    world
        .create("services", service("again", "ClusterIP"))
        .await
        .expect("what was given back is given again");
}

#[tokio::test]
async fn a_wanted_address_is_taken_or_refused_with_the_field() {
    let world = World::new().await;
    let wanting = |name: &str, address: &str| {
        let mut body = service(name, "ClusterIP");
        body["spec"]["clusterIP"] = json!(address);
        world.create("services", body)
    };
    assert_eq!(
        wanting("a", "10.96.0.9").await.unwrap()["spec"]["clusterIPs"],
        json!(["10.96.0.9"])
    );
    let taken = wanting("b", "10.96.0.9").await.unwrap_err();
    assert!(
        taken.code == 422 && taken.message.contains("provided IP is already allocated"),
        "{taken}"
    );
    let outside = wanting("b", "10.1.1.1").await.unwrap_err();
    assert!(outside.code == 422 && outside.message.contains("not in the valid range"), "{outside}");
    let headless = wanting("h", "None").await.unwrap();
    assert_eq!(headless["spec"]["clusterIP"], "None");
}

#[tokio::test]
async fn node_ports_follow_the_type_of_the_service() {
    let world = World::new().await;
    let made = world.create("services", service("a", "NodePort")).await.unwrap();
    let port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=30003).contains(&port));
    let mut wanting = service("b", "NodePort");
    wanting["spec"]["ports"][0]["nodePort"] = json!(port);
    let taken = world.create("services", wanting.clone()).await.unwrap_err();
    assert!(
        taken.message.contains("spec.ports[0].nodePort: Invalid value")
            && taken.message.contains("already allocated"),
        "{taken}"
    );
    world
        .patch("services/a", PatchType::Merge, json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .unwrap();
    assert_eq!(
        world.get("services/a").await.unwrap()["spec"]["ports"][0]["nodePort"],
        port,
        "an update keeps it"
    );
    world
        .patch("services/a", PatchType::Merge, json!({"spec": {"type": "ClusterIP"}}))
        .await
        .unwrap();
    assert!(world.get("services/a").await.unwrap()["spec"]["ports"][0].get("nodePort").is_none());
    world.create("services", wanting).await.expect("the port was given back");
}

#[tokio::test]
async fn the_nameservers_address_is_given_to_nobody_while_others_are_free() {
    let world = World::new().await;
    for n in 0..4 {
        let body =
            json!({"metadata": {"name": format!("s{n}")}, "spec": {"ports": [{"port": 80}]}});
        let made = world.create("services", body).await.unwrap();
        let last: u8 = made["spec"]["clusterIP"].as_str().unwrap()[8..].parse().unwrap();
        assert!(last > 10, "{made:#}");
    }
    let body = json!({"metadata": {"name": "s4"}, "spec": {"ports": [{"port": 80}]}});
    assert!(world.create("services", body).await.is_ok(), "a full range gives what it has");
}
