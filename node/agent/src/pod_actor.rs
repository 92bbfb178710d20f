//! One pod's actor: it keeps the picture, asks `machine` what to do, has it performed, and tells the API.
//!
//! Everything that happens — a new spec, an action's end, the driver's hint, a probe, a timer — leads to one step:
//! look at the driver, take the ended actions in, decide. An ended action frees its subject only together with a
//! look that began after it, so nothing is begun twice. A new life of this actor starts from the driver's picture.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kactor_drivers::error::DriverError;
use kactor_drivers::spec::{ContainerId, SandboxId};
use kactor_drivers::status::SandboxStatus;
use kactor_protocol::node::{ApiTarget, ApiVerb, CallApi};
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::effect::{Effect, apply};
use crate::event::{EventLog, Send as SendEvent};
use crate::machine::{Action, Doom, Ended, Observed, Run, Sandbox, is_past_deadline, next};
use crate::observe::{self, TERMINATION_MESSAGE_BYTES_MAX};
use crate::perform::{Happened, Host, Task, mount_all, perform, plumb, termination_file};
use crate::pod_logs::PodLogs;
use crate::probes::{ProbeChange, ProbeKind, ProbeOutcome, Probes};
use crate::spec::Pod;
use crate::status::{HostFacts, status};

/// How often projected volumes are compared with their objects (kubelet syncFrequency).
const VOLUMES_AGAIN: Duration = Duration::from_secs(60);
/// Wait before a status that the API did not take is sent again.
const STATUS_AGAIN: Duration = Duration::from_secs(2);
/// A driver that does not answer is asked again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the API wants of this pod now. Of several that wait, the newest counts.
#[derive(Debug, Clone)]
pub struct PodWanted {
    pub pod: Arc<Pod>,
    /// The object's present `status`.
    pub status: Value,
}

impl Letter for PodWanted {
    type Reply = ();
    const NAME: &'static str = "PodWanted";
    const OVERLOAD: Overload = Overload::Coalesce;
}

/// The driver has news of this pod.
#[derive(Debug, Clone, Copy)]
pub struct LookAgain;

impl Letter for LookAgain {
    type Reply = ();
    const NAME: &'static str = "LookAgain";
    const OVERLOAD: Overload = Overload::Coalesce;
}

/// Nothing of the pod is left on this node, and the API knows.
#[derive(Debug, Clone)]
pub struct PodEnded {
    pub uid: String,
}

impl Letter for PodEnded {
    type Reply = ();
    const NAME: &'static str = "PodEnded";
}

pub struct PodActor {
    host: Host,
    system: ActorSystem,
    agent: Recipient<PodEnded>,
    wanted: Option<PodWanted>,
    seen: Observed,
    /// By container: the run that the probes belong to, and their state.
    probes: BTreeMap<String, (ContainerId, Probes)>,
    /// Ended actions that wait for a look.
    ended: Vec<Effect>,
    look: Look,
    timer: Option<SpawnHandle>,
    /// The status that the API has, as far as this actor knows.
    published: Value,
    publishing: bool,
    events: EventLog,
    sandbox: Option<SandboxStatus>,
}

/// At most one look at the driver is under way; one more may be asked for meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Idle,
    UnderWay,
    WantedAgain,
}

impl PodActor {
    pub fn new(
        host: Host,
        system: ActorSystem,
        agent: Recipient<PodEnded>,
        wanted: PodWanted,
    ) -> Self {
        Self {
            host,
            system,
            agent,
            published: wanted.status.clone(),
            wanted: Some(wanted),
            seen: Observed::default(),
            probes: BTreeMap::new(),
            ended: Vec::new(),
            look: Look::Idle,
            timer: None,
            publishing: false,
            events: EventLog::default(),
            sandbox: None,
        }
    }

    fn pod(&self) -> Option<Arc<Pod>> {
        self.wanted.as_ref().map(|it| it.pod.clone())
    }

    /// Looks at the driver; the rest of the step follows when it has answered.
    fn step(&mut self, ctx: &mut Context<Self>) {
        if self.look != Look::Idle {
            self.look = Look::WantedAgain;
            return;
        }
        let Some(pod) = self.pod() else { return };
        self.look = Look::UnderWay;
        let ended = std::mem::take(&mut self.ended);
        let (host, seen) = (self.host.clone(), self.seen.clone());
        let look = async move { look_at(&host, &pod, &seen).await };
        ctx.spawn(
            look.into_actor(self).map(move |seen, actor, ctx| actor.looked(ended, seen, ctx)),
        );
    }

