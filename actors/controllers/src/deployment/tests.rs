//! Single steps as tables, and whole rollouts played to their end with the ReplicaSet controller beside.

use expect_test::{Expect, expect};
use kactor_view::fixture::key_of;
use serde_json::{Value, json};

use super::DeploymentController;
use crate::plan::Plan;
use crate::replicaset::ReplicaSetController;
use crate::testing::{self, Life};

/// The plan without its status, whose conditions tell times.
fn steps(plan: &Plan) -> String {
    let mut plan = plan.clone();
    plan.effects.retain(|it| !it.to_string().starts_with("status"));
    plan.again_at = None;
    plan.to_string()
}

#[track_caller]
fn check(cluster: &str, expect: Expect) {
    expect.assert_eq(&steps(&testing::plan(&DeploymentController, cluster, 1000)));
}

#[test]
fn a_new_template_gets_a_set_within_the_surge() {
    check(
        "
deploy/web  replicas=4 image=v2 surge=25% unavailable=25% revision=1   <- subject
rs/web-1    owner=deploy/web app=web hash=1 image=v1 replicas=4 have=4 availables=4 desired=4 max=5 revision=1
",
        expect![[r#"
            create rs/web-788bfcb97b
            patch deploy/web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"2"}}}
        "#]],
    );
}

