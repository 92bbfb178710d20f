//! Sending: one reference type for an actor of this host and of another.
//!
//! Locally the letter is moved into the mailbox; remotely it is encoded once and goes through the transport. At most once,
//! in order per pair. All sends are bounded: a full mailbox makes the sender wait, or hear `Overloaded`.

use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use bytes::Bytes;
use kactor_protocol::frame::Refusal;
use kactor_protocol::message::Overload;
use kactor_protocol::{ActorAddress, Deadline};

use crate::cell::{Cell, Inspect, Route};
use crate::env::BoxFuture;
use crate::letter::{Ask, Letter, Reply, Tell, Trail, Wire};
use crate::mailbox::{Envelope, Mailbox, NoRoom, Room, Told, seal_ask, seal_tell};
use crate::remote;
use crate::system::{ActorSystem, Delivery};

/// How long a tell waits for room before it is a dead letter. An ask has its own deadline.
pub const TELL_WAIT_MAX: Duration = Duration::from_secs(30);

/// An actor to send to. Cheap to clone; it keeps no actor alive.
pub struct ActorRef<A: Actor> {
    system: ActorSystem,
    place: Place<A>,
}

enum Place<A: Actor> {
    Here(Arc<Cell<A>>),
    There(Arc<ActorAddress>, PhantomData<fn(A)>),
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        let place = match &self.place {
            Place::Here(cell) => Place::Here(cell.clone()),
            Place::There(address, _) => Place::There(address.clone(), PhantomData),
        };
        Self { system: self.system.clone(), place }
    }
}

/// A letter that `try_tell` gives back.
#[derive(Debug)]
pub struct Undelivered<M> {
    pub body: M,
    pub reason: Refusal,
}

impl<A: Inspect> ActorRef<A> {
    pub(crate) fn local(system: ActorSystem, cell: Arc<Cell<A>>) -> Self {
        Self { system, place: Place::Here(cell) }
    }

    pub(crate) fn remote(system: ActorSystem, address: ActorAddress) -> Self {
        Self { system, place: Place::There(Arc::new(address), PhantomData) }
    }

    pub fn address(&self) -> &ActorAddress {
        match &self.place {
            Place::Here(cell) => &cell.vitals.address,
            Place::There(address, _) => address,
        }
    }

    pub fn system(&self) -> &ActorSystem {
        &self.system
    }

    /// Sends without an answer; waits while a local mailbox is full (`Overload::Shed` letters do not wait). The trail is that of
    /// the caller, taken now; the letter is sent when the future is polled.
    pub fn tell<M: Letter>(
        &self,
        body: M,
    ) -> impl Future<Output = Result<(), Refusal>> + Send + 'static
    where
        A: Handler<Tell<M>>,
    {
        let (this, trail) = (self.clone(), self.system.trail());
        async move {
            match &this.place {
                Place::Here(cell) => tell_here(&this.system, cell, body, trail).await,
                Place::There(address, _) => remote::tell(&this.system, address, body, trail).await,
            }
        }
    }

    /// Sends if there is room now. Only to an actor of this host.
    pub fn try_tell<M: Letter>(&self, body: M) -> Result<(), Undelivered<M>>
    where
        A: Handler<Tell<M>>,
    {
        let Place::Here(cell) = &self.place else {
            let reason = Refusal::Malformed { reason: "try_tell can't reach another host".into() };
            return Err(Undelivered { body, reason });
        };
        let body = match through_codec(&self.system, body) {
            Ok(body) => body,
            Err((body, reason)) => return Err(Undelivered { body, reason }),
        };
        let envelope = seal_tell::<A, M>(body, self.system.trail(), self.system.env().monotonic());
        let Some(envelope) = cell.mailbox.absorb(envelope) else { return Ok(()) };
        let room = match cell.mailbox.try_room() {
            Ok(room) => room,
            Err(NoRoom::Full) => return Err(unseal(envelope, Refusal::Overloaded)),
            Err(NoRoom::Closed) => return Err(unseal(envelope, Refusal::Stopped)),
        };
        cell.mailbox.push(envelope, room).map_err(|it| unseal(*it, Refusal::Stopped))
    }

