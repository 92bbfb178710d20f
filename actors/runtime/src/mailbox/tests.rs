//! The mailbox against a plain model: order, bound, coalescing, closing.

use std::collections::VecDeque;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use kactor_protocol::message::Overload;
use kactor_protocol::{LetterId, TraceId};
use proptest::prelude::*;

use super::{Envelope, Mailbox, Next, NoRoom, Told, seal_tell};
use crate::letter::{Letter, Origin, Tell, Trail};

struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

struct Plain(u32);

impl Letter for Plain {
    type Reply = ();
    const NAME: &'static str = "Plain";
}

struct Newest {
    key: u64,
    value: u32,
}

impl Letter for Newest {
    type Reply = ();
    const NAME: &'static str = "Newest";
    const OVERLOAD: Overload = Overload::Coalesce;

    fn coalesce_key(&self) -> u64 {
        self.key
    }
}

impl Handler<Tell<Plain>> for Nobody {
    type Result = ();

    fn handle(&mut self, _: Tell<Plain>, _: &mut Context<Self>) {}
}

impl Handler<Tell<Newest>> for Nobody {
    type Result = ();

    fn handle(&mut self, _: Tell<Newest>, _: &mut Context<Self>) {}
}

#[derive(Debug, Clone)]
enum Op {
    Plain,
    Newest { key: u64, host: Option<&'static str> },
    Take,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let host = prop_oneof![Just(None), Just(Some("n1")), Just(Some("n2"))];
    prop_oneof![
        6 => Just(Op::Plain),
        6 => (0..2_u64, host).prop_map(|(key, host)| Op::Newest { key, host }),
        6 => Just(Op::Take),
        1 => Just(Op::Close),
    ]
}

/// What a letter is to the model: which others it replaces, and its value.
type Expected = (Option<(u64, Option<&'static str>)>, u32);

fn trail(host: Option<&str>) -> Trail {
    let from = match host {
        None => Origin::Local(None),
        Some(host) => {
            Origin::Peer { host: kactor_protocol::HostId::new(host).unwrap(), actor: None }
        }
    };
    Trail { trace: TraceId(1), letter: LetterId(1), cause: LetterId(0), from }
}

fn value(mut envelope: Envelope<Nobody>) -> u32 {
    let contents = envelope.contents.as_any();
    if let Some(plain) = contents.downcast_mut::<Told<Plain>>() {
        return plain.0.take().unwrap().0;
    }
    contents.downcast_mut::<Told<Newest>>().unwrap().0.take().unwrap().value
}

proptest! {
    #[test]
    fn a_mailbox_is_a_bounded_queue_in_which_newer_wake_ups_replace_older(
        ops in proptest::collection::vec(op(), 1..80),
        len_max in 1_u32..6,
    ) {
        let mailbox = Mailbox::<Nobody>::new(len_max);
        let mut model: VecDeque<Expected> = VecDeque::new();
        let mut closed = false;
        for (nth, op) in (0_u32..).zip(ops) {
            let (envelope, expected) = match op {
                Op::Plain => {
                    (seal_tell(Plain(nth), trail(None), Duration::ZERO), (None, nth))
                }
                Op::Newest { key, host } => {
                    let letter = Newest { key, value: nth };
                    (seal_tell(letter, trail(host), Duration::ZERO), (Some((key, host)), nth))
                }
                Op::Take => {
                    let taken = mailbox.next(std::task::Waker::noop());
                    let taken = taken.map(|it| match it {
                        Next::Letter(envelope) => value(envelope),
                        Next::Control(_) => unreachable!("the test sends none"),
                    });
                    prop_assert_eq!(taken, model.pop_front().map(|it| it.1));
                    continue;
                }
                Op::Close => {
                    let left: Vec<u32> = mailbox.close().into_iter().map(value).collect();
                    prop_assert_eq!(left, model.drain(..).map(|it| it.1).collect::<Vec<_>>());
                    closed = true;
                    continue;
                }
            };
            let replaced = model.iter_mut().find(|it| it.0.is_some() && it.0 == expected.0);
            let Some(envelope) = mailbox.absorb(envelope) else {
                replaced.expect("it absorbs only what the model replaces").1 = nth;
                continue;
            };
            prop_assert!(replaced.is_none());
            match mailbox.try_room() {
                Ok(room) => {
                    prop_assert!(!closed && model.len() < len_max as usize);
                    prop_assert!(mailbox.push(envelope, room).is_ok());
                    model.push_back(expected);
                }
                Err(NoRoom::Full) => prop_assert!(!closed && model.len() == len_max as usize),
                Err(NoRoom::Closed) => prop_assert!(closed),
            }
            prop_assert_eq!(mailbox.len(), model.len());
        }
    }
}
