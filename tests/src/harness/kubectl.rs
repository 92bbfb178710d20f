//! Stock kubectls: the oldest and the newest that are here, run as a user runs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::hosts::Host;
use super::patience::wait_until;
use super::process::{self, Answer, Background};
use super::skip::skip;
use super::terminal::Terminal;

/// The kubectls to test with: of the folder `KUBECTLS` the oldest and the newest (`kubectl.1.27`,
/// `kubectl-v1.33.1`), else `KUBECTL`, else those beside PATH's kubectl, else that.
pub fn programs() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("KUBECTLS") {
        return ends(Path::new(&folder));
    }
    if let Some(program) = std::env::var_os("KUBECTL") {
        return vec![program.into()];
    }
    let Some(found) = on_path().and_then(|it| it.canonicalize().ok()) else {
        return Vec::new();
    };
    let beside = found.parent().map(ends).unwrap_or_default();
    if beside.is_empty() { vec![found] } else { beside }
}

/// Oldest and newest of a folder; one, when they are the same.
fn ends(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<(u32, PathBuf)> =
        files.filter_map(|it| Some((minor(&it.path())?, it.path()))).collect();
    found.sort();
    let mut paths: Vec<PathBuf> = found.into_iter().map(|(_, path)| path).collect();
    if paths.len() > 2 {
        paths.drain(1..paths.len() - 1);
    }
    paths
}

/// 27 of `kubectl.1.27` and of `kubectl-v1.27.4`.
fn minor(path: &Path) -> Option<u32> {
    let rest = path.file_name()?.to_str()?.strip_prefix("kubectl")?;
    let (_, after) = rest.split_once("1.")?;
    after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|it| it.join("kubectl")).find(|it| it.exists())
}

/// Runs the test with each kubectl, in a namespace of its own in one cluster.
#[track_caller]
pub fn with_each(cluster: &Cluster, test: impl Fn(&Kubectl)) {
    let programs = programs();
    if programs.is_empty() {
        return skip("there is no kubectl in the folder KUBECTLS, in KUBECTL or in PATH");
    }
    for (index, program) in programs.into_iter().enumerate() {
        println!("with {}", program.display());
        test(&in_namespace(cluster, program, &format!("test-{index}")));
    }
}

/// The newest kubectl, for what does not depend on its version, in a new namespace; `None`, with the reason said,
/// where there is none.
#[track_caller]
pub fn newest(cluster: &Cluster) -> Option<Kubectl> {
    let program = programs().pop();
    if program.is_none() {
        skip("there is no kubectl in the folder KUBECTLS, in KUBECTL or in PATH");
    }
    program.map(|it| in_namespace(cluster, it, "test"))
}

#[track_caller]
fn in_namespace(cluster: &Cluster, program: PathBuf, namespace: &str) -> Kubectl {
    let admin = Kubectl::new(program, cluster, &cluster.kubeconfig(), "default");
    admin.ok(&["create", "namespace", namespace]);
    let kubectl = admin.within(namespace);
    kubectl.until(&["get", "serviceaccount", "default", "-o", "name"], |it| it.contains("default"));
    kubectl
}

/// One kubectl with one kubeconfig and one namespace.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    folder: PathBuf,
    pub namespace: String,
}

impl Kubectl {
    /// With the identity of a kubeconfig file, in a namespace.
    pub fn new(program: PathBuf, cluster: &Cluster, kubeconfig: &Path, namespace: &str) -> Self {
        let text = std::fs::read_to_string(kubeconfig).expect("the kubeconfig is there");
        let document: Value = serde_saphyr::from_str(&text).expect("a kubeconfig is YAML");
        Self::with_document(program, cluster.folder(), document, namespace)
    }

    /// With the identity of a host's administrator.
    pub fn of_host(program: PathBuf, host: &Host, namespace: &str) -> Self {
        let text = std::fs::read_to_string(host.kubeconfig()).expect("the kubeconfig is there");
        let document: Value = serde_saphyr::from_str(&text).expect("a kubeconfig is YAML");
        Self::with_document(program, host.folder(), document, namespace)
    }

    /// The same at another server of the cluster.
    pub fn by(&self, server: &str) -> Self {
        let mut document = self.document();
        document["clusters"][0]["cluster"]["server"] = format!("https://{server}").into();
        let folder = self.folder.join(server.replace(':', "-"));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        Self::with_document(self.program.clone(), &folder, document, &self.namespace)
    }

