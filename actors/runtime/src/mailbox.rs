//! A bounded mailbox that outlives its actor's restarts.
//!
//! actix' own mailbox is not used: `do_send` ignores its bound, and it dies with the context when a handler
//! panics. Letters wait here, and `Pump` (a future inside the actix context) hands them over one at a time. Room is a
//! fair semaphore: senders that wait get in by order of arrival, so a pair's letters never overtake each other.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use kactor_protocol::frame::Refusal;
use kactor_protocol::message::Overload;
use kactor_protocol::{Deadline, HostId, LetterId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

use crate::letter::{Ask, Letter, Origin, Reply, Tell, Trail};

/// A letter with its address label; how it is handled is inside.
pub(crate) struct Envelope<A: Actor> {
    pub trail: Trail,
    pub name: &'static str,
    /// `None` for tells.
    pub deadline: Option<Deadline>,
    pub queued_at: Duration,
    pub coalesce: Option<CoalesceKey>,
    pub contents: Box<dyn Contents<A>>,
}

/// Which letters replace each other: of one name and key, and from one host, so that no host's wake-up swallows another's.
pub(crate) type CoalesceKey = (&'static str, u64, Option<HostId>);

/// The part of an envelope that knows its letter's type.
pub(crate) trait Contents<A: Actor>: Send {
    fn deliver(self: Box<Self>, trail: Trail, actor: &mut A, ctx: &mut A::Context);
    /// Answers an ask; a tell has nobody to tell.
    fn refuse(self: Box<Self>, refusal: Refusal);
    fn as_any(&mut self) -> &mut dyn Any;
    fn take_over(&mut self, newer: &mut dyn Any);
}

pub(crate) struct Told<M>(pub Option<M>);

pub(crate) struct Asked<M: Letter> {
    pub body: M,
    pub deadline: Deadline,
    pub reply: Reply<M::Reply>,
}

impl<A, M> Contents<A> for Told<M>
where
    A: Actor<Context = Context<A>> + Handler<Tell<M>>,
    M: Letter,
{
    fn deliver(self: Box<Self>, trail: Trail, actor: &mut A, ctx: &mut A::Context) {
        let body = self.0.expect("only a letter that was absorbed is empty, and it was not queued");
        respond::<A, Tell<M>>(actor.handle(Tell { body, trail }, ctx), ctx);
    }

    fn refuse(self: Box<Self>, _: Refusal) {}

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_over(&mut self, newer: &mut dyn Any) {
        let newer = newer.downcast_mut::<Told<M>>().expect("letters of one name have one type");
        self.0 = newer.0.take();
    }
}

impl<A, M> Contents<A> for Asked<M>
where
    A: Actor<Context = Context<A>> + Handler<Ask<M>>,
    M: Letter,
{
    fn deliver(self: Box<Self>, trail: Trail, actor: &mut A, ctx: &mut A::Context) {
        let Asked { body, deadline, reply } = *self;
        respond::<A, Ask<M>>(actor.handle(Ask { body, trail, deadline, reply }, ctx), ctx);
    }

    fn refuse(self: Box<Self>, refusal: Refusal) {
        self.reply.refuse(refusal);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn take_over(&mut self, _: &mut dyn Any) {
        unreachable!("an ask is never coalesced: its asker waits for an answer of its own")
    }
}

/// Lets a handler return an actor future (`AtomicResponse`, `ResponseActFuture`) as in any actix actor.
fn respond<A, M>(result: A::Result, ctx: &mut A::Context)
where
    A: Actor + Handler<M>,
    M: actix::Message,
{
    actix::dev::MessageResponse::<A, M>::handle(result, ctx, None);
}

/// What the runtime itself says to an actor, before any letter.
pub(crate) enum Control {
    State(oneshot::Sender<String>),
    Stop,
}

pub(crate) enum Next<A: Actor> {
    Control(Control),
    Letter(Envelope<A>),
}

/// Room for one letter; given back when the letter is taken out.
pub(crate) struct Room(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

pub(crate) struct Mailbox<A: Actor> {
    queue: Mutex<Queue<A>>,
    room: Arc<Semaphore>,
    len_max: u32,
}

struct Queue<A: Actor> {
    letters: VecDeque<(Envelope<A>, Option<Room>)>,
    /// How many letters were taken out: letter n stands at index n - taken.
    taken: u64,
    /// Where the waiting letter of a name and key stands.
    coalescing: BTreeMap<CoalesceKey, u64>,
    control: VecDeque<Control>,
    closed: bool,
    waker: Option<Waker>,
}

/// How a letter that found no place went.
pub(crate) enum NoRoom {
    Full,
    Closed,
}

/// What a full mailbox and a closed one have in common for `Insight`.
pub(crate) struct Waiting {
    pub name: &'static str,
    pub trail: Trail,
    pub queued_at: Duration,
}

impl<A: Actor> Mailbox<A> {
    pub(crate) fn new(len_max: u32) -> Self {
        assert!(len_max > 0, "a mailbox without room takes no letter");
        let queue = Queue {
            letters: VecDeque::new(),
            taken: 0,
            coalescing: BTreeMap::new(),
            control: VecDeque::new(),
            closed: false,
            waker: None,
        };
        let room = Arc::new(Semaphore::new(len_max as usize));
        Self { queue: Mutex::new(queue), room, len_max }
    }

    fn locked(&self) -> MutexGuard<'_, Queue<A>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len_max(&self) -> u32 {
        self.len_max
    }

    pub(crate) fn try_room(&self) -> Result<Room, NoRoom> {
        match self.room.clone().try_acquire_owned() {
            Ok(permit) => Ok(Room(permit)),
            Err(TryAcquireError::NoPermits) => Err(NoRoom::Full),
            Err(TryAcquireError::Closed) => Err(NoRoom::Closed),
        }
    }

    /// Waits for room, first come first served.
    pub(crate) async fn room(&self) -> Result<Room, NoRoom> {
        self.room.clone().acquire_owned().await.map(Room).map_err(|_| NoRoom::Closed)
    }

    /// Replaces an equal letter that waits. Gives the letter back when there is none.
    pub(crate) fn absorb(&self, mut envelope: Envelope<A>) -> Option<Envelope<A>> {
        let Some(key) = &envelope.coalesce else { return Some(envelope) };
        let mut queue = self.locked();
        let Some(at) = queue.coalescing.get(key).copied() else { return Some(envelope) };
        let index = usize::try_from(at - queue.taken).expect("the queue is bounded");
        let (waiting, _) = &mut queue.letters[index];
        waiting.contents.take_over(envelope.contents.as_any());
        waiting.trail = envelope.trail;
        None
    }

    /// Gives the letter back when the mailbox closed meanwhile.
    pub(crate) fn push(&self, envelope: Envelope<A>, room: Room) -> Result<(), Box<Envelope<A>>> {
        let mut queue = self.locked();
        if queue.closed {
            return Err(Box::new(envelope));
        }
        let at = queue.taken + queue.letters.len() as u64;
        if let Some(key) = &envelope.coalesce {
            queue.coalescing.insert(key.clone(), at);
        }
        queue.letters.push_back((envelope, Some(room)));
        assert!(queue.letters.len() <= self.len_max as usize, "room is what bounds the queue");
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Runtime business: not bounded by room, but there is at most one inspection per asker.
    pub(crate) fn control(&self, control: Control) {
        let mut queue = self.locked();
        if queue.closed {
            return;
        }
        queue.control.push_back(control);
        let waker = queue.waker.take();
        drop(queue);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The next thing to do; else remembers whom to wake.
    pub(crate) fn next(&self, waker: &Waker) -> Option<Next<A>> {
        let mut queue = self.locked();
        if let Some(control) = queue.control.pop_front() {
            return Some(Next::Control(control));
        }
        let Some((envelope, room)) = queue.letters.pop_front() else {
            queue.waker = Some(waker.clone());
            return None;
        };
        let at = queue.taken;
        queue.taken += 1;
        if let Some(key) = &envelope.coalesce
            && queue.coalescing.get(key) == Some(&at)
        {
            queue.coalescing.remove(key);
        }
        drop(queue);
        drop(room); // Outside the lock: it may wake a sender that takes the lock at once.
        Some(Next::Letter(envelope))
    }

    /// Refuses everything from now on and gives back what waited.
    pub(crate) fn close(&self) -> Vec<Envelope<A>> {
        self.room.close();
        let mut queue = self.locked();
        queue.closed = true;
        queue.control.clear();
        queue.coalescing.clear();
        queue.letters.drain(..).map(|(envelope, _)| envelope).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.locked().letters.len()
    }

    /// What waits, oldest first.
    pub(crate) fn waiting(&self, limit: usize) -> Vec<Waiting> {
        let queue = self.locked();
        let row = |(it, _): &(Envelope<A>, Option<Room>)| Waiting {
            name: it.name,
            trail: it.trail.clone(),
            queued_at: it.queued_at,
        };
        queue.letters.iter().take(limit).map(row).collect()
    }
}

pub(crate) fn seal_tell<A, M>(body: M, trail: Trail, now: Duration) -> Envelope<A>
where
    A: Actor<Context = Context<A>> + Handler<Tell<M>>,
    M: Letter,
{
    let host = || match &trail.from {
        Origin::Local(_) => None,
        Origin::Peer { host, .. } => Some(host.clone()),
    };
    let coalesces = M::OVERLOAD == Overload::Coalesce;
    let coalesce = coalesces.then(|| (M::NAME, body.coalesce_key(), host()));
    let contents = Box::new(Told(Some(body)));
    Envelope { trail, name: M::NAME, deadline: None, queued_at: now, coalesce, contents }
}

pub(crate) fn seal_ask<A, M>(
    body: M,
    trail: Trail,
    now: Duration,
    deadline: Deadline,
    reply: Reply<M::Reply>,
) -> Envelope<A>
where
    A: Actor<Context = Context<A>> + Handler<Ask<M>>,
    M: Letter,
{
    Envelope {
        trail,
        name: M::NAME,
        deadline: Some(deadline),
        queued_at: now,
        coalesce: None,
        contents: Box::new(Asked { body, deadline, reply }),
    }
}

/// Letter ids start at 1; 0 is "none".
pub(crate) const FIRST_LETTER: LetterId = LetterId(1);

#[cfg(test)]
mod tests;
