//! `kactor snapshot`: what was acknowledged before a save is in it, a restore is the same cluster in a new epoch, and a
//! file or a directory that is not fit is refused before anything is touched.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kactor_tests::harness::process::{self, Answer};
use kactor_tests::harness::rest::{Call, Connection};
use kactor_tests::harness::{Access, Cluster, Runtime, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const WRITERS: usize = 4;
const HIDDEN: &str = "tulip-mania-1637";

type Ledger = Arc<Mutex<BTreeMap<String, u64>>>;

async fn send(access: &Access, call: &Call) -> Value {
    let mut connection = Connection::open(access).await.unwrap();
    connection.send(call).await.unwrap().object()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Creates objects one after the other, and keeps what was acknowledged, until the connection breaks.
async fn write_on(access: Access, writer: usize, ledger: Ledger) {
    let Ok(mut connection) = Connection::open(&access).await else { return };
    for step in 1_u64.. {
        let name = format!("w{writer}-{step}");
        let body = json!({"metadata": {"name": name}, "data": {"value": step.to_string()}});
        let Ok(reply) = connection.send(&Call::post(CONFIGS, &body)).await else { return };
        if !reply.is_ok() {
            return; // The host stops.
        }
        let at = revision(&reply.object());
        ledger.lock().unwrap().insert(name, at);
    }
}

#[expect(clippy::disallowed_methods, reason = "the test stands outside the cluster")]
fn start_writers(access: &Access, ledger: &Ledger) -> Vec<tokio::task::JoinHandle<()>> {
    (0..WRITERS).map(|it| tokio::spawn(write_on(access.clone(), it, ledger.clone()))).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `kactor ARGS` without a data directory of its own.
#[track_caller]
fn run(cluster: &Cluster, args: &[&str]) -> Answer {
    process::run(&mut cluster.command(args), "")
}

#[track_caller]
fn save(cluster: &Cluster, file: &Path) -> Value {
    let answer = cluster.kactor(&["snapshot", "save", text(file), "-o", "json"]);
    assert!(answer.is_ok(), "{}", answer.both());
    serde_json::from_str(&answer.stdout).unwrap()
}

#[track_caller]
fn refused(answer: &Answer, words: &[&str]) {
    assert!(!answer.is_ok(), "it was let through: {}", answer.both());
    for it in words {
        assert!(answer.stderr.contains(it), "{it:?} is not in {:?}", answer.stderr);
    }
    assert_eq!(answer.stderr.lines().count(), 1, "one sentence: {}", answer.stderr);
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "web:1"}]},
            },
        },
    })
}

