//! The rest of what a user types in a day: edit, replace, wait, taint, run, expose, set, undo, explain, describe, who am I.

use kactor_tests::harness::cluster::NODE;
use kactor_tests::harness::kubectl::with_each;
use kactor_tests::{harness::Cluster, harness::Kubectl, harness::Runtime};

use crate::reading::{WEB, pod, running};

const ROLLED: [&str; 4] = ["rollout", "status", "deployment/web", "--timeout=100s"];

#[test]
fn every_kind_of_discovery_can_be_explained_listed_and_described() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&ROLLED);
        kubectl.ok(&["create", "pdb", "web", "--min-available=1", "--selector=app=web"]);
        let resources = kubectl.ok(&["api-resources", "--no-headers"]);
        let mut n_kinds = 0;
        for line in resources.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [.., version, _, kind] = words.as_slice() else { panic!("{resources}") };
            let explain = ["explain", words[0], "--api-version", version, "--recursive"];
            let explained = kubectl.ok(&explain);
            for part in
                [&format!("KIND:       {kind}"), "DESCRIPTION:", "resourceVersion\t<string>"]
            {
                assert!(explained.contains(part), "{kind}: {part:?} not in {explained}");
            }
            n_kinds += 1;
        }
        assert!(n_kinds > 20, "{resources}");
        for name in kubectl.ok(&["api-resources", "--verbs=list,get", "-o", "name"]).lines() {
            let listed = kubectl.run(&["get", name, "-A", "-o", "wide"]);
            assert!(listed.is_ok(), "get {name}: {}", listed.both());
            let described = kubectl.run(&["describe", name, "-A"]);
            assert!(described.is_ok(), "describe {name}: {}", described.both());
        }
        kubectl.ok(&["delete", "pdb,service,deployment", "web"]);
    });
}

#[test]
fn an_object_is_edited_and_replaced_in_place_or_by_force() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        let edit = ["edit", "deployment/web"];
        let edited = kubectl.ok_where(("KUBE_EDITOR", "sed -i s/demo:1/demo:2/"), &edit);
        assert_eq!(edited.trim(), "deployment.apps/web edited");
        let image = |kubectl: &Kubectl| {
            kubectl.field("deployment/web", ".spec.template.spec.containers[0].image")
        };
        assert_eq!(image(kubectl), "demo:2");
        let uid = kubectl.field("deployment/web", ".metadata.uid");
        let mut deployment = kubectl.json(&["get", "deployment", "web"]);
        // The controller writes too, in its own time.
        deployment["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let deployment = deployment.to_string();
        let replace = ["replace", "-f", "-"];
        let newer = deployment.replace("demo:2", "demo:3");
        let replaced = kubectl.ok_with(&replace, &newer);
        assert_eq!(replaced.trim(), "deployment.apps/web replaced");
        assert_eq!(
            (image(kubectl), kubectl.field("deployment/web", ".metadata.uid")),
            ("demo:3".into(), uid.clone())
        );
        let manifest = kubectl.file("web.yaml", WEB);
        let forced = kubectl.ok(&["replace", "--force", "-f", &manifest]);
        assert!(forced.contains("deployment.apps/web replaced"), "{forced}");
        assert_ne!(kubectl.field("deployment/web", ".metadata.uid"), uid, "another life");
        let diff = kubectl.run_with(
            &["diff", "--server-side", "--force-conflicts", "-f", "-"],
            &WEB.replace("demo:1", "demo:4"),
        );
        assert!(diff.code == 1 && diff.stdout.contains("+      - image: demo:4"), "{diff:?}");
        assert_eq!(image(kubectl), "demo:1", "a diff changes nothing");
    });
}

