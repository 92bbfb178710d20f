//! The node's agent: registers the node, follows its pods, and keeps one actor per pod.
//!
//! It decides which pods have an actor and nothing else of them. A feed that begins anew names everything that
//! exists; what this node runs beyond that, once the feed is complete, is removed. Until a feed is complete nothing
//! is ended for being absent. Feeds never go back: a position below the one held is refused, and only the control host
//! that the session is with is listened to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kactor_drivers::event::DriverEvent;
use kactor_drivers::spec::SandboxId;
use kactor_protocol::node::{
    ApiReply, ApiTarget, ApiVerb, CallApi, Feed, Follow, Following, Heartbeat, ObjectChange,
    ObjectsChanged,
};
use kactor_runtime::Origin;
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::admission::{Taken, admit, taken};
use crate::feeds::{FeedState, Step};
use crate::machine::Doom;
use crate::node_object::{self, Health, Machine};
use crate::perform::Host;
use crate::pod_actor::{LookAgain, PodActor, PodEnded, PodWanted};
use crate::pod_logs::PodLogs;
use crate::ports::{NetworkFeed, Session, Unanswered};
use crate::spec::{self, Metadata, Pod};

/// How often a node says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// Wait before the control plane is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the node's own status is compared with what the API has (kubelet nodeStatusReportFrequency).
const STATUS_EVERY: Duration = Duration::from_secs(300);
/// Letters that one pod's actor may hold: each kind is coalesced.
const POD_MAILBOX: u32 = 16;

pub struct AgentActor {
    host: Host,
    system: ActorSystem,
    name: String,
    session: Arc<dyn Session>,
    network: Arc<dyn NetworkFeed>,
    machine: Arc<Machine>,
    health: Health,
    /// By uid.
    pods: BTreeMap<String, Running>,
    /// Pods whose name is still taken by one before them, by (namespace, name).
    queued: BTreeMap<(String, String), ObjectChange>,
    /// Every pod of this node as the API last sent it, by uid: what the kubelet's API lists.
    objects: BTreeMap<String, Bytes>,
    feeds: BTreeMap<Feed, FeedState>,
    registered: bool,
    node_status: Value,
    beats: u64,
    own: Option<ActorRef<AgentActor>>,
}

struct Running {
    key: (String, String),
    actor: ActorRef<PodActor>,
    pod: Arc<Pod>,
    status: Value,
}

/// The feeds of a node. Pods first: the others only serve them.
const FEEDS: [Feed; 4] = [Feed::Pods, Feed::Services, Feed::EndpointSlices, Feed::Nodes];

impl AgentActor {
    /// `name` is the actor's own.
    pub fn new(
        host: Host,
        (system, name): (ActorSystem, String),
        session: Arc<dyn Session>,
        network: Arc<dyn NetworkFeed>,
        machine: Arc<Machine>,
    ) -> Self {
        Self {
            host,
            system,
            name,
            session,
            network,
            machine,
            health: Health {
                not_ready: Some("the pod network is not set up yet".to_owned()),
                ..Health::default()
            },
            pods: BTreeMap::new(),
            queued: BTreeMap::new(),
            objects: BTreeMap::new(),
            feeds: BTreeMap::new(),
            registered: false,
            node_status: Value::Null,
            beats: 0,
            own: None,
        }
    }

    fn node_target(&self, subresource: Option<&str>, name: Option<&str>) -> ApiTarget {
        ApiTarget {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "nodes".to_owned(),
            subresource: subresource.map(str::to_owned),
            namespace: None,
            name: name.map(str::to_owned),
        }
    }