async fn wait_ready_replicas(access: &Access, wanted: u64) {
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    let mut connection = Connection::open(access).await.unwrap();
    wait_until("the Deployment's pods are ready", || {
        let call = Call::get(path);
        let asked = connection.send(&call);
        let object =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asked));
        match object.unwrap().object()["status"]["readyReplicas"].as_u64() {
            Some(ready) if ready == wanted => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
}

/// What a client holds from before the save: an identity, a token, a revision.
struct Before {
    kubeconfig: PathBuf,
    token: String,
    revision: u64,
}

async fn prepare(cluster: &Cluster) -> Before {
    let access = Access::admin(cluster);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"word": HIDDEN}});
    send(&access, &Call::post("/api/v1/namespaces/default/secrets", &secret)).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    send(&access, &Call::post(deployments, &deployment())).await;
    wait_ready_replicas(&access, 2).await;
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = send(&access, &Call::post(token, &json!({"spec": {}}))).await;
    let kubeconfig = cluster.folder().join("old.kubeconfig");
    std::fs::copy(cluster.kubeconfig(), &kubeconfig).unwrap();
    let revision = revision(&send(&access, &Call::get(CONFIGS)).await);
    Before { kubeconfig, token: token["status"]["token"].as_str().unwrap().into(), revision }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_saved_under_writes_is_restored_whole_in_a_new_epoch() {
    let mut cluster = Cluster::start(Runtime::Hollow);
    let before = prepare(&cluster).await;
    let ledger = Ledger::default();
    let writers = start_writers(&Access::admin(&cluster), &ledger);
    wait_until("writes are acknowledged", || match ledger.lock().unwrap().len() {
        0..20 => Err("too few".to_owned()),
        _ => Ok(()),
    });
    let acknowledged = ledger.lock().unwrap().clone();
    let file = cluster.folder().join("a.snapshot");
    let saved = save(&cluster, &file);
    assert_eq!(saved["current"], true);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!cluster.folder().join("a.snapshot.tmp").exists());
    cluster.end(Signal::SIGTERM);
    for it in writers {
        it.await.unwrap();
    }
    let last = ledger.lock().unwrap().values().copied().max().unwrap();

    std::fs::rename(cluster.data_dir(), cluster.folder().join("lost")).unwrap();
    let answer = cluster.kactor(&["snapshot", "restore", text(&file), "--yes"]);
    assert!(answer.is_ok(), "{}", answer.both());
    assert!(answer.stdout.contains("start it with: kactor up --data-dir"), "{}", answer.stdout);
    cluster.restart();

    // The old kubeconfig and the old token, on the same address.
    let access = Access::of(&before.kubeconfig).unwrap();
    let list = send(&access, &Call::get(CONFIGS)).await;
    let there: BTreeMap<&str, u64> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["metadata"]["name"].as_str().unwrap(), revision(it)))
        .collect();
    for (name, at) in &acknowledged {
        assert_eq!(there.get(name.as_str()), Some(at), "{name} was acknowledged before the save");
    }
    let at_save = saved["revision"].as_u64().unwrap();
    for (name, at) in ledger.lock().unwrap().iter() {
        assert_eq!(there.contains_key(name.as_str()), *at <= at_save, "{name} of revision {at}");
    }
    let now = revision(&list);
    assert!(now >= at_save + 1_000_000_000 && now > last, "{now} after {at_save} and {last}");
    let token = Access::with_token(&before.kubeconfig, &before.token).unwrap();
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    send(&token, &Call::post(reviews, &review)).await;
    let secret = send(&access, &Call::get("/api/v1/namespaces/default/secrets/s")).await;
    use base64::Engine;
    let word = base64::engine::general_purpose::STANDARD.encode(HIDDEN);
    assert_eq!(secret["data"]["word"], word);
    assert_gone(&access, before.revision).await;

    let scale = Call::new(
        http::Method::PATCH,
        "/apis/apps/v1/namespaces/default/deployments/web",
        json!({"spec": {"replicas": 3}}).to_string().into(),
    );
    send(&access, &scale.of_type("application/merge-patch+json")).await;
    wait_ready_replicas(&access, 3).await;
}

/// A watch from before the save is told to list anew.
async fn assert_gone(access: &Access, from: u64) {
    let path = format!("{CONFIGS}?watch=true&resourceVersion={from}&timeoutSeconds=60");
    let code = match Connection::open(access).await.unwrap().watch(&path).await {
        Ok(mut watch) => {
            let event = watch.next().await.expect("an event");
            assert_eq!(event["type"], "ERROR", "{event}");
            event["object"]["code"].as_u64().unwrap()
        }
        Err(error) => {
            let words = error.to_string();
            words.split_whitespace().next().unwrap().parse().expect("the code comes first")
        }
    };
    assert_eq!(code, 410);
}

#[test]
fn a_file_that_is_not_whole_is_refused_and_nothing_is_touched() {
    let mut cluster = Cluster::start(Runtime::None);
    let file = cluster.folder().join("a.snapshot");
    save(&cluster, &file);
    cluster.end(Signal::SIGTERM);
    let bytes = std::fs::read(&file).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() * 3 / 4] ^= 1;
    let mut newer = bytes.clone();
    newer[8] = 200;
    let cut = &bytes[..bytes.len() - 5];
    for (content, words) in [
        (&flipped[..], "damaged"),
        (cut, "not copied whole"),
        (&newer, "use the newer kactor"),
        (b"kind: List", "this is no kactor snapshot"),
    ] {
        let bad = cluster.folder().join("bad.snapshot");
        std::fs::write(&bad, content).unwrap();
        let target = cluster.folder().join("target");
        let into = ["--data-dir", text(&target), "--yes"];
        let restore = [&["snapshot", "restore", text(&bad)], &into[..]].concat();
        refused(&run(&cluster, &restore), &[words, "bad.snapshot"]);
        assert!(!target.exists(), "{words}: something was made");
        refused(&run(&cluster, &["snapshot", "inspect", text(&bad)]), &[words]);
    }
    let none = cluster.folder().join("none.snapshot");
    let answer = cluster.kactor(&["snapshot", "restore", text(&none), "--yes"]);
    refused(&answer, &["none.snapshot"]);
}

