//! Panics, restarts, giving up, escalating, stopping.

use std::time::Duration;

use kactor_protocol::insight::{ActorStatus, Insight, InsightReply};
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use kactor_runtime::{Exhausted, StartError};

use crate::probe::*;

#[test]
fn a_panic_costs_the_letter_in_hand_and_no_other() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 8);
        actor.tell(Block {}).await.unwrap();
        let mut failing = Box::pin(actor.ask(Panic {}, system.deadline(PATIENCE)));
        assert!(futures::poll!(&mut failing).is_pending());
        actor.tell(say("after")).await.unwrap();
        outside.gate.add_permits(1);
        assert_eq!(failing.await, Err(Refusal::Failed));
        until(&system, async || outside.lines().last().is_some_and(|it| it == "after")).await;
        // The half-stepped life was dropped, not stopped politely.
        assert_eq!(outside.lines(), ["born", "blocked", "unblocked", "born", "after"]);
        let InsightReply::Inspect { report } =
            system.insight(Insight::Inspect { actor: name("probe") }).await
        else {
            panic!("another answer")
        };
        assert_eq!(report.row.restarts, 1);
        assert_eq!(report.row.last_error.as_deref(), Some("on purpose"));
        assert_eq!(report.row.status, ActorStatus::Running);
    });
}

#[test]
fn restarts_are_limited_then_it_gives_up_and_watchers_hear_why() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 8);
        let (watcher, heard) = start(&system, Child::new("watcher", Lane::Control));
        system.watch(name("probe"), watcher.tells()).unwrap();
        for _ in 0..=QUICK.restarts_max {
            actor.tell(Panic {}).await.unwrap();
        }
        actor.tell(say("never read")).await.unwrap();
        until(&system, async || heard.lines().len() == 2).await;
        assert_eq!(heard.lines()[1], r#"probe down: GaveUp { error: "on purpose" }"#);
        assert_eq!(outside.lines(), ["born", "born", "born"]);
        assert_eq!(actor.tell(say("late")).await, Err(Refusal::Stopped));
        let InsightReply::Dead { total, .. } = system.insight(Insight::Dead { limit: 1 }).await
        else {
            panic!("another answer")
        };
        assert_eq!(total, 2, "what waited and what came late");
    });
}

#[test]
fn a_panic_in_a_step_of_the_core_is_an_error_and_the_actor_goes_on() {
    block_on(async |system| {
        let (outside, other) = (Outside::new(), Outside::new());
        let actor = system
            .start(Child::new("probe", Lane::Control), {
                let (system, outside) = (system.clone(), outside.clone());
                let child = Child::new("child", Lane::Control).under("probe");
                move || {
                    let probe = Probe::new(outside.clone());
                    probe.with_child(child.clone(), other.clone(), system.clone())
                }
            })
            .unwrap();
        let stepped = actor.ask(Step {}, system.deadline(PATIENCE)).await.unwrap();
        assert_eq!(stepped.unwrap_err().text, "on purpose");
        assert_eq!(actor.ask(Length {}, system.deadline(PATIENCE)).await, Ok(1), "the same life");
        let InsightReply::Inspect { report } =
            system.insight(Insight::Inspect { actor: name("probe") }).await
        else {
            panic!("another answer")
        };
        assert_eq!(report.row.last_error.as_deref(), Some("on purpose"));
        assert_eq!(report.row.restarts, 0);
    });
}

#[test]
fn the_pause_doubles_up_to_its_bound() {
    let restart = Restart {
        backoff_min: Duration::from_millis(100),
        backoff_max: Duration::from_secs(1),
        ..QUICK
    };
    let pauses = [1, 2, 3, 4, 5, 100].map(|nth| restart.backoff(nth).as_millis());
    assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
}

