//! What operators see, and that limits hold.

use expect_test::expect;
use kactor_protocol::TraceId;
use kactor_protocol::insight::{Insight, InsightReply, TopBy};
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use kactor_runtime::traced;

use crate::probe::*;

#[test]
fn a_tap_shows_what_was_taken_with_remarks_and_goes_on_where_it_ended() {
    block_on(async |system| {
        let (actor, _) = probe(&system, 8);
        traced(TraceId(5), async {
            for text in ["a", "b", "c"] {
                actor.tell(say(text)).await.unwrap();
            }
        })
        .await;
        actor.ask(Length {}, system.deadline(PATIENCE)).await.unwrap();
        let tap = async |after, limit| {
            let question = Insight::Tap { actor: name("probe"), after, limit };
            match system.insight(question).await {
                InsightReply::Tap { records, next } => {
                    let shown = records.into_iter().map(|it| format!("{} {}", it.trace, it.note));
                    (shown.collect::<Vec<_>>(), next)
                }
                other => panic!("{other:?}"),
            }
        };
        let (first, next) = tap(0, 2).await;
        assert_eq!(first, ["0000000000000005 says a", "0000000000000005 says b"]);
        let (second, next) = tap(next, 1).await;
        assert_eq!((second, next), (vec!["0000000000000005 says c".to_owned()], 3));
    });
}

#[test]
fn an_actor_that_hangs_is_shown_as_hanging_without_its_state() {
    block_on(async |system| {
        let (actor, outside) = probe(&system, 8);
        actor.tell(Block {}).await.unwrap();
        until(&system, async || outside.lines().len() == 2).await;
        actor.tell(say("waits")).await.unwrap();
        let InsightReply::Inspect { report } =
            system.insight(Insight::Inspect { actor: name("probe") }).await
        else {
            panic!("another answer")
        };
        assert_eq!((report.state, report.row.mailbox_len), (None, 1));
        let InsightReply::Mailbox { letters } =
            system.insight(Insight::Mailbox { actor: name("probe"), limit: 9 }).await
        else {
            panic!("another answer")
        };
        assert_eq!((letters.len(), letters[0].message.as_str()), (1, "Say"));
        outside.gate.add_permits(1);
        let InsightReply::Inspect { report } =
            system.insight(Insight::Inspect { actor: name("probe") }).await
        else {
            panic!("another answer")
        };
        assert!(report.state.is_some());
    });
}

#[test]
fn why_tells_the_notes_of_an_object_and_its_traces_the_letters_behind_them() {
    block_on(async |system| {
        let (actor, _) = probe(&system, 8);
        let key = "//pods/default/web";
        traced(TraceId(7), async {
            system.note(key, "0/1 nodes fit: too little memory");
            actor.tell(say("bind")).await.unwrap();
        })
        .await;
        actor.ask(Length {}, system.deadline(PATIENCE)).await.unwrap();
        let why = system.insight(Insight::Why { key: key.into(), limit: 9 }).await;
        let InsightReply::Why { notes } = why else { panic!("{why:?}") };
        let shown: Vec<_> = notes.iter().map(|it| format!("{} {}", it.trace, it.text)).collect();
        expect![[r#"
            [
                "0000000000000007 0/1 nodes fit: too little memory",
            ]
        "#]]
        .assert_debug_eq(&shown);
        let trace = system.insight(Insight::TraceOf { key: key.into(), limit: 9 }).await;
        let InsightReply::TraceOf { records, notes } = trace else { panic!("{trace:?}") };
        assert_eq!((records.len(), notes.len()), (1, 1));
        assert_eq!(records[0].note, "says bind");
    });
}

#[test]
fn top_sorts_and_every_answer_keeps_its_limit() {
    block_on(async |system| {
        for n in 0..5 {
            let child = Child::new(format!("pod/{n}"), Lane::Node);
            let (actor, _) = start(&system, child);
            for _ in 0..n {
                actor.ask(Length {}, system.deadline(PATIENCE)).await.unwrap();
            }
        }
        until(&system, async || {
            let top = system.insight(Insight::Top { by: TopBy::Handled, limit: 2 }).await;
            let InsightReply::Top { actors } = top else { panic!("{top:?}") };
            assert_eq!(actors.len(), 2);
            let shown: Vec<_> =
                actors.iter().map(|it| (it.address.name.as_str(), it.handled)).collect();
            shown == [("pod/4", 4), ("pod/3", 3)]
        })
        .await;
        let listed = system.insight(Insight::Actors { prefix: "pod/".into(), limit: 3 }).await;
        let InsightReply::Actors { actors } = listed else { panic!("{listed:?}") };
        assert_eq!(actors.len(), 3);
        let missing = system.insight(Insight::Inspect { actor: name("nobody") }).await;
        assert_eq!(missing, InsightReply::NotFound { what: "actor nobody".into() });
    });
}
