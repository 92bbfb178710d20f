//! Sessions: who gets one, how a node moves to another control host, what the leader hears.

use std::rc::Rc;
use std::time::Duration;

use kactor_protocol::frame::Refusal;
use kactor_protocol::node::{ApiTarget, ApiVerb, CallApi, Heartbeat, OpenSession, SessionRefused};
use kactor_protocol::{ActorAddress, ActorName, Incarnation, Timestamp};
use kactor_runtime::ActorSystem;
use serde_json::Value;

use crate::kit::{self, Cluster, PATIENCE, host, state_of};

async fn session_host(system: &ActorSystem) -> String {
    state_of(system, "uplink").await["session"].as_str().unwrap_or_default().to_owned()
}

fn other(of: &str) -> &'static str {
    if of == "c1" { "c2" } else { "c1" }
}

#[test]
fn a_worker_runs_its_pods_through_a_session_on_a_control_host() {
    kit::run(1, |cluster| async move {
        let controls = [cluster.control("c1", None), cluster.control("c2", Some("c1"))];
        let worker = cluster.ready_worker("w1").await;
        cluster.create_pod("web", "w1").await;
        cluster.until("the pod runs", || cluster.pod_runs("web")).await;
        let mut open = Vec::new();
        for control in &controls {
            let state = state_of(&control.system, "sessions").await;
            open.extend(state["open"].as_array().unwrap().clone());
        }
        assert_eq!(open, [Value::from("w1")], "one session, on one of them");
        cluster.delete("pods", "web").await;
        cluster.until("the pod is gone", || cluster.get("pods", "web").is_none()).await;
        assert_eq!(worker.runs().await, 0);
    });
}

/// Seats the worker, loses its control host, and gives the name of the one that is left.
async fn lose_session_host(cluster: &Rc<Cluster>, worker: &ActorSystem) -> String {
    let first = session_host(worker).await;
    cluster.mesh.lose(&host("w1"), &host(&first));
    other(&first).to_owned()
}

#[test]
fn a_worker_whose_control_host_is_lost_goes_on_with_another_within_a_second_and_misses_nothing() {
    for seed in 1..=5 {
        kit::run(seed, |cluster| async move {
            let _controls = [cluster.control("c1", None), cluster.control("c2", Some("c1"))];
            let worker = cluster.ready_worker("w1").await;
            for name in ["stays", "goes"] {
                cluster.create_pod(name, "w1").await;
                cluster.until("the pod runs", || cluster.pod_runs(name)).await;
            }
            let left = lose_session_host(&cluster, &worker.system).await;
            let lost_at = cluster.world.now();
            cluster.delete("pods", "goes").await;
            cluster.create_pod("comes", "w1").await;
            while session_host(&worker.system).await != left {
                cluster.world.sleep(Duration::from_millis(10)).await;
                assert!(cluster.world.now() - lost_at < Duration::from_secs(1), "seed {seed}");
            }
            cluster.until("the new pod runs", || cluster.pod_runs("comes")).await;
            cluster.until("the old one is gone", || cluster.get("pods", "goes").is_none()).await;
            assert!(cluster.pod_runs("stays"));
            assert_eq!(worker.runs().await, 2);
        });
    }
}

#[test]
fn a_worker_whose_control_host_falls_silent_finds_out_by_asking() {
    kit::run(7, |cluster| async move {
        let _controls = [cluster.control("c1", None), cluster.control("c2", Some("c1"))];
        let worker = cluster.ready_worker("w1").await;
        let first = session_host(&worker.system).await;
        // No link breaks: nobody is told.
        cluster.mesh.cut(&host("w1"), &host(&first));
        cluster.create_pod("web", "w1").await;
        cluster.until("the pod runs", || cluster.pod_runs("web")).await;
        assert_eq!(session_host(&worker.system).await, other(&first));
    });
}

#[test]
fn a_session_that_its_node_left_ends_and_its_feeds_say_nothing_more() {
    kit::run(8, |cluster| async move {
        let controls = [cluster.control("c1", None), cluster.control("c2", Some("c1"))];
        let worker = cluster.ready_worker("w1").await;
        let first = session_host(&worker.system).await;
        cluster.mesh.cut(&host("w1"), &host(&first));
        cluster.create_pod("web", "w1").await;
        cluster.until("the pod runs", || cluster.pod_runs("web")).await;
        cluster.mesh.heal();
        let left = controls.iter().find(|it| it.system.host().as_str() == first).unwrap();
        cluster.world.sleep(Duration::from_secs(30)).await;
        assert_eq!(state_of(&left.system, "sessions").await["open"], serde_json::json!([]));
        assert_eq!(state_of(&left.system, "session/w1").await, Value::Null);
        cluster.delete("pods", "web").await;
        cluster.until("the pod is gone", || cluster.get("pods", "web").is_none()).await;
        assert_eq!(session_host(&worker.system).await, other(&first), "it stays where it is");
    });
}

