//! Design section 13, each row that one host can show: what is wrong gets an answer that names it, and changes nothing.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use http::Method;
use kactor_tests::harness::patience::{PATIENCE, Patience};
use kactor_tests::harness::process::{self, Answer};
use kactor_tests::harness::rest::{Call, Connection, Reply};
use kactor_tests::harness::{Access, Cluster, Runtime, kubectl, skip};
use serde_json::json;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";

struct Server {
    cluster: Cluster,
    connection: Connection,
}

impl Server {
    async fn start() -> Self {
        let cluster = Cluster::start(Runtime::None);
        let connection = Connection::open(&Access::admin(&cluster)).await.unwrap();
        let mut server = Self { cluster, connection };
        // Pods are refused for another reason until the namespace's account is there, as in Kubernetes.
        let account = Call::get("/api/v1/namespaces/default/serviceaccounts/default");
        let patience = Patience::of(PATIENCE);
        while server.send(&account).await.code != 200 {
            assert!(!patience.is_over(), "no default service account\n{}", server.cluster.output());
            patience.pause();
        }
        server
    }

    async fn send(&mut self, call: &Call) -> Reply {
        self.connection.send(call).await.unwrap()
    }

    async fn names(&mut self) -> Vec<String> {
        let list = self.send(&Call::get(CONFIGS)).await.object();
        let items = list["items"].as_array().unwrap().iter();
        let names = items.map(|it| it["metadata"]["name"].as_str().unwrap().to_owned());
        // A controller puts this one there in its own time.
        names.filter(|it| it != "kube-root-ca.crt").collect()
    }

    /// Sends what must be refused; answers reason and message after seeing that nothing was stored.
    async fn refused(&mut self, call: &Call, codes: &[u16]) -> (String, String) {
        let before = self.names().await;
        // A refusal of a body that is still on its way may close the connection; a new one finds the rest well.
        let reply = self.send(call).await;
        self.connection = Connection::open(&Access::admin(&self.cluster)).await.unwrap();
        assert!(codes.contains(&reply.code), "{}: {}", reply.code, reply.text());
        assert_eq!(self.names().await, before, "a refused request stores nothing");
        reply.refusal()
    }
}

fn raw(body: impl Into<Bytes>) -> Call {
    Call::new(Method::POST, CONFIGS, body.into())
}

