//! Tables: which of an object's owners hold it, and what follows.

use expect_test::{Expect, expect};
use kactor_protocol::{Timestamp, Uid};
use kactor_view::fixture::{self, key_of};

use super::GarbageCollector;
use crate::controller::{Controller, Pass};
use crate::plan::{Facts, Outcome, Plan, Refusal, Verb};
use crate::testing;

#[track_caller]
fn check(cluster: &str, expect: Expect) {
    expect.assert_eq(&testing::plan(&GarbageCollector, cluster, 100).to_string());
}

/// Plans knowing what a live read of the owner gave.
fn plan_with(cluster: &str, owner: &str, result: Result<Option<Uid>, Refusal>) -> Plan {
    let world = fixture::parse(cluster);
    let outcome = Outcome { key: key_of(owner), verb: Verb::Get, result };
    let facts = Facts { outcomes: vec![outcome], last_heard: None };
    let pass = Pass { view: world.view(), key: world.subject(), facts: &facts, now: Timestamp(0) };
    GarbageCollector.reconcile(&pass, &mut ())
}

fn refusal(code: u16, reason: &str) -> Refusal {
    Refusal { code, reason: reason.to_owned(), message: "no".to_owned() }
}

#[test]
fn an_absent_owner_is_read_live_before_anything_is_deleted() {
    let cluster = "pod/a owner=rs/gone <- subject";
    check(
        cluster,
        expect![[r#"
        get rs/gone
    "#]],
    );
    let told = |result| plan_with(cluster, "rs/gone", result).to_string();
    assert_eq!(told(Err(refusal(404, "NotFound"))), "delete pod/a Background\n");
    assert_eq!(told(Ok(Some("another-life".into()))), "delete pod/a Background\n");
    assert_eq!(told(Ok(Some("uid-rs-gone".into()))), "", "it lives after all");
    let unsure = told(Err(refusal(503, "ServiceUnavailable")));
    assert!(unsure.starts_with("note") && !unsure.contains("delete"), "{unsure}");
}

#[test]
fn one_living_owner_holds_and_dead_references_are_removed() {
    let plan = plan_with(
        "rs/alive\npod/a owner=rs/alive ref=rs/gone <- subject",
        "rs/gone",
        Err(refusal(404, "NotFound")),
    );
    expect![[r#"
        patch pod/a {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","controller":true,"kind":"ReplicaSet","name":"alive","uid":"uid-rs-alive"}]}}
    "#]]
    .assert_eq(&plan.to_string());
}

#[test]
fn foreground_deletion_goes_down_and_comes_up_again() {
    let deploy = "deploy/web deleting=5 finalizer=foregroundDeletion";
    check(
        &format!("{deploy} <- subject\nrs/web-1 owner=deploy/web blocks"),
        expect![[r#"
            note deploy/web WaitingForDependents: 1 dependents block its deletion
        "#]],
    );
    check(
        &format!(
            "{deploy}\nrs/web-1 owner=deploy/web blocks <- subject\npod/a owner=rs/web-1 blocks"
        ),
        expect![[r#"
            delete rs/web-1 Foreground
        "#]],
    );
    check(
        &format!("{deploy}\nrs/web-1 owner=deploy/web blocks <- subject"),
        expect![[r#"
            delete rs/web-1 Background
        "#]],
    );
    check(
        &format!("{deploy} <- subject"),
        expect![[r#"
        patch deploy/web {"metadata":{"finalizers":[]}}
    "#]],
    );
}

#[test]
fn orphans_lose_the_reference_and_then_the_owner_goes() {
    let rs = "rs/web deleting=5 finalizer=orphan finalizer=example.com/x <- subject";
    check(
        &format!("{rs}\npod/a owner=rs/web"),
        expect![[r#"
        patch pod/a {"metadata":{"ownerReferences":[]}}
    "#]],
    );
    check(
        rs,
        expect![[r#"
        patch rs/web {"metadata":{"finalizers":["example.com/x"]}}
    "#]],
    );
}

#[test]
fn owners_that_cannot_be_reached_delete_nothing() {
    check(
        "rs/other/web\npod/a owner=rs/web <- subject",
        expect![[r#"
            note pod/a OwnerUnknown: its owner /apps/replicasets/other/web lies in another namespace
        "#]],
    );
    check(
        "pod/a owner=widget/w <- subject",
        expect![[r#"
            note pod/a OwnerUnknown: no kind Widget in example.com/v1 is known
        "#]],
    );
}

#[test]
fn a_deletion_wakes_the_dependents_and_a_dependent_its_waiting_owner() {
    let mut world = fixture::parse("rs/web\npod/a owner=rs/web\npod/b");
    let gone = world.delete(&key_of("rs/web"));
    assert_eq!(GarbageCollector.wakes(&gone, world.view()), [key_of("pod/a")]);
    let waiting = world.line("rs/web deleting=5 finalizer=foregroundDeletion");
    assert!(GarbageCollector.wakes(&waiting, world.view()).contains(&key_of("rs/web")));
    let gone = world.delete(&key_of("pod/a"));
    assert!(GarbageCollector.wakes(&gone, world.view()).contains(&key_of("rs/web")));
}