    /// Sends from inside a handler: while there is no room, the sending actor takes no letters.
    pub fn tell_from<M, B>(&self, sender: &B, ctx: &mut Context<B>, body: M)
    where
        A: Handler<Tell<M>>,
        M: Letter,
        B: Actor<Context = Context<B>>,
    {
        let undelivered = match self.place {
            Place::Here(_) => match self.try_tell(body) {
                Ok(()) => return,
                Err(undelivered) => undelivered.body,
            },
            Place::There(..) => body,
        };
        ctx.wait(self.tell(undelivered).into_actor(sender).map(|_, _, _| ()));
    }

    /// Sends and waits for the answer, until `deadline`. Every way of not being answered is a `Refusal`.
    pub fn ask<M: Letter>(
        &self,
        body: M,
        deadline: Deadline,
    ) -> impl Future<Output = Result<M::Reply, Refusal>> + Send + 'static
    where
        A: Handler<Ask<M>>,
    {
        let (this, trail) = (self.clone(), self.system.trail());
        async move {
            match &this.place {
                Place::Here(cell) => ask_here(&this.system, cell, body, trail, deadline).await,
                Place::There(address, _) => {
                    remote::ask(&this.system, address, body, trail, deadline).await
                }
            }
        }
    }

    /// The actor, known only as one that takes `M`: what an actor of another crate should hold.
    pub fn tells<M: Letter>(&self) -> Recipient<M>
    where
        A: Handler<Tell<M>>,
    {
        let this = self.clone();
        Recipient { send: Arc::new(move |body| Box::pin(this.tell(body))) }
    }

    /// The actor, known only as one that answers `M`.
    pub fn asks<M: Letter>(&self) -> Asker<M>
    where
        A: Handler<Ask<M>>,
    {
        let this = self.clone();
        Asker { send: Arc::new(move |body, deadline| Box::pin(this.ask(body, deadline))) }
    }

    /// Lets other hosts tell this actor `M`, as far as the table's row permits them. Locals never cross hosts.
    pub fn open_to_tells<M: Letter>(&self) -> &Self
    where
        A: Handler<Tell<M>>,
    {
        let system = self.system.clone();
        self.open::<M>(move |cell, wire| {
            Arc::new(move |bytes, trail, _| {
                let sent = (wire.decode)(&bytes).map_err(malformed).and_then(|body| {
                    tell_at_once(&system, &cell, body, trail).map(|()| Bytes::new())
                });
                Box::pin(std::future::ready(sent))
            })
        })
    }

    /// Lets other hosts ask this actor `M`, as far as the table's row permits them.
    pub fn open_to_asks<M: Letter>(&self) -> &Self
    where
        A: Handler<Ask<M>>,
    {
        let system = self.system.clone();
        self.open::<M>(move |cell, wire| {
            Arc::new(move |bytes, trail, deadline| {
                let body = match (wire.decode)(&bytes) {
                    Ok(body) => body,
                    Err(error) => return Box::pin(std::future::ready(Err(malformed(error)))),
                };
                // Put into the mailbox now, so that the order of arrival is kept.
                let asked = ask_at_once::<A, M>(&system, &cell, body, trail, deadline);
                let (env, encode_reply) = (system.env().clone(), wire.encode_reply);
                Box::pin(async move {
                    let reply = answer(&env, asked?, deadline).await?;
                    encode_reply(&reply).map_err(malformed)
                })
            })
        })
    }

    fn open<M: Letter>(&self, route: impl FnOnce(Arc<Cell<A>>, Wire<M>) -> Route) -> &Self {
        let (Place::Here(cell), Some(wire)) = (&self.place, M::wire()) else {
            panic!(
                "only a message of the table can come from elsewhere, and only to an actor here"
            );
        };
        let id = wire.id;
        let route = route(cell.clone(), wire);
        cell.routes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, route);
        self
    }
}

pub(crate) fn malformed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Malformed { reason: error.to_string() }
}

/// In `Delivery::Encoded` every letter that could cross hosts proves that it survives it.
fn through_codec<M: Letter>(system: &ActorSystem, body: M) -> Result<M, (M, Refusal)> {
    match (system.delivery(), M::wire()) {
        (Delivery::Encoded, Some(wire)) => {
            let again = (wire.encode)(&body).and_then(|it| (wire.decode)(&it));
            again.map_err(|error| (body, malformed(error)))
        }
        _ => Ok(body),
    }
}

