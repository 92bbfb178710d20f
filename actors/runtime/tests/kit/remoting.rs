//! Two hosts over a transport of memory: the same references, the table's permissions, typed refusals.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kactor_protocol::frame::{Frame, FrameKind, Header, PROTOCOL_VERSION, Party};
use kactor_protocol::insight::Insight;
use kactor_protocol::message::{Message, Peer, Role};
use kactor_protocol::store::{Key, Propose, Write};
use kactor_protocol::{
    ActorAddress, HostId, Incarnation, LetterId, MessageId, Revision, TraceId, codec,
};
use kactor_runtime::env::{BoxFuture, Machine};
use kactor_runtime::prelude::*;
use kactor_runtime::{Delivery, Transport};

use crate::probe::*;

/// Hands frames to the other system at once; `from` is what its peer sees of us.
#[derive(Clone)]
struct Link {
    from: Peer,
    to: Arc<Mutex<Option<ActorSystem>>>,
}

impl Link {
    fn receive(&self, frame: Bytes) -> BoxFuture<Option<Bytes>> {
        let to = self.to.lock().unwrap().clone();
        to.map_or_else(
            || Box::pin(std::future::ready(None)) as _,
            |it| it.receive(&self.from, frame),
        )
    }
}

impl Transport for Link {
    fn tell(&self, _: &HostId, frame: Bytes) -> BoxFuture<Result<(), Refusal>> {
        let received = self.receive(frame);
        Box::pin(async move {
            received.await;
            Ok(())
        })
    }

    fn ask(&self, to: &HostId, frame: Bytes) -> BoxFuture<Result<Bytes, Refusal>> {
        let (received, host) = (self.receive(frame), to.to_string());
        Box::pin(async move {
            received.await.ok_or(Refusal::Unreachable { host, reason: "cut".into() })
        })
    }
}

fn peer(host: &str, roles: &[Role]) -> Peer {
    Peer { host: HostId::new(host).unwrap(), roles: roles.to_vec() }
}

/// `n1` with a link to `n2`, which knows n1 by `roles`.
fn two_hosts(machine: &Machine, roles: &[Role]) -> (ActorSystem, ActorSystem) {
    let far = system(machine.env(), "n2", Delivery::Moved);
    let to = Arc::new(Mutex::new(Some(far.clone())));
    let link = Arc::new(Link { from: peer("n1", roles), to });
    let (env, host) = (machine.env().clone(), HostId::new("n1").unwrap());
    let near = ActorSystem::with_transport(env, host, Incarnation(1), Delivery::Moved, link);
    (near, far)
}

fn propose(n_writes: usize) -> Propose {
    let touch = |n| Write::Touch { key: Key::new("", "pods", "a", &format!("p{n}")).unwrap() };
    let writes = (0..n_writes).map(touch).collect();
    Propose { reign: None, guards: Vec::new(), writes, trace: TraceId(1) }
}

#[test]
fn a_remote_actor_is_asked_as_a_local_one() {
    let machine = Machine::start();
    let (near, far) = two_hosts(&machine, &[Role::Control]);
    let (actor, outside) = probe(&far, 8);
    actor.open_to_asks::<Propose>();
    let remote = near.remote::<Probe>(actor.address().clone());
    let asked = remote.ask(propose(3), near.deadline(PATIENCE));
    let answer = machine.block_on(kactor_runtime::traced(TraceId(9), asked)).unwrap();
    assert_eq!(answer.unwrap().unwrap().revision, Revision(3));
    let line = &outside.lines()[1];
    assert!(line.starts_with("propose from @n1 trace"), "the authenticated host is named: {line}");
}

#[test]
fn an_actor_whose_type_is_not_known_here_is_asked_by_its_address() {
    let machine = Machine::start();
    let (near, far) = two_hosts(&machine, &[Role::Control]);
    let (actor, outside) = probe(&far, 8);
    actor.open_to_asks::<Propose>();
    let any_life = ActorAddress { incarnation: Incarnation(0), ..actor.address().clone() };
    let asked = near.remote_asks::<Propose>(any_life.clone());
    let answer = machine.block_on(asked.ask(propose(3), near.deadline(PATIENCE))).unwrap();
    assert_eq!(answer.unwrap().unwrap().revision, Revision(3));
    actor.open_to_tells::<Propose>();
    let told = near.remote_tells::<Propose>(any_life).tell(propose(1));
    machine.block_on(told).unwrap().unwrap();
    let (system, heard) = (far.clone(), outside.clone());
    let told = async move { until(&system, async || heard.lines().len() == 3).await };
    machine.block_on(told).unwrap();
    assert_eq!(outside.lines()[2], "told to propose by @n1");
}

