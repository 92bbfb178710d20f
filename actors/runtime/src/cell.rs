//! What stays of an actor through its restarts: its mailbox, its vital signs, the routes that other hosts may use.
//!
//! `Running` is one life of the actor: an actix context polled as a future, so that a panic is caught at the poll and an
//! abort drops it at an await point. `Pump` is the future inside it that hands letters over.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, AsyncContext, Context};
use bytes::Bytes;
use kactor_protocol::frame::Refusal;
use kactor_protocol::insight::{ActorRow, ActorStatus, HandlingRow, RecordRow, WaitingRow};
use kactor_protocol::{ActorAddress, ActorName, Deadline, LetterId, MessageId, TraceId};
use tokio::sync::{Notify, oneshot};

use crate::env::{BoxFuture, Env, Lane, TaskHandle};
use crate::letter::{InStep, Step, Trail, take_remark};
use crate::mailbox::{Control, Envelope, Mailbox, Next};
use crate::recorder::{Record, Records};
use crate::supervise::{Child, Stops};

/// What every actor says of itself, beside actix' own `Actor`.
pub trait Inspect: Actor<Context = Context<Self>> {
    /// What kind of actor it is: `Store`, `Controller`, `Pod`.
    const KIND: &'static str;

    /// Its state in short, for `kactor inspect`. The author redacts: no object bodies, no secrets.
    fn state(&self) -> serde_json::Value;
}

/// Letters handed over before other tasks of the lane get their turn.
const LETTERS_PER_TURN: usize = 32;

/// How a letter from another host gets in; for tells the answer is empty.
pub(crate) type Route =
    Arc<dyn Fn(Bytes, Trail, Deadline) -> BoxFuture<Result<Bytes, Refusal>> + Send + Sync>;

pub(crate) struct Cell<A: Actor> {
    pub env: Env,
    pub vitals: Vitals,
    pub mailbox: Mailbox<A>,
    pub routes: Mutex<BTreeMap<MessageId, Route>>,
    pub signals: Signals,
}

/// What others want of an actor's supervision.
#[derive(Default)]
pub(crate) struct Signals {
    pub task: Mutex<Option<TaskHandle>>,
    pub stopping: AtomicBool,
    pub stop: Notify,
    pub escalated: Mutex<Option<String>>,
    pub escalate: Notify,
    pub finished: AtomicBool,
    pub finish: Notify,
}

/// A cell without its actor's type: what registry and inspection hold.
pub(crate) trait Entry: Send + Sync {
    fn vitals(&self) -> &Vitals;
    fn signals(&self) -> &Signals;
    fn row(&self) -> ActorRow;
    fn waiting(&self, limit: usize) -> Vec<WaitingRow>;
    fn ask_state(&self) -> oneshot::Receiver<String>;
    fn request_stop(&self);
    fn route(&self, message: MessageId) -> Option<Route>;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<A: Actor> Entry for Cell<A> {
    fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    fn signals(&self) -> &Signals {
        &self.signals
    }

    fn row(&self) -> ActorRow {
        let now = self.env.monotonic();
        let oldest = self.mailbox.waiting(1);
        let waits = oldest.first().map_or(Duration::ZERO, |it| now.saturating_sub(it.queued_at));
        let vitals = &self.vitals;
        let signs = vitals.signs();
        ActorRow {
            address: vitals.address.clone(),
            kind: vitals.kind.into(),
            lane: format!("{:?}", vitals.lane),
            status: signs.status,
            parent: vitals.parent.clone(),
            mailbox_len: u32::try_from(self.mailbox.len()).unwrap_or(u32::MAX),
            mailbox_len_max: self.mailbox.len_max(),
            oldest_wait_ms: millis(waits),
            handled: signs.handled,
            busy_us: u64::try_from(signs.busy.as_micros()).unwrap_or(u64::MAX),
            restarts: signs.restarts,
            last_error: signs.last_error.clone(),
        }
    }

    fn waiting(&self, limit: usize) -> Vec<WaitingRow> {
        let now = self.env.monotonic();
        let waiting = self.mailbox.waiting(limit);
        let row = |it: crate::mailbox::Waiting| WaitingRow {
            message: it.name.into(),
            from: it.trail.from.to_string(),
            trace: it.trail.trace,
            cause: it.trail.cause,
            letter: it.trail.letter,
            waits_ms: millis(now.saturating_sub(it.queued_at)),
        };
        waiting.into_iter().map(row).collect()
    }

    fn ask_state(&self) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        self.mailbox.control(Control::State(sender));
        receiver
    }

    fn request_stop(&self) {
        self.signals.stopping.store(true, Ordering::Release);
        self.signals.stop.notify_one();
        self.mailbox.control(Control::Stop);
    }

    fn route(&self, message: MessageId) -> Option<Route> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).get(&message).cloned()
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is known of an actor without asking it.
pub(crate) struct Vitals {
    pub address: ActorAddress,
    pub kind: &'static str,
    pub lane: Lane,
    pub parent: Option<ActorName>,
    pub stops: Stops,
    signs: Mutex<Signs>,
}

pub(crate) struct Signs {
    pub status: ActorStatus,
    pub handled: u64,
    pub busy: Duration,
    pub restarts: u32,
    pub last_error: Option<String>,
    pub handling: Option<Handling>,
    pub records: Records,
}