fn reply_through_codec<M: Letter>(
    system: &ActorSystem,
    reply: M::Reply,
) -> Result<M::Reply, Refusal> {
    match (system.delivery(), M::wire()) {
        (Delivery::Encoded, Some(wire)) => {
            (wire.encode_reply)(&reply).and_then(|it| (wire.decode_reply)(&it)).map_err(malformed)
        }
        _ => Ok(reply),
    }
}

fn unseal<A, M>(mut envelope: Envelope<A>, reason: Refusal) -> Undelivered<M>
where
    A: Actor<Context = Context<A>> + Handler<Tell<M>>,
    M: Letter,
{
    let told = envelope.contents.as_any().downcast_mut::<Told<M>>();
    let body = told.and_then(|it| it.0.take()).expect("it was sealed a moment ago with this type");
    Undelivered { body, reason }
}

/// Room now, or after a wait of at most `patience` where the letter's rule is to wait.
async fn room_for<A: Actor>(
    system: &ActorSystem,
    mailbox: &Mailbox<A>,
    overload: Overload,
    until: Duration,
) -> Result<Room, Refusal> {
    match mailbox.try_room() {
        Ok(room) => Ok(room),
        Err(NoRoom::Closed) => Err(Refusal::Stopped),
        Err(NoRoom::Full) if overload == Overload::Shed => Err(Refusal::Overloaded),
        Err(NoRoom::Full) => tokio::select! {
            biased;
            room = mailbox.room() => room.map_err(|_| Refusal::Stopped),
            () = system.env().clock.sleep_until(until) => Err(Refusal::Overloaded),
        },
    }
}

async fn tell_here<A, M>(
    system: &ActorSystem,
    cell: &Cell<A>,
    body: M,
    trail: Trail,
) -> Result<(), Refusal>
where
    A: Inspect + Handler<Tell<M>>,
    M: Letter,
{
    let body = through_codec(system, body).map_err(|(_, refusal)| refusal)?;
    let now = system.env().monotonic();
    let envelope = seal_tell::<A, M>(body, trail, now);
    let Some(envelope) = cell.mailbox.absorb(envelope) else { return Ok(()) };
    let (address, until) = (&cell.vitals.address, now + TELL_WAIT_MAX);
    match room_for(system, &cell.mailbox, M::OVERLOAD, until).await {
        Ok(room) => cell.mailbox.push(envelope, room).map_err(|envelope| {
            system.bury(address, &envelope.trail, M::NAME, "it stopped");
            Refusal::Stopped
        }),
        Err(refusal) => {
            system.bury(address, &envelope.trail, M::NAME, &refusal.to_string());
            Err(refusal)
        }
    }
}

/// As a letter from another host is told: without waiting.
fn tell_at_once<A, M>(
    system: &ActorSystem,
    cell: &Cell<A>,
    body: M,
    trail: Trail,
) -> Result<(), Refusal>
where
    A: Inspect + Handler<Tell<M>>,
    M: Letter,
{
    let envelope = seal_tell::<A, M>(body, trail, system.env().monotonic());
    let Some(envelope) = cell.mailbox.absorb(envelope) else { return Ok(()) };
    put_at_once(system, cell, envelope)
}

fn put_at_once<A: Inspect>(
    system: &ActorSystem,
    cell: &Cell<A>,
    envelope: Envelope<A>,
) -> Result<(), Refusal> {
    let refused = match cell.mailbox.try_room() {
        Ok(room) => match cell.mailbox.push(envelope, room) {
            Ok(()) => return Ok(()),
            Err(envelope) => (envelope, Refusal::Stopped),
        },
        Err(NoRoom::Full) => (Box::new(envelope), Refusal::Overloaded),
        Err(NoRoom::Closed) => (Box::new(envelope), Refusal::Stopped),
    };
    let (envelope, refusal) = refused;
    system.bury(&cell.vitals.address, &envelope.trail, envelope.name, &refusal.to_string());
    Err(refusal)
}

type Answer<R> = tokio::sync::oneshot::Receiver<Result<R, Refusal>>;

