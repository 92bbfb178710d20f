//! The controllers over the real API and a store in memory: every request passes RBAC, validation and the log.
//!
//! Tests wait for what they expect and assert no time. Nobody runs Pods here; where a test needs a ready Pod it plays
//! the node's part.

#![expect(clippy::unwrap_used, reason = "a test world that cannot be built is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use kactor_api::{
    Api, ApiConfig, Body, Caller, Discard, EncryptionKey, Endpoint, Operation, Options, PatchType,
    Request, Resource, Status, TokenKeys, User,
};
use kactor_controllers::cluster_dns::{ClusterDns, Served};
use kactor_controllers::controller::{Controller, Pass};
use kactor_controllers::plan::Plan;
use kactor_controllers::start::{self, ControllersConfig, Host};
use kactor_protocol::insight::{Insight, InsightReply};
use kactor_protocol::store::Key;
use kactor_protocol::{ActorName, Deadline, HostId, Incarnation, TraceId};
use kactor_runtime::env::Machine;
use kactor_runtime::{ActorSystem, Delivery};
use kactor_store::{LeadershipState, ModelLog, Store};
use kactor_view::feed::SharedView;
use kactor_view::{Changed, ClusterView};
use serde_json::{Value, json};

/// Longer than any test needs; a test that meets it failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    system: ActorSystem,
    api: Api,
    view: SharedView,
    log: Arc<ModelLog>,
}

fn block_on<F: Future>(test: impl FnOnce(World) -> F) -> F::Output {
    let machine = Machine::start();
    let env = machine.env().clone();
    let config = ApiConfig {
        service_range: "10.96.0.0/24".parse().unwrap(),
        node_ports: 30000..=30100,
        encryption_keys: vec![EncryptionKey::generate(&env, 1)],
        token_keys: vec![TokenKeys::generate().unwrap()],
        issuer: "https://kubernetes.default.svc.cluster.local".into(),
        audiences: vec!["https://kubernetes.default.svc.cluster.local".into()],
        endpoint: Endpoint { address: [192, 0, 2, 1].into(), port: 6443 },
        notes: Arc::new(Discard),
        audit: Arc::new(Discard),
    };
    let host = HostId::new("n1").unwrap();
    let system = ActorSystem::new(env.clone(), host, Incarnation(1), Delivery::Encoded);
    let log = Arc::new(ModelLog::new(env.clone()));
    let store = Store::new(env.clone(), log.table().clone(), log.clone());
    let api = Api::new(store, env, config).unwrap();
    machine
        .block_on(async move {
            let deadline = Deadline::after(api.env().monotonic(), PATIENCE);
            api.bootstrap(deadline).await.unwrap();
            let view = start::start_view(&system, &api);
            test(World { system, api, view, log }).await
        })
        .unwrap()
}

impl World {
    fn start_all(&self) {
        let config = ControllersConfig {
            pod_cidr: kactor_controllers::node_ipam::CidrRange::parse("10.244.0.0/16"),
            node_prefix: 24,
            root_ca: "PEM".into(),
            liveness: None,
            cluster_dns: Some(ClusterDns {
                address: [10, 96, 0, 10].into(),
                served: Served::ByNodes,
            }),
            before_pass: None,
        };
        start::start_all(&self.system, &self.api, &self.view, &config).unwrap();
    }

