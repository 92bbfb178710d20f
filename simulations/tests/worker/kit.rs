//! Two control hosts on one store, and workers that pretend to run pods, joined by a `Mesh`.
//!
//! The store is a model log, so what is tested is what nodes and sessions do, not consensus: both control hosts see the
//! same state at once. `Control::leads` says who acts as the leader.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kactor_agent::agent_actor::AgentActor;
use kactor_agent::downward::NodeFacts;
use kactor_agent::hollow::HollowPorts;
use kactor_agent::node_object::Machine;
use kactor_agent::perform::{Host, NodeConfig};
use kactor_agent::ports::{Duplex, KubeletDoor};
use kactor_agent::streams_actor::{self as node_streams, StreamsActor as NodeStreams, Ways};
use kactor_agent::uplink::Uplink;
use kactor_agent::uplink_actor::{self, UplinkActor};
use kactor_api::{
    Api, ApiConfig, Body, Caller, Discard, EncryptionKey, Endpoint, Note, NoteSink, Operation,
    Options, PatchType, Request, Resource, Status, TokenKeys, User,
};
use kactor_drivers::driver::Driver;
use kactor_drivers::hollow::HollowDriver;
use kactor_protocol::insight::{Insight, InsightReply};
use kactor_protocol::message::Role;
use kactor_protocol::node::{
    ObjectsChanged, OpenSession, OpenStream, Pulses as HeardNodes, StreamCredit, StreamData,
    StreamEnded, StreamResize,
};
use kactor_protocol::{ActorName, Deadline, HostId, Incarnation, TraceId};
use kactor_runtime::env::{Env, Lane};
use kactor_runtime::{ActorSystem, Child, Delivery};
use kactor_sessions::lease_actor::LeaseActor;
use kactor_sessions::pulses::Pulses;
use kactor_sessions::pulses_actor::{self, PulsesActor};
use kactor_sessions::sessions_actor::{self, SessionsActor};
use kactor_sessions::streams::{STREAMS_MAILBOX, SessionStreams};
use kactor_sessions::streams_actor::{self as arriving, StreamsActor};
use kactor_simulations::{Mesh, World};
use kactor_store::{LeadershipState, Store};
use kactor_streams::node_streams::{ContainerTarget, LogLines, LogRequest, PodTarget};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Longest wait of a test for what must happen, in the world's time.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

pub struct Cluster {
    pub world: Rc<World>,
    pub mesh: Mesh,
    pub api: Api,
    pub hosts: watch::Sender<Vec<HostId>>,
}

/// A control host.
pub struct Control {
    pub system: ActorSystem,
    pub streams: SessionStreams,
    pub pulses: Pulses,
}

/// A worker host, in one of its lives.
pub struct Worker {
    pub system: ActorSystem,
    pub driver: Arc<HollowDriver>,
}

struct Unheard;

impl NoteSink for Unheard {
    fn note(&self, _: Note) {}
}

/// Nobody asks the kubelet's API here.
struct NoDoor;

impl KubeletDoor for NoDoor {
    fn connect(&self) -> Box<dyn Duplex> {
        Box::new(tokio::io::duplex(1).0)
    }
}

/// Runs a scenario with the control hosts `c1` and `c2`; no worker yet.
pub fn run<F>(seed: u64, scenario: impl FnOnce(Rc<Cluster>) -> F)
where
    F: Future<Output = ()>,
{
    World::run(seed, |world| async move {
        let env = world.host("outside").env().clone();
        let store = Store::in_memory(env.clone());
        let cluster = Rc::new(Cluster {
            mesh: Mesh::new(env.clone()),
            world,
            api: api(&env, &store),
            hosts: watch::Sender::new(vec![host("c1"), host("c2")]),
        });
        let deadline = Deadline::after(env.monotonic(), PATIENCE);
        cluster.api.bootstrap(deadline).await.unwrap();
        cluster.create("serviceaccounts", "", json!({"metadata": {"name": "default"}})).await;
        scenario(cluster).await;
    });
}

fn api(env: &Env, store: &Store) -> Api {
    let config = ApiConfig {
        service_range: "10.96.0.0/28".parse().unwrap(),
        node_ports: 30000..=30003,
        encryption_keys: vec![EncryptionKey { id: 1, secret: [7; 32] }],
        token_keys: vec![TokenKeys::generate().unwrap()],
        issuer: "https://kubernetes.default.svc.cluster.local".into(),
        audiences: vec!["https://kubernetes.default.svc.cluster.local".into()],
        endpoint: Endpoint { address: [192, 0, 2, 1].into(), port: 6443 },
        notes: Arc::new(Unheard),
        audit: Arc::new(Discard),
    };
    Api::new(store.clone(), env.clone(), config).unwrap()
}

