//! A typed Rust client, kube, against a real kactor: what operators written with it do all day.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kactor_tests::harness::patience::PATIENCE;
use kactor_tests::harness::{Cluster, Runtime};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::time::timeout;

async fn client(cluster: &Cluster) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    Client::try_from(config).unwrap()
}

fn config(name: &str, value: &str) -> ConfigMap {
    let mut it = ConfigMap::default();
    it.metadata.name = Some(name.to_owned());
    it.data = Some(BTreeMap::from([("x".to_owned(), value.to_owned())]));
    it
}

#[tokio::test]
async fn config_maps_are_created_listed_in_pages_patched_replaced_and_deleted() {
    let cluster = Cluster::start(Runtime::None);
    let api: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    for index in 0..5 {
        api.create(&PostParams::default(), &config(&format!("c{index}"), "1")).await.unwrap();
    }
    let exists = api.create(&PostParams::default(), &config("c0", "1")).await.unwrap_err();
    assert!(matches!(exists, kube::Error::Api(ref it) if it.code == 409), "{exists}");
    let mut page = ListParams::default().limit(2);
    let mut names = Vec::new();
    loop {
        let list = api.list(&page).await.unwrap();
        assert!(list.items.len() <= 2);
        names.extend(list.items.into_iter().filter_map(|it| it.metadata.name));
        match list.metadata.continue_.filter(|it| !it.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    names.retain(|it| it.starts_with('c'));
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4"]);
    let merge = Patch::Merge(json!({"data": {"x": "2", "y": "1"}}));
    let patched = api.patch("c0", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(patched.data.as_ref().unwrap()["x"], "2");
    let apply = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c0"}, "data": {"z": "1"}
    }));
    let applied = api.patch("c0", &PatchParams::apply("kube-rs"), &apply).await.unwrap();
    assert_eq!(applied.data.unwrap().len(), 3);
    let stale = api.replace("c0", &PostParams::default(), &patched).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(ref it) if it.reason == "Conflict"), "{stale}");
    api.delete("c0", &DeleteParams::default()).await.unwrap();
    assert_eq!(api.get_opt("c0").await.unwrap(), None);
}

#[tokio::test]
async fn a_watcher_starts_with_what_is_there_and_follows_every_change() {
    let cluster = Cluster::start(Runtime::None);
    let api: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await);
    let mut wanted = config("first", "1");
    wanted.metadata.labels = Some(BTreeMap::from([("watched".to_owned(), "yes".to_owned())]));
    api.create(&PostParams::default(), &wanted).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let labelled = config.labels("watched=yes");
        let mut changes = watcher(api.clone(), labelled).touched_objects().boxed();
        let mut next = async || {
            let change = timeout(PATIENCE, changes.try_next()).await.expect("a change comes");
            let object = change.unwrap().unwrap();
            (object.metadata.name.unwrap(), object.data.unwrap()["x"].clone())
        };
        assert_eq!(next().await, ("first".to_owned(), "1".to_owned()));
        let patch = Patch::Merge(json!({"data": {"x": "2"}}));
        api.patch("first", &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(next().await, ("first".to_owned(), "2".to_owned()));
        api.create(&PostParams::default(), &config_with(&wanted, "second")).await.unwrap();
        assert_eq!(next().await, ("second".to_owned(), "1".to_owned()));
        api.delete("second", &DeleteParams::default()).await.unwrap();
        assert_eq!(next().await.0, "second");
        let back = Patch::Merge(json!({"data": {"x": "1"}}));
        api.patch("first", &PatchParams::default(), &back).await.unwrap();
        assert_eq!(next().await, ("first".to_owned(), "1".to_owned()));
    }
}

fn config_with(like: &ConfigMap, name: &str) -> ConfigMap {
    let mut it = like.clone();
    it.metadata.name = Some(name.to_owned());
    it
}

#[tokio::test]
async fn a_deployment_becomes_available_scales_through_its_subresource_and_goes() {
    let cluster = Cluster::start(Runtime::Hollow);
    let client = client(&cluster).await;
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client);
    let web: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app", "image": "demo:1"}]},
            },
        },
    }))
    .unwrap();
    api.create(&PostParams::default(), &web).await.unwrap();
    available(&api, 2).await;
    let scale = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scaled = api.patch_scale("web", &PatchParams::default(), &scale).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(3));
    available(&api, 3).await;
    let listed = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
    assert_eq!(listed.items.len(), 3);
    api.delete("web", &DeleteParams::foreground()).await.unwrap();
    let gone =
        kube::runtime::wait::await_condition(api.clone(), "web", |it: Option<&Deployment>| {
            it.is_none()
        });
    timeout(PATIENCE, gone).await.expect("a foreground deletion ends").unwrap();
}

async fn available(api: &Api<Deployment>, count: i32) {
    let condition =
        kube::runtime::wait::await_condition(api.clone(), "web", move |it: Option<&Deployment>| {
            it.and_then(|it| it.status.as_ref()?.available_replicas) == Some(count)
        });
    timeout(PATIENCE, condition)
        .await
        .unwrap_or_else(|_| panic!("{count} are not available"))
        .unwrap();
}