    async fn ask(
        &self,
        operation: Operation,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Status> {
        let request = Request {
            caller: Caller::internal(User::api(), "test/1.0", TraceId(7)),
            resource: resource(path),
            operation,
            options: Options::default(),
            body: body.map(Body::Tree),
            deadline: Deadline::after(self.api.env().monotonic(), PATIENCE),
        };
        self.api.handle(request).await.map(|it| it.object.to_tree())
    }

    async fn create(&self, path: &str, body: Value) {
        self.ask(Operation::Create, path, Some(body)).await.unwrap();
    }

    /// Waits until what is read satisfies the condition.
    async fn until(&self, path: &str, holds: impl Fn(&Result<Value, Status>) -> bool) -> Value {
        let give_up = self.api.env().monotonic() + PATIENCE;
        loop {
            let name = path.split('/').nth(2);
            let operation = if name.is_some() { Operation::Get } else { Operation::List };
            let read = self.ask(operation, path, None).await;
            if holds(&read) {
                return read.unwrap_or_default();
            }
            if self.api.env().monotonic() > give_up {
                let notes = self.state("controller/deployment").await;
                panic!("{path} stays {read:#?}\n{notes:#}");
            }
            self.api.env().sleep(Duration::from_millis(5)).await;
        }
    }

    async fn state(&self, actor: &str) -> Value {
        let actor = ActorName::new(actor).unwrap();
        match self.system.insight(Insight::Inspect { actor }).await {
            InsightReply::Inspect { report } => {
                let state = report.state.map(|it| serde_json::from_str(&it).unwrap());
                state.unwrap_or_default()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Plays the node's part: the Pod runs and is ready.
    async fn make_ready(&self, name: &str) {
        let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.9",
            "podIPs": [{"ip": "10.244.0.9"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let path = format!("pods/default/{name}/status");
        self.ask(Operation::Patch(PatchType::Merge), &path, Some(status)).await.unwrap();
    }
}

/// `pods/default`, `pods/default/web`, `pods/default/web/status`, `nodes//a`
fn resource(path: &str) -> Resource {
    let mut parts = path.split('/');
    let name = parts.next().unwrap();
    let group = match name {
        "deployments" | "replicasets" => "apps",
        "endpointslices" => "discovery.k8s.io",
        _ => "",
    };
    let mut resource = Resource::new(group, "v1", name);
    resource.namespace = parts.next().filter(|it| !it.is_empty()).map(str::to_owned);
    resource.name = parts.next().map(str::to_owned);
    resource.subresource = parts.next().map(str::to_owned);
    resource
}

fn items(read: &Result<Value, Status>) -> Vec<Value> {
    let list = read.as_ref().map(|it| it["items"].clone()).unwrap_or_default();
    list.as_array().cloned().unwrap_or_default()
}

fn deployment(replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    })
}

#[test]
fn a_deployment_becomes_pods_endpoints_and_a_status() {
    block_on(async |world| {
        world.start_all();
        world.until("serviceaccounts/default/default", Result::is_ok).await;
        world.until("configmaps/default/kube-root-ca.crt", Result::is_ok).await;
        world.create("deployments/default", deployment(3, "v1")).await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        world.create("services/default", service).await;
        let pods = world.until("pods/default", |it| items(it).len() == 3).await;
        for pod in pods["items"].as_array().unwrap() {
            world.make_ready(pod["metadata"]["name"].as_str().unwrap()).await;
        }
        let done = world
            .until("deployments/default/web", |it| {
                it.as_ref().is_ok_and(|it| it["status"]["availableReplicas"] == 3)
            })
            .await;
        // Annotations count too: the revision that the controller wrote made a second generation.
        assert_eq!(done["status"]["observedGeneration"], done["metadata"]["generation"]);
        assert_eq!(done["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
        world
            .until("endpointslices/default", |it| {
                items(it)
                    .iter()
                    .any(|it| it["endpoints"].as_array().is_some_and(|it| it.len() == 3))
            })
            .await;
        world
            .until("endpoints/default/web", |it| {
                it.as_ref().is_ok_and(|it| {
                    it["subsets"][0]["addresses"].as_array().is_some_and(|it| it.len() == 3)
                })
            })
            .await;
        world
            .until("events/default", |it| {
                items(it).iter().any(|it| {
                    it["reason"] == "SuccessfulCreate"
                        && it["involvedObject"]["kind"] == "ReplicaSet"
                })
            })
            .await;
    });
}

#[test]
fn what_a_deployment_made_goes_with_it_and_so_does_a_namespace() {
    block_on(async |world| {
        world.start_all();
        world.until("serviceaccounts/default/default", Result::is_ok).await;
        world.create("deployments/default", deployment(2, "v1")).await;
        world.until("pods/default", |it| items(it).len() == 2).await;
        world.ask(Operation::Delete, "deployments/default/web", None).await.unwrap();
        world.until("replicasets/default", |it| items(it).is_empty()).await;
        world.until("pods/default", |it| items(it).is_empty()).await;

        world.create("namespaces", json!({"metadata": {"name": "shop"}})).await;
        world.until("serviceaccounts/shop/default", Result::is_ok).await;
        world
            .create("secrets/shop", json!({"metadata": {"name": "s"}, "data": {"a": "Yg=="}}))
            .await;
        world.ask(Operation::Delete, "namespaces//shop", None).await.unwrap();
        world.until("namespaces//shop", |it| it.as_ref().is_err_and(|it| it.code == 404)).await;
    });
}

#[test]
fn cluster_dns_is_made_under_its_own_account_and_made_again() {
    block_on(async |world| {
        world.start_all();
        let stands = |it: &Result<Value, Status>| {
            it.as_ref().is_ok_and(|it| it["spec"]["clusterIP"] == "10.96.0.10")
        };
        let path = "services/kube-system/kube-dns";
        let uid = world.until(path, stands).await["metadata"]["uid"].clone();
        let slice = "endpointslices/kube-system/kube-dns";
        world.until(slice, Result::is_ok).await;
        world.until("endpoints/kube-system/kube-dns", Result::is_ok).await;
        world.ask(Operation::Delete, path, None).await.unwrap();
        let is_new = |it: &Result<Value, Status>| {
            stands(it) && it.as_ref().is_ok_and(|it| it["metadata"]["uid"] != uid)
        };
        world.until(path, is_new).await;
        world.ask(Operation::Delete, slice, None).await.unwrap();
        let slice = world.until(slice, Result::is_ok).await;
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.96.0.10"]));
    });
}

#[test]
fn controllers_pause_while_leadership_is_withdrawn_and_go_on_with_the_same_reign() {
    block_on(async |world| {
        world.start_all();
        world.until("serviceaccounts/default/default", Result::is_ok).await;
        let ours = world.api.store().leadership().current();
        let name = "controller/deployment";
        let reign = |state: &Value| state["reign"].clone();
        let of = async |wanted: Value| {
            while reign(&world.state(name).await) != wanted {
                world.api.env().sleep(Duration::from_millis(5)).await;
            }
        };
        // As when no quorum answered this leader for an election timeout.
        world.log.table().set_leadership(LeadershipState { ours: None, ..ours });
        of(Value::Null).await;
        let before = world.state(name).await["passes"].clone();
        world.create("deployments/default", deployment(1, "v1")).await;
        world.view.reached(world.api.store().revision()).await;
        assert_eq!(
            world.state(name).await["passes"],
            before,
            "a paused controller decides nothing"
        );
        assert!(
            world
                .ask(Operation::List, "replicasets/default", None)
                .await
                .is_ok_and(|it| it["items"] == json!([]))
        );
        world.log.table().set_leadership(ours);
        of(json!(ours.ours.unwrap().0)).await;
        world.until("pods/default", |it| items(it).len() == 1).await;
    });
}

#[test]
fn a_node_gets_its_range_of_addresses() {
    block_on(async |world| {
        world.start_all();
        world.create("nodes", json!({"metadata": {"name": "a"}})).await;
        world
            .until("nodes//a", |it| {
                it.as_ref().is_ok_and(|it| it["spec"]["podCIDR"] == "10.244.0.0/24")
            })
            .await;
    });
}

/// Gives each ConfigMap that has a label `wanted` an annotation; panics over the one named `bad`.
struct Touchy;

impl Controller for Touchy {
    const NAME: &'static str = "generic-garbage-collector"; // an account that may patch

    type Memory = ();

    fn wakes(&self, changed: &Changed, _: &ClusterView) -> Vec<Key> {
        let is_one = changed.key.resource() == "configmaps";
        if is_one { vec![changed.key.clone()] } else { Vec::new() }
    }

    fn reconcile(&self, pass: &Pass<'_>, (): &mut ()) -> Plan {
        let mut plan = Plan::new();
        let Some(map) = pass.view.config_maps().get(pass.key) else { return plan };
        assert!(map.meta.name() != "bad" || map.meta.labels.contains_key("cured"), "injected");
        if map.meta.annotation("seen").is_none() {
            plan.patch(&map.meta, json!({"metadata": {"annotations": {"seen": "yes"}}}));
        }
        plan
    }
}

#[test]
fn a_panic_costs_its_key_a_retry_and_others_nothing() {
    block_on(async |world| {
        let host = Host::new(&world.system, &world.api, &world.view, None);
        start::start(&host, "controller/touchy", Touchy).unwrap();
        for name in ["bad", "good"] {
            world.create("configmaps/default", json!({"metadata": {"name": name}})).await;
        }
        let is_seen = |it: &Result<Value, Status>| {
            it.as_ref().is_ok_and(|it| it["metadata"]["annotations"]["seen"] == "yes")
        };
        world.until("configmaps/default/good", is_seen).await;
        loop {
            let state = world.state("controller/touchy").await;
            if state["panics"].as_u64().is_some_and(|it| it > 1) {
                assert!(state["lastPanic"].as_str().unwrap().contains("injected"), "{state}");
                break;
            }
            world.api.env().sleep(Duration::from_millis(5)).await;
        }
        let cure = json!({"metadata": {"labels": {"cured": "yes"}}});
        let merge = Operation::Patch(PatchType::Merge);
        world.ask(merge, "configmaps/default/bad", Some(cure)).await.unwrap();
        world.until("configmaps/default/bad", is_seen).await;
    });
}
