//! The kit's promises under many seeds: actors that fail at random, senders that never wait in vain.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kactor_protocol::insight::{Insight, InsightReply};
use kactor_protocol::{HostId, Incarnation};
use kactor_runtime::env::{Env, Lane};
use kactor_runtime::prelude::*;
use kactor_runtime::{Delivery, Exhausted};
use kactor_simulations::World;

struct Step {
    sender: u64,
    nth: u64,
}

impl Letter for Step {
    type Reply = u64;
    const NAME: &'static str = "Step";
}

type Taken = Arc<Mutex<Vec<(u64, u64)>>>;

/// Takes steps; fails in one of ten, answers late in one of ten, forgets to answer in one of ten.
struct Shaky {
    env: Env,
    taken: Taken,
}

impl Actor for Shaky {
    type Context = Context<Self>;
}

impl Inspect for Shaky {
    const KIND: &'static str = "Shaky";

    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Handler<Ask<Step>> for Shaky {
    type Result = ();

    fn handle(&mut self, ask: Ask<Step>, ctx: &mut Context<Self>) {
        let Step { sender, nth } = ask.body;
        self.taken.lock().unwrap().push((sender, nth));
        match self.env.random_u64() % 10 {
            0 => panic!("on purpose"),
            1 => drop(ask.reply),
            2 => {
                let late = self.env.sleep(Duration::from_secs(2));
                ctx.spawn(late.into_actor(self).map(move |(), _, _| ask.reply.reply(nth)));
            }
            _ => ask.reply.reply(nth),
        }
    }
}

const SENDERS: u64 = 3;
const STEPS: u64 = 40;

/// What a sender's asks ended with, in order.
type Outcomes = Vec<Result<u64, Refusal>>;

/// Each sender's outcomes, what the actor took, and its restarts.
fn run(seed: u64) -> (Vec<Outcomes>, Vec<(u64, u64)>, u32) {
    World::run(seed, |world| async move {
        let host = world.host("n1");
        let env = host.env().clone();
        let name = HostId::new("n1").unwrap();
        let system = ActorSystem::new(env.clone(), name, Incarnation(1), Delivery::Encoded);
        let taken = Taken::default();
        let restart = Restart {
            restarts_max: 10_000,
            backoff_max: Duration::from_millis(400),
            exhausted: Exhausted::GiveUp,
            ..Restart::ALWAYS
        };
        let shaky = system
            .start(Child::new("shaky", Lane::Control).mailbox(2).restart(restart), {
                let taken = taken.clone();
                move || Shaky { env: env.clone(), taken: taken.clone() }
            })
            .unwrap();
        let senders = (0..SENDERS).map(|sender| {
            let (shaky, system) = (shaky.clone(), system.clone());
            async move {
                let mut outcomes = Vec::new();
                for nth in 0..STEPS {
                    let deadline = system.deadline(Duration::from_secs(1));
                    outcomes.push(shaky.ask(Step { sender, nth }, deadline).await);
                }
                outcomes
            }
        });
        let outcomes = futures::future::join_all(senders).await;
        let report = system.insight(Insight::Inspect { actor: shaky.address().name.clone() }).await;
        let InsightReply::Inspect { report } = report else { panic!("{report:?}") };
        system.stop_all().await;
        let taken = taken.lock().unwrap().clone();
        (outcomes, taken, report.row.restarts)
    })
}

#[test]
fn every_ask_ends_once_and_every_way_of_ending_is_named() {
    let mut failed = 0;
    for seed in 0..20 {
        let (outcomes, taken, restarts) = run(seed);
        for (sender, outcomes) in outcomes.iter().enumerate() {
            assert_eq!(outcomes.len() as u64, STEPS, "seed {seed}");
            for (nth, outcome) in outcomes.iter().enumerate() {
                match outcome {
                    Ok(answer) => assert_eq!(*answer, nth as u64, "seed {seed}: its own answer"),
                    Err(Refusal::Failed | Refusal::Ignored) => {
                        let step = (sender as u64, nth as u64);
                        assert!(taken.contains(&step), "seed {seed}: {step:?} was taken");
                    }
                    Err(Refusal::DeadlinePassed | Refusal::Overloaded) => {}
                    Err(other) => panic!("seed {seed}: {other}"),
                }
            }
        }
        let n_failed = outcomes.iter().flatten().filter(|it| **it == Err(Refusal::Failed)).count();
        failed += n_failed;
        assert!(restarts as usize >= n_failed, "seed {seed}: each failure is a restart");
    }
    assert!(failed > 20, "the seeds hardly fail: {failed}");
}

#[test]
fn what_one_sender_sends_is_taken_in_order_and_at_most_once() {
    for seed in 0..20 {
        let (_, taken, _) = run(seed);
        for sender in 0..SENDERS {
            let steps: Vec<u64> = taken.iter().filter(|it| it.0 == sender).map(|it| it.1).collect();
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {steps:?}");
        }
    }
}