    fn call(
        &self,
        verb: ApiVerb,
        target: ApiTarget,
        body: &Value,
    ) -> impl Future<Output = Result<ApiReply, Unanswered>> + use<> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let call = CallApi { verb, target, options: vec![], body: body.into() };
        let control = self.host.control.clone();
        async move { control.call(call).await }
    }

    /// Creates the Node object, or finds it; then its status is sent and the feeds begin.
    fn register(&mut self, ctx: &mut Context<Self>) {
        let name = self.host.config.node_name.clone();
        let object = node_object::node(&name, &self.machine, &self.health, self.host.env.wall());
        let created = self.call(ApiVerb::Create, self.node_target(None, None), &object);
        ctx.spawn(created.into_actor(self).map(|reply, actor, ctx| match reply {
            Ok(reply) if reply.code < 300 || reply.code == 409 => {
                actor.registered = true;
                actor.beat(ctx);
                actor.relabel(ctx);
                actor.follow_all(ctx);
            }
            other => {
                tracing::info!(reply = ?other.map(|it| it.code), "the node could not be registered yet; tried again");
                ctx.run_later(AGAIN, |actor, ctx| actor.register(ctx));
            }
        }));
    }

    fn beat(&mut self, ctx: &mut Context<Self>) {
        self.beats += 1;
        let beat = Heartbeat { at: self.host.env.wall(), sequence: self.beats };
        let session = self.session.clone();
        let sent = async move { session.beat(beat).await };
        ctx.spawn(sent.into_actor(self));
    }

    /// A node that was here before may have another kernel or host name now.
    fn relabel(&mut self, ctx: &mut Context<Self>) {
        let name = self.host.config.node_name.clone();
        let patch = json!({ "metadata": { "labels": node_object::labels(&self.machine) } });
        let patched =
            self.call(ApiVerb::StrategicPatch, self.node_target(None, Some(&name)), &patch);
        ctx.spawn(patched.into_actor(self).map(|_, actor, ctx| actor.publish(ctx)));
    }

    fn publish(&mut self, ctx: &mut Context<Self>) {
        let status = node_object::status(
            &self.machine,
            &self.health,
            &self.node_status,
            self.host.env.wall(),
        );
        // After a restart the node's network is known with its object: to call the node unready for the moment
        // before would take its pods out of their services.
        let knows_itself = self.feeds.get(&Feed::Nodes).is_some_and(|it| it.position().is_some());
        if !self.registered || !knows_itself || status == self.node_status {
            return;
        }
        let name = self.host.config.node_name.clone();
        let target = self.node_target(Some("status"), Some(&name));
        let patched = self.call(ApiVerb::StrategicPatch, target, &json!({ "status": status }));
        ctx.spawn(patched.into_actor(self).map(move |reply, actor, ctx| match reply {
            Ok(reply) if reply.code < 300 => actor.node_status = status,
            Ok(reply) if reply.code == 404 => actor.register(ctx),
            _ => drop(ctx.run_later(AGAIN, |actor, ctx| actor.publish(ctx))),
        }));
    }

    fn follow(&mut self, feed: Feed, ctx: &mut Context<Self>) {
        let now = self.host.env.monotonic();
        let (nth, resume) = self.feeds.entry(feed).or_default().ask(now);
        let session = self.session.clone();
        let asked = async move { session.follow(Follow { feed, resume }).await };
        ctx.spawn(asked.into_actor(self).map(move |answer, _, ctx| {
            if matches!(answer, Ok(Following::Resumed | Following::Anew)) {
                return;
            }
            ctx.run_later(AGAIN, move |actor, ctx| {
                if actor.feeds.get(&feed).is_some_and(|it| it.is_latest(nth)) {
                    actor.follow(feed, ctx);
                }
            });
        }));
    }

    fn follow_all(&mut self, ctx: &mut Context<Self>) {
        for feed in FEEDS {
            self.follow(feed, ctx);
        }
    }

    /// Whoever broke off a feed may not have been able to say so.
    fn follow_silent(&mut self, ctx: &mut Context<Self>) {
        let now = self.host.env.monotonic();
        let silent: Vec<Feed> =
            self.feeds.iter().filter(|(_, it)| it.is_silent(now)).map(|(feed, _)| *feed).collect();
        for feed in silent {
            self.follow(feed, ctx);
        }
    }

    fn pod_changed(&mut self, change: ObjectChange, ctx: &mut Context<Self>) {
        let uid = change.uid.as_str().to_owned();
        let Some(json) = &change.object else {
            self.objects.remove(&uid);
            return self.pod_gone(&change, ctx);
        };
        self.objects.insert(uid.clone(), json.clone());
        let status = status_of(json);
        match spec::parse(json) {
            Ok(pod) => self.pod_wanted(change.clone(), Arc::new(pod), status, ctx),
            Err(why) if !self.pods.contains_key(&uid) => {
                let doom =
                    Doom { reason: "PodFeatureUnsupported".to_owned(), message: why.to_string() };
                self.refuse(&change, &status, &doom, ctx);
            }
            // A running pod whose spec became unreadable goes on as it is.
            Err(why) => self.system.note(key_of(&change), format!("an update is ignored: {why}")),
        }
    }

    fn pod_wanted(
        &mut self,
        change: ObjectChange,
        pod: Arc<Pod>,
        status: Value,
        ctx: &mut Context<Self>,
    ) {
        let uid = pod.metadata.uid.clone();
        if let Some(running) = self.pods.get_mut(&uid) {
            (running.pod, running.status) = (pod.clone(), status.clone());
            running.actor.clone().tell_from(self, ctx, PodWanted { pod, status });
            return;
        }
        let phase = status["phase"].as_str().unwrap_or_default();
        let is_over = phase == "Succeeded" || phase == "Failed";
        if is_over && pod.metadata.deletion_timestamp.is_none() {
            return; // Ended before this agent began, or refused; only its deletion concerns us.
        }
        let key = (change.namespace.clone(), change.name.clone());
        if self.pods.values().any(|it| it.key == key) {
            self.queued.insert(key, change);
            return;
        }
        let started = status["startTime"].is_string();
        let others =
            self.pods.values().map(|it| taken(&it.pod)).fold(Taken::default(), Taken::plus);
        let facts = &self.host.config.facts;
        let allocatable = Taken {
            cpu_milli: facts.allocatable_cpu_milli,
            memory_bytes: facts.allocatable_memory_bytes,
            pods: node_object::PODS_MAX,
        };
        // A pod that was taken once is not refused by a later life of this agent.
        if !started && let Err(doom) = admit(&pod, others, allocatable) {
            return self.refuse(&change, &status, &doom, ctx);
        }
        self.start(key, pod, status);
    }

    fn start(&mut self, key: (String, String), pod: Arc<Pod>, status: Value) {
        let Some(own) = self.own.clone() else { return };
        let uid = pod.metadata.uid.clone();
        let (host, system) = (self.host.clone(), self.system.clone());
        let ended = own.tells::<PodEnded>();
        let wanted = PodWanted { pod: pod.clone(), status: status.clone() };
        let row = Child::new(format!("pod/{}/{}", key.0, key.1), Lane::Node)
            .under(own.address().name.as_str().to_owned())
            .mailbox(POD_MAILBOX)
            .restart(Restart::THEN_GIVE_UP);
        let make =
            move || PodActor::new(host.clone(), system.clone(), ended.clone(), wanted.clone());
        match self.system.start(row, make) {
            Ok(actor) => drop(self.pods.insert(uid, Running { key, actor, pod, status })),
            Err(error) => {
                tracing::error!(%error, "a pod's actor could not be started; tried again with its next change")
            }
        }
    }

    /// The object is gone although this node did not give it up: what runs of it ends at once.
    fn pod_gone(&mut self, change: &ObjectChange, ctx: &mut Context<Self>) {
        let key = (change.namespace.clone(), change.name.clone());
        if self.queued.get(&key).is_some_and(|it| it.uid == change.uid) {
            self.queued.remove(&key);
        }
        if let Some(running) = self.pods.get(change.uid.as_str()) {
            let mut pod = (*running.pod).clone();
            pod.metadata.deletion_timestamp = Some(self.host.env.wall().to_string());
            pod.metadata.deletion_grace_period_seconds = Some(0);
            let letter = PodWanted { pod: Arc::new(pod), status: running.status.clone() };
            running.actor.clone().tell_from(self, ctx, letter);
        } else {
            // A pod that had ended before this agent began has nothing else here.
            let pod = Metadata {
                namespace: change.namespace.clone(),
                name: change.name.clone(),
                uid: change.uid.as_str().to_owned(),
                ..Metadata::default()
            };
            let logs = PodLogs::of(&self.host);
            ctx.spawn(async move { logs.forget(&pod).await }.into_actor(self));
        }
    }

    fn refuse(
        &mut self,
        change: &ObjectChange,
        status: &Value,
        doom: &Doom,
        ctx: &mut Context<Self>,
    ) {
        self.system.note(
            key_of(change),
            format!("refused by the node: {}: {}", doom.reason, doom.message),
        );
        if status["phase"] == "Failed" {
            return;
        }
        let target = ApiTarget {
            resource: "pods".to_owned(),
            namespace: Some(change.namespace.clone()),
            ..self.node_target(Some("status"), Some(&change.name))
        };
        let body = json!({
            "metadata": { "uid": change.uid.as_str() },
            "status": {
                "phase": "Failed", "reason": doom.reason, "message": doom.message,
                "startTime": self.host.env.wall().to_string(),
            },
        });
        let sent = self.call(ApiVerb::StrategicPatch, target, &body);
        let event = self.refusal_event(change, doom);
        let target = ApiTarget {
            resource: "events".to_owned(),
            namespace: Some(change.namespace.clone()),
            ..self.node_target(None, None)
        };
        let told = self.call(ApiVerb::Create, target, &event);
        ctx.spawn(async move { (sent.await, told.await) }.into_actor(self).map(|_, _, _| ()));
    }

    fn refusal_event(&self, change: &ObjectChange, doom: &Doom) -> Value {
        let now = self.host.env.wall().to_string();
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {
                "namespace": change.namespace,
                "name": format!("{}.{:016x}", change.name, self.host.env.random_u64()),
            },
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "namespace": change.namespace,
                "name": change.name, "uid": change.uid.as_str(),
            },
            "reason": doom.reason, "message": doom.message, "type": "Warning", "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": { "component": "kubelet", "host": self.host.config.node_name },
            "reportingComponent": "kubelet", "reportingInstance": self.host.config.node_name,
        })
    }

    /// What the driver runs and no actor has ends: its pod was deleted, or was over, while we were away.
    fn remove_orphans(&mut self, named: BTreeSet<String>, ctx: &mut Context<Self>) {
        self.objects.retain(|uid, _| named.contains(uid));
        for (uid, running) in &self.pods {
            if !named.contains(uid) {
                let change = ObjectChange {
                    namespace: running.key.0.clone(),
                    name: running.key.1.clone(),
                    uid: uid.as_str().into(),
                    revision: Default::default(),
                    object: None,
                };
                ctx.notify_gone(change);
            }
        }
        let host = self.host.clone();
        let live: BTreeSet<String> = self.pods.keys().cloned().collect();
        let logs = PodLogs::of(&host);
        let sweep = async move {
            logs.forget_all_but(live.iter().cloned().chain(named).collect()).await;
            // Of a pod that is over nothing but its logs is kept.
            for sandbox in host.driver.list().await.unwrap_or_default() {
                let uid = sandbox.spec.id.0.clone();
                if !live.contains(&uid)
                    && let Err(why) = remove_everything(&host, &uid).await
                {
                    tracing::warn!(
                        uid,
                        why,
                        "an orphaned pod could not be removed; tried again at the next start"
                    );
                }
            }
        };
        ctx.spawn(sweep.into_actor(self));
    }

    fn object_changed(&mut self, feed: Feed, change: &ObjectChange) {
        let object: Option<Value> =
            change.object.as_ref().and_then(|it| serde_json::from_slice(it).ok());
        let is_own = feed == Feed::Nodes && change.name == self.host.config.node_name;
        if let (true, Some(node)) = (is_own, &object) {
            if let Some(cidr) = node_object::pod_cidr(node) {
                self.health.not_ready = self.network.configure(cidr).err();
            }
            if node_object::is_given_up(node) {
                self.node_status = Value::Null; // Said again at once: this node lives.
            }
        }
        self.network.changed(feed, &change.namespace, &change.name, object.as_ref());
    }
}