#[tokio::test]
async fn a_malformed_body_is_a_bad_request_with_the_place_or_field() {
    let mut server = Server::start().await;
    let (reason, message) = server.refused(&raw("{\"metadata\": {\"name\": \"c\""), &[400]).await;
    assert_eq!(reason, "BadRequest", "{message}");
    let (_, message) = server.refused(&raw("[1]"), &[400]).await;
    assert!(!message.is_empty());
    let typed = raw(r#"{"metadata": {"name": "c"}, "data": {"x": 1}}"#);
    let (_, message) = server.refused(&typed, &[400]).await;
    assert!(message.contains("data"), "names the field: {message}");
    let other = raw(r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c"}}"#);
    let (_, message) = server.refused(&other, &[400]).await;
    assert!(message.contains("Pod") && message.contains("ConfigMap"), "{message}");
    server.refused(&raw(Bytes::from_static(b"\xff\xfe{}")), &[400]).await;
    server.refused(&raw(""), &[400]).await;
}

#[tokio::test]
async fn an_invalid_object_is_told_every_field_that_is_wrong() {
    let mut server = Server::start().await;
    let path = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "Bad_Name"}, "spec": {"restartPolicy": "Sometimes", "containers": []}});
    let (reason, message) = server.refused(&Call::post(path, &pod), &[422]).await;
    assert_eq!(reason, "Invalid");
    for part in [
        "metadata.name",
        "spec.containers: Required value",
        "spec.restartPolicy: Unsupported value",
    ] {
        assert!(message.contains(part), "{part:?} not in {message}");
    }
    let (_, message) = server.refused(&raw(r#"{"metadata": {}}"#), &[422]).await;
    assert!(message.contains("name or generateName is required"), "{message}");
}

#[tokio::test]
async fn an_object_that_is_too_long_for_its_kind_is_told_the_limit() {
    let mut server = Server::start().await;
    let body = json!({"metadata": {"name": "big"}, "data": {"x": "a".repeat(2 << 20)}});
    let (_, message) = server.refused(&Call::post(CONFIGS, &body), &[422]).await;
    assert!(message.contains("Too long") && message.contains("1048576"), "{message}");
}

#[tokio::test]
async fn a_deeply_nested_body_is_refused_and_the_server_goes_on() {
    let mut server = Server::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let body = format!(r#"{{"metadata": {{"name": "deep"}}, "data": {{"x": {nested}}}}}"#);
        server.refused(&raw(body), &[400, 413, 422]).await;
    }
    let patch = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let path = format!("{CONFIGS}/none");
    let call = Call::new(Method::PATCH, &path, patch.into()).of_type(MERGE);
    server.refused(&call, &[400, 404, 413, 422]).await;
    assert_eq!(server.send(&Call::get("/readyz")).await.text(), "ok");
}

#[tokio::test]
async fn media_types_that_are_not_served_are_named() {
    let mut server = Server::start().await;
    let call = raw("name: c").of_type("text/plain");
    let (reason, message) = server.refused(&call, &[415]).await;
    assert_eq!(reason, "UnsupportedMediaType");
    assert!(message.contains("application/json"), "says what is served: {message}");
    let path = format!("{CONFIGS}/kube-root-ca.crt");
    let patch = Call::new(Method::PATCH, &path, "{}".into());
    let (_, message) = server.refused(&patch, &[415]).await;
    assert!(message.contains(MERGE), "{message}");
}

#[tokio::test]
async fn unknown_fields_are_refused_when_strict_warned_of_or_ignored() {
    let mut server = Server::start().await;
    let body = json!({"metadata": {"name": "c", "wrong": 1}, "nonsense": true});
    let post =
        |mode: &str| Call::post(&format!("{CONFIGS}?fieldValidation={mode}&dryRun=All"), &body);
    let (_, message) = server.refused(&post("Strict"), &[400]).await;
    for part in
        ["strict decoding error", "unknown field \"metadata.wrong\"", "unknown field \"nonsense\""]
    {
        assert!(message.contains(part), "{part:?} not in {message}");
    }
    let warned = server.send(&post("Warn")).await;
    assert!(warned.is_ok(), "{}", warned.text());
    let warnings: Vec<&str> =
        warned.headers.get_all("warning").iter().filter_map(|it| it.to_str().ok()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|it| it.contains("metadata.wrong")), "{warnings:?}");
    let ignored = server.send(&post("Ignore")).await;
    assert!(ignored.is_ok() && !ignored.headers.contains_key("warning"));
    assert!(server.names().await.iter().all(|it| it != "c"), "a dry run stores nothing");
}

#[tokio::test]
async fn a_stale_write_and_a_wrong_precondition_are_conflicts() {
    let mut server = Server::start().await;
    let path = format!("{CONFIGS}/c");
    let first =
        server.send(&Call::post(CONFIGS, &json!({"metadata": {"name": "c"}}))).await.object();
    let mut second = first.clone();
    second["data"] = json!({"x": "2"});
    let second = server.send(&Call::put(&path, &second)).await.object();
    let (reason, message) = server.refused(&Call::put(&path, &first), &[409]).await;
    assert_eq!(reason, "Conflict");
    assert!(message.contains("the object has been modified"), "{message}");
    let options = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
    let delete = Call::new(Method::DELETE, &path, options.to_string().into());
    let (reason, message) = server.refused(&delete, &[409]).await;
    assert!(reason == "Conflict" && message.contains("UID"), "{message}");
    assert_eq!(server.send(&Call::get(&path)).await.object(), second);
}

