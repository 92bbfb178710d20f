//! Supervision: who starts whom again, how often, after which pause, and what the parent does when that is exhausted.
//!
//! The tree is a table of `Child` rows. A panic ends the life of its actor, not its mailbox: the letter in hand is lost (its
//! asker hears `Failed`), the others wait for the next life. A life is built anew by the row's factory, never resumed.
//! When a parent ends or restarts, its children are stopped first; its new life starts them again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kactor_protocol::frame::Refusal;
use kactor_protocol::insight::ActorStatus;

use crate::cell::{Cell, End, Entry, Inspect, Running, panic_text};
use crate::env::Lane;
use crate::letter::current;
use crate::system::{ActorSystem, DownReason};

/// Letters of the failed life that go to the log.
const INPUTS_LOGGED: usize = 8;

/// One row of the supervision table.
#[derive(Debug, Clone)]
pub struct Child {
    pub name: Cow<'static, str>,
    /// The actor that this one stops with, and that an escalation restarts. `None`: the host itself.
    pub parent: Option<Cow<'static, str>>,
    pub lane: Lane,
    pub mailbox_len_max: u32,
    pub restart: Restart,
    pub stops: Stops,
}

/// When a root is stopped as its host stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stops {
    WithTheOthers,
    /// What the others rely on until they are gone: the store.
    Last,
}

/// How often and how quickly a failed actor is started again.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    /// Most restarts within `window`; one more failure exhausts them.
    pub restarts_max: u32,
    pub window: Duration,
    /// The first pause; each further failure within the window doubles it, up to `backoff_max`.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub exhausted: Exhausted,
}

/// What happens when the restarts are exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// The actor stays down; those who watch it hear so.
    GiveUp,
    /// The parent fails too: it is restarted within its own limits, with its children. Without a parent the host
    /// fails (`ActorSystem::failed`).
    Escalate,
}

impl Restart {
    /// For what must run: ten times in a minute, from 100 ms up to 10 s, then the parent.
    pub const ALWAYS: Restart = Restart {
        restarts_max: 10,
        window: Duration::from_secs(60),
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(10),
        exhausted: Exhausted::Escalate,
    };
    /// For what is one of many, such as a pod: the same, then it stays down.
    pub const THEN_GIVE_UP: Restart = Restart { exhausted: Exhausted::GiveUp, ..Restart::ALWAYS };

    /// The pause after the nth failure within the window, counted from 1.
    pub fn backoff(&self, nth_failure: u32) -> Duration {
        let doublings = nth_failure.saturating_sub(1).min(31);
        self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max)
    }
}

impl Child {
    /// A root that always runs, with room for 256 letters; change what differs.
    pub fn new(name: impl Into<Cow<'static, str>>, lane: Lane) -> Self {
        let name = name.into();
        Self {
            name,
            parent: None,
            lane,
            mailbox_len_max: 256,
            restart: Restart::ALWAYS,
            stops: Stops::WithTheOthers,
        }
    }

    pub fn under(self, parent: impl Into<Cow<'static, str>>) -> Self {
        Self { parent: Some(parent.into()), ..self }
    }

    pub fn stops(self, stops: Stops) -> Self {
        Self { stops, ..self }
    }

    pub fn mailbox(self, mailbox_len_max: u32) -> Self {
        Self { mailbox_len_max, ..self }
    }

    pub fn restart(self, restart: Restart) -> Self {
        Self { restart, ..self }
    }
}

/// Runs the actor of `cell` through all its lives.
pub(crate) async fn supervise<A: Inspect>(
    mut last_rites: LastRites<A>,
    restart: Restart,
    make: impl Fn() -> A,
) {
    let (system, cell) = (last_rites.system.clone(), last_rites.cell.clone());
    let mut failures = VecDeque::new();
    last_rites.reason = loop {
        let error = match live_once(&cell, &make).await {
            End::Stopped => break DownReason::Stopped,
            End::Failed(error) => error,
        };
        record_failure(&cell, &error);
        system.stop_children(&cell.vitals.address.name).await;
        let now = cell.env.monotonic();
        failures.push_back(now);
        while failures.front().is_some_and(|it| now.saturating_sub(*it) > restart.window) {
            failures.pop_front();
        }
        let n_failures = u32::try_from(failures.len()).unwrap_or(u32::MAX);
        if n_failures > restart.restarts_max {
            if restart.exhausted == Exhausted::Escalate {
                system.escalate(&cell.vitals, &error);
            }
            break DownReason::GaveUp { error };
        }
        if !pause(&cell, restart.backoff(n_failures)).await {
            break DownReason::Stopped;
        }
        cell.vitals.signs().restarts += 1;
    };
    system.stop_children(&cell.vitals.address.name).await;
}

