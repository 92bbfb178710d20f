//! `kactor up --demo` as a new user meets it: what it prints, what it serves, what stays, and that a purge leaves nothing.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kactor_tests::harness::patience::{PATIENCE, Patience};
use kactor_tests::harness::process::{self, Answer};
use kactor_tests::harness::{Cluster, Kubectl, Runtime, kubectl, skip, wait_until};
use nix::sys::signal::Signal;

/// What `up` printed since it was last started.
fn account(cluster: &Cluster) -> String {
    let said = cluster.said();
    said.rfind("kactor 0.").map_or_else(String::new, |at| said[at..].to_owned())
}

/// Waits for the end of the account, the three commands to try.
fn told(cluster: &Cluster) -> String {
    wait_until("the demo's account", || {
        let text = account(cluster);
        match text.contains(" why deployment/hello") {
            true => Ok(text),
            false => Err(cluster.output()),
        }
    })
}

/// The words after `head` on the lines that begin with it.
fn lines<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let all = text.lines().map(|it| it.split_whitespace().collect::<Vec<_>>());
    all.filter(|it| it.first() == Some(&head)).map(|it| it[1..].to_vec()).collect()
}

/// The names of the pods that were told to run.
fn running(text: &str) -> BTreeSet<String> {
    let rows = lines(text, "pod");
    rows.iter().filter(|it| it[1] == "Running").map(|it| it[0].to_owned()).collect()
}