#[test]
fn a_worker_without_any_control_host_keeps_its_pods_and_comes_back_by_itself() {
    kit::run(9, |cluster| async move {
        let _controls = [cluster.control("c1", None), cluster.control("c2", Some("c1"))];
        let worker = cluster.ready_worker("w1").await;
        cluster.create_pod("stays", "w1").await;
        cluster.until("the pod runs", || cluster.pod_runs("stays")).await;
        for control in ["c1", "c2"] {
            cluster.mesh.lose(&host("w1"), &host(control));
        }
        cluster.create_pod("waits", "w1").await;
        cluster.world.sleep(Duration::from_secs(300)).await;
        assert_eq!(worker.runs().await, 1, "a node ends no pod because nobody speaks to it");
        assert!(!cluster.pod_runs("waits"));
        cluster.mesh.heal();
        cluster.until("the pod that waited runs", || cluster.pod_runs("waits")).await;
        assert_eq!(worker.runs().await, 2);
    });
}

#[test]
fn a_worker_that_starts_again_gets_another_session() {
    kit::run(10, |cluster| async move {
        let _controls = [cluster.control("c1", None), cluster.control("c2", Some("c1"))];
        let first = cluster.ready_worker("w1").await;
        cluster.mesh.detach(&host("w1"));
        first.system.stop_all().await;
        let second = cluster.worker("w1", 2);
        cluster.create_pod("web", "w1").await;
        cluster.until("the pod runs", || cluster.pod_runs("web")).await;
        assert_eq!(second.runs().await, 1);
    });
}

fn get_node(name: &str) -> CallApi {
    let target = ApiTarget {
        group: String::new(),
        version: "v1".to_owned(),
        resource: "nodes".to_owned(),
        subresource: None,
        namespace: None,
        name: Some(name.to_owned()),
    };
    CallApi { verb: ApiVerb::Get, target, options: vec![], body: Default::default() }
}

fn address(host_name: &str, actor: &str) -> ActorAddress {
    let name = ActorName::new(actor).unwrap();
    ActorAddress { host: host(host_name), name, incarnation: Incarnation::default() }
}

#[test]
fn a_host_has_the_session_of_its_own_node_alone() {
    kit::run(11, |cluster| async move {
        let control = cluster.control("c1", None);
        cluster.hosts.send_replace(vec![host("c1")]);
        let _worker = cluster.ready_worker("w1").await;
        let stranger = cluster.ready_worker("w2").await.system;
        let deadline = stranger.deadline(PATIENCE);

        let request = OpenSession { node: "w1".to_owned(), incarnation: Incarnation(9) };
        let sessions = stranger.remote_asks::<OpenSession>(address("c1", "sessions"));
        let refused = sessions.ask(request, deadline).await.unwrap().unwrap_err();
        assert!(matches!(refused, SessionRefused::OtherNode { .. }), "{refused}");

        let session = stranger.remote_asks::<CallApi>(address("c1", "session/w1"));
        let refused = session.ask(get_node("w1"), deadline).await.unwrap_err();
        assert!(matches!(refused, Refusal::NotPermitted { .. }), "{refused}");

        let own = stranger.remote_asks::<CallApi>(address("c1", "session/w2"));
        let reply = own.ask(get_node("w2"), deadline).await.unwrap().unwrap();
        assert_eq!(reply.code, 200);

        let beat = Heartbeat { at: Timestamp(1), sequence: 4711 };
        let before = state_of(&control.system, "session/w1").await["last_heartbeat"].clone();
        stranger.remote_tells::<Heartbeat>(address("c1", "session/w1")).tell(beat).await.unwrap();
        cluster.world.sleep(Duration::from_millis(1)).await;
        let after = state_of(&control.system, "session/w1").await["last_heartbeat"].clone();
        assert_eq!(before, after, "nobody else says that a node lives");
    });
}

#[test]
fn the_leader_hears_of_nodes_whose_session_is_elsewhere_and_no_longer_when_they_are_silent() {
    kit::run(12, |cluster| async move {
        let leader = cluster.control("c1", None);
        let follower = cluster.control("c2", Some("c1"));
        cluster.hosts.send_replace(vec![host("c2")]);
        let worker = cluster.ready_worker("w1").await;
        cluster.until("the leader heard", || leader.pulses.last_heard("w1").is_some()).await;
        let lag = |cluster: &Cluster| {
            let (here, there) = (leader.pulses.last_heard("w1"), follower.pulses.last_heard("w1"));
            let _ = cluster;
            there.unwrap().since(here.unwrap())
        };
        cluster.world.sleep(Duration::from_secs(20)).await;
        assert!(lag(&cluster) <= Duration::from_secs(6), "{:?}", lag(&cluster));
        let lease = kactor_protocol::store::Key::new(
            "coordination.k8s.io",
            "leases",
            "kube-node-lease",
            "w1",
        );
        let lease = lease.unwrap();
        cluster
            .until("the leader made the Lease", || cluster.api.store().get(&lease).is_some())
            .await;

        cluster.mesh.lose(&host("c1"), &host("c2"));
        cluster.world.sleep(Duration::from_secs(20)).await;
        let heard = leader.pulses.last_heard("w1").unwrap();
        cluster.mesh.heal();
        cluster
            .until("what was not told is told later", || {
                leader.pulses.last_heard("w1").unwrap() > heard
            })
            .await;

        cluster.mesh.detach(&host("w1"));
        worker.system.stop_all().await;
        cluster.world.sleep(Duration::from_secs(20)).await;
        let heard = leader.pulses.last_heard("w1");
        cluster.world.sleep(Duration::from_secs(60)).await;
        assert_eq!(leader.pulses.last_heard("w1"), heard, "a silent node is not made younger");
    });
}