#[test]
fn a_pod_is_run_exposed_waited_for_and_deleted() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        assert_eq!(
            kubectl.ok(&["run", "q", "--image=demo:1", "--dry-run=server", "-o", "name"]).trim(),
            "pod/q"
        );
        let run = ["run", "p", "--image=demo:1", "--restart=Never", "--port=80", "--labels=a=b"];
        assert_eq!(kubectl.ok(&run).trim(), "pod/p created");
        running(kubectl, "p");
        let phase = "--for=jsonpath={.status.phase}=Running";
        assert_eq!(
            kubectl.ok(&["wait", phase, "pod/p", "--timeout=100s"]).trim(),
            "pod/p condition met"
        );
        assert_eq!(kubectl.ok(&["expose", "pod", "p", "--name=s"]).trim(), "service/s exposed");
        assert_eq!(kubectl.field("service/s", ".spec.selector"), r#"{"a":"b"}"#);
        let never = kubectl.refused(&["wait", "--for=condition=Nonsense", "pod/p", "--timeout=1s"]);
        assert!(never.contains("timed out waiting for the condition on pods/p"), "{never}");
        kubectl.ok(&["delete", "pod", "p", "--wait=false"]);
        kubectl.ok(&["wait", "--for=delete", "pod/p", "--timeout=100s"]);
        assert_eq!(
            kubectl.refused(&["delete", "pod", "p"]).trim(),
            "Error from server (NotFound): pods \"p\" not found"
        );
        kubectl.ok(&["delete", "pod", "p", "--ignore-not-found"]);
    });
}

#[test]
fn a_deployment_that_is_orphaned_or_deleted_in_the_foreground_treats_its_replica_sets_so() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&ROLLED);
        kubectl.ok(&["delete", "deployment", "web", "--cascade=orphan"]);
        let sets = [
            "get",
            "replicasets",
            "-l",
            "app=web",
            "-o",
            "jsonpath={.items[*].metadata.ownerReferences}",
        ];
        kubectl.until(&sets, str::is_empty);
        assert_eq!(kubectl.ok(&["get", "rs", "-l", "app=web", "-o", "name"]).lines().count(), 1);
        kubectl.give(WEB);
        kubectl.until(&sets, |it| it.contains("Deployment"));
        kubectl.ok(&ROLLED);
        kubectl.ok(&["delete", "deployment", "web", "--cascade=foreground"]);
        let left = kubectl.ok(&["get", "replicasets,pods", "-l", "app=web", "-o", "name"]);
        assert_eq!(left, "", "in the foreground, what is owned goes first");
    });
}

#[test]
fn set_changes_the_template_and_undo_goes_back_to_any_revision() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        kubectl.ok(&ROLLED);
        let container = ".spec.template.spec.containers[0]";
        kubectl.ok(&["set", "env", "deployment/web", "A=b"]);
        kubectl.ok(&["set", "resources", "deployment/web", "--limits=cpu=100m"]);
        kubectl.ok(&ROLLED);
        assert_eq!(
            kubectl.field("deployment/web", &format!("{container}.env")),
            r#"[{"name":"A","value":"b"}]"#
        );
        assert_eq!(
            kubectl.field("deployment/web", &format!("{container}.resources.limits.cpu")),
            "100m"
        );
        kubectl.ok(&["rollout", "undo", "deployment/web", "--to-revision=1"]);
        kubectl.ok(&ROLLED);
        assert_eq!(kubectl.field("deployment/web", &format!("{container}.env")), "");
        let none = kubectl.refused(&["rollout", "undo", "deployment/web", "--to-revision=99"]);
        assert!(none.contains("unable to find specified revision 99"), "{none}");
        let wrong = kubectl.refused(&[
            "scale",
            "deployment",
            "web",
            "--replicas=3",
            "--current-replicas=7",
        ]);
        assert!(wrong.contains("xpected replicas to be 7, was 2"), "{wrong}");
        let paused = kubectl.ok(&["rollout", "pause", "deployment/web"]);
        assert_eq!(paused.trim(), "deployment.apps/web paused");
        let again = kubectl.refused(&["rollout", "pause", "deployment/web"]);
        assert!(again.contains("is already paused"), "{again}");
        let undo = kubectl.refused(&["rollout", "undo", "deployment/web"]);
        assert!(undo.contains("cannot rollback a paused deployment"), "{undo}");
    });
}