/// The body of `GET /`; `None` while nobody answers.
fn get(address: &str) -> Option<String> {
    let address = address.parse().ok()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// Asks until so many have answered `hello from NAME`.
fn names_that_answer(n: usize, mut ask: impl FnMut() -> Option<String>) -> BTreeSet<String> {
    let patience = Patience::of(PATIENCE);
    let mut seen = BTreeSet::new();
    while seen.len() < n {
        let answer = ask().unwrap_or_default();
        seen.extend(
            answer.lines().filter_map(|it| it.strip_prefix("hello from ")).map(str::to_owned),
        );
        assert!(!patience.is_over(), "only {seen:?} answered");
    }
    seen
}

/// What an instance may have on the host outside its data directory. The name follows from the data directory
/// (FNV-1a of its path), as `node_parts::instance` promises for all releases.
struct Traces {
    instance: String,
    data_dir: PathBuf,
    links: Vec<PathBuf>,
}

impl Traces {
    fn of(data_dir: &Path) -> Self {
        let path = data_dir.to_str().unwrap().bytes();
        let hash =
            path.fold(0x811c_9dc5_u32, |it, byte| (it ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let instance = format!("{hash:08x}");
        let bridge = Path::new("/sys/class/net").join(format!("kb-{instance}"));
        let ports = std::fs::read_dir(bridge.join("brif")).unwrap();
        let ports = ports.map(|it| Path::new("/sys/class/net").join(it.unwrap().file_name()));
        let links = ports.chain([bridge.clone()]).collect();
        Self { instance, data_dir: data_dir.to_owned(), links }
    }

    /// What of it is there now.
    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.links.iter().filter(|it| it.exists()).map(|it| it.display().to_string()).collect();
        let data = self.data_dir.to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let is_ours = |it: &&str| it.contains(data) || it.contains(&self.instance);
        left.extend(mounts.lines().filter(is_ours).map(str::to_owned));
        for folder in [self.data_dir.clone(), Path::new("/run/kactor").join(&self.instance)] {
            left.extend(folder.exists().then(|| folder.display().to_string()));
        }
        left.extend(self.cgroups());
        left.extend(self.processes());
        if let Ok(tables) = Command::new("nft").args(["list", "tables"]).output() {
            let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
            left.extend(tables.lines().filter(|it| it.contains(&self.instance)).map(str::to_owned));
        }
        left
    }

    fn cgroups(&self) -> Vec<String> {
        let name = format!("kactor-{}", self.instance);
        let root = Path::new("/sys/fs/cgroup");
        let controllers = std::fs::read_dir(root).unwrap().map(|it| it.unwrap().path());
        let places = controllers.chain([root.to_owned()]).map(|it| it.join(&name));
        places.filter(|it| it.exists()).map(|it| it.display().to_string()).collect()
    }

    /// Shims and what runs under them: their command lines or roots name the instance.
    fn processes(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let cgroup = format!("kactor-{}", self.instance);
        let is_ours = |path: &PathBuf| {
            let read = |name: &str| {
                let bytes = std::fs::read(path.join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            read("cgroup").contains(&cgroup)
                || (read("cmdline").contains("shim") && read("cmdline").contains(&self.instance))
        };
        entries.map(|it| it.path()).filter(is_ours).map(|it| it.display().to_string()).collect()
    }
}

/// One kubectl is enough here: what kubectls of all ages do has tests of its own.
fn kubectl(cluster: &Cluster) -> Option<Kubectl> {
    let program = kubectl::programs().pop()?;
    Some(Kubectl::new(program, cluster, &cluster.kubeconfig(), "default"))
}

fn pods(kubectl: &Kubectl) -> Vec<String> {
    let columns = "jsonpath={range .items[*]}{.metadata.name} {.status.startTime} \
        {.status.containerStatuses[0].state.running.startedAt} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let text = kubectl.ok(&["get", "pods", "-l", "app=hello", "-o", columns]);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_demo_serves_from_three_pods_that_outlive_kactor_and_a_purge_leaves_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return skip("containers need root");
    }
    let mut cluster = Cluster::prepared(Runtime::Embedded);
    if kubectl::programs().is_empty() {
        return skip("there is no kubectl in the folder KUBECTLS, in KUBECTL or in PATH");
    }
    cluster.spawn_with(&["--demo"]);
    let text = told(&cluster);
    let names = running(&text);
    assert_eq!(names.len(), 3, "{text}");
    assert_eq!(
        lines(&text, "apply"),
        [["deployment/hello", "created"], ["service/hello", "created"]]
    );
    assert!(text.contains(cluster.kubeconfig().to_str().unwrap()), "{text}");

    // By the address that was printed, from the host.
    let url = lines(&text, "service")[0][0].to_owned();
    let address = format!("{}:80", url.strip_prefix("http://").unwrap());
    assert_eq!(names_that_answer(3, || get(&address)), names);
    // By name, from a pod, with the client that the image brings.
    let kubectl = kubectl(&cluster).unwrap();
    for url in ["http://hello", "http://hello.default.svc.cluster.local"] {
        let ask = ["exec", "deployment/hello", "--", "kactor", "demo-client", url, "--times", "5"];
        assert_eq!(names_that_answer(3, || Some(kubectl.ok(&ask))), names, "{url}");
    }
    let log = kubectl.ok(&["logs", "deployment/hello"]);
    assert!(log.contains("listens on"), "{log}");

    let before = pods(&kubectl);
    assert!(cluster.end(Signal::SIGINT).success(), "{}", cluster.output());
    assert!(
        names.is_superset(&names_that_answer(1, || get(&address))),
        "pods serve without kactor"
    );
    cluster.spawn();
    cluster.wait_ready();
    assert_eq!(pods(&kubectl), before, "the next up finds them");
    assert!(cluster.end(Signal::SIGTERM).success(), "{}", cluster.output());
    cluster.spawn_with(&["--demo"]);
    let again = told(&cluster);
    assert_eq!(
        lines(&again, "apply"),
        [["deployment/hello", "unchanged"], ["service/hello", "unchanged"]]
    );
    assert!(again.contains("is there already"), "{again}");
    assert_eq!(lines(&again, "found"), [["3", "pods", "from", "before"]]);
    assert_eq!(pods(&kubectl), before);

    let traces = Traces::of(&cluster.data_dir());
    assert!(traces.left().len() > 3, "what is looked for below is there now: {:?}", traces.left());
    let purged = cluster.kactor(&["down", "--purge"]);
    assert!(purged.is_ok(), "{}", purged.both());
    assert!(cluster.wait_end().success(), "{}", cluster.output());
    assert_eq!(traces.left(), Vec::<String>::new(), "{}", purged.both());
    assert!(!cluster.kubeconfig().exists(), "kactor made it and nothing else is in it");
    // Some hosts have a proxy that answers for every address.
    let answer = get(&address).unwrap_or_default();
    assert!(!answer.contains("hello from"), "nobody of ours answers any more: {answer}");
}

#[test]
fn on_a_hollow_node_the_demo_says_that_pods_pretend() {
    let mut cluster = Cluster::prepared(Runtime::Hollow);
    cluster.spawn_with(&["--demo"]);
    let text = told(&cluster);
    assert_eq!(running(&text).len(), 3, "{text}");
    assert!(text.contains("pretend"), "{text}");
    assert!(!text.contains("curl"), "nothing answers there: {text}");
    cluster.end(Signal::SIGTERM);
    assert_eq!(cluster.errors(), "", "a calm start says nothing on stderr");
}

#[test]
fn without_a_node_the_demo_is_refused_before_anything_is_made() {
    let cluster = Cluster::prepared(Runtime::None);
    let answer = process::run(cluster.up().arg("--demo"), "");
    let Answer { code, stdout, stderr } = &answer;
    assert!(*code != 0 && stdout.is_empty(), "{answer:?}");
    assert!(stderr.contains("--demo") && stderr.contains("hollow"), "{stderr}");
    assert!(!cluster.data_dir().exists());
}