impl Cluster {
    fn system(&self, name: &str, life: u64, role: Role) -> ActorSystem {
        let env = self.world.host(name).env().clone();
        let transport = self.mesh.transport(&host(name));
        let system = ActorSystem::with_transport(
            env,
            host(name),
            Incarnation(life),
            Delivery::Moved,
            transport,
        );
        self.mesh.attach(&system, &[role]);
        system
    }

    /// A control host whose store says that `leader` leads, if it does not lead itself.
    pub fn control(&self, name: &str, leader: Option<&str>) -> Control {
        let system = self.system(name, 1, Role::Control);
        let env = system.env().clone();
        let api = api(&env, self.api.store());
        let (streams, pulses) = (SessionStreams::new(system.clone()), Pulses::default());
        let row = Child::new(arriving::NAME, Lane::Control).mailbox(STREAMS_MAILBOX);
        let actor = {
            let streams = streams.clone();
            system.start(row, move || StreamsActor::new(streams.clone())).unwrap()
        };
        actor
            .open_to_tells::<StreamData>()
            .open_to_tells::<StreamCredit>()
            .open_to_tells::<StreamEnded>();
        let row = Child::new(sessions_actor::NAME, Lane::Control);
        let sessions = {
            let (system, api, pulses) = (system.clone(), api.clone(), pulses.clone());
            move || SessionsActor::new(system.clone(), api.clone(), pulses.clone())
        };
        system.start(row, sessions).unwrap().open_to_asks::<OpenSession>();
        // Whether it leads is all that is asked of this one.
        let leadership = Store::in_memory(env);
        let leader = leader.map(host);
        if leader.is_some() {
            leadership.table().set_leadership(LeadershipState::default());
        } else {
            let api = api.clone();
            let pulses = pulses.clone();
            let row = Child::new("node-leases", Lane::Control);
            system.start(row, move || LeaseActor::new(api.clone(), pulses.clone())).unwrap();
        }
        let teller = {
            let (system, pulses) = (system.clone(), pulses.clone());
            move || {
                let leader = leader.clone();
                let leader = Arc::new(move || leader.clone());
                PulsesActor::new(system.clone(), leadership.clone(), leader, pulses.clone())
            }
        };
        let row = Child::new(pulses_actor::NAME, Lane::Control);
        system.start(row, teller).unwrap().open_to_asks::<HeardNodes>();
        Control { system, streams, pulses }
    }

    /// A worker that knows both control hosts; `life` counts its starts.
    pub fn worker(&self, name: &str, life: u64) -> Worker {
        let system = self.system(name, life, Role::Worker);
        let (seat, seats) = watch::channel(None);
        let uplink = {
            let (system, hosts) = (system.clone(), self.hosts.subscribe());
            let row = Child::new(uplink_actor::NAME, Lane::Node);
            let of = system.clone();
            of.start(row, move || {
                UplinkActor::new(system.clone(), Incarnation(life), hosts.clone(), seat.clone())
            })
            .unwrap()
        };
        let session = Arc::new(Uplink::new(system.clone(), seats, uplink.tells()));
        let driver = Arc::new(HollowDriver::new(system.env().clone()));
        let ports = Arc::new(HollowPorts::new(driver.clone()));
        let node = Host {
            env: system.env().clone(),
            driver: driver.clone(),
            control: session.clone(),
            plumbing: ports.clone(),
            volumes: ports.clone(),
            config: Arc::new(config(name)),
            services: ports.clone(),
            prober: ports.clone(),
            tokens: Arc::default(),
            probe_counts: Arc::default(),
        };
        let ways = Ways { system: system.clone(), local: None };
        let row = Child::new(node_streams::NAME, Lane::Node).mailbox(node_streams::STREAMS_MAILBOX);
        let streams = {
            let (node, ports) = (node.clone(), ports.clone());
            system.start(row, move || {
                NodeStreams::new(node.clone(), ports.clone(), Arc::new(NoDoor), ways.clone())
            })
        };
        streams
            .unwrap()
            .open_to_asks::<OpenStream>()
            .open_to_tells::<StreamData>()
            .open_to_tells::<StreamCredit>()
            .open_to_tells::<StreamResize>()
            .open_to_tells::<StreamEnded>();
        let agent = {
            let of = system.clone();
            let machine = Arc::new(machine(name));
            system.start(Child::new("agent", Lane::Node).mailbox(1024), move || {
                let named = (of.clone(), "agent".to_owned());
                AgentActor::new(
                    node.clone(),
                    named,
                    session.clone(),
                    ports.clone(),
                    machine.clone(),
                )
            })
        };
        agent.unwrap().open_to_asks::<ObjectsChanged>();
        Worker { system, driver }
    }