#[test]
fn a_child_that_escalates_restarts_its_parent_and_with_it_itself() {
    block_on(async |system| {
        let restart = Restart { restarts_max: 0, exhausted: Exhausted::Escalate, ..QUICK };
        let child = Child::new("child", Lane::Control).under("parent").restart(restart);
        let (parents, children) = (Outside::new(), Outside::new());
        system
            .start(Child::new("parent", Lane::Control).restart(QUICK), {
                let (parents, children, system) =
                    (parents.clone(), children.clone(), system.clone());
                move || {
                    Probe::new(parents.clone()).with_child(
                        child.clone(),
                        children.clone(),
                        system.clone(),
                    )
                }
            })
            .unwrap();
        until(&system, async || system.find::<Probe>("child").is_some()).await;
        let first = system.find::<Probe>("child").unwrap();
        first.tell(Panic {}).await.unwrap();
        until(&system, async || children.lines().len() == 2).await;
        assert_eq!(parents.lines(), ["born", "born"]);
        let second = system.find::<Probe>("child").unwrap();
        assert!(second.address().incarnation > first.address().incarnation);
        let InsightReply::Inspect { report } =
            system.insight(Insight::Inspect { actor: name("parent") }).await
        else {
            panic!("another answer")
        };
        assert_eq!(report.row.last_error.as_deref(), Some("child gave up: on purpose"));
        assert_eq!(report.children, [name("child")]);
    });
}

#[test]
fn a_root_that_escalates_fails_the_host() {
    block_on(async |system| {
        let restart = Restart { restarts_max: 0, exhausted: Exhausted::Escalate, ..QUICK };
        let (actor, _) = start(&system, Child::new("root", Lane::Control).restart(restart));
        actor.tell(Panic {}).await.unwrap();
        assert_eq!(system.failed().await, "root gave up: on purpose");
    });
}

#[test]
fn stopping_is_polite_and_takes_the_children_along() {
    block_on(async |system| {
        let (_, parent) = start(&system, Child::new("parent", Lane::Control));
        let (_, child) = start(&system, Child::new("child", Lane::Node).under("parent"));
        let (_, other) = start(&system, Child::new("other", Lane::Control));
        until(&system, async || child.lines() == ["born"] && parent.lines() == ["born"]).await;
        system.stop(&name("parent")).await;
        assert_eq!(parent.lines(), ["born", "stopped"]);
        assert_eq!(child.lines(), ["born", "stopped"]);
        system.stop_all().await;
        assert_eq!(other.lines().last().map(String::as_str), Some("stopped"));
        let InsightReply::Actors { actors } =
            system.insight(Insight::Actors { prefix: String::new(), limit: 9 }).await
        else {
            panic!("another answer")
        };
        assert!(actors.is_empty(), "{actors:?}");
    });
}

#[test]
fn what_the_others_rely_on_stops_after_them() {
    block_on(async |system| {
        let (last, last_heard) = start(&system, Child::new("a", Lane::Control).stops(Stops::Last));
        let (other, outside) = start(&system, Child::new("b", Lane::Control));
        other.tell(Block {}).await.unwrap();
        until(&system, async || outside.lines().last().is_some_and(|it| it == "blocked")).await;
        let used_meanwhile = async {
            last.tell(say("still here")).await.unwrap();
            until(&system, async || last_heard.lines().contains(&"still here".to_owned())).await;
            outside.gate.add_permits(1);
        };
        futures::join!(system.stop_all(), used_meanwhile);
        assert_eq!(last_heard.lines(), ["born", "still here", "stopped"]);
        assert_eq!(outside.lines().last().map(String::as_str), Some("stopped"));
    });
}

#[test]
fn watching_what_does_not_run_is_answered_at_once() {
    block_on(async |system| {
        let (watcher, heard) = probe(&system, 8);
        system.watch(name("nobody"), watcher.tells()).unwrap();
        until(&system, async || heard.lines().len() == 2).await;
        assert_eq!(heard.lines()[1], "nobody down: NotFound");
    });
}

#[test]
fn names_are_unique_and_parents_must_run() {
    block_on(async |system| {
        let (_, _) = probe(&system, 8);
        let start = |child| system.start(child, || Probe::new(Outside::new())).err().unwrap();
        let taken = start(Child::new("probe", Lane::Control));
        assert_eq!(taken, StartError::NameTaken { name: name("probe") });
        let orphan = start(Child::new("x", Lane::Control).under("nobody"));
        assert_eq!(orphan, StartError::NoParent { name: name("x"), parent: name("nobody") });
        assert!(matches!(start(Child::new("a b", Lane::Control)), StartError::Name { .. }));
    });
}