/// Wakes the actor with a pod that is gone, from inside its own handler.
trait NotifyGone {
    fn notify_gone(&mut self, change: ObjectChange);
}

impl NotifyGone for Context<AgentActor> {
    fn notify_gone(&mut self, change: ObjectChange) {
        self.run_later(Duration::ZERO, move |actor, ctx| actor.pod_gone(&change, ctx));
    }
}

fn key_of(change: &ObjectChange) -> String {
    format!("//pods/{}/{}", change.namespace, change.name)
}

fn status_of(json: &[u8]) -> Value {
    let mut object: Value = serde_json::from_slice(json).unwrap_or_default();
    object["status"].take()
}

async fn remove_everything(host: &Host, uid: &str) -> Result<(), String> {
    host.plumbing.detach(uid).await.map_err(|it| it.to_string())?;
    host.driver.remove_sandbox(&SandboxId(uid.to_owned())).await.map_err(|it| it.to_string())?;
    host.volumes.unmount(uid).await.map_err(|it| it.to_string())
}

impl Actor for AgentActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.own = self.system.find::<AgentActor>(&self.name);
        self.register(ctx);
        ctx.run_interval(HEARTBEAT_EVERY, |actor, ctx| {
            if actor.registered {
                actor.beat(ctx);
                actor.follow_silent(ctx);
            }
        });
        ctx.run_interval(STATUS_EVERY, |actor, ctx| actor.publish(ctx));
        let mut events = self.host.driver.events();
        let own = self.own.clone();
        let forward = async move {
            while let (Some(event), Some(own)) = (events.next().await, &own) {
                if own.tell(DriverNews(event)).await.is_err() {
                    return;
                }
            }
        };
        ctx.spawn(forward.into_actor(self));
    }
}

