//! Letters to and from other hosts: frames in, frames out. How frames travel is the transport's business.
//!
//! Receiving decides in this order, before the body is decoded: is the version known, the message, is this sender permitted,
//! does the actor run, does it take the message. A full mailbox answers `Overloaded`; a frame never waits for room.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::codec::decode;
use kactor_protocol::frame::{Frame, FrameError, FrameKind, Header, Party, Refusal};
use kactor_protocol::message::{Peer, Row};
use kactor_protocol::{ActorAddress, Deadline, HostId, Incarnation, LetterId, MessageId, TraceId};

use crate::actor_ref::malformed;
use crate::env::BoxFuture;
use crate::letter::{Letter, Origin, Trail, Wire};
use crate::system::ActorSystem;

/// How frames get to another host: QUIC in production, a seeded network in the simulator.
///
/// It keeps the order of frames to one host, bounds what waits, and calls `ActorSystem::receive` on the other side with
/// the peer that it authenticated, and `ActorSystem::peer_down` when a host is lost.
pub trait Transport: Send + Sync {
    /// Completes when the frame is handed over; the sender waits while the link's queue is full.
    fn tell(&self, to: &HostId, frame: Bytes) -> BoxFuture<Result<(), Refusal>>;
    /// Completes with the answering frame.
    fn ask(&self, to: &HostId, frame: Bytes) -> BoxFuture<Result<Bytes, Refusal>>;
    /// Whether the host is linked now, as far as the transport knows: who watches one that is not hears `PeerDown` at once.
    fn is_linked(&self, _host: &HostId) -> bool {
        true
    }
}

pub(crate) async fn tell<M: Letter>(
    system: &ActorSystem,
    to: &ActorAddress,
    body: M,
    trail: Trail,
) -> Result<(), Refusal> {
    let sent = match frame(FrameKind::Tell, to, &body, &trail, 0) {
        Ok(frame) => match transport(system, to) {
            Ok(transport) => transport.tell(&to.host, frame).await,
            Err(refusal) => Err(refusal),
        },
        Err(refusal) => Err(refusal),
    };
    sent.inspect_err(|refusal| system.bury(to, &trail, M::NAME, &refusal.to_string()))
}

pub(crate) async fn ask<M: Letter>(
    system: &ActorSystem,
    to: &ActorAddress,
    body: M,
    trail: Trail,
    deadline: Deadline,
) -> Result<M::Reply, Refusal> {
    let left = deadline.remaining(system.env().monotonic());
    let timeout_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
    if timeout_ms == 0 {
        return Err(Refusal::DeadlinePassed);
    }
    let frame = frame(FrameKind::Ask, to, &body, &trail, timeout_ms)?;
    let asked = transport(system, to)?.ask(&to.host, frame);
    let answer = tokio::select! {
        biased;
        answer = asked => answer?,
        () = system.env().clock.sleep_until(deadline.at()) => return Err(Refusal::DeadlinePassed),
    };
    let answer = Frame::decode(answer).map_err(malformed)?;
    match answer.header.kind {
        FrameKind::Reply => (wire::<M>(to)?.decode_reply)(&answer.body).map_err(malformed),
        FrameKind::Refusal => Err(decode::<Refusal>(&answer.body).unwrap_or_else(malformed)),
        FrameKind::Tell | FrameKind::Ask => Err(malformed("a question came as an answer")),
    }
}

fn wire<M: Letter>(to: &ActorAddress) -> Result<Wire<M>, Refusal> {
    let refusal = || Refusal::NotTaken { name: to.to_string(), message: M::NAME.into() };
    M::wire().ok_or_else(refusal) // It stays on its host: nobody elsewhere can take it.
}

fn transport<'a>(
    system: &'a ActorSystem,
    to: &ActorAddress,
) -> Result<&'a Arc<dyn Transport>, Refusal> {
    system.transport().ok_or_else(|| Refusal::Unreachable {
        host: to.host.to_string(),
        reason: "this host has no link to others".into(),
    })
}