    fn looked(
        &mut self,
        ended: Vec<Effect>,
        looked: Result<Looked, DriverError>,
        ctx: &mut Context<Self>,
    ) {
        let again = std::mem::replace(&mut self.look, Look::Idle) == Look::WantedAgain;
        let Some(pod) = self.pod() else { return };
        match looked {
            Ok(it) => {
                let now = self.host.env.wall();
                observe::merge(&pod, &mut self.seen, it.sandbox.as_ref());
                for effect in &ended {
                    apply(&mut self.seen, effect, now);
                    if *effect == Effect::ObjectGivenUp {
                        return self.finish(&pod, ctx);
                    }
                }
                self.take_in(it);
                self.follow_runs(&pod);
                self.decide(&pod, ctx);
            }
            Err(error) => {
                tracing::warn!(pod = pod.metadata.name, %error, "the driver does not answer; asked again");
                self.ended.extend(ended);
                ctx.run_later(LOOK_AGAIN, |actor, ctx| actor.step(ctx));
            }
        }
        if again {
            self.step(ctx);
        }
    }

    fn take_in(&mut self, looked: Looked) {
        if let (Some(found), Sandbox::Ready { addresses, .. }) =
            (looked.addresses, &mut self.seen.sandbox)
        {
            *addresses = found;
        }
        for (name, message) in looked.last_words {
            if let Some(Run::Ended(end)) = self.seen.containers.get_mut(&name).map(|it| &mut it.run)
            {
                end.message = message;
            }
        }
        self.sandbox = looked.sandbox;
    }

    /// Nothing is left to do, here or in the API.
    fn finish(&mut self, pod: &Pod, ctx: &mut Context<Self>) {
        let uid = pod.metadata.uid.clone();
        self.host.tokens.forget(&uid);
        self.wanted = None;
        let told = self.agent.tell(PodEnded { uid });
        ctx.spawn(told.into_actor(self).map(|_, _, ctx: &mut Context<Self>| ctx.stop()));
    }

    fn decide(&mut self, pod: &Arc<Pod>, ctx: &mut Context<Self>) {
        let now = self.host.env.wall();
        if self.seen.doomed.is_none() && is_past_deadline(pod, &self.seen, now) {
            let message =
                "Pod was active on the node longer than the specified deadline".to_owned();
            self.seen.doomed = Some(Doom { reason: "DeadlineExceeded".to_owned(), message });
        }
        let next = next(pod, &self.seen, now);
        for action in next.actions {
            self.begin(pod, action, ctx);
        }
        self.probe(pod, ctx);
        let look_again = next.look_again.map(|it| it.since(now).max(Duration::from_millis(1)));
        let due = self.probes.values().filter_map(|(_, it)| it.next_due()).min();
        let due = due
            .map(|it| it.saturating_sub(self.host.env.monotonic()).max(Duration::from_millis(1)));
        self.arm([look_again, due].into_iter().flatten().min(), ctx);
        self.publish(ctx);
    }

    fn arm(&mut self, after: Option<Duration>, ctx: &mut Context<Self>) {
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        self.timer = after.map(|it| ctx.run_later(it, |actor, ctx| actor.step(ctx)));
    }

    fn begin(&mut self, pod: &Arc<Pod>, action: Action, ctx: &mut Context<Self>) {
        self.seen.busy.insert(action.subject());
        self.note(pod, &format!("begins: {action}"));
        let task = Task { pod: pod.clone(), seen: self.seen.clone(), action };
        let host = self.host.clone();
        let work = async move { perform(&host, &task).await };
        ctx.spawn(work.into_actor(self).map(|(effect, told), actor, ctx| {
            if let Some(pod) = actor.pod() {
                for it in told {
                    actor.tell_people(&pod, it, ctx);
                }
                actor.note_effect(&pod, &effect);
            }
            actor.ended.push(effect);
            actor.step(ctx);
        }));
    }

    fn note(&self, pod: &Pod, text: &str) {
        let meta = &pod.metadata;
        self.system.note(format!("//pods/{}/{}", meta.namespace, meta.name), text);
    }

    fn note_effect(&self, pod: &Pod, effect: &Effect) {
        match effect {
            Effect::VolumesFailed { message }
            | Effect::SandboxFailed { message }
            | Effect::ImageFailed { message, .. }
            | Effect::ContainerRefused { message, .. }
            | Effect::ContainerStuck { message, .. }
            | Effect::ObjectKept { message } => self.note(pod, &format!("failed: {message}")),
            other => self.note(pod, &format!("done: {other}")),
        }
    }

