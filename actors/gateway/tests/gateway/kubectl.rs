//! Stock kubectls, the oldest and the newest that are here, against the gateway.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use kactor_gateway::Subject;
use serde_json::Value;

use crate::world::World;

/// `kubectl.1.27` or `kubectl-v1.27.4` in the folder `KUBECTLS`, else beside PATH's kubectl; oldest and newest.
fn kubectls() -> Vec<PathBuf> {
    let folder = match std::env::var_os("KUBECTLS") {
        Some(folder) => PathBuf::from(folder),
        None => match on_path() {
            Some(kubectl) => kubectl.canonicalize().unwrap().parent().unwrap().to_path_buf(),
            None => PathBuf::from("/nonexistent"),
        },
    };
    let minor = |path: &Path| -> Option<u32> {
        let name = path.file_name()?.to_str()?;
        let rest = name.strip_prefix("kubectl")?;
        let (_, after) = rest.split_once("1.")?;
        after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|it| it.ok().map(|it| it.path()))
        .filter_map(|it| minor(&it).map(|minor| (minor, it)))
        .collect();
    found.sort();
    let all: Vec<PathBuf> = found.into_iter().map(|(_, path)| path).collect();
    match all.as_slice() {
        [] => on_path().into_iter().collect(),
        [one] => vec![one.clone()],
        [oldest, .., newest] => vec![oldest.clone(), newest.clone()],
    }
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|it| it.join("kubectl")).find(|it| it.exists())
}

/// Runs the test with each kubectl, on a world of its own. Without one it says so, or fails where CI demands it.
fn with_each(test: impl Fn(&Kubectl)) {
    let all = kubectls();
    if all.is_empty() {
        let demanded = std::env::var("KACTOR_E2E").is_ok_and(|it| it == "1");
        assert!(!demanded, "KACTOR_E2E=1 and there is no kubectl in KUBECTLS or PATH");
        println!("skipped: there is no kubectl in the folder KUBECTLS or in PATH");
        return;
    }
    for program in all {
        let world = World::new();
        let kubectl = Kubectl { config: world.kubeconfig(&Subject::admin()), program, world };
        println!("with {}", kubectl.program.display());
        kubectl.give("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default}\n");
        test(&kubectl);
    }
}

struct Kubectl {
    program: PathBuf,
    config: PathBuf,
    world: World,
}

struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Kubectl {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.config)
            .args(args)
            .env("HOME", self.world.dir.path())
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], input: &str) -> Answer {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs and expects success; answers stdout.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, "")
    }

    #[track_caller]
    fn ok_with(&self, args: &[&str], input: &str) -> String {
        let answer = self.run_with(args, input);
        assert_eq!(answer.code, 0, "kubectl {args:?}\n{}\n{}", answer.stdout, answer.stderr);
        answer.stdout
    }

    #[track_caller]
    fn give(&self, manifest: &str) -> String {
        self.ok_with(&["apply", "-f", "-"], manifest)
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// Runs on; killed when dropped.
    fn start(&self, args: &[&str]) -> Running {
        let mut child = self.command(args).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines }
    }

    /// A pod on a node, Running; there is no agent here that would bring it there.
    fn pod(&self, name: &str) {
        self.give(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: n1\n  containers:\n  - {{name: app, image: demo}}\n"
        ));
        let path = format!("/api/v1/namespaces/default/pods/{name}/status");
        let mut pod = self.json(&["get", "pod", name]);
        pod["status"] = serde_json::json!({"phase": "Running", "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "app", "image": "demo", "imageID": "x", "ready": true,
                "restartCount": 0, "state": {"running": {}}}]});
        self.ok_with(&["replace", "--raw", &path, "-f", "-"], &pod.to_string());
    }
}

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// The next line that holds `text`; fails when the program ends before.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                let mut errors = String::new();
                let _ = self.child.stderr.take().unwrap().read_to_string(&mut errors);
                panic!("{text:?} never came; seen:\n{seen}\n{errors}");
            }
            if line.contains(text) {
                return line;
            }
            seen.push_str(&line);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONFIG: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {a: b}}\ndata: {x: '1'}\n";

