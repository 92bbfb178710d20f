//! A secret's word is looked for in everything that insight says, in both forms, while it is written, mounted, refused
//! and deleted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kactor_tests::harness::process::Background;
use kactor_tests::harness::rest::{Call, Connection};
use kactor_tests::harness::{Access, Cluster, Runtime, wait_until};
use serde_json::json;

use crate::repl::send;

/// Stands nowhere but in this test's secrets and token.
const HIDDEN: &str = "zq7-saffron-Kestrel-4411";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Sends what is refused; answers how.
fn code(cluster: &Cluster, call: &Call) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(&Access::admin(cluster)).await.unwrap();
        connection.send(call).await.unwrap().code
    })
}

fn merge(path: &str, patch: &serde_json::Value) -> Call {
    let body = patch.to_string().into();
    Call::new(http::Method::PATCH, path, body).of_type("application/merge-patch+json")
}

/// Every way on which a secret's content comes into kactor; answers a token that was made.
fn use_secrets(cluster: &Cluster) -> String {
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"word": HIDDEN}});
    send(cluster, &Call::post(SECRETS, &secret));
    let one = format!("{SECRETS}/s");
    send(cluster, &merge(&one, &json!({"metadata": {"labels": {"a": "b"}}})));
    // Refusals repeat what was sent, if anything does: a key that is none, a type that is wrong, a conflict.
    let bad = json!({"metadata": {"name": "bad"}, "stringData": {"a bad key": HIDDEN}});
    assert_eq!(code(cluster, &Call::post(SECRETS, &bad)), 422);
    let wrong = json!({"metadata": {"name": "t"}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": HIDDEN}});
    assert_eq!(code(cluster, &Call::post(SECRETS, &wrong)), 422);
    let no_base64 = json!({"metadata": {"name": "n"}, "data": {"word": format!("{HIDDEN}!")}});
    assert!(code(cluster, &Call::post(SECRETS, &no_base64)) >= 400);
    let stale =
        json!({"metadata": {"name": "s", "resourceVersion": "1"}, "stringData": {"word": HIDDEN}});
    assert_eq!(code(cluster, &Call::put(&one, &stale)), 409);
    let pod = json!({
        "metadata": {"name": "user"},
        "spec": {
            "containers": [{
                "name": "c",
                "image": "c:1",
                "envFrom": [{"secretRef": {"name": "s"}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
        },
    });
    send(cluster, &Call::post("/api/v1/namespaces/default/pods", &pod));
    wait_until("the Pod runs", || {
        let object = send(cluster, &Call::get("/api/v1/namespaces/default/pods/user"));
        match object["status"]["phase"].as_str() {
            Some("Running") => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = send(cluster, &Call::post(path, &json!({"spec": {}})));
    token["status"]["token"].as_str().unwrap().to_owned()
}

/// Everything that the verbs say, in text and JSON.
fn what_is_told(cluster: &Cluster) -> String {
    let actors = cluster.kactor(&["actors"]).stdout;
    let actors: Vec<&str> =
        actors.lines().skip(1).filter_map(|it| it.split_whitespace().next()).collect();
    assert!(actors.contains(&"store") && actors.contains(&"scheduler"), "{actors:?}");
    let mut questions: Vec<Vec<&str>> =
        vec![vec!["actors"], vec!["dead"], vec!["raft"], vec!["top"], vec!["status"]];
    for object in
        ["secret/s", "secret/bad", "secret/t", "secret/n", "pod/user", "serviceaccount/default"]
    {
        questions.extend([vec!["why", object], vec!["trace", object]]);
    }
    for actor in &actors {
        questions.extend([vec!["inspect", actor], vec!["mailbox", actor]]);
    }
    let mut told = String::new();
    for question in questions {
        for form in ["text", "json"] {
            let answer = cluster.kactor(&[&question[..], &["-o", form]].concat());
            told.push_str(&format!("$ {}\n{}", question.join(" "), answer.both()));
        }
    }
    told
}

#[test]
fn no_verb_tells_what_a_secret_or_a_token_holds() {
    let cluster = Cluster::start(Runtime::Hollow);
    let mut taps: Vec<Background> = ["session/host-a", "agent", "scheduler", "store"]
        .into_iter()
        .flat_map(|actor| ["text", "json"].map(|form| (actor, form)))
        .map(|(actor, form)| {
            let mut command = cluster.command(&["tap", actor, "--max", "1000", "-o", form]);
            Background::start(command.arg("--data-dir").arg(cluster.data_dir()))
        })
        .collect();
    let token = use_secrets(&cluster);
    // The session takes the node's requests: the tap is seen to work, up to the Pod that mounts the secret.
    taps[0].until("pods user");
    let told = what_is_told(&cluster);
    for expected in ["secrets by kubernetes-admin", "refused (422)", "refused (409)"] {
        assert!(told.contains(expected), "{expected:?} is not told, so nothing was tried:\n{told}");
    }
    let taps: String = taps.into_iter().map(Background::rest).collect();
    let said = format!("{told}{taps}{}", cluster.output());
    let signature = token.rsplit('.').next().unwrap();
    for hidden in [HIDDEN, &STANDARD.encode(HIDDEN), signature] {
        let at = said.find(hidden);
        assert_eq!(
            at,
            None,
            "insight tells it: …{}…",
            &said[at.map_or(0, |it| it.saturating_sub(300))..at.unwrap_or(0)]
        );
    }
}
