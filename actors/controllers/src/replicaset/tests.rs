//! Tables: what a ReplicaSet does with the Pods that it sees.

use expect_test::{Expect, expect};
use kactor_protocol::Timestamp;
use kactor_view::fixture::{self, key_of};

use super::ReplicaSetController;
use crate::controller::{Controller, Pass};
use crate::plan::Facts;
use crate::testing::{self, Life};

#[track_caller]
fn check(cluster: &str, expect: Expect) {
    expect.assert_eq(&testing::plan(&ReplicaSetController, cluster, 1000).to_string());
}

#[test]
fn scaling_down_takes_pods_in_upstream_order() {
    check(
        "
rs/web  replicas=1 observed=1 have=5          <- subject
pod/a   owner=rs/web node=n1 ready=10
pod/b   owner=rs/web phase=Pending
pod/c   owner=rs/web node=n1 phase=Pending
pod/d   owner=rs/web node=n2 phase=Running
pod/e   owner=rs/web node=n1 ready=10
pod/f   owner=rs/web node=n2 deleting=5
",
        expect![[r#"
            delete pod/b
            delete pod/c
            delete pod/d
            delete pod/a
            status rs/web {"availableReplicas":2,"conditions":null,"fullyLabeledReplicas":5,"observedGeneration":1,"readyReplicas":2,"replicas":5}
        "#]],
    );
}

#[test]
fn cost_crowding_and_age_decide_between_ready_pods() {
    let victims = |cluster: &str| {
        let plan = testing::plan(&ReplicaSetController, cluster, 1_000_000);
        plan.effects.iter().map(|it| it.key.name().to_owned()).collect::<Vec<_>>()[0].clone()
    };
    assert_eq!(
        victims(
            r#"
rs/web replicas=1 <- subject
pod/a  owner=rs/web node=n1 ready=10
pod/b  owner=rs/web node=n2 ready=10 .metadata.annotations={"controller.kubernetes.io/pod-deletion-cost":"-1"}
"#
        ),
        "b",
        "the cheaper one goes first"
    );
    assert_eq!(
        victims(
            "
rs/web replicas=2 <- subject
pod/a  owner=rs/web node=n1 ready=10
pod/b  owner=rs/web node=n2 ready=10
pod/c  owner=rs/web node=n2 ready=10
"
        ),
        "b",
        "the doubled-up one goes first"
    );
    assert_eq!(
        victims(
            "
rs/web replicas=1 <- subject
pod/a  owner=rs/web node=n1 ready=10
pod/b  owner=rs/web node=n2 ready=999990
"
        ),
        "b",
        "the one ready for a shorter time goes first"
    );
}

#[test]
fn missing_pods_are_made_from_the_template() {
    let plan = testing::plan(&ReplicaSetController, "rs/web replicas=2 hash=abc <- subject", 0);
    let [first, second] = &plan.effects[..2] else { panic!("two are missing") };
    assert_ne!(first.key, second.key);
    let crate::plan::Request::Create { body } = &first.request else { panic!("{plan}") };
    assert_eq!(body["metadata"]["generateName"], "web-");
    assert_eq!(body["metadata"]["labels"]["pod-template-hash"], "abc");
    assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "uid-rs-web");
    assert_eq!(body["spec"]["containers"][0]["image"], "v1");
    assert_eq!(first.done.as_ref().unwrap().reason, "SuccessfulCreate");
}

#[test]
fn a_set_makes_its_pods_and_becomes_quiet() {
    let mut life = Life::new("rs/web replicas=3 <- subject");
    life.settle(&ReplicaSetController);
    assert_eq!(life.field("pods", "/metadata/name").len(), 3);
    let status = &life.field("replicasets", "/status/replicas")[0].1;
    assert_eq!(*status, 3);
}

#[test]
fn orphans_are_adopted_and_strangers_released() {
    check(
        "
rs/web  replicas=1 observed=1 have=1  <- subject
pod/a   app=web
pod/b   owner=rs/web app=web labels=app:other
pod/c   app=web owner=rs/else
",
        expect![[r#"
            patch pod/a {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"uid-rs-web"}]}}
            patch pod/b {"metadata":{"ownerReferences":[]}}
            status rs/web {"availableReplicas":null,"conditions":null,"fullyLabeledReplicas":1,"observedGeneration":1,"readyReplicas":null,"replicas":1}
            note pod/b Released: its labels no longer match web
        "#]],
    );
}

#[test]
fn a_terminating_set_leaves_its_pods_to_the_garbage_collector() {
    check(
        "rs/web replicas=3 deleting=5 observed=1 finalizer=foregroundDeletion <- subject\npod/a app=web",
        expect![""],
    );
}

#[test]
fn a_pod_that_is_not_ready_long_enough_is_looked_at_again() {
    check(
        "
rs/web  replicas=1 minready=30 observed=1 have=1 readies=1 .status.fullyLabeledReplicas=1 <- subject
pod/a   owner=rs/web node=n1 ready=990
",
        expect![[r#"
            again at 1020s
        "#]],
    );
}

#[test]
fn a_refused_create_is_told_in_the_status_and_taken_back_later() {
    let world = fixture::parse("rs/web replicas=1 <- subject");
    let now = Timestamp::from_seconds(50);
    let pass = |facts: &Facts, world: &fixture::World| {
        let pass = Pass { view: world.view(), key: &key_of("rs/web"), facts, now };
        ReplicaSetController.reconcile(&pass, &mut ())
    };
    let first = pass(&Facts::default(), &world);
    let message = "pods \"web-x\" is forbidden: exceeded quota";
    let outcomes = vec![testing::refused(&first.effects[0], 403, "Forbidden", message)];
    let second = pass(&Facts { outcomes, ..Facts::default() }, &world);
    let status = second.effects.last().unwrap().to_string();
    assert!(
        status.contains(r#""reason":"FailedCreate""#) && status.contains("exceeded quota"),
        "{status}"
    );
    assert!(second.to_string().contains("create pod/web-"), "it tries again");

    let failed = fixture::parse(
        r#"rs/web replicas=1 .status.conditions=[{"type":"ReplicaFailure","status":"True","reason":"FailedCreate"}] <- subject
pod/a owner=rs/web"#,
    );
    let third = pass(&Facts::default(), &failed).to_string();
    assert!(third.contains(r#""conditions":null"#), "{third}");
}

#[test]
fn pods_wake_their_owner_or_whoever_might_adopt_them() {
    let mut world = fixture::parse("rs/web\nrs/db");
    let owned = world.line("pod/a owner=rs/web app=db");
    assert_eq!(ReplicaSetController.wakes(&owned, world.view()), [key_of("rs/web")]);
    let orphan = world.line("pod/b app=db");
    assert_eq!(ReplicaSetController.wakes(&orphan, world.view()), [key_of("rs/db")]);
}