#[test]
fn objects_are_applied_read_in_every_form_and_deleted() {
    with_each(|kubectl| {
        assert_eq!(kubectl.give(CONFIG).trim(), "configmap/c created");
        assert_eq!(kubectl.give(CONFIG).trim(), "configmap/c unchanged");
        assert_eq!(kubectl.give(&CONFIG.replace("'1'", "'2'")).trim(), "configmap/c configured");
        let server_side = kubectl.ok_with(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &CONFIG.replace("'1'", "'3'"),
        );
        assert_eq!(server_side.trim(), "configmap/c serverside-applied");
        assert_eq!(kubectl.json(&["get", "configmap", "c"])["data"]["x"], "3");
        let table = kubectl.ok(&["get", "cm", "c", "-o", "wide"]);
        assert!(
            table.starts_with("NAME") && table.contains("DATA") && table.contains("AGE"),
            "{table}"
        );
        assert!(kubectl.ok(&["get", "cm", "c", "-o", "yaml"]).contains("x: \"3\""));
        assert_eq!(kubectl.ok(&["get", "cm", "-l", "a=b", "-o", "name"]).trim(), "configmap/c");
        let created = kubectl.ok(&["create", "configmap", "d", "--from-literal=y=1"]);
        assert_eq!(created.trim(), "configmap/d created");
        let again = kubectl.run(&["create", "configmap", "d"]);
        assert_eq!(again.code, 1);
        assert!(again.stderr.contains("configmaps \"d\" already exists"), "{}", again.stderr);
        assert_eq!(kubectl.ok(&["delete", "cm", "c"]).trim(), "configmap \"c\" deleted");
        let gone = kubectl.run(&["get", "cm", "c"]);
        assert!(gone.stderr.contains("(NotFound): configmaps \"c\" not found"), "{}", gone.stderr);
    });
}

