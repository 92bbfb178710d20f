//! Who may do what: can-i, impersonation, service-account tokens, RBAC's exact words, secrets that stay secret.

use base64::Engine;
use kactor_tests::harness::kubectl::with_each;
use kactor_tests::{harness::Cluster, harness::Runtime};

#[test]
fn can_i_answers_for_the_administrator_and_for_others() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        assert_eq!(kubectl.ok(&["auth", "can-i", "*", "*", "--all-namespaces"]).trim(), "yes");
        let account = format!("--as=system:serviceaccount:{}:default", kubectl.namespace);
        let no = kubectl.run(&["auth", "can-i", "delete", "pods", &account]);
        assert_eq!((no.code, no.stdout.trim()), (1, "no"));
        let listed = kubectl.ok(&["auth", "can-i", "--list"]);
        assert!(listed.contains("*.*"), "{listed}");
    });
}

#[test]
fn a_service_account_is_refused_by_name_until_a_binding_permits_it() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        kubectl.ok(&["create", "serviceaccount", "robot"]);
        let token = kubectl.ok(&["create", "token", "robot"]);
        assert_eq!(token.trim().split('.').count(), 3, "{token}");
        let robot = kubectl.with_token("robot", token.trim());
        let namespace = &kubectl.namespace;
        let name = format!("system:serviceaccount:{namespace}:robot");
        let words = format!(
            "Error from server (Forbidden): pods is forbidden: User \"{name}\" cannot list resource \
             \"pods\" in API group \"\" in the namespace \"{namespace}\""
        );
        assert_eq!(robot.refused(&["get", "pods"]).trim(), words);
        kubectl.ok(&["create", "role", "reader", "--verb=get,list,watch", "--resource=pods"]);
        let account = format!("--serviceaccount={namespace}:robot");
        kubectl.ok(&["create", "rolebinding", "robot-reads", "--role=reader", &account]);
        robot.until(&["get", "pods", "-o", "name"], str::is_empty);
        let refused = robot.refused(&["create", "configmap", "c"]);
        assert!(refused.contains("cannot create resource \"configmaps\""), "{refused}");
        assert!(robot.refused(&["get", "pods", "-n", "kube-system"]).contains("is forbidden"));
        kubectl.ok(&["delete", "rolebinding", "robot-reads"]);
        robot.until_refused(&["get", "pods"], &words);
    });
}

#[test]
fn a_token_of_a_deleted_account_is_worth_nothing() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        kubectl.ok(&["create", "serviceaccount", "robot"]);
        let token = kubectl.ok(&["create", "token", "robot"]);
        kubectl.ok(&["delete", "serviceaccount", "robot"]);
        let robot = kubectl.with_token("robot", token.trim());
        robot.until_refused(&["get", "pods"], "You must be logged in to the server");
        let nonsense = kubectl.with_token("nobody", "a.b.c");
        assert!(nonsense.refused(&["get", "pods"]).contains("You must be logged in"));
    });
}

#[test]
fn nobody_grants_what_they_do_not_have() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        kubectl.ok(&[
            "create",
            "role",
            "granter",
            "--verb=create",
            "--resource=roles.rbac.authorization.k8s.io",
        ]);
        kubectl.ok(&["create", "rolebinding", "jo", "--role=granter", "--user=jo"]);
        let grab = ["create", "role", "all", "--verb=*", "--resource=secrets", "--as=jo"];
        kubectl.until_refused(&grab, "attempting to grant RBAC permissions not currently held");
    });
}

/// Stands nowhere but in the secrets of the test below.
const HIDDEN: &str = "xq7ZrPb2-hidden-Wk93vTbQ";

#[test]
fn a_secret_is_read_back_and_lies_in_clear_neither_on_disk_nor_in_insight_nor_in_logs() {
    let mut cluster = Cluster::start(Runtime::None);
    let literal = format!("--from-literal=password={HIDDEN}");
    with_each(&cluster, |kubectl| {
        kubectl.ok(&["create", "secret", "generic", "s", &literal]);
        let decode = "go-template={{.data.password | base64decode}}";
        assert_eq!(kubectl.ok(&["get", "secret", "s", "-o", decode]), HIDDEN);
        kubectl.ok(&["patch", "secret", "s", "-p", r#"{"metadata":{"labels":{"a":"b"}}}"#]);
        kubectl.ok(&["create", "configmap", "plain", "--from-literal=seen=in-clear-on-disk"]);
    });
    let told = what_insight_tells(&cluster);
    assert!(cluster.end(nix::sys::signal::Signal::SIGTERM).success());
    let hidden = [HIDDEN.to_owned(), base64::engine::general_purpose::STANDARD.encode(HIDDEN)];
    for word in &hidden {
        assert!(!told.contains(word.as_str()), "insight tells {word}:\n{told}");
        assert!(!cluster.output().contains(word.as_str()), "the log tells {word}");
    }
    let mut plain_seen = false;
    visit(&cluster.data_dir(), &mut |path, bytes| {
        let holds = |word: &str| bytes.windows(word.len()).any(|it| it == word.as_bytes());
        hidden.iter().for_each(|word| assert!(!holds(word), "{} holds {word}", path.display()));
        plain_seen |= holds("in-clear-on-disk");
    });
    assert!(plain_seen, "the look at the disk would find nothing at all");
}

/// Everything that actors recorded of the first namespace's Secret, and of themselves.
fn what_insight_tells(cluster: &Cluster) -> String {
    let mut told = String::new();
    for args in [["why", "secret/test-0/s"], ["trace", "secret/test-0/s"]] {
        for form in ["text", "json"] {
            let answer = cluster.kactor(&[args[0], args[1], "-o", form]);
            assert!(
                answer.stdout.contains("secrets by kubernetes-admin"),
                "{args:?} tells nothing: {answer:?}"
            );
            told.push_str(&answer.both());
        }
    }
    let actors = cluster.kactor(&["actors"]);
    assert!(actors.is_ok(), "{actors:?}");
    for actor in actors.stdout.lines().skip(1).filter_map(|it| it.split_whitespace().next()) {
        let answer = cluster.kactor(&["inspect", actor]);
        assert!(answer.is_ok(), "{actor}: {answer:?}");
        told.push_str(&answer.stdout);
    }
    told
}

fn visit(folder: &std::path::Path, look: &mut impl FnMut(&std::path::Path, &[u8])) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => visit(&path, look),
            false => {
                if let Ok(bytes) = std::fs::read(&path) {
                    look(&path, &bytes);
                }
            }
        }
    }
}