#[tokio::test]
async fn paths_verbs_and_queries_that_do_not_exist_get_a_status() {
    let mut server = Server::start().await;
    for (call, code) in [
        (Call::get("/apis/nothing.example.com/v1/things"), 404),
        (Call::get("/api/v1/namespaces/default/things"), 404),
        (Call::get("/api/v1/namespaces/default/configmaps/none"), 404),
        (Call::put(CONFIGS, &json!({})), 405),
        (Call::get(&format!("{CONFIGS}?labelSelector=a%20in%20(")), 400),
        (Call::get(&format!("{CONFIGS}?fieldSelector=spec.none%3D1")), 400),
        (Call::get(&format!("{CONFIGS}?resourceVersion=abc")), 422),
        (Call::get(&format!("{CONFIGS}?limit=1&continue=nonsense")), 400),
    ] {
        let reply = server.send(&call).await;
        assert_eq!(reply.code, code, "{} {}: {}", call.method, call.path, reply.text());
    }
}

#[test]
fn an_oversized_body_is_refused_with_its_limit() {
    let cluster = Cluster::start(Runtime::None);
    kubectl::with_each(&cluster, |kubectl| {
        let big = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"},
            "data": {"x": "a".repeat(4 << 20)}
        });
        let refused = kubectl.refused_with(&["create", "-f", "-"], &big.to_string());
        assert!(refused.contains("equest entity too large"), "{refused}");
        assert!(kubectl.refused(&["get", "configmap", "big"]).contains("not found"));
        kubectl.ok(&["create", "configmap", "small"]);
    });
}

#[test]
fn manifests_that_are_no_kubernetes_objects_are_refused_by_name() {
    let cluster = Cluster::start(Runtime::None);
    kubectl::with_each(&cluster, |kubectl| {
        for (manifest, words) in [
            ("a: [1", "error converting YAML to JSON"),
            ("kind: ConfigMap\nmetadata: {name: c}\n", "apiVersion not set"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: C_}\n", "metadata.name"),
            (
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: many}\n",
                "spec.replicas",
            ),
        ] {
            let refused = kubectl.refused_with(&["apply", "-f", "-"], manifest);
            assert!(refused.contains(words), "{words:?} not in {refused}");
        }
        for version in ["v1", "nothing.example.com/v1"] {
            let unknown = format!("apiVersion: {version}\nkind: Nothing\nmetadata: {{name: c}}\n");
            for verb in ["apply", "create", "delete"] {
                let refused = kubectl.refused_with(&[verb, "-f", "-"], &unknown);
                let words = format!("no matches for kind \"Nothing\" in version \"{version}\"");
                assert!(refused.contains(&words), "{verb}: {refused}");
            }
        }
    });
}

/// A refusal of the command line: one sentence on stderr, exit code not 0, no panic.
#[track_caller]
fn refusal(answer: &Answer, words: &[&str]) {
    assert!(answer.code > 0, "{answer:?}");
    assert!(!answer.stderr.contains("panicked"), "{answer:?}");
    for it in words {
        assert!(answer.stderr.contains(it), "{it:?} not in {answer:?}");
    }
}

#[test]
fn a_port_in_use_is_named_and_the_data_directory_stays_free() {
    let mut cluster = Cluster::prepared(Runtime::None);
    let taken = std::net::TcpListener::bind(("127.0.0.1", cluster.port())).unwrap();
    let answer = process::run(&mut cluster.up(), "");
    refusal(&answer, &["127.0.0.1", &cluster.port().to_string(), "in use", "--listen"]);
    drop(taken);
    cluster.restart();
}