    fn with_document(
        program: PathBuf,
        folder: &Path,
        mut document: Value,
        namespace: &str,
    ) -> Self {
        document["contexts"][0]["context"]["namespace"] = namespace.into();
        let user = document["contexts"][0]["context"]["user"].as_str().unwrap_or("user").to_owned();
        let version = program.file_name().map(|it| it.to_string_lossy().into_owned());
        let name = format!("{}-{user}-{namespace}", version.unwrap_or_default());
        let kubeconfig = folder.join(format!("{name}.json"));
        std::fs::write(&kubeconfig, document.to_string()).expect("the kubeconfig can be written");
        Self { program, kubeconfig, folder: folder.to_owned(), namespace: namespace.to_owned() }
    }

    fn document(&self) -> Value {
        let text = std::fs::read(&self.kubeconfig).expect("it was written");
        serde_json::from_slice(&text).expect("it was written as JSON")
    }

    /// The same user in another namespace.
    pub fn within(&self, namespace: &str) -> Self {
        Self::with_document(self.program.clone(), &self.folder, self.document(), namespace)
    }

    /// Another user, who is known by a bearer token.
    pub fn with_token(&self, user: &str, token: &str) -> Self {
        let mut document = self.document();
        document["users"] = json!([{"name": user, "user": {"token": token}}]);
        document["contexts"][0]["context"]["user"] = user.into();
        Self::with_document(self.program.clone(), &self.folder, document, &self.namespace)
    }

    /// Writes a file beside the kubeconfig; answers its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.join(format!("{}-{name}", self.namespace));
        std::fs::write(&path, content).expect("the file can be written");
        path.to_str().expect("temporary paths are UTF-8").to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("HOME", self.folder.join("home"))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"));
        command
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Answer {
        self.run_with(args, "")
    }

    /// With `input` on stdin.
    #[track_caller]
    pub fn run_with(&self, args: &[&str], input: &str) -> Answer {
        process::run(&mut self.command(args), input)
    }

    /// Runs and expects success with one more variable in its environment; answers stdout.
    #[track_caller]
    pub fn ok_where(&self, (name, value): (&str, &str), args: &[&str]) -> String {
        let answer = process::run(self.command(args).env(name, value), "");
        assert!(answer.is_ok(), "{name}={value} kubectl {}\n{}", args.join(" "), answer.both());
        answer.stdout
    }

    /// Runs and expects success; answers stdout.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, "")
    }

    #[track_caller]
    pub fn ok_with(&self, args: &[&str], input: &str) -> String {
        let answer = self.run_with(args, input);
        let Answer { code, stdout, stderr } = &answer;
        assert_eq!(*code, 0, "kubectl {}\n{stdout}\n{stderr}", args.join(" "));
        answer.stdout
    }

    /// Runs and expects refusal; answers stderr.
    #[track_caller]
    pub fn refused(&self, args: &[&str]) -> String {
        self.refused_with(args, "")
    }

    #[track_caller]
    pub fn refused_with(&self, args: &[&str], input: &str) -> String {
        let answer = self.run_with(args, input);
        assert_ne!(answer.code, 0, "kubectl {} was let through\n{}", args.join(" "), answer.both());
        answer.stderr
    }

    /// `kubectl apply -f -`.
    #[track_caller]
    pub fn give(&self, manifest: &str) -> String {
        self.ok_with(&["apply", "-f", "-"], manifest)
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).expect("kubectl prints JSON")
    }

    /// A column of an object, as `-o jsonpath` prints it.
    #[track_caller]
    pub fn field(&self, object: &str, path: &str) -> String {
        self.ok(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// Runs again and again until it succeeds with an output that `holds`; answers that output.
    #[track_caller]
    pub fn until(&self, args: &[&str], holds: impl Fn(&str) -> bool) -> String {
        wait_until(&format!("kubectl {}", args.join(" ")), || {
            let answer = self.run(args);
            match answer.is_ok() && holds(&answer.stdout) {
                true => Ok(answer.stdout),
                false => Err(answer.both()),
            }
        })
    }

    /// Runs again and again until it is refused with these words.
    #[track_caller]
    pub fn until_refused(&self, args: &[&str], words: &str) {
        wait_until(&format!("kubectl {} refused with {words:?}", args.join(" ")), || {
            let answer = self.run(args);
            match !answer.is_ok() && answer.stderr.contains(words) {
                true => Ok(()),
                false => Err(answer.both()),
            }
        });
    }

    /// Runs on in the background; killed when dropped.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Background {
        Background::start(&mut self.command(args))
    }

    /// Runs on a terminal of 24 lines of 80 columns; killed when dropped.
    #[track_caller]
    pub fn on_terminal(&self, args: &[&str]) -> Terminal {
        Terminal::start(&mut self.command(args), 24, 80)
    }

    /// Runs with bytes on stdin and answers those of stdout.
    #[track_caller]
    pub fn bytes(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let answer = process::run_bytes(&mut self.command(args), input);
        assert_eq!(answer.code, 0, "kubectl {}\n{}", args.join(" "), answer.stderr);
        answer.stdout
    }
}
