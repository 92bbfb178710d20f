//! Bounds, order and answers.

use std::time::Duration;

use kactor_protocol::insight::{Insight, InsightReply};
use kactor_protocol::store::{Propose, ProposeError};
use kactor_protocol::{Revision, TraceId};
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;

use crate::probe::*;

async fn blocked(actor: &ActorRef<Probe>, outside: &Outside, system: &ActorSystem) {
    actor.tell(Block {}).await.unwrap();
    until(system, async || outside.lines().contains(&"blocked".to_owned())).await;
}

#[test]
fn a_full_mailbox_gives_the_letter_back_and_makes_a_sender_wait() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 2);
        blocked(&actor, &outside, &system).await;
        actor.try_tell(say("a")).unwrap();
        actor.try_tell(say("b")).unwrap();
        let refused = actor.try_tell(say("c")).unwrap_err();
        assert_eq!((refused.body.text.as_str(), refused.reason), ("c", Refusal::Overloaded));

        let mut waits = Box::pin(actor.tell(say("d")));
        assert!(futures::poll!(&mut waits).is_pending(), "there is no room");
        outside.gate.add_permits(1);
        waits.await.unwrap();
        until(&system, async || outside.lines().len() == 6).await;
        assert_eq!(outside.lines(), ["born", "blocked", "unblocked", "a", "b", "d"]);
    });
}

#[test]
fn letters_that_shed_are_refused_at_once_and_buried() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 1);
        blocked(&actor, &outside, &system).await;
        let shed = || SayOrShed { text: "x".into() };
        actor.tell(shed()).await.unwrap();
        assert_eq!(actor.tell(shed()).await, Err(Refusal::Overloaded));
        let InsightReply::Dead { letters, total } =
            system.insight(Insight::Dead { limit: 9 }).await
        else {
            panic!("another answer")
        };
        assert_eq!((total, letters[0].message.as_str()), (1, "SayOrShed"));
        assert!(letters[0].to.starts_with("probe@n1#"), "{}", letters[0].to);
    });
}

#[test]
fn of_letters_that_coalesce_only_the_newest_waits_and_takes_one_place() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 2);
        blocked(&actor, &outside, &system).await;
        for n in 0..50 {
            actor.tell(Wake { text: format!("wake {n}") }).await.unwrap();
        }
        actor.try_tell(say("behind")).unwrap();
        outside.gate.add_permits(1);
        until(&system, async || outside.lines().len() == 5).await;
        assert_eq!(outside.lines()[3..], ["wake 49", "behind"]);
        actor.tell(Wake { text: "again".into() }).await.unwrap();
        until(&system, async || outside.lines().len() == 6).await;
        assert_eq!(outside.lines()[5], "again");
    });
}

#[test]
fn letters_of_one_sender_arrive_in_order_also_when_it_has_to_wait() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 3);
        for n in 0..500 {
            actor.tell(say(n)).await.unwrap();
        }
        let length = actor.ask(Length {}, system.deadline(PATIENCE)).await.unwrap();
        assert_eq!(length, 501);
        let sent: Vec<String> = (0..500).map(|it| it.to_string()).collect();
        assert_eq!(outside.lines()[1..], sent);
    });
}

#[test]
fn an_ask_that_is_not_answered_ends_at_its_deadline() {
    block_on(async |system| {
        let (actor, _) = probe(&system, 4);
        let soon = system.deadline(Duration::from_millis(5));
        assert_eq!(actor.ask(Keep {}, soon).await, Err(Refusal::DeadlinePassed));
    });
}

#[test]
fn an_ask_whose_deadline_passed_in_the_mailbox_is_not_handled() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 4);
        blocked(&actor, &outside, &system).await;
        let soon = system.deadline(Duration::from_millis(5));
        assert_eq!(actor.ask(Panic {}, soon).await, Err(Refusal::DeadlinePassed));
        outside.gate.add_permits(1);
        assert_eq!(actor.ask(Length {}, system.deadline(PATIENCE)).await, Ok(3));
        assert_eq!(outside.lines(), ["born", "blocked", "unblocked"], "it did not panic");
    });
}

#[test]
fn an_ask_waits_for_room_no_longer_than_its_deadline() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 1);
        blocked(&actor, &outside, &system).await;
        actor.try_tell(say("takes the room")).unwrap();
        let soon = system.deadline(Duration::from_millis(5));
        assert_eq!(actor.ask(Length {}, soon).await, Err(Refusal::Overloaded));
    });
}