#[test]
fn a_data_directory_has_one_kactor_at_a_time() {
    let cluster = Cluster::start(Runtime::None);
    let answer = process::run(&mut cluster.up(), "");
    refusal(&answer, &["in use", &cluster.pid().to_string(), "kactor down"]);
    let status = cluster.kactor(&["status"]);
    assert!(status.is_ok(), "the first goes on: {status:?}");
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let cluster = Cluster::prepared(Runtime::None);
    std::fs::write(cluster.data_dir(), "a file").unwrap();
    let answer = process::run(&mut cluster.up(), "");
    refusal(&answer, &[cluster.data_dir().to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(cluster.data_dir()).unwrap(), "a file");
    let fixed = Cluster::prepared(Runtime::None);
    if nix::unistd::geteuid().is_root() {
        // Root writes where no permission is; /proc refuses even root.
        let mut command = fixed.command(&["up", "--runtime", "none", "--data-dir", "/proc/kactor"]);
        refusal(&process::run(&mut command, ""), &["/proc/kactor"]);
        return;
    }
    std::fs::create_dir(fixed.data_dir()).unwrap();
    std::fs::set_permissions(fixed.data_dir(), PermissionsExt::from_mode(0o500)).unwrap();
    refusal(
        &process::run(&mut fixed.up(), ""),
        &["Permission denied", fixed.data_dir().to_str().unwrap()],
    );
}

#[test]
fn wrong_flags_are_usage_errors_that_name_the_flag() {
    let cluster = Cluster::prepared(Runtime::None);
    for (args, words) in [
        (vec!["up", "--listen", "nonsense"], vec!["--listen", "nonsense"]),
        (vec!["up", "--runtime", "magic"], vec!["--runtime", "hollow", "none"]),
        (vec!["up", "--nonsense"], vec!["--nonsense"]),
        (vec!["nonsense"], vec!["nonsense"]),
        (vec!["status", "--wait", "--timeout", "soon"], vec!["--timeout", "soon"]),
    ] {
        let answer = process::run(&mut cluster.command(&args), "");
        assert_eq!(answer.code, 2, "{args:?}: {answer:?}");
        refusal(&answer, &words);
    }
    for (flag, value) in [
        ("--pod-cidr", "10.0.0.0/99"),
        ("--service-cidr", "nonsense"),
        ("--node-name", "Not_A_Name"),
    ] {
        let mut command = cluster.up();
        if flag == "--node-name" {
            command = cluster.command(&["up", "--runtime", "hollow"]);
            command.arg("--data-dir").arg(cluster.data_dir());
        }
        let answer = process::run(command.args([flag, value]), "");
        refusal(&answer, &[value]);
        assert!(
            !cluster.data_dir().join("store").exists(),
            "{flag}: a refused start leaves no store"
        );
    }
}

#[test]
fn commands_without_a_running_kactor_say_so() {
    let cluster = Cluster::prepared(Runtime::None);
    let dir = cluster.data_dir();
    for args in [vec!["status"], vec!["actors"], vec!["why", "pod/web"], vec!["top"]] {
        refusal(&cluster.kactor(&args), &["no kactor runs", dir.to_str().unwrap(), "kactor up"]);
    }
    let waited = cluster.kactor(&["status", "--wait", "--timeout", "1"]);
    assert_eq!(waited.code, 1, "{waited:?}");
    refusal(&cluster.kactor(&["kubeconfig"]), &["kactor up"]);
}

#[test]
fn damaged_state_is_refused_and_left_as_it_is() {
    let mut cluster = Cluster::start(Runtime::None);
    cluster.kill();
    let store = cluster.data_dir().join("store");
    let mut journals: Vec<_> =
        files(&store).into_iter().filter(|it| it.metadata().unwrap().len() > 64).collect();
    journals.sort_by_key(|it| it.to_string_lossy().contains("journal"));
    let Some(victim) = journals.pop().filter(|it| it.to_string_lossy().contains("journal")) else {
        return skip("the store keeps no file that is called a journal");
    };
    let mut bytes = std::fs::read(&victim).unwrap();
    // The middle of what is written: a torn end would be an ordinary crash.
    let written = bytes.iter().rposition(|it| *it != 0).unwrap_or(0);
    let at = written / 2;
    bytes[at] ^= 0xff;
    std::fs::write(&victim, &bytes).unwrap();
    let answer = process::run(&mut cluster.up(), "");
    refusal(&answer, &[victim.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(std::fs::read(&victim).unwrap(), bytes, "evidence is kept");
    bytes[at] ^= 0xff;
    std::fs::write(&victim, &bytes).unwrap();
    cluster.restart();
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}
