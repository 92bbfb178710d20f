//! What stands in a mailbox: a letter, told or asked, with the trail of what led to it.
//!
//! An actor writes `impl Handler<Tell<M>>` or `impl Handler<Ask<M>>`. Every message of the protocol's table is a
//! letter; a type that never leaves the host (it holds an `Arc` of a view, say) implements `Letter` by itself.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use kactor_protocol::codec::{self, CodecError};
use kactor_protocol::frame::Refusal;
use kactor_protocol::message::{Message, Overload};
use kactor_protocol::{ActorName, Deadline, HostId, LetterId, MessageId, TraceId};
use tokio::sync::oneshot;

/// What may stand in a mailbox.
pub trait Letter: Send + Sized + 'static {
    type Reply: Send + 'static;
    const NAME: &'static str;
    /// What a full mailbox does with it.
    const OVERLOAD: Overload = Overload::Wait;

    /// Of `Overload::Coalesce` letters with equal keys only the newest waits.
    fn coalesce_key(&self) -> u64 {
        0
    }

    /// How it crosses hosts; `None` for what never leaves this one.
    fn wire() -> Option<Wire<Self>> {
        None
    }
}

/// A letter's way to bytes and back.
pub struct Wire<M: Letter> {
    pub id: MessageId,
    pub encode: fn(&M) -> Result<Bytes, CodecError>,
    pub decode: fn(&[u8]) -> Result<M, CodecError>,
    pub encode_reply: fn(&M::Reply) -> Result<Bytes, CodecError>,
    pub decode_reply: fn(&[u8]) -> Result<M::Reply, CodecError>,
}

impl<M: Message> Letter for M {
    type Reply = <M as Message>::Reply;
    const NAME: &'static str = M::ROW.name;
    const OVERLOAD: Overload = M::ROW.overload;

    fn wire() -> Option<Wire<Self>> {
        Some(Wire {
            id: M::ID,
            encode: codec::encode,
            decode: codec::decode,
            encode_reply: codec::encode,
            decode_reply: codec::decode,
        })
    }
}

/// Who sent a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An actor of this host, or none (`main`, an HTTP connection).
    Local(Option<ActorName>),
    /// Another host, authenticated; the actor's name is what that host says.
    Peer { host: HostId, actor: Option<ActorName> },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Local(Some(name)) => name.fmt(f),
            Origin::Local(None) => f.write_str("-"),
            Origin::Peer { host, actor: Some(name) } => write!(f, "{name}@{host}"),
            Origin::Peer { host, actor: None } => write!(f, "@{host}"),
        }
    }
}

/// What led to a letter. While a handler runs, what it sends follows its trail; a future that it starts does so
/// inside `follow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    pub trace: TraceId,
    /// This letter.
    pub letter: LetterId,
    /// The letter whose handling sent this one.
    pub cause: LetterId,
    pub from: Origin,
}

impl Trail {
    /// Runs `future` so that what it sends is traced as caused by this letter, sent by the present actor.
    pub fn follow<F: Future>(&self, future: F) -> Following<F> {
        let sender = current().and_then(|it| it.actor);
        let step = Step { trace: self.trace, cause: self.letter, actor: sender };
        Following { step, future: Box::pin(future) }
    }

    /// The beginning of a trail outside actors: what `future` sends carries `trace`.
    pub fn start<F: Future>(trace: TraceId, future: F) -> Following<F> {
        let step = Step { trace, cause: LetterId::NONE, actor: None };
        Following { step, future: Box::pin(future) }
    }
}

/// What is running on this thread right now.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub trace: TraceId,
    pub cause: LetterId,
    pub actor: Option<ActorName>,
}

thread_local! {
    static STEP: RefCell<Option<Step>> = const { RefCell::new(None) };
    static REMARK: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Longest remark; the rest is cut.
const REMARK_BYTES_MAX: usize = 200;

/// Says in the recorder what the letter in hand is about ("2 writes to //pods/default/web"). The author redacts.
pub fn remark(text: impl fmt::Display) {
    let text = cut(text.to_string(), REMARK_BYTES_MAX);
    REMARK.with(|it| *it.borrow_mut() = text);
}

pub(crate) fn take_remark() -> String {
    REMARK.with(|it| std::mem::take(&mut *it.borrow_mut()))
}

pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

pub(crate) fn current() -> Option<Step> {
    STEP.with(|it| it.borrow().clone())
}

/// The trace and cause of what runs on this thread: what a recorder's note takes.
pub fn current_trace() -> (TraceId, LetterId) {
    current().map_or((TraceId::NONE, LetterId::NONE), |it| (it.trace, it.cause))
}

/// Puts the former step back also when a handler panics.
pub(crate) struct InStep(Option<Step>);

impl InStep {
    pub(crate) fn enter(step: Step) -> Self {
        Self(STEP.with(|it| it.borrow_mut().replace(step)))
    }
}

impl Drop for InStep {
    fn drop(&mut self) {
        STEP.with(|it| *it.borrow_mut() = self.0.take());
    }
}

/// A future on a trail.
pub struct Following<F> {
    step: Step,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Following<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _step = InStep::enter(self.step.clone());
        self.future.as_mut().poll(cx)
    }
}

/// A letter that expects no answer.
#[derive(Debug)]
pub struct Tell<M> {
    pub body: M,
    pub trail: Trail,
}

impl<M: 'static> actix::Message for Tell<M> {
    type Result = ();
}

/// A letter that expects one answer before its deadline.
#[derive(Debug)]
pub struct Ask<M: Letter> {
    pub body: M,
    pub trail: Trail,
    /// On this host's monotonic clock.
    pub deadline: Deadline,
    pub reply: Reply<M::Reply>,
}

impl<M: Letter> actix::Message for Ask<M> {
    type Result = ();
}

/// The right to answer once. Dropped without an answer it says `Ignored` (`Failed` when a panic dropped it), so that
/// no ask ends in silence.
#[derive(Debug)]
#[must_use = "dropping it answers Ignored"]
pub struct Reply<R> {
    to: Option<oneshot::Sender<Result<R, Refusal>>>,
}

impl<R> Reply<R> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<R, Refusal>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { to: Some(sender) }, receiver)
    }

    /// An asker that gave up meanwhile is none of the actor's business.
    pub fn reply(self, answer: R) {
        self.send(Ok(answer));
    }

    pub fn refuse(self, refusal: Refusal) {
        self.send(Err(refusal));
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.to.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn send(mut self, answer: Result<R, Refusal>) {
        if let Some(to) = self.to.take() {
            let _ = to.send(answer);
        }
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let refusal = if std::thread::panicking() { Refusal::Failed } else { Refusal::Ignored };
            let _ = to.send(Err(refusal));
        }
    }
}