    /// A worker whose node is Ready, with addresses for its pods.
    pub async fn ready_worker(self: &Rc<Self>, name: &str) -> Worker {
        let worker = self.worker(name, 1);
        self.until("the node is registered", || self.get("nodes", name).is_some()).await;
        let cidr = json!({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}});
        self.patch("nodes", name, cidr).await;
        self.until("the node is Ready", || self.node_is_ready(name)).await;
        worker
    }

    fn node_is_ready(&self, name: &str) -> bool {
        let node = self.get("nodes", name).unwrap_or_default();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
    }

    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = self.world.now();
        while !holds() {
            assert!(self.world.now() - begun < PATIENCE, "waited in vain: {what}");
            self.world.sleep(Duration::from_millis(10)).await;
        }
    }

    fn request(&self, operation: Operation, resource: Resource, body: Option<Value>) -> Request {
        Request {
            caller: Caller::internal(User::api(), "test", TraceId(7)),
            resource,
            operation,
            options: Options::default(),
            body: body.map(Body::Tree),
            deadline: Deadline::after(self.api.env().monotonic(), PATIENCE),
        }
    }

    async fn ask(&self, request: Request) -> Result<Value, Status> {
        self.api.handle(request).await.map(|it| it.object.to_tree())
    }

    pub async fn create(&self, resource: &str, name: &str, body: Value) {
        let resource = in_namespace(resource, name);
        self.ask(self.request(Operation::Create, resource, Some(body))).await.unwrap();
    }

    async fn patch(&self, resource: &str, name: &str, body: Value) {
        let operation = Operation::Patch(PatchType::Merge);
        let request = self.request(operation, in_namespace(resource, name), Some(body));
        self.ask(request).await.unwrap();
    }

    pub async fn delete(&self, resource: &str, name: &str) {
        let request = self.request(Operation::Delete, in_namespace(resource, name), None);
        self.ask(request).await.unwrap();
    }

    /// The stored object.
    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        let namespace = if resource == "nodes" { "" } else { "default" };
        let key = kactor_protocol::store::Key::new("", resource, namespace, name).unwrap();
        let stored = self.api.store().get(&key)?;
        serde_json::from_slice(&stored.value.body).ok()
    }

    pub async fn create_pod(&self, name: &str, node: &str) {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": node, "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "a", "image": "busybox"}],
            },
        });
        self.create("pods", "", pod).await;
    }

    pub fn pod_runs(&self, name: &str) -> bool {
        self.get("pods", name).is_some_and(|it| it["status"]["phase"] == "Running")
    }
}

fn in_namespace(resource: &str, name: &str) -> Resource {
    let resource = match resource {
        "nodes" => Resource::new("", "v1", "nodes"),
        other => Resource::new("", "v1", other).in_namespace("default"),
    };
    if name.is_empty() { resource } else { resource.named(name) }
}

fn config(name: &str) -> NodeConfig {
    NodeConfig {
        node_name: name.to_owned(),
        domain: "cluster.local".to_owned(),
        pod_logs: "/var/log/pods".into(),
        host_resolver: Default::default(),
        facts: NodeFacts {
            node_name: name.to_owned(),
            allocatable_cpu_milli: 4000,
            allocatable_memory_bytes: 4 << 30,
            ..NodeFacts::default()
        },
        memory_bytes: 4 << 30,
    }
}

fn machine(name: &str) -> Machine {
    let text = str::to_owned;
    Machine {
        hostname: text(name),
        addresses: vec![text("192.0.2.9")],
        cpus: 4,
        memory_bytes: 4 << 30,
        disk_bytes: 64 << 30,
        machine_id: text("m"),
        boot_id: text("b"),
        kernel_version: text("6.0"),
        os_image: text("Simulated"),
        architecture: text("amd64"),
        runtime_version: text("hollow://0"),
        kubelet_version: text("v1.33.0"),
        kubelet_port: 10250,
    }
}

impl Worker {
    pub async fn runs(&self) -> usize {
        self.driver.list().await.unwrap().len()
    }
}

/// What an actor says of itself; `Null` when it does not run.
pub async fn state_of(system: &ActorSystem, actor: &str) -> Value {
    let actor = ActorName::new(actor).unwrap();
    match system.insight(Insight::Inspect { actor }).await {
        InsightReply::Inspect { report } => {
            report.state.map_or(Value::Null, |it| serde_json::from_str(&it).unwrap())
        }
        _ => Value::Null,
    }
}

pub fn logs_of(node: &str, pod: &str, follow: bool) -> LogRequest {
    let pod = PodTarget {
        node: node.to_owned(),
        namespace: "default".to_owned(),
        pod: pod.to_owned(),
        uid: String::new(),
    };
    LogRequest {
        target: ContainerTarget { pod, container: "a".to_owned() },
        follow,
        previous: false,
        timestamps: false,
        since_ms: None,
        tail_lines: None,
        limit_bytes: None,
        lines: LogLines::default(),
    }
}