#[test]
fn a_taint_keeps_pods_away_until_it_is_taken_off() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        let taint = ["taint", "nodes", NODE, "only=others:NoSchedule"];
        assert_eq!(kubectl.ok(&taint).trim(), format!("node/{NODE} tainted"));
        assert!(kubectl.refused(&taint).contains("taint(s) with same effect(s)"));
        kubectl.give(&pod("late"));
        let message = "jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
        kubectl.until(&["get", "pod", "late", "-o", message], |it| {
            it.contains("0/1 nodes are available") && it.contains("untolerated taint")
        });
        assert_eq!(
            kubectl.ok(&["taint", "nodes", NODE, "only-"]).trim(),
            format!("node/{NODE} untainted")
        );
        running(kubectl, "late");
        let described = kubectl.ok(&["describe", "pod", "late"]);
        assert!(described.contains("FailedScheduling"), "{described}");
    });
}

/// What `auth whoami` shows. The oldest kubectl asks for betas that Kubernetes 1.36 does not serve either: for that one
/// what the review says.
fn who_am_i(kubectl: &Kubectl) -> String {
    let answer = kubectl.run(&["auth", "whoami"]);
    if answer.is_ok() {
        return answer.stdout;
    }
    assert!(answer.stderr.contains("selfsubjectreviews API is not enabled"), "{answer:?}");
    let review = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    kubectl.ok_with(&["create", "--raw", path, "-f", "-"], review)
}

#[test]
fn who_am_i_what_may_i_and_what_is_there_are_answered() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        let who = who_am_i(kubectl);
        assert!(who.contains("kubernetes-admin") && who.contains("system:masters"), "{who}");
        let mine = kubectl.ok(&["auth", "can-i", "--list"]);
        assert!(mine.lines().any(|it| it.starts_with("*.*") && it.contains("[*]")), "{mine}");
        let token = kubectl.ok(&["create", "token", "default", "--duration=1h"]);
        let account = kubectl.with_token("account", token.trim());
        let who = who_am_i(&account);
        assert!(
            who.contains(&format!("system:serviceaccount:{}:default", kubectl.namespace)),
            "{who}"
        );
        let theirs = account.ok(&["auth", "can-i", "--list"]);
        assert!(!theirs.contains("*.*") && theirs.contains("selfsubjectaccessreviews"), "{theirs}");
        let short = kubectl.refused(&["create", "token", "default", "--duration=1m"]);
        assert!(short.contains("may not specify a duration less than 10 minutes"), "{short}");
        let version = kubectl.ok(&["version"]);
        assert!(version.contains("Server Version:") && version.contains("v1.36"), "{version}");
        assert!(kubectl.ok(&["cluster-info"]).contains("control plane"));
        let versions = kubectl.ok(&["api-versions"]);
        assert!(
            ["v1", "apps/v1", "policy/v1"]
                .iter()
                .all(|it| versions.lines().any(|line| line == *it)),
            "{versions}"
        );
        assert!(kubectl.ok(&["config", "view"]).contains("DATA+OMITTED"));
        let metrics = kubectl.ok(&["get", "--raw", "/metrics"]);
        assert!(metrics.contains("apiserver_request_total{"), "{metrics}");
    });
}

#[test]
fn a_patch_that_does_not_fit_names_the_field() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        kubectl.give(WEB);
        let patch = ["patch", "deployment", "web", "-p", r#"{"spec":{"replicas":"many"}}"#];
        let refused = kubectl.refused(&patch);
        assert!(refused.contains("The request is invalid: patch: Invalid value"), "{refused}");
        assert!(refused.contains("spec.replicas"), "{refused}");
        let missing = r#"[{"op":"remove","path":"/spec/nothing"}]"#;
        let refused =
            kubectl.refused(&["patch", "deployment", "web", "--type=json", "-p", missing]);
        assert!(refused.contains("the server rejected our request"), "{refused}");
        assert_eq!(kubectl.field("deployment/web", ".spec.replicas"), "2");
    });
}