async fn live_once<A: Inspect>(cell: &Arc<Cell<A>>, make: &impl Fn() -> A) -> End {
    cell.vitals.signs().status = ActorStatus::Starting;
    // Children of an earlier life are gone by now; what one of them escalated was about that life.
    *cell.signals.escalated.lock().unwrap_or_else(PoisonError::into_inner) = None;
    let actor = match catch_unwind(AssertUnwindSafe(make)) {
        Ok(actor) => actor,
        Err(panic) => return End::Failed(panic_text(&*panic)),
    };
    cell.vitals.signs().status = ActorStatus::Running;
    let escalated = async {
        loop {
            cell.signals.escalate.notified().await;
            let mut error = cell.signals.escalated.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = error.take() {
                return End::Failed(error);
            }
        }
    };
    tokio::select! {
        biased;
        end = escalated => end,
        end = Running::new(cell.clone(), actor) => end,
    }
}

fn record_failure<A: Inspect>(cell: &Cell<A>, error: &str) {
    {
        let mut signs = cell.vitals.signs();
        signs.status = ActorStatus::BackingOff;
        signs.handling = None;
        signs.last_error = Some(error.to_owned());
    }
    let inputs = cell.vitals.last_inputs(INPUTS_LOGGED);
    let inputs: Vec<_> = inputs
        .into_iter()
        .map(|it| format!("{} from {} trace {} {}", it.message, it.from, it.trace, it.note))
        .collect();
    tracing::error!(actor = %cell.vitals.address, error, ?inputs, "the actor failed");
}

/// Waits; says no when the actor was asked to stop meanwhile.
async fn pause<A: Inspect>(cell: &Cell<A>, time: Duration) -> bool {
    let stopping = || cell.signals.stopping.load(Ordering::Acquire);
    let stopped = async {
        while !stopping() {
            cell.signals.stop.notified().await;
        }
    };
    tokio::select! {
        biased;
        () = stopped => false,
        () = cell.env.sleep(time) => true,
    }
}

/// A step of an actor's core panicked; the actor itself goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the step panicked: {text}")]
pub struct StepPanicked {
    pub text: String,
}

impl ActorSystem {
    /// Runs one step of a core, such as the reconcile of one object, so that its panic costs that object a retry and
    /// never the actor. `inspect` shows it as the actor's last error. What the step half changed must be thrown away by
    /// the caller (the key's memory), never used again.
    pub fn step<T>(&self, step: impl FnOnce() -> T) -> Result<T, StepPanicked> {
        catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
            let text = panic_text(&*panic);
            let actor = current().and_then(|it| it.actor);
            tracing::error!(actor = actor.as_ref().map(|it| it.as_str()), text, "a step panicked");
            if let Some(entry) = actor.and_then(|it| self.entry(&it)) {
                entry.vitals().signs().last_error = Some(text.clone());
            }
            StepPanicked { text }
        })
    }
}

/// However an actor ends, aborted or never begun included: nobody waits for it in vain.
pub(crate) struct LastRites<A: Inspect> {
    system: ActorSystem,
    cell: Arc<Cell<A>>,
    reason: DownReason,
}

impl<A: Inspect> LastRites<A> {
    pub(crate) fn new(system: ActorSystem, cell: Arc<Cell<A>>) -> Self {
        Self { system, cell, reason: DownReason::Aborted }
    }
}

impl<A: Inspect> Drop for LastRites<A> {
    fn drop(&mut self) {
        let cell = &self.cell;
        {
            let mut signs = cell.vitals.signs();
            signs.status = ActorStatus::Stopped;
            signs.handling = None;
        }
        for envelope in cell.mailbox.close() {
            self.system.bury(&cell.vitals.address, &envelope.trail, envelope.name, "it stopped");
            envelope.contents.refuse(Refusal::Stopped);
        }
        self.system.request_stop_of_children(&cell.vitals.address.name);
        self.system.forget(&cell.vitals.address, self.reason.clone());
        let signals = cell.signals();
        signals.finished.store(true, Ordering::Release);
        signals.finish.notify_waiters();
    }
}
