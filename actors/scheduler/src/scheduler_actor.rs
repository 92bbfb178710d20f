//! The scheduler's shell: changes in, steps, bindings and what is told of Pods out. It decides nothing.
//!
//! It works while this host leads; a new reign begins from the whole view. Outcomes of a former reign are ignored.

use std::sync::Arc;

use kactor_api::Api;
use kactor_protocol::store::Key;
use kactor_protocol::{Reign, TraceId, Uid};
use kactor_runtime::StartError;
use kactor_runtime::env::{BoxFuture, Lane};
use kactor_runtime::prelude::*;
use kactor_view::events::writer::{EventWriter, Written};
use kactor_view::events::{EventWrite, Note, Severity};
use kactor_view::feed::{Batch, SharedView, Subscription};
use kactor_view::{Changed, Condition};
use serde_json::json;

use crate::profile::{DEFAULT_SCHEDULER, Profile};
use crate::refusal::Refusals;
use crate::scheduler::{BindOutcome, BindRequest, Scheduler, Told};
use crate::send::Sender;

/// Starts the scheduler with these profiles; it works while this host leads.
pub fn start(
    system: &ActorSystem,
    api: &Api,
    view: &SharedView,
    profiles: Vec<Profile>,
) -> Result<(), StartError> {
    let events = EventWriter::start(system.env(), view.clone(), write_events(api));
    let host = Host { system: system.clone(), api: api.clone(), view: view.clone(), events };
    let child = Child::new("scheduler", Lane::Control);
    system.start(child, move || SchedulerActor::new(host.clone(), profiles.clone()))?;
    Ok(())
}

fn write_events(api: &Api) -> kactor_view::events::writer::Write {
    let sender = Sender { api: api.clone(), reign: None, trace: TraceId::NONE };
    Arc::new(move |_: Arc<str>, event: EventWrite| -> BoxFuture<Written> {
        let sender = sender.clone();
        Box::pin(async move { sender.write_event(event).await })
    })
}

#[derive(Clone)]
struct Host {
    system: ActorSystem,
    api: Api,
    view: SharedView,
    events: EventWriter,
}

struct SchedulerActor {
    host: Host,
    profiles: Vec<Profile>,
    scheduler: Scheduler,
    reporter: Arc<str>,
    reign: Option<Reign>,
    /// Counts fresh starts: what was under way before one is ignored.
    era: u64,
    alarm: Option<SpawnHandle>,
    n_bound: u64,
    n_conflicts: u64,
}

impl SchedulerActor {
    fn new(host: Host, profiles: Vec<Profile>) -> Self {
        let scheduler = Scheduler::new(profiles.clone(), host.system.env().random_u64());
        Self {
            host,
            profiles,
            scheduler,
            reporter: DEFAULT_SCHEDULER.into(),
            reign: None,
            era: 0,
            alarm: None,
            n_bound: 0,
            n_conflicts: 0,
        }
    }

    fn listen(&self, subscription: Arc<Subscription>, ctx: &mut Context<Self>) {
        let next = {
            let subscription = subscription.clone();
            async move { subscription.next().await }
        };
        ctx.spawn(next.into_actor(self).map(move |batch, actor, ctx| {
            actor.changed(batch);
            actor.step(ctx);
            actor.listen(subscription, ctx);
        }));
    }

    /// Follows who leads. A reign begins when the view shows everything that was committed before it.
    fn follow_leadership(&self, ctx: &mut Context<Self>) {
        let store = self.host.api.store().clone();
        let (mut leadership, view) = (store.leadership(), self.host.view.clone());
        let ours = self.reign;
        let next = async move {
            while leadership.current().ours == ours {
                leadership.changed().await?;
            }
            let reign = leadership.current().ours;
            if reign.is_some() {
                view.reached(store.revision()).await;
            }
            Some(reign)
        };
        ctx.spawn(next.into_actor(self).map(|reign, actor, ctx| {
            let Some(reign) = reign else { return }; // the store is gone
            actor.reign = reign;
            actor.changed(Batch::Everything);
            actor.step(ctx);
            actor.follow_leadership(ctx);
        }));
    }