/// The driver's event, as a letter.
struct DriverNews(DriverEvent);

impl Letter for DriverNews {
    type Reply = ();
    const NAME: &'static str = "DriverNews";
}

impl Handler<Tell<DriverNews>> for AgentActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<DriverNews>, ctx: &mut Context<Self>) {
        let of = match tell.body.0 {
            DriverEvent::ContainerStarted(id) | DriverEvent::ContainerExited(id) => {
                Some(id.sandbox)
            }
            DriverEvent::SandboxLost(id) => Some(id),
            DriverEvent::Resync => None,
        };
        let wake: Vec<ActorRef<PodActor>> = match of {
            Some(id) => self.pods.get(&id.0).map(|it| it.actor.clone()).into_iter().collect(),
            None => self.pods.values().map(|it| it.actor.clone()).collect(),
        };
        for actor in wake {
            actor.tell_from(self, ctx, LookAgain);
        }
    }
}

impl Handler<Ask<ObjectsChanged>> for AgentActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<ObjectsChanged>, ctx: &mut Context<Self>) {
        let from = match &ask.trail.from {
            Origin::Local(_) => None,
            Origin::Peer { host, .. } => Some(host),
        };
        if from != self.session.host().as_ref() {
            return; // A session that this node left: unanswered, its feed ends.
        }
        let batch = ask.body;
        remark(format!("{:?} {:?}: {} changes", batch.feed, batch.begin, batch.changes.len()));
        self.feed_went_on(batch, ctx);
        ask.reply.reply(());
    }
}