#[test]
fn the_three_patches_change_what_they_say() {
    with_each(|kubectl| {
        kubectl.pod("web");
        for (kind, patch, path, expected) in [
            ("merge", r#"{"metadata":{"labels":{"m":"1"}}}"#, "/metadata/labels/m", "1"),
            (
                "json",
                r#"[{"op":"add","path":"/metadata/labels/j","value":"2"}]"#,
                "/metadata/labels/j",
                "2",
            ),
            (
                "strategic",
                r#"{"spec":{"containers":[{"name":"app","image":"demo:2"}]}}"#,
                "/spec/containers/0/image",
                "demo:2",
            ),
        ] {
            kubectl.ok(&["patch", "pod", "web", "--type", kind, "-p", patch]);
            let pod = kubectl.json(&["get", "pod", "web"]);
            assert_eq!(pod.pointer(path).and_then(Value::as_str), Some(expected), "{kind}");
        }
        let refused = kubectl.run(&[
            "patch",
            "pod",
            "web",
            "--type",
            "merge",
            "-p",
            r#"{"spec":{"nodeName":"n2"}}"#,
        ]);
        assert!(refused.stderr.contains("is invalid"), "{}", refused.stderr);
    });
}

#[test]
fn a_watch_tells_of_changes_as_they_happen() {
    with_each(|kubectl| {
        kubectl.give(CONFIG);
        let mut watch = kubectl.start(&["get", "configmaps", "-w", "--output-watch-events"]);
        watch.until("ADDED");
        kubectl.ok(&["create", "configmap", "fresh"]);
        assert!(watch.until("fresh").starts_with("ADDED"));
        kubectl.ok(&["label", "configmap", "fresh", "a=b"]);
        assert!(watch.until("fresh").starts_with("MODIFIED"));
        kubectl.ok(&["delete", "configmap", "fresh"]);
        assert!(watch.until("fresh").starts_with("DELETED"));
    });
}

#[test]
fn the_api_describes_itself() {
    with_each(|kubectl| {
        let resources = kubectl.ok(&["api-resources", "-o", "wide"]);
        for row in ["pods", "deployments", "configmaps", "clusterrolebindings"] {
            assert!(resources.lines().any(|it| it.starts_with(row)), "{row} not in\n{resources}");
        }
        assert!(kubectl.ok(&["api-versions"]).lines().any(|it| it == "apps/v1"));
        let explained = kubectl.ok(&["explain", "pod.spec.containers.image"]);
        assert!(explained.contains("FIELD: image"), "{explained}");
        let version: Value = serde_json::from_str(&kubectl.ok(&["version", "-o", "json"])).unwrap();
        assert_eq!(version["serverVersion"]["minor"], "36");
        assert_eq!(kubectl.ok(&["get", "--raw", "/readyz"]), "ok");
        assert!(
            kubectl
                .ok(&["get", "--raw", "/metrics"])
                .contains("apiserver_request_total{code=\"200\"")
        );
        let all = kubectl.ok(&["get", "all,nodes,cm,secrets,sa", "-A"]);
        assert!(all.contains("service/kubernetes"), "{all}");
    });
}

#[test]
fn rights_are_checked_for_users_tokens_and_impersonation() {
    with_each(|kubectl| {
        assert_eq!(kubectl.ok(&["auth", "can-i", "create", "pods"]).trim(), "yes");
        let nobody = kubectl.run(&["auth", "can-i", "create", "pods", "--as", "nobody"]);
        assert_eq!((nobody.code, nobody.stdout.trim()), (1, "no"));
        let refused = kubectl.run(&["get", "pods", "--as", "nobody"]);
        assert!(
            refused.stderr.contains(
                r#"pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "default""#
            ),
            "{}",
            refused.stderr
        );
        let token = kubectl.ok(&["create", "token", "default"]);
        assert_eq!(token.trim().split('.').count(), 3, "{token}");
        let bare = kubectl.world.dir.path().join("bare");
        let server = format!("https://{}", kubectl.world.address);
        let ca = kubectl.world.dir.path().join("pki/ca.crt");
        std::fs::write(&bare, "apiVersion: v1\nkind: Config\n").unwrap();
        let output = Command::new(&kubectl.program)
            .args(["get", "pods", "--server", &server, "--token", token.trim()])
            .arg("--certificate-authority")
            .arg(&ca)
            .arg("--kubeconfig")
            .arg(&bare)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains(r#"User "system:serviceaccount:default:default" cannot list"#),
            "{stderr}"
        );
        let strict = kubectl.run_with(
            &["apply", "--validate=strict", "-f", "-"],
            &CONFIG.replace("\ndata:", "\nnonsense: 1\ndata:"),
        );
        assert_eq!(strict.code, 1);
        assert!(strict.stderr.contains("unknown field \"nonsense\""), "{}", strict.stderr);
    });
}

#[test]
fn logs_exec_attach_and_port_forward_reach_the_node() {
    with_each(|kubectl| {
        kubectl.pod("web");
        assert_eq!(kubectl.ok(&["logs", "web"]), "line 0\nline 1\nline 2\n");
        assert_eq!(kubectl.ok(&["logs", "web", "--tail=1"]), "line 2\n");
        let previous = kubectl.run(&["logs", "web", "--previous"]);
        assert!(
            previous.stderr.contains("previous terminated container \"app\" not found"),
            "{}",
            previous.stderr
        );
        assert_eq!(kubectl.ok(&["exec", "web", "--", "echo", "a b"]), "echo a b\n");
        let long = "0123456789".repeat(20_000);
        assert_eq!(kubectl.ok_with(&["exec", "-i", "web", "--", "cat"], &long), long);
        let failed = kubectl.run(&["exec", "web", "--", "exit", "3"]);
        assert_eq!(failed.code, 3, "{}", failed.stderr);
        assert!(failed.stderr.contains("about to fail"), "{}", failed.stderr);
        assert!(kubectl.ok(&["attach", "web"]).contains("attached"));
        let mut forward = kubectl.start(&["port-forward", "pod/web", ":80"]);
        let line = forward.until("Forwarding from 127.0.0.1:");
        let port = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap();
        for _ in 0..3 {
            let mut socket = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
            socket.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("hello"), "{answer}");
        }
    });
}
