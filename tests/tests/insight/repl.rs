//! `kactor repl` reads scripts, and what it says to each line is compared with what it said when it was last looked at.
//!
//! A script is `tests/repl/NAME.repl`; beside it lies `NAME.out`. `UPDATE_EXPECT=1` writes what is said now.

use std::path::{Path, PathBuf};

use kactor_tests::harness::process::{self, Answer};
use kactor_tests::harness::rest::{Call, Connection};
use kactor_tests::harness::{Access, Cluster, Runtime, wait_until};
use serde_json::{Value, json};

use crate::settled::settled;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/repl")
}

/// Sends one request as the administrator.
pub fn send(cluster: &Cluster, call: &Call) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(&Access::admin(cluster)).await.unwrap();
        connection.send(call).await.unwrap().object()
    })
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, more: &Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "c:1"}]});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

/// A Deployment that runs, a Pod that is too large and one that no node suits.
fn prepare(cluster: &Cluster) {
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "c:1"}]},
            },
        },
    });
    // A Pod that comes before its node is Ready is refused for that first.
    wait_until("the node takes Pods", || {
        let nodes = send(cluster, &Call::get("/api/v1/nodes"));
        let node = &nodes["items"][0];
        let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
        let conditions = node["status"]["conditions"].as_array();
        match conditions.into_iter().flatten().any(is_ready) && node["spec"]["taints"].is_null() {
            true => Ok(()),
            false => Err(node.to_string()),
        }
    });
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    send(cluster, &Call::post(deployments, &deployment));
    let mut large = pod("large", &json!({}));
    large["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "9999"}});
    send(cluster, &Call::post(PODS, &large));
    send(cluster, &Call::post(PODS, &pod("picky", &json!({"nodeSelector": {"disk": "ssd"}}))));
    wait_until("the Deployment is available", || {
        let object = send(cluster, &Call::get(&format!("{deployments}/web")));
        match object["status"]["availableReplicas"].as_u64() {
            Some(1) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    for name in ["large", "picky"] {
        wait_until("the Pod is found unschedulable", || {
            let object = send(cluster, &Call::get(&format!("{PODS}/{name}")));
            match object["status"]["conditions"][0]["reason"].as_str() {
                Some("Unschedulable") => Ok(()),
                _ => Err(object["status"].to_string()),
            }
        });
    }
}

/// What was generated, longest first, and what stands for it.
fn names(cluster: &Cluster) -> Vec<(String, String)> {
    let list = send(cluster, &Call::get(&format!("{PODS}?labelSelector=app%3Dweb")));
    let pod = list["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let set = pod.rsplit_once('-').unwrap().0.to_owned();
    let folder = cluster.folder().to_str().unwrap().to_owned();
    vec![
        (pod, "web-HASH-POD".to_owned()),
        (set, "web-HASH".to_owned()),
        (folder, "FOLDER".to_owned()),
        (format!("127.0.0.1:{}", cluster.port()), "ADDRESS".to_owned()),
    ]
}

/// Each line of the script with what was said to it.
fn play(cluster: &Cluster, script: &str, names: &[(String, String)]) -> String {
    let mut told = String::new();
    for line in script.lines() {
        if line.is_empty() || line.starts_with('#') {
            told.push_str(&format!("{line}\n"));
            continue;
        }
        let mut real = line.to_owned();
        for (name, stands) in names {
            real = real.replace(stands, name);
        }
        let mut command = cluster.command(&["repl", "--data-dir"]);
        let Answer { code, stdout, stderr } =
            process::run(command.arg(cluster.data_dir()), &format!("{real}\n"));
        told.push_str(&format!("> {line}\n{}{stderr}", in_order(&settled(&stdout, names))));
        if code != 0 {
            told.push_str(&format!("exit code {code}\n"));
        }
    }
    settled(&told, names)
}

/// Which of several things that happen at once was noted first, which kind has most bytes, and whether the node's
/// first heartbeat has made its Lease, is chance.
fn in_order(said: &str) -> String {
    let mut lines: Vec<&str> = said.lines().filter(|it| !it.contains("leases.")).collect();
    let from = match lines.iter().position(|it| it.starts_with("AT ") || it.starts_with("KIND ")) {
        Some(head) => head + 1,
        None => lines.len(),
    };
    lines[from..].sort_unstable();
    lines.iter().map(|it| format!("{it}\n")).collect()
}

#[test]
fn the_repl_says_to_each_script_what_it_said_before() {
    let cluster = Cluster::start(Runtime::Hollow);
    prepare(&cluster);
    let names = names(&cluster);
    let why = cluster.kactor(&["why", "pod/large"]).stdout;
    let first = why.lines().nth(1).unwrap_or_default();
    assert!(first.contains("create pods by kubernetes-admin"), "it begins at its end:\n{why}");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter(|it| it.extension().is_some_and(|it| it == "repl"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no script in {}", folder().display());
    let mut differing = String::new();
    for script in scripts {
        let told = play(&cluster, &std::fs::read_to_string(&script).unwrap(), &names);
        let golden = script.with_extension("out");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&golden, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if told != expected {
            differing.push_str(&difference(&golden, &expected, &told));
        }
    }
    assert!(differing.is_empty(), "{differing}UPDATE_EXPECT=1 takes what is said now");
}

/// The first line in which they differ.
fn difference(golden: &Path, expected: &str, told: &str) -> String {
    let at = expected.lines().zip(told.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(nothing)").to_owned();
    format!(
        "{} line {}:\n- {}\n+ {}\n--- all that is said now:\n{told}\n",
        golden.display(),
        at + 1,
        line(expected),
        line(told)
    )
}

#[test]
fn a_script_ends_at_its_first_error_with_the_lines_exit_code() {
    let cluster = Cluster::start(Runtime::None);
    let mut command = cluster.command(&["repl", "--data-dir"]);
    let answer = process::run(command.arg(cluster.data_dir()), "inspect nobody\ninspect store\n");
    assert_eq!(answer.code, 1);
    assert!(answer.both().contains("nobody"), "{answer:?}");
    assert!(!answer.stdout.contains("revision"), "it went on: {answer:?}");
}