    fn tell_people(&mut self, pod: &Pod, it: Happened, ctx: &mut Context<Self>) {
        let env = &self.host.env;
        let said =
            self.events.say(pod, &self.host.config.node_name, &it, env.wall(), env.random_u64());
        let target = |name: Option<String>| ApiTarget {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "events".to_owned(),
            subresource: None,
            namespace: Some(pod.metadata.namespace.clone()),
            name,
        };
        let (verb, target, body) = match said {
            SendEvent::Create(body) => (ApiVerb::Create, target(None), body),
            SendEvent::Patch(name, body) => (ApiVerb::MergePatch, target(Some(name)), body),
            SendEvent::Nothing => return,
        };
        let call = CallApi { verb, target, options: vec![], body: body.to_string().into() };
        let control = self.host.control.clone();
        // An Event that is lost is lost: it is a sentence for people, the status holds the facts.
        let sent = async move { control.call(call).await };
        ctx.spawn(sent.into_actor(self).map(|_, _, _| ()));
    }

    /// Gives each running container its probes: new ones for a new run, those of the status for one that an earlier
    /// life of this agent has probed.
    fn follow_runs(&mut self, pod: &Pod) {
        let Some(sandbox) = &self.sandbox else { return self.probes.clear() };
        let (now, wall) = (self.host.env.monotonic(), self.host.env.wall());
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            let name = &container.name;
            let state = self.seen.containers.get_mut(name);
            let id = observe::current(sandbox, name);
            let (Some(state), Some(id)) = (state, id) else {
                self.probes.remove(name);
                continue;
            };
            let Run::Running { id: external, started } = &state.run else {
                self.probes.remove(name);
                continue;
            };
            if self.probes.get(name).is_some_and(|(of, _)| *of == id) {
                continue;
            }
            let mut probes = Probes::new(container, now, wall.since(*started));
            if let Some(earlier) = reported(&self.published, name, external) {
                let is = |key: &str| earlier[key] == true;
                probes.resume(is("ready"), is("started"));
            }
            (state.ready, state.startup_passed) = (probes.is_ready(), probes.startup_passed);
            self.probes.insert(name.clone(), (id, probes));
        }
    }

    /// Runs the probes that are due.
    fn probe(&mut self, pod: &Arc<Pod>, ctx: &mut Context<Self>) {
        let now = self.host.env.monotonic();
        let address = match &self.seen.sandbox {
            Sandbox::Ready { addresses, .. } if !pod.spec.host_network => {
                addresses.first().cloned()
            }
            _ => self.host.config.facts.host_addresses.first().cloned(),
        };
        let mut due = Vec::new();
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            let Some((id, probes)) = self.probes.get_mut(&container.name) else { continue };
            for kind in probes.take_due(container, now) {
                due.push((container.clone(), id.clone(), kind));
            }
        }
        for (container, id, kind) in due {
            let (host, address) = (self.host.clone(), address.clone());
            let name = container.name.clone();
            let of = id.clone();
            let run = async move {
                match kind.of(&container) {
                    Some(probe) => {
                        let outcome =
                            host.prober.probe(&id, &container, probe, address.as_deref()).await;
                        host.probe_counts.count(&id, kind, &outcome);
                        outcome
                    }
                    None => ProbeOutcome::Success,
                }
            };
            ctx.spawn(run.into_actor(self).map(move |outcome, actor, ctx| {
                actor.probed((&name, &of), kind, &outcome, ctx);
            }));
        }
    }

    fn probed(
        &mut self,
        of: (&str, &ContainerId),
        kind: ProbeKind,
        outcome: &ProbeOutcome,
        ctx: &mut Context<Self>,
    ) {
        let (name, id) = of;
        let Some(pod) = self.pod() else { return };
        let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let Some(container) = all.into_iter().find(|it| it.name == name) else { return };
        let Some((current, probes)) = self.probes.get_mut(name) else { return };
        if current != id {
            return; // The run that was asked is over.
        }
        let change = probes.record(container, kind, outcome);
        let (ready, started) = (probes.is_ready(), probes.startup_passed);
        if let ProbeOutcome::Failure(why) = outcome {
            let message = format!("{} probe failed: {why}", kind.title());
            let container = Some(name.to_owned());
            self.tell_people(
                &pod,
                Happened { normal: false, reason: "Unhealthy", message, container },
                ctx,
            );
        }
        if change == ProbeChange::None {
            return;
        }
        self.note(&pod, &format!("{} probe of {name}: {change}", kind.title()));
        if let Some(state) = self.seen.containers.get_mut(name) {
            (state.ready, state.startup_passed) = (ready, started);
            if change == ProbeChange::MustRestart {
                let what = kind.title().to_lowercase();
                state.must_restart =
                    Some(format!("Container {name} failed {what} probe, will be restarted"));
            }
        }
        self.decide(&pod, ctx);
    }

    /// Sends the status if it differs from what the API has; one at a time.
    fn publish(&mut self, ctx: &mut Context<Self>) {
        let Some(pod) = self.pod().filter(|_| !self.publishing) else { return };
        let facts = HostFacts {
            addresses: self.host.config.facts.host_addresses.clone(),
            driver: self.host.driver.name().to_owned(),
        };
        let fresh = status(&pod, &self.seen, &self.published, &facts, self.host.env.wall());
        if fresh == self.published {
            return;
        }
        self.publishing = true;
        let mut body = json!({ "metadata": { "uid": pod.metadata.uid }, "status": fresh });
        for key in ["reason", "message"] {
            if fresh.get(key).is_none() && self.published.get(key).is_some() {
                body["status"][key] = Value::Null;
            }
        }
        let target = ApiTarget {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            subresource: Some("status".to_owned()),
            namespace: Some(pod.metadata.namespace.clone()),
            name: Some(pod.metadata.name.clone()),
        };
        let verb = ApiVerb::StrategicPatch;
        let call = CallApi { verb, target, options: vec![], body: body.to_string().into() };
        let control = self.host.control.clone();
        let sent = async move { control.call(call).await };
        ctx.spawn(sent.into_actor(self).map(move |reply, actor, ctx| {
            actor.publishing = false;
            match reply {
                Ok(reply) if reply.code < 300 => {
                    actor.published = fresh;
                    actor.publish(ctx);
                }
                // The object is gone or is another one: the feed says so too.
                Ok(reply) if reply.code == 404 || reply.code == 409 => {}
                _ => drop(ctx.run_later(STATUS_AGAIN, |actor, ctx| actor.publish(ctx))),
            }
        }));
    }

    /// Compares projected volumes with their objects from time to time.
    fn refresh_volumes(&mut self, ctx: &mut Context<Self>) {
        let Some(pod) = self.pod() else { return };
        let is_up = self.seen.volumes == crate::machine::Progress::Ready;
        if !is_up || pod.metadata.deletion_timestamp.is_some() || pod.spec.volumes.is_empty() {
            return;
        }
        let (host, seen) = (self.host.clone(), self.seen.clone());
        let refresh = async move { mount_all(&host, &pod, &seen).await };
        ctx.spawn(refresh.into_actor(self).map(|result, actor, _| {
            if let (Err(why), Some(pod)) = (result, actor.pod()) {
                actor.note(
                    &pod,
                    &format!("volumes could not be brought up to date, the old files stay: {why}"),
                );
            }
        }));
    }
}