fn ask_at_once<A, M>(
    system: &ActorSystem,
    cell: &Cell<A>,
    body: M,
    trail: Trail,
    deadline: Deadline,
) -> Result<Answer<M::Reply>, Refusal>
where
    A: Inspect + Handler<Ask<M>>,
    M: Letter,
{
    let (reply, answer) = Reply::new();
    let now = system.env().monotonic();
    put_at_once(system, cell, seal_ask::<A, M>(body, trail, now, deadline, reply))?;
    Ok(answer)
}

async fn ask_here<A, M>(
    system: &ActorSystem,
    cell: &Cell<A>,
    body: M,
    trail: Trail,
    deadline: Deadline,
) -> Result<M::Reply, Refusal>
where
    A: Inspect + Handler<Ask<M>>,
    M: Letter,
{
    let body = through_codec(system, body).map_err(|(_, refusal)| refusal)?;
    let address = &cell.vitals.address;
    let room = room_for(system, &cell.mailbox, M::OVERLOAD, deadline.at()).await;
    let room = room.inspect_err(|refusal| {
        system.bury(address, &trail, M::NAME, &refusal.to_string());
    })?;
    let (reply, receiver) = Reply::new();
    let now = system.env().monotonic();
    let envelope = seal_ask::<A, M>(body, trail, now, deadline, reply);
    if let Err(envelope) = cell.mailbox.push(envelope, room) {
        system.bury(address, &envelope.trail, M::NAME, "it stopped");
        return Err(Refusal::Stopped);
    }
    reply_through_codec::<M>(system, answer(system.env(), receiver, deadline).await?)
}

async fn answer<R>(
    env: &crate::env::Env,
    receiver: Answer<R>,
    deadline: Deadline,
) -> Result<R, Refusal> {
    tokio::select! {
        biased;
        answer = receiver => answer.unwrap_or(Err(Refusal::Stopped)),
        () = env.clock.sleep_until(deadline.at()) => Err(Refusal::DeadlinePassed),
    }
}

/// Some actor that takes `M`.
pub struct Recipient<M: Letter> {
    send: Arc<dyn Fn(M) -> BoxFuture<Result<(), Refusal>> + Send + Sync>,
}

impl<M: Letter> Clone for Recipient<M> {
    fn clone(&self) -> Self {
        Self { send: self.send.clone() }
    }
}

impl<M: Letter> Recipient<M> {
    /// As `ActorRef::tell`.
    pub fn tell(&self, body: M) -> BoxFuture<Result<(), Refusal>> {
        (self.send)(body)
    }
}

impl ActorSystem {
    /// An actor of another host, known only as one that takes `M`: for who can't name its type.
    pub fn remote_tells<M: Letter>(&self, address: ActorAddress) -> Recipient<M> {
        let (system, address) = (self.clone(), Arc::new(address));
        let send = move |body| {
            let (system, address, trail) = (system.clone(), address.clone(), system.trail());
            let sent = async move { remote::tell(&system, &address, body, trail).await };
            Box::pin(sent) as BoxFuture<_>
        };
        Recipient { send: Arc::new(send) }
    }

    /// An actor of another host, known only as one that answers `M`.
    pub fn remote_asks<M: Letter>(&self, address: ActorAddress) -> Asker<M> {
        let (system, address) = (self.clone(), Arc::new(address));
        let send = move |body, deadline| {
            let (system, address, trail) = (system.clone(), address.clone(), system.trail());
            let asked = async move { remote::ask(&system, &address, body, trail, deadline).await };
            Box::pin(asked) as BoxFuture<_>
        };
        Asker { send: Arc::new(send) }
    }
}

type AskFn<M> =
    dyn Fn(M, Deadline) -> BoxFuture<Result<<M as Letter>::Reply, Refusal>> + Send + Sync;

/// Some actor that answers `M`.
pub struct Asker<M: Letter> {
    send: Arc<AskFn<M>>,
}

impl<M: Letter> Clone for Asker<M> {
    fn clone(&self) -> Self {
        Self { send: self.send.clone() }
    }
}

impl<M: Letter> Asker<M> {
    /// As `ActorRef::ask`.
    pub fn ask(&self, body: M, deadline: Deadline) -> BoxFuture<Result<M::Reply, Refusal>> {
        (self.send)(body, deadline)
    }
}