impl Default for Signs {
    fn default() -> Self {
        Self {
            status: ActorStatus::Starting,
            handled: 0,
            busy: Duration::ZERO,
            restarts: 0,
            last_error: None,
            handling: None,
            records: Records::default(),
        }
    }
}

pub(crate) struct Handling {
    pub message: &'static str,
    pub trace: TraceId,
    pub since: Duration,
}

impl Vitals {
    pub(crate) fn new(
        address: ActorAddress,
        kind: &'static str,
        child: &Child,
        parent: Option<ActorName>,
    ) -> Self {
        let (lane, stops) = (child.lane, child.stops);
        Self { address, kind, lane, parent, stops, signs: Mutex::default() }
    }

    pub(crate) fn signs(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last letters it took, newest last.
    pub(crate) fn last_inputs(&self, limit: usize) -> Vec<RecordRow> {
        let signs = self.signs();
        let mut rows: Vec<_> = signs.records.iter().rev().take(limit).collect();
        rows.reverse();
        rows.into_iter().map(|it| it.row(&self.address.name)).collect()
    }

    pub(crate) fn handling(&self, now: Duration) -> Option<HandlingRow> {
        self.signs().handling.as_ref().map(|it| HandlingRow {
            message: it.message.into(),
            trace: it.trace,
            for_ms: millis(now.saturating_sub(it.since)),
        })
    }
}

/// One life of an actor.
pub(crate) struct Running<A: Actor<Context = Context<A>>> {
    context: Option<ContextFut<A, Context<A>>>,
    cell: Arc<Cell<A>>,
}

impl<A: Inspect> Running<A> {
    pub(crate) fn new(cell: Arc<Cell<A>>, actor: A) -> Self {
        let mut context = Context::new();
        context.spawn(Pump { cell: cell.clone() });
        Self { context: Some(context.into_future(actor)), cell }
    }
}

/// How a life ended.
pub(crate) enum End {
    Stopped,
    Failed(String),
}

impl<A: Actor<Context = Context<A>>> Future for Running<A> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<End> {
        let name = self.cell.vitals.address.name.clone();
        let step = Step { trace: TraceId::NONE, cause: LetterId::NONE, actor: Some(name) };
        let since = self.cell.env.monotonic();
        let context = self.context.as_mut().expect("a life that ended is not polled again");
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _step = InStep::enter(step);
            Pin::new(context).poll(cx)
        }));
        // Letters, timers and the actor's own futures alike: a controller that is woken by its view is busy too.
        let busy = self.cell.env.monotonic().saturating_sub(since);
        self.cell.vitals.signs().busy += busy;
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                self.context = None;
                Poll::Ready(End::Stopped)
            }
            Err(panic) => {
                self.end_at_once();
                Poll::Ready(End::Failed(panic_text(&*panic)))
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>> Running<A> {
    /// Drops the actor where it stands. actix' own drop would poll it once more, to stop it politely: wrong after a
    /// panic (it is half-stepped) and after an abort (a crashed host says no goodbye).
    fn end_at_once(&mut self) {
        let Some(mut context) = self.context.take() else { return };
        context.ctx().terminate();
        if catch_unwind(AssertUnwindSafe(|| drop(context))).is_err() {
            tracing::error!(actor = %self.cell.vitals.address.name, "the actor panicked again while it was dropped");
        }
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Running<A> {
    fn drop(&mut self) {
        self.end_at_once();
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

struct Pump<A: Actor> {
    cell: Arc<Cell<A>>,
}

impl<A: Inspect> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut Context<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        for _ in 0..LETTERS_PER_TURN {
            if ctx.waiting() {
                return Poll::Pending; // actix polls us again when the wait is over.
            }
            match self.cell.mailbox.next(task.waker()) {
                None => return Poll::Pending,
                Some(Next::Control(Control::State(to))) => {
                    let _ = to.send(actor.state().to_string());
                }
                Some(Next::Control(Control::Stop)) => ctx.stop(),
                Some(Next::Letter(envelope)) => self.cell.hand_over(envelope, actor, ctx),
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<A: Inspect> Cell<A> {
    fn hand_over(&self, envelope: Envelope<A>, actor: &mut A, ctx: &mut Context<A>) {
        let since = self.env.monotonic();
        if envelope.deadline.is_some_and(|it| it.is_past(since)) {
            envelope.contents.refuse(Refusal::DeadlinePassed);
            return;
        }
        let Envelope { trail, name, contents, .. } = envelope;
        self.begin(&trail, name, since);
        let actor_name = Some(self.vitals.address.name.clone());
        let step = Step { trace: trail.trace, cause: trail.letter, actor: actor_name };
        take_remark(); // What a timer's code may have left behind is not about this letter.
        {
            let _step = InStep::enter(step);
            contents.deliver(trail, actor, ctx);
        }
        let remark = take_remark();
        let mut signs = self.vitals.signs();
        signs.handling = None;
        signs.handled += 1;
        if !remark.is_empty() {
            signs.records.remark_last(remark);
        }
    }

    fn begin(&self, trail: &Trail, message: &'static str, since: Duration) {
        let record = Record {
            sequence: 0, // The ring counts.
            at: self.env.wall(),
            from: trail.from.clone(),
            message,
            letter: trail.letter,
            trace: trail.trace,
            cause: trail.cause,
            note: Box::default(),
        };
        let mut signs = self.vitals.signs();
        signs.handling = Some(Handling { message, trace: trail.trace, since });
        signs.records.push(record);
    }
}