    fn changed(&mut self, batch: Batch) {
        if self.reign.is_none() {
            return;
        }
        let view = self.host.view.snapshot();
        match batch {
            Batch::Changes(changes) => self.scheduler.changed(&changes, &view),
            Batch::Everything => {
                self.era += 1;
                let seed = self.host.system.env().random_u64();
                self.scheduler = Scheduler::new(self.profiles.clone(), seed);
                let all: Vec<Changed> = view.objects().cloned().map(Changed::appeared).collect();
                self.scheduler.changed(&all, &view);
            }
        }
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        if self.reign.is_none() {
            return;
        }
        let (view, now) = (self.host.view.snapshot(), self.host.system.env().monotonic());
        let step = self.scheduler.step(&view, now);
        drop(view);
        step.binds.into_iter().for_each(|it| self.bind(it, ctx));
        step.told.into_iter().for_each(|it| self.tell(it, ctx));
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        if let Some(at) = step.next {
            let alarm = self.host.system.env().clock.sleep_until(at);
            self.alarm = Some(ctx.spawn(alarm.into_actor(self).map(|(), actor, ctx| {
                actor.alarm = None;
                actor.step(ctx);
            })));
        }
    }

    fn sender(&self) -> Sender {
        let trace = self.host.system.new_trace();
        Sender { api: self.host.api.clone(), reign: self.reign, trace }
    }

    fn bind(&self, request: BindRequest, ctx: &mut Context<Self>) {
        let (sender, era) = (self.sender(), self.era);
        let work = async move {
            let outcome = sender.bind(&request).await;
            (request, outcome)
        };
        ctx.spawn(work.into_actor(self).map(move |(request, (outcome, why)), actor, ctx| {
            if actor.era == era {
                actor.bind_ended(&request, outcome, why, ctx);
            }
        }));
    }

    fn bind_ended(
        &mut self,
        request: &BindRequest,
        outcome: BindOutcome,
        why: String,
        ctx: &mut Context<Self>,
    ) {
        match outcome {
            BindOutcome::Bound => self.n_bound += 1,
            BindOutcome::Conflict => self.n_conflicts += 1,
            BindOutcome::Failed => {}
        }
        if !why.is_empty() {
            let text = format!("binding to {} was refused: {why}", request.node);
            self.host.system.note(request.pod.to_string(), text);
        }
        if let Some(told) = self.scheduler.bind_ended(request, outcome) {
            self.tell(told, ctx);
        }
        self.step(ctx);
    }

    fn tell(&self, told: Told, ctx: &mut Context<Self>) {
        match told {
            Told::Bound { pod, node, .. } => {
                let message =
                    format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
                self.say(&Note::new(&pod, Severity::Normal, "Scheduled", message));
            }
            Told::Unschedulable { pod, uid, refusals } => {
                let message = refusals.to_string();
                self.say(&Note::new(&pod, Severity::Warning, "FailedScheduling", &*message));
                self.note_nodes(&pod, &refusals);
                self.set_condition(&pod, &uid, message, ctx);
            }
        }
    }

    fn say(&self, note: &Note) {
        self.host.system.note(note.about.to_string(), format!("{}: {}", note.reason, note.message));
        self.host.events.say(&self.reporter, note);
    }

    /// Which node refused it and why, for `kactor why`: the message only counts.
    fn note_nodes(&self, pod: &Key, refusals: &Refusals) {
        let told = refusals.told();
        if !told.is_empty() {
            self.host.system.note(pod.to_string(), told);
        }
    }

    fn set_condition(&self, pod: &Key, uid: &Uid, message: String, ctx: &mut Context<Self>) {
        let view = self.host.view.snapshot();
        let Some(current) = view.pods().get(pod) else { return };
        let before = Condition::find(&current.conditions, "PodScheduled");
        let is_told = |it: &Condition| it.status == "False" && it.message == message;
        if before.is_some_and(is_told) {
            return;
        }
        // The transition's time stays while the condition stays false.
        let since = before.filter(|it| it.status == "False").and_then(|it| it.last_transition);
        let since = since.unwrap_or_else(|| self.host.system.env().wall()).to_string();
        let (sender, pod, uid) = (self.sender(), pod.clone(), uid.clone());
        let work = async move { sender.tell_unschedulable(&pod, &uid, &message, &since).await };
        ctx.spawn(work.into_actor(self).map(|result, _, _| {
            if let Err(status) = result {
                tracing::debug!(status = status.message, "PodScheduled was not told");
            }
        }));
    }
}

impl Actor for SchedulerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.listen(Arc::new(self.host.view.subscribe()), ctx);
        self.follow_leadership(ctx);
    }
}

impl Inspect for SchedulerActor {
    const KIND: &'static str = "Scheduler";

    fn state(&self) -> serde_json::Value {
        json!({
            "reign": self.reign.map(|it| it.0),
            "summary": self.scheduler.summary(),
            "bound": self.n_bound,
            "conflicts": self.n_conflicts,
            "eventsDropped": self.host.events.n_dropped(),
        })
    }
}