#[test]
fn refusals_come_back_typed() {
    let machine = Machine::start();
    let (near, far) = two_hosts(&machine, &[Role::Control]);
    let (actor, _) = probe(&far, 8);
    let ask = |address: &ActorAddress| {
        let asked = near.remote::<Probe>(address.clone()).ask(propose(1), near.deadline(PATIENCE));
        machine.block_on(asked).unwrap().map(drop).unwrap_err()
    };
    let not_taken = ask(actor.address());
    assert!(matches!(not_taken, Refusal::NotTaken { .. }), "{not_taken:?}");
    actor.open_to_asks::<Propose>();
    let earlier_life = ActorAddress { incarnation: Incarnation(1), ..actor.address().clone() };
    let nobody = ActorAddress { name: name("nobody"), ..actor.address().clone() };
    for address in [earlier_life, nobody] {
        let refused = ask(&address);
        assert!(matches!(refused, Refusal::NoSuchActor { .. }), "{refused:?}");
    }
}

#[test]
fn a_letter_of_this_host_alone_does_not_leave_it() {
    let machine = Machine::start();
    let (near, far) = two_hosts(&machine, &[Role::Control]);
    let (actor, _) = probe(&far, 8);
    let remote = near.remote::<Probe>(actor.address().clone());
    let refused = machine.block_on(remote.tell(say("x"))).unwrap().unwrap_err();
    assert!(matches!(refused, Refusal::NotTaken { .. }), "{refused:?}");
}

fn frame(message: MessageId, body: &'static [u8]) -> Bytes {
    let header = Header {
        message,
        kind: FrameKind::Ask,
        letter: LetterId(5),
        trace: TraceId(6),
        cause: LetterId(0),
        timeout_ms: 60_000,
        to: Some(Party { name: name("probe"), incarnation: Incarnation(0) }),
        from: None,
    };
    Frame { header, body: Bytes::from_static(body) }.encode().unwrap()
}

/// What a raw frame is refused with.
fn refusal(machine: &Machine, system: &ActorSystem, peer: &Peer, frame: Bytes) -> Refusal {
    let answer = machine.block_on(system.receive(peer, frame)).unwrap().unwrap();
    let answer = Frame::decode(answer).unwrap();
    assert_eq!(answer.header.kind, FrameKind::Refusal);
    codec::decode(&answer.body).unwrap()
}

#[test]
fn permission_and_existence_are_decided_before_the_body_is_decoded() {
    let machine = Machine::start();
    let system = system(machine.env(), "n2", Delivery::Moved);
    let (actor, outside) = probe(&system, 8);
    actor.open_to_asks::<Propose>();
    let garbage = b"\xff\xff\xff";
    let (control, worker) = (peer("n1", &[Role::Control]), peer("n1", &[Role::Worker]));
    let refused = refusal(&machine, &system, &control, frame(Propose::ID, garbage));
    assert!(matches!(refused, Refusal::Malformed { .. }), "{refused:?}");
    let refused = refusal(&machine, &system, &worker, frame(Propose::ID, garbage));
    assert!(matches!(refused, Refusal::NotPermitted { .. }), "{refused:?}");
    let refused = refusal(&machine, &system, &control, frame(Insight::ID, garbage));
    assert!(matches!(refused, Refusal::NotPermitted { .. }), "{refused:?}");
    let refused = refusal(&machine, &system, &control, frame(MessageId(60_000), garbage));
    let (message, ours) = (MessageId(60_000), PROTOCOL_VERSION);
    assert_eq!(refused, Refusal::Unsupported { message, theirs: ours, ours });

    let mut later = frame(Propose::ID, garbage).to_vec();
    later[4] = 77;
    let refused = refusal(&machine, &system, &control, later.into());
    assert!(matches!(refused, Refusal::Unsupported { theirs: 77, .. }), "{refused:?}");
    let reached = outside.lines().into_iter().any(|it| it.starts_with("propose"));
    assert!(!reached, "nothing reached the actor");
}

#[test]
fn a_lost_peer_is_told_once_to_those_who_watch_it() {
    block_on(async |system| {
        let (watcher, heard) = probe(&system, 8);
        let host = HostId::new("n2").unwrap();
        system.watch_peer(host.clone(), watcher.tells()).unwrap();
        system.peer_down(&host, "no answer for 5 s");
        system.peer_down(&host, "still");
        until(&system, async || heard.lines().len() == 2).await;
        watcher.ask(Length {}, system.deadline(PATIENCE)).await.unwrap();
        assert_eq!(heard.lines(), ["born", "n2 down: no answer for 5 s"]);
    });
}