fn frame<M: Letter>(
    kind: FrameKind,
    to: &ActorAddress,
    body: &M,
    trail: &Trail,
    timeout_ms: u32,
) -> Result<Bytes, Refusal> {
    let wire = wire::<M>(to)?;
    let from = match &trail.from {
        Origin::Local(actor) => actor.clone(),
        Origin::Peer { .. } => None,
    };
    let header = Header {
        message: wire.id,
        kind,
        letter: trail.letter,
        trace: trail.trace,
        cause: trail.cause,
        timeout_ms,
        to: Some(Party { name: to.name.clone(), incarnation: to.incarnation }),
        from: from.map(|name| Party { name, incarnation: Incarnation::default() }),
    };
    let body = (wire.encode)(body).map_err(malformed)?;
    Frame { header, body }.encode().map_err(malformed)
}

impl ActorSystem {
    /// Takes one frame from `peer`. The letter is in its mailbox (or refused) when this returns, so frames stay in order; the
    /// future completes with the frame to answer, `None` for a tell.
    pub fn receive(&self, peer: &Peer, frame: Bytes) -> BoxFuture<Option<Bytes>> {
        let frame = match Frame::decode(frame) {
            Ok(frame) => frame,
            Err(error) => return Box::pin(std::future::ready(answer_unreadable(&error))),
        };
        let header = frame.header.clone();
        let delivered = self.deliver(peer, frame);
        Box::pin(async move {
            let outcome = match delivered {
                Ok(reply) => reply.await,
                Err(refusal) => Err(refusal),
            };
            match (header.kind, outcome) {
                (FrameKind::Ask, Ok(body)) => Some(Frame::answer(&header, FrameKind::Reply, body)),
                (FrameKind::Ask, Err(refusal)) => Some(Frame::refuse(&header, &refusal)),
                _ => None,
            }
        })
    }

    fn deliver(
        &self,
        peer: &Peer,
        frame: Frame,
    ) -> Result<BoxFuture<Result<Bytes, Refusal>>, Refusal> {
        let header = frame.header;
        let is_request = matches!(header.kind, FrameKind::Tell | FrameKind::Ask);
        if !is_request {
            return Err(malformed("an answer came without a question"));
        }
        let row = Row::of(header.message, kactor_protocol::frame::PROTOCOL_VERSION)?;
        row.permit(peer, &peer.host)?;
        let to = header.to.ok_or(Refusal::NoSuchActor { name: "(the host)".into() })?;
        let lives = |name: &Party| Refusal::NoSuchActor { name: name.name.to_string() };
        let entry = self.entry(&to.name).ok_or_else(|| lives(&to))?;
        let incarnation = entry.vitals().address.incarnation;
        if to.incarnation != Incarnation::default() && to.incarnation != incarnation {
            return Err(lives(&to)); // A life that ended: its successor never promised to take this.
        }
        let not_taken =
            || Refusal::NotTaken { name: to.name.to_string(), message: row.name.into() };
        let route = entry.route(header.message).ok_or_else(not_taken)?;
        let actor = header.from.map(|it| it.name);
        let trail = Trail {
            trace: header.trace,
            letter: header.letter,
            cause: header.cause,
            from: Origin::Peer { host: peer.host.clone(), actor },
        };
        let timeout = Duration::from_millis(header.timeout_ms.into());
        Ok(route(frame.body, trail, Deadline::after(self.env().monotonic(), timeout)))
    }
}

/// A later version's frame is answered by both numbers; what is no frame at all gets no answer.
fn answer_unreadable(error: &FrameError) -> Option<Bytes> {
    let FrameError::Unsupported { theirs, ours } = *error else { return None };
    let message = MessageId(0);
    let header = Header {
        message,
        kind: FrameKind::Refusal,
        letter: LetterId::NONE,
        trace: TraceId::NONE,
        cause: LetterId::NONE,
        timeout_ms: 0,
        to: None,
        from: None,
    };
    Some(Frame::refuse(&header, &Refusal::Unsupported { message, theirs, ours }))
}
