//! The only shell for controllers: view in, work queue, `reconcile`, API requests out.
//!
//! It runs on every control host and works while this host leads: then every effect carries the reign. One plan of a key
//! is in flight at a time, and its next pass sees a view at or after its last commit. A panic in one reconcile costs that
//! key a back-off and its memory; the others go on. It decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kactor_api::Api;
use kactor_protocol::store::Key;
use kactor_protocol::{Reign, Timestamp};
use kactor_runtime::prelude::*;
use kactor_view::Changed;
use kactor_view::events::writer::EventWriter;
use kactor_view::feed::{Batch, SharedView, Subscription};
use serde_json::json;

use crate::controller::{Controller, Pass};
use crate::plan::{Facts, Note, Plan, Verb};
use crate::send::{Sender, Sent};
use crate::work_queue::{Ended, WorkQueue};

/// Passes of one turn: the lane is left to others in between.
const KEYS_PER_TURN_MAX: usize = 64;
/// Plans in flight at once.
const PLANS_MAX: usize = 256;

/// When a node was last heard of by message; leader hosts' sessions know.
pub trait Liveness: Send + Sync {
    fn last_heard(&self, node: &str) -> Option<Timestamp>;
}

/// Called with the controller's name and the key at the start of each pass: tests make passes fail by it.
pub type BeforePass = Arc<dyn Fn(&'static str, &Key) + Send + Sync>;

/// What all controllers of a host share.
#[derive(Clone)]
pub struct Host {
    pub(crate) system: ActorSystem,
    pub(crate) api: Api,
    pub(crate) view: SharedView,
    pub(crate) events: EventWriter,
    pub(crate) liveness: Option<Arc<dyn Liveness>>,
    pub(crate) before_pass: Option<BeforePass>,
}

pub(crate) struct ControllerActor<C: Controller> {
    controller: Arc<C>,
    reporter: Arc<str>,
    host: Host,
    reign: Option<Reign>,
    /// Counts reigns begun and ended here: what a former one left under way is ignored.
    era: u64,
    queue: WorkQueue,
    facts: BTreeMap<Key, Facts>,
    memory: BTreeMap<Key, C::Memory>,
    alarm: Option<SpawnHandle>,
    n_passes: u64,
    n_panics: u64,
    n_refused: u64,
    last_plan: String,
    last_panic: Option<String>,
}

impl<C: Controller> ControllerActor<C> {
    pub(crate) fn new(controller: Arc<C>, host: Host) -> Self {
        Self {
            controller,
            reporter: C::NAME.into(),
            host,
            reign: None,
            era: 0,
            queue: WorkQueue::default(),
            facts: BTreeMap::new(),
            memory: BTreeMap::new(),
            alarm: None,
            n_passes: 0,
            n_panics: 0,
            n_refused: 0,
            last_plan: String::new(),
            last_panic: None,
        }
    }

    fn listen(&self, subscription: Arc<Subscription>, ctx: &mut Context<Self>) {
        let next = {
            let subscription = subscription.clone();
            async move { subscription.next().await }
        };
        ctx.spawn(next.into_actor(self).map(move |batch, actor, ctx| {
            actor.woken(batch);
            actor.turn(ctx);
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
            actor.begin(reign);
            actor.turn(ctx);
            actor.follow_leadership(ctx);
        }));
    }

    fn begin(&mut self, reign: Option<Reign>) {
        self.reign = reign;
        self.era += 1;
        self.queue = WorkQueue::default();
        self.facts.clear();
        self.memory.clear();
        if reign.is_some() {
            self.woken(Batch::Everything);
        }
    }

    fn woken(&mut self, batch: Batch) {
        if self.reign.is_none() {
            return;
        }
        let (view, now) = (self.host.view.snapshot(), self.host.system.env().monotonic());
        let changes: Vec<Changed> = match batch {
            Batch::Changes(changes) => changes,
            Batch::Everything => view.objects().cloned().map(Changed::appeared).collect(),
        };
        for changed in &changes {
            let woken = self.host.system.step(|| self.controller.wakes(changed, &view));
            for key in woken.unwrap_or_default() {
                self.queue.wake(key, now);
            }
        }
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        if self.reign.is_none() {
            return;
        }
        let room = PLANS_MAX.saturating_sub(self.queue.n_running());
        let now = self.host.system.env().monotonic();
        for key in self.queue.take_due(now, KEYS_PER_TURN_MAX.min(room)) {
            self.pass(key, ctx);
        }
        self.arm(ctx);
    }

    /// Wakes when the next key is due; at once if some were left over, unless no more plans may be in flight.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if let Some(alarm) = self.alarm.take() {
            ctx.cancel_future(alarm);
        }
        let has_room = self.queue.n_running() < PLANS_MAX;
        let Some(at) = self.queue.next_deadline().filter(|_| has_room) else { return };
        let alarm = self.host.system.env().clock.sleep_until(at);
        self.alarm = Some(ctx.spawn(alarm.into_actor(self).map(|(), actor, ctx| {
            actor.alarm = None;
            actor.turn(ctx);
        })));
    }

    fn pass(&mut self, key: Key, ctx: &mut Context<Self>) {
        self.n_passes += 1;
        let facts = self.facts_of(&key);
        let view = self.host.view.snapshot();
        let mut memory = self.memory.remove(&key).unwrap_or_default();
        let planned = self.host.system.step(|| {
            if let Some(before) = &self.host.before_pass {
                before(C::NAME, &key);
            }
            let now = self.host.system.env().wall();
            let pass = Pass { view: &view, key: &key, facts: &facts, now };
            self.controller.reconcile(&pass, &mut memory)
        });
        let plan = match planned {
            Ok(plan) => plan,
            Err(panicked) => {
                // Its memory may be half changed: it is lost, which does no harm.
                self.n_panics += 1;
                self.last_panic = Some(format!("{key}: {panicked}"));
                self.host.system.note(key.to_string(), panicked.to_string());
                self.ended(&key, Ended::Failed);
                return;
            }
        };
        if view.meta(&key).is_some() || !plan.is_empty() {
            self.memory.insert(key.clone(), memory);
        }
        self.say(&plan);
        if plan.effects.is_empty() {
            let how = self.when_again(&plan, Ended::Done);
            self.ended(&key, how);
            return;
        }
        self.last_plan = format!("{key}:\n{plan}");
        self.send(key, plan, ctx);
    }

    fn facts_of(&mut self, key: &Key) -> Facts {
        let mut facts = self.facts.remove(key).unwrap_or_default();
        if key.resource() == "nodes"
            && let Some(liveness) = &self.host.liveness
        {
            facts.last_heard = liveness.last_heard(key.name());
        }
        facts
    }

    fn say(&self, plan: &Plan) {
        for note in &plan.notes {
            self.host
                .system
                .note(note.about.to_string(), format!("{}: {}", note.reason, note.message));
            self.host.events.say(&self.reporter, note);
        }
    }

    fn send(&self, key: Key, plan: Plan, ctx: &mut Context<Self>) {
        let trace = self.host.system.new_trace();
        let sender = Sender { api: self.host.api.clone(), name: C::NAME, reign: self.reign, trace };
        let (view, era) = (self.host.view.clone(), self.era);
        let work = async move {
            let snapshot = view.snapshot();
            let sent = sender.send(&plan, |it| snapshot.version_of(it)).await;
            drop(snapshot);
            if let Some(revision) = sent.revision {
                view.reached(revision).await;
            }
            (plan, sent)
        };
        ctx.spawn(work.into_actor(self).map(move |(plan, sent), actor, ctx| {
            if actor.era == era {
                actor.sent(&key, &plan, sent);
                actor.turn(ctx);
            }
        }));
    }

    fn sent(&mut self, key: &Key, plan: &Plan, sent: Sent) {
        let mut how = Ended::Done;
        let mut read_something = false;
        for (at, outcome) in &sent.outcomes {
            let effect = &plan.effects[*at];
            read_something |= outcome.verb == Verb::Get;
            match (&outcome.result, outcome.verb) {
                (_, Verb::Get) => {}
                (Ok(_), _) => effect.done.iter().for_each(|it| self.tell(it)),
                (Err(refusal), _) => {
                    self.n_refused += 1;
                    how = Ended::Failed;
                    let text = format!("{effect} refused: {}", refusal.message);
                    self.host.system.note(key.to_string(), text);
                    if let Some(note) = &effect.refused {
                        let message = format!("{}: {}", note.message, refusal.message);
                        self.tell(&Note { message, ..note.clone() });
                    }
                }
            }
        }
        let outcomes = sent.outcomes.into_iter().map(|it| it.1).collect();
        self.facts.insert(key.clone(), Facts { outcomes, last_heard: None });
        let now = self.host.system.env().monotonic();
        let how = match how {
            Ended::Failed => Ended::Failed,
            _ if read_something => Ended::Again(now), // what was read is a fact now
            _ => self.when_again(plan, Ended::Done),
        };
        self.ended(key, how);
    }

    fn tell(&self, note: &Note) {
        self.host.system.note(note.about.to_string(), format!("{}: {}", note.reason, note.message));
        self.host.events.say(&self.reporter, note);
    }

    fn when_again(&self, plan: &Plan, otherwise: Ended) -> Ended {
        let env = self.host.system.env();
        let Some(at) = plan.again_at else { return otherwise };
        // A little late rather than early: the wall clock counts whole milliseconds.
        Ended::Again(env.monotonic() + at.since(env.wall()) + Duration::from_millis(1))
    }

    fn ended(&mut self, key: &Key, how: Ended) {
        let now = self.host.system.env().monotonic();
        self.queue.ended(key, now, how);
    }
}

impl<C: Controller> Actor for ControllerActor<C> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.listen(Arc::new(self.host.view.subscribe()), ctx);
        self.follow_leadership(ctx);
    }
}

impl<C: Controller> Inspect for ControllerActor<C> {
    const KIND: &'static str = "Controller";

    fn state(&self) -> serde_json::Value {
        json!({
            "controller": C::NAME,
            "reign": self.reign.map(|it| it.0),
            "waiting": self.queue.n_waiting(),
            "inFlight": self.queue.n_running(),
            "passes": self.n_passes,
            "panics": self.n_panics,
            "refused": self.n_refused,
            "eventsDropped": self.host.events.n_dropped(),
            "lastPlan": self.last_plan,
            "lastPanic": self.last_panic,
        })
    }
}