#[test]
fn old_sets_give_way_as_far_as_enough_is_available() {
    check(
        "
deploy/web  replicas=4 image=v2 surge=25% unavailable=25% revision=2   <- subject
rs/web-1    owner=deploy/web app=web hash=1 image=v1 replicas=4 have=4 availables=4 desired=4 max=5 revision=1
rs/web-2    owner=deploy/web app=web hash=2 image=v2 replicas=1 have=1 created=5 desired=4 max=5 revision=2
",
        expect![[r#"
            patch rs/web-1 {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":3}}
        "#]],
    );
}

#[test]
fn unhealthy_old_pods_go_first() {
    check(
        "
deploy/web  replicas=4 image=v3 surge=1 unavailable=0 revision=3   <- subject
rs/web-1    owner=deploy/web app=web hash=1 image=v1 replicas=3 have=3 availables=3 desired=4 max=5 revision=1
rs/web-2    owner=deploy/web app=web hash=2 image=v2 replicas=2 have=2 created=5 desired=4 max=5 revision=2
rs/web-3    owner=deploy/web app=web hash=3 image=v3 replicas=0 created=6 desired=4 max=5 revision=3
",
        expect![[r#"
            patch rs/web-2 {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":1}}
        "#]],
    );
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_proportions() {
    check(
        "
deploy/web  replicas=20 image=v2 surge=2 unavailable=2 revision=2   <- subject
rs/web-1    owner=deploy/web app=web hash=1 image=v1 replicas=8 have=8 availables=8 desired=10 max=12 revision=1
rs/web-2    owner=deploy/web app=web hash=2 image=v2 replicas=4 have=4 created=5 desired=10 max=12 revision=2
",
        expect![[r#"
            patch rs/web-1 {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"20","deployment.kubernetes.io/max-replicas":"22"}},"spec":{"replicas":15}}
            patch rs/web-2 {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"20","deployment.kubernetes.io/max-replicas":"22"}},"spec":{"replicas":7}}
        "#]],
    );
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let cluster = |pod: &str| {
        format!(
            "
deploy/web  replicas=2 image=v2 recreate revision=1   <- subject
rs/web-1    owner=deploy/web app=web hash=1 image=v1 replicas=0 desired=2 max=2 revision=1
{pod}
"
        )
    };
    check(&cluster("pod/a owner=rs/web-1 app=web deleting=5"), expect![""]);
    check(
        &cluster("pod/a owner=rs/web-1 app=web phase=Failed"),
        expect![[r#"
        create rs/web-788bfcb97b
        patch deploy/web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"2"}}}
    "#]],
    );
}

#[test]
fn a_paused_deployment_rolls_nothing_out() {
    check("deploy/web replicas=2 paused <- subject", expect![""]);
}

#[test]
fn history_beyond_the_limit_is_deleted_oldest_first() {
    check(
        "
deploy/web  replicas=1 image=v9 history=1 revision=3 surge=1 unavailable=0  <- subject
rs/web-1    owner=deploy/web app=web hash=1 image=v1 replicas=0 observed=1 revision=1
rs/web-2    owner=deploy/web app=web hash=2 image=v2 replicas=0 observed=1 revision=2
rs/web-3    owner=deploy/web app=web hash=3 image=v9 replicas=1 have=1 availables=1 observed=1 desired=1 max=2 revision=3
",
        expect![[r#"
            delete rs/web-1
        "#]],
    );
}

#[test]
fn a_taken_name_is_a_collision_and_the_next_hash_is_another() {
    let first = testing::plan(&DeploymentController, "deploy/web replicas=1 <- subject", 10);
    let name = first.effects[0].key.name().to_owned();
    let cluster = format!("deploy/web replicas=1 <- subject\nrs/{name} app=other");
    let second = testing::plan(&DeploymentController, &cluster, 10);
    assert!(second.to_string().contains(r#"status deploy/web {"collisionCount":1}"#), "{second}");
    let cluster = format!("{cluster}\n").replace("<-", ".status.collisionCount=1 <-");
    let third = testing::plan(&DeploymentController, &cluster, 10);
    assert_ne!(third.effects[0].key.name(), name);
}

/// Both controllers and Pods that become ready at once, until nothing moves; bounds are held at every step.
fn settle(life: &mut Life, bounds: std::ops::RangeInclusive<i64>) {
    for _ in 0..200 {
        let before = life.log.len();
        let deployments = life.field("deployments", "/metadata/name");
        for (name, _) in deployments {
            life.pass(&DeploymentController, &key_of(&format!("deploy/{name}")));
            hold(life, &bounds);
        }
        for (name, _) in life.field("replicasets", "/metadata/name") {
            life.pass(&ReplicaSetController, &key_of(&format!("rs/{name}")));
        }
        // One Pod a round becomes ready, so that the rollout is seen in between.
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:10Z"}]);
        let waiting = life.field("pods", "/status/phase").into_iter().find(|it| it.1 != "Running");
        if let Some((name, _)) = waiting {
            let key = key_of(&format!("pod/{name}"));
            let mut body = life.world.body(&key).unwrap().clone();
            body["status"] = json!({"phase": "Running", "conditions": ready});
            life.world.put(&key, body);
        } else if life.log.len() == before {
            return;
        }
    }
    panic!("it does not become quiet:\n{}", life.log.join("--\n"));
}

fn hold(life: &Life, bounds: &std::ops::RangeInclusive<i64>) {
    let sizes = life.field("replicasets", "/spec/replicas");
    let total: i64 = sizes.iter().filter_map(|it| it.1.as_i64()).sum();
    assert!(total <= *bounds.end(), "{total} Pods are more than the surge allows: {sizes:?}");
    let ready = life.field("pods", "/status/phase").iter().filter(|it| it.1 == "Running").count();
    assert!(ready as i64 >= *bounds.start(), "only {ready} are available");
}

fn set_template(life: &mut Life, image: &str) {
    let key = key_of("deploy/web");
    let mut body = life.world.body(&key).unwrap().clone();
    body["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
    body["metadata"]["generation"] = (body["metadata"]["generation"].as_i64().unwrap() + 1).into();
    life.world.put(&key, body);
}

fn condition(life: &Life, kind: &str) -> Value {
    let all = life.field("deployments", "/status/conditions").remove(0).1;
    all.as_array().unwrap().iter().find(|it| it["type"] == kind).unwrap().clone()
}

#[test]
fn a_rollout_and_its_undo_keep_their_bounds_and_number_revisions() {
    let mut life = Life::new("deploy/web replicas=4 surge=1 unavailable=1 deadline=600 history=10");
    settle(&mut life, 0..=5);
    assert_eq!(life.field("pods", "/metadata/name").len(), 4);
    assert_eq!(condition(&life, "Progressing")["reason"], "NewReplicaSetAvailable");
    assert_eq!(condition(&life, "Available")["status"], "True");

    set_template(&mut life, "v2");
    settle(&mut life, 3..=5);
    let images = life.field("pods", "/spec/containers/0/image");
    assert!(images.len() == 4 && images.iter().all(|it| it.1 == "v2"), "{images:?}");
    let revision = "/metadata/annotations/deployment.kubernetes.io~1revision";
    assert_eq!(life.field("deployments", revision)[0].1, "2");

    // kubectl rollout undo patches the old template back.
    set_template(&mut life, "v1");
    settle(&mut life, 3..=5);
    assert_eq!(life.field("deployments", revision)[0].1, "3");
    let sets = life.field("replicasets", revision);
    assert_eq!(sets.len(), 2, "the old set is used again");
    let history = "/metadata/annotations/deployment.kubernetes.io~1revision-history";
    assert!(life.field("replicasets", history).iter().any(|it| it.1 == "1"), "it remembers 1");
}

#[test]
fn a_rollout_without_progress_times_out_and_says_so() {
    let cluster = |at: &str| {
        format!(
            r#"
deploy/web  replicas=1 image=v1 deadline=10 revision=1 .status.replicas=1 .status.updatedReplicas=1 .status.conditions=[{{"type":"Progressing","status":"True","reason":"ReplicaSetUpdated","lastUpdateTime":"1970-01-01T00:{at}Z"}}] <- subject
rs/web-1    owner=deploy/web app=web hash=1 image=v1 replicas=1 have=1 desired=1 max=2 revision=1
"#
        )
    };
    let late = testing::plan(&DeploymentController, &cluster("00:10"), 100).to_string();
    assert!(
        late.contains("ProgressDeadlineExceeded") && late.contains("has timed out progressing"),
        "{late}"
    );
    let early = testing::plan(&DeploymentController, &cluster("01:35"), 100);
    assert!(!early.to_string().contains("ProgressDeadlineExceeded"));
    assert_eq!(early.again_at.unwrap().seconds(), 106);
}