#[test]
fn what_is_there_is_neither_overwritten_nor_deleted() {
    let mut cluster = Cluster::start(Runtime::None);
    let file = cluster.folder().join("a.snapshot");
    save(&cluster, &file);
    refused(&cluster.kactor(&["snapshot", "save", text(&file)]), &["exists", "--force"]);
    let again = cluster.kactor(&["snapshot", "save", text(&file), "--force"]);
    assert!(again.is_ok(), "{}", again.both());
    let nowhere = cluster.folder().join("no/such/folder");
    refused(&cluster.kactor(&["snapshot", "save", text(&nowhere)]), &["no/such/folder"]);
    let restore = ["snapshot", "restore", text(&file), "--yes"];
    refused(&cluster.kactor(&restore), &["stop it first", "kactor down"]);

    cluster.end(Signal::SIGTERM);
    refused(&cluster.kactor(&restore), &["holds a cluster already", "--force"]);
    let forced = ["snapshot", "restore", text(&file), "--force"];
    refused(&cluster.kactor(&forced), &["no terminal", "--yes"]);
    let old = std::fs::read(cluster.data_dir().join("store/identity")).unwrap();
    let done = cluster.kactor(&[&forced[..], &["--yes"]].concat());
    assert!(done.is_ok(), "{}", done.both());
    let aside = std::fs::read_dir(cluster.data_dir())
        .unwrap()
        .map(|it| it.unwrap().path())
        .find(|it| text(it).contains("before-restore-"))
        .expect("the former cluster was moved aside");
    assert_eq!(std::fs::read(aside.join("store/identity")).unwrap(), old);
    assert!(aside.join("pki/ca.key").exists() && aside.join("admin.kubeconfig").exists());
    assert_ne!(std::fs::read(cluster.data_dir().join("store/identity")).unwrap(), old);
    cluster.restart();
}

#[test]
fn a_stopped_cluster_is_saved_too_and_goes_on_afterwards() {
    let mut cluster = Cluster::start(Runtime::None);
    let online = save(&cluster, &cluster.folder().join("online.snapshot"));
    cluster.end(Signal::SIGTERM);
    let file = cluster.folder().join("offline.snapshot");
    let offline = save(&cluster, &file);
    assert_eq!(offline["cluster"], online["cluster"]);
    assert!(offline["revision"].as_u64() >= online["revision"].as_u64());
    assert!(offline["objects"].as_u64() >= online["objects"].as_u64());
    let inspected = run(&cluster, &["snapshot", "inspect", text(&file), "-o", "json"]);
    let inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert_eq!(inspected["sha256"], offline["sha256"]);
    let kinds = inspected["kinds"].as_array().unwrap();
    assert!(kinds.iter().any(|it| it["kind"] == "namespaces"), "{kinds:?}");
    cluster.restart();
    let empty = cluster.folder().join("empty");
    let answer =
        run(&cluster, &["snapshot", "save", text(&file), "--force", "--data-dir", text(&empty)]);
    refused(&answer, &["holds no cluster"]);
    assert!(file.exists() && !empty.exists());
}

#[test]
fn a_restore_that_was_cut_short_keeps_up_from_starting_and_can_be_repeated() {
    let mut cluster = Cluster::start(Runtime::None);
    let file = cluster.folder().join("a.snapshot");
    save(&cluster, &file);
    cluster.end(Signal::SIGTERM);
    std::fs::create_dir(cluster.data_dir().join("restore.new")).unwrap();
    let up = process::run(&mut cluster.up(), "");
    refused(&up, &["cut short", "snapshot restore"]);
    let again = cluster.kactor(&["snapshot", "restore", text(&file), "--force", "--yes"]);
    assert!(again.is_ok(), "{}", again.both());
    cluster.restart();
}