impl AgentActor {
    fn feed_went_on(&mut self, batch: ObjectsChanged, ctx: &mut Context<Self>) {
        let step =
            self.feeds.entry(batch.feed).or_default().take(&batch, self.host.env.monotonic());
        let ObjectsChanged { feed, changes, .. } = batch;
        match &step {
            Step::Refused => {
                tracing::debug!(?feed, "a change older than what this node holds was refused");
                return;
            }
            Step::Stale => {
                tracing::warn!(?feed, "a feed began at a state older than what this node holds");
                return self.follow(feed, ctx);
            }
            Step::Taken { begins: true } if feed != Feed::Pods => self.network.begin(feed),
            _ => {}
        }
        for change in changes {
            match feed {
                Feed::Pods => self.pod_changed(change, ctx),
                other => self.object_changed(other, &change),
            }
        }
        match (feed, step) {
            (Feed::Pods, Step::Complete { named }) => self.remove_orphans(named, ctx),
            (other, Step::Complete { .. }) => self.network.complete(other),
            _ => {}
        }
        self.publish(ctx);
    }
}

impl Handler<Tell<PodEnded>> for AgentActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<PodEnded>, ctx: &mut Context<Self>) {
        let Some(ended) = self.pods.remove(&tell.body.uid) else { return };
        if let Some(change) = self.queued.remove(&ended.key) {
            // The name is free once the old actor has stopped.
            ctx.run_later(Duration::from_millis(20), move |actor, ctx| {
                actor.pod_changed(change, ctx)
            });
        }
    }
}

/// Which pods are this node's, as JSON?
#[derive(Debug, Clone, Copy)]
pub struct ListPods;

impl Letter for ListPods {
    type Reply = Vec<Bytes>;
    const NAME: &'static str = "ListPods";
    const OVERLOAD: Overload = Overload::Shed;
}

impl Handler<Ask<ListPods>> for AgentActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<ListPods>, _: &mut Context<Self>) {
        ask.reply.reply(self.objects.values().cloned().collect());
    }
}

/// The session has another end now (it restarted, or another host has it): every feed is followed again.
#[derive(Debug, Clone, Copy)]
pub struct SessionRenewed;

impl Letter for SessionRenewed {
    type Reply = ();
    const NAME: &'static str = "SessionRenewed";
    const OVERLOAD: Overload = Overload::Coalesce;
}

impl Handler<Tell<SessionRenewed>> for AgentActor {
    type Result = ();

    fn handle(&mut self, _: Tell<SessionRenewed>, ctx: &mut Context<Self>) {
        if self.registered {
            self.beat(ctx);
            self.follow_all(ctx);
        }
    }
}

impl Inspect for AgentActor {
    const KIND: &'static str = "NodeAgent";

    fn state(&self) -> Value {
        let feeds: BTreeMap<String, Value> = self
            .feeds
            .iter()
            .map(|(feed, it)| {
                let state = json!({ "revision": it.position().map(|it| it.revision.0), "complete": it.is_complete() });
                (format!("{feed:?}"), state)
            })
            .collect();
        json!({
            "node": self.host.config.node_name,
            "session": self.session.host().map(|it| it.to_string()),
            "driver": self.host.driver.name(),
            "registered": self.registered,
            "not_ready": self.health.not_ready,
            "pods": self.pods.values().map(|it| format!("{}/{}", it.key.0, it.key.1)).collect::<Vec<_>>(),
            "waiting_for_their_name": self.queued.len(),
            "feeds": feeds,
        })
    }
}