/// What a pod's status says of this run of a container.
fn reported<'a>(status: &'a Value, container: &str, id: &str) -> Option<&'a Value> {
    let all = ["initContainerStatuses", "containerStatuses"].into_iter();
    let mut all = all.filter_map(|it| status[it].as_array()).flatten();
    let found = all.find(|it| it["name"] == container)?;
    let of = found["containerID"].as_str()?.split_once("://")?.1;
    (of == id).then_some(found)
}

/// What a look at the driver found.
struct Looked {
    sandbox: Option<SandboxStatus>,
    /// Of a sandbox that was found without us knowing where it is connected.
    addresses: Option<Vec<String>>,
    /// Last words of containers that ended.
    last_words: Vec<(String, String)>,
}

async fn look_at(host: &Host, pod: &Pod, seen: &Observed) -> Result<Looked, DriverError> {
    let sandbox = match host.driver.sandbox(&SandboxId(pod.metadata.uid.clone())).await {
        Ok(it) => Some(it),
        Err(DriverError::NoSandbox(_)) => None,
        Err(error) => return Err(error),
    };
    let is_known =
        matches!(&seen.sandbox, Sandbox::Ready { addresses, .. } if !addresses.is_empty());
    let addresses = match &sandbox {
        Some(it) if !is_known && !pod.spec.host_network => plumb(host, pod, it).await.ok(),
        _ => None,
    };
    let mut last_words = Vec::new();
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        let before = seen.containers.get(&container.name).map(|it| &it.run);
        let current = sandbox.as_ref().and_then(|it| observe::current(it, &container.name));
        let status = sandbox
            .as_ref()
            .and_then(|it| it.containers.iter().find(|it| Some(it.id()) == current.as_ref()));
        let Some(status) = status else { continue };
        let kactor_drivers::status::ContainerState::Exited { exit_code, .. } = &status.state else {
            continue;
        };
        let is_read = |end: &Ended| end.id == observe::short_id(status);
        if matches!(before, Some(Run::Ended(end)) if is_read(end))
            || matches!(before, Some(Run::Refused { .. }))
        {
            continue; // They were read when it ended.
        }
        let name = termination_file(&container.name);
        let file =
            host.volumes.read_file(&pod.metadata.uid, &name, TERMINATION_MESSAGE_BYTES_MAX).await;
        let policy = container.termination_message_policy;
        let tail = match observe::falls_back_to_log(policy, *exit_code, &file) {
            true => PodLogs::of(host).last_words(&status.spec.log_path).await,
            false => Vec::new(),
        };
        let message = observe::termination_message(&file, &tail);
        if !message.is_empty() {
            last_words.push((container.name.clone(), message));
        }
    }
    Ok(Looked { sandbox, addresses, last_words })
}