#[test]
fn a_dropped_reply_token_says_ignored() {
    block_on(async |system| {
        let (actor, _) = probe(&system, 4);
        let answer = actor.ask(Ignore {}, system.deadline(PATIENCE)).await;
        assert_eq!(answer, Err(Refusal::Ignored));
    });
}

#[test]
fn many_askers_each_get_their_own_answer_once() {
    block_on(async |system| {
        let (actor, _) = probe(&system, 8);
        let asks = (0..64_u64).map(|n| {
            let touch = |it| kactor_protocol::store::Write::Touch {
                key: kactor_protocol::store::Key::new("", "pods", "a", &format!("p{it}")).unwrap(),
            };
            let writes = (0..n).map(touch).collect();
            let propose = Propose { reign: None, guards: Vec::new(), writes, trace: TraceId(n) };
            actor.ask(propose, system.deadline(PATIENCE))
        });
        let answers = futures::future::join_all(asks).await;
        for (n, answer) in answers.into_iter().enumerate() {
            match (n, answer.unwrap()) {
                (0, Err(ProposeError::Invalid { .. })) => {}
                (n, Ok(committed)) => assert_eq!(committed.revision, Revision(n as u64)),
                (n, other) => panic!("{n}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_letter_to_an_actor_that_stopped_is_a_dead_letter() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 4);
        blocked(&actor, &outside, &system).await;
        actor.try_tell(say("waits")).unwrap();
        let mut asks = Box::pin(actor.ask(Length {}, system.deadline(PATIENCE)));
        assert!(futures::poll!(&mut asks).is_pending());
        outside.gate.add_permits(1);
        system.stop(&name("probe")).await;
        let late = actor.tell(say("late")).await;
        assert_eq!(late, Err(Refusal::Stopped));
        assert!(matches!(asks.await, Ok(4 | 3) | Err(Refusal::Stopped)), "answered or refused");
        let InsightReply::Dead { letters, .. } = system.insight(Insight::Dead { limit: 9 }).await
        else {
            panic!("another answer")
        };
        assert_eq!(letters.last().unwrap().message, "Say");
        assert!(system.find::<Probe>("probe").is_none(), "its name is free again");
    });
}

#[test]
fn what_a_handler_sends_follows_its_trail() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 4);
        let deadline = system.deadline(PATIENCE);
        let trace = TraceId(0xabc);
        let _ = kactor_runtime::traced(trace, async {
            actor
                .ask(Propose { reign: None, guards: vec![], writes: vec![], trace }, deadline)
                .await
        })
        .await
        .unwrap();
        assert_eq!(outside.lines()[1], "propose from - trace 0000000000000abc");
    });
}

#[test]
fn an_actor_sends_on_from_its_handler_and_takes_no_letters_while_the_receiver_is_full() {
    block_on(async |system| {
        let (slow, slow_side) = start(&system, Child::new("slow", Lane::Node).mailbox(1));
        blocked(&slow, &slow_side, &system).await;
        let relayed = Outside::new();
        let relay = system
            .start(Child::new("relay", Lane::Control), {
                let (slow, relayed) = (slow.clone(), relayed.clone());
                move || Relay { to: slow.clone(), outside: relayed.clone() }
            })
            .unwrap();
        for n in 0..4 {
            relay.tell(say(n)).await.unwrap();
        }
        until(&system, async || relayed.lines().len() == 2).await;
        slow_side.gate.add_permits(1);
        until(&system, async || slow_side.lines().len() == 7).await;
        assert_eq!(slow_side.lines()[3..], ["0", "1", "2", "3"]);
    });
}

/// Passes on what it is told.
struct Relay {
    to: ActorRef<Probe>,
    outside: Outside,
}

impl Actor for Relay {
    type Context = Context<Self>;
}

impl Inspect for Relay {
    const KIND: &'static str = "Relay";

    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Handler<Tell<Say>> for Relay {
    type Result = ();

    fn handle(&mut self, tell: Tell<Say>, ctx: &mut Context<Self>) {
        self.outside.write(&tell.body.text);
        self.to.tell_from(self, ctx, tell.body);
    }
}