impl Actor for PodActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.step(ctx);
        ctx.run_interval(VOLUMES_AGAIN, |actor, ctx| actor.refresh_volumes(ctx));
    }
}

impl Inspect for PodActor {
    const KIND: &'static str = "Pod";

    fn state(&self) -> Value {
        let containers: BTreeMap<&String, Value> = self
            .seen
            .containers
            .iter()
            .map(|(name, it)| {
                let run = match &it.run {
                    Run::NotStarted => "not started",
                    Run::Refused { reason, .. } => reason,
                    Run::Running { .. } => "running",
                    Run::Ended(_) => "ended",
                };
                (name, json!({ "run": run, "restarts": it.restarts, "ready": it.ready, "failures": it.failures }))
            })
            .collect();
        let sandbox = match &self.seen.sandbox {
            Sandbox::Absent => "absent".to_owned(),
            Sandbox::Ready { addresses, .. } => format!("ready {}", addresses.join(",")),
            Sandbox::Dead { .. } => "dead".to_owned(),
            Sandbox::Failed { message, .. } => format!("failed: {message}"),
        };
        let busy: Vec<String> = self.seen.busy.iter().map(|it| format!("{it:?}")).collect();
        json!({
            "uid": self.wanted.as_ref().map(|it| it.pod.metadata.uid.clone()),
            "phase": self.published["phase"],
            "volumes": format!("{:?}", self.seen.volumes),
            "sandbox": sandbox,
            "containers": containers,
            "busy": busy,
        })
    }
}

impl Handler<Tell<PodWanted>> for PodActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<PodWanted>, ctx: &mut Context<Self>) {
        if self.wanted.is_none() {
            return; // Given up already; the agent starts another actor for another life of the pod.
        }
        // Conditions that others own are taken over; our own part is what we publish.
        if let Some(conditions) = tell.body.status.get("conditions") {
            merge_foreign_conditions(&mut self.published, conditions);
        }
        self.wanted = Some(tell.body);
        self.step(ctx);
    }
}

/// Kinds of conditions that this actor writes.
const OWN_CONDITIONS: [&str; 4] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];

fn merge_foreign_conditions(published: &mut Value, theirs: &Value) {
    let is_own = |it: &Value| it["type"].as_str().is_some_and(|it| OWN_CONDITIONS.contains(&it));
    let ours = published["conditions"].as_array().cloned().unwrap_or_default();
    let foreign = theirs.as_array().into_iter().flatten().filter(|it| !is_own(it)).cloned();
    let merged: Vec<Value> = foreign.chain(ours.into_iter().filter(is_own)).collect();
    if !published.is_object() {
        *published = json!({});
    }
    published["conditions"] = Value::Array(merged);
}

impl Handler<Tell<LookAgain>> for PodActor {
    type Result = ();

    fn handle(&mut self, _: Tell<LookAgain>, ctx: &mut Context<Self>) {
        self.step(ctx);
    }
}
