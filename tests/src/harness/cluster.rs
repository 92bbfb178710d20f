//! A kactor of a test's own: its data directory, port and kubeconfig; killed and removed when dropped.
//!
//! Its output goes to files outside the data directory, so that looking for a secret on disk looks at what kactor
//! stores, and it is printed when the test fails.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::binary;
use super::network::NetworkSlot;
use super::patience::{PATIENCE, Patience};
use super::port::Port;
use super::process::{self, Answer};

/// What the host's node runs pods with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// Pods pretend to run.
    Hollow,
    /// A control plane without a node.
    None,
    /// Real containers: needs root, and `purge` at the end.
    Embedded,
    /// The same with the Docker Engine that `DOCKER_HOST` or the default socket leads to.
    Docker,
}

impl Runtime {
    /// Whether something is made on the host that must be removed.
    fn is_real(self) -> bool {
        matches!(self, Runtime::Embedded | Runtime::Docker)
    }

    fn flag(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Embedded => "embedded",
            Runtime::Hollow => "hollow",
            Runtime::None => "none",
        }
    }
}

/// The name of a hollow cluster's one node.
pub const NODE: &str = "host-a";
/// How much of the output is shown when a test fails.
const TAIL_BYTES: usize = 16 << 10;

pub struct Cluster {
    folder: TempDir,
    port: Port,
    runtime: Runtime,
    node: String,
    variables: Vec<(String, String)>,
    /// Only real containers need one.
    network: Option<NetworkSlot>,
    child: Option<Child>,
}

impl Cluster {
    /// Boots a new cluster and waits until it serves.
    #[track_caller]
    pub fn start(runtime: Runtime) -> Self {
        let mut cluster = Self::prepared(runtime);
        cluster.spawn();
        cluster.wait_ready();
        cluster
    }

    /// A cluster that was never started.
    pub fn prepared(runtime: Runtime) -> Self {
        let folder = tempfile::Builder::new().prefix("kactor-test-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        for it in ["home", "logs"] {
            std::fs::create_dir(folder.path().join(it)).expect("the folder is new");
        }
        let network = runtime.is_real().then(NetworkSlot::free);
        let (port, node, variables) = (Port::free(), NODE.to_owned(), Vec::new());
        Self { folder, port, runtime, node, variables, network, child: None }
    }

    /// As a host of that name.
    pub fn named(mut self, node: &str) -> Self {
        node.clone_into(&mut self.node);
        self
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// An environment variable of `kactor up`, from its next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The administrator's kubeconfig, written by `up --kubeconfig`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the cluster was started").id()
    }

    /// `kactor ARGS` in this cluster's surroundings: its HOME, and nobody's kubeconfig.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary::kactor());
        command.args(args).env("HOME", self.folder.path().join("home")).env_remove("KUBECONFIG");
        command
    }

    /// Runs `kactor ARGS --data-dir DIR` to its end.
    #[track_caller]
    pub fn kactor(&self, args: &[&str]) -> Answer {
        process::run(self.command(args).arg("--data-dir").arg(self.data_dir()), "")
    }

    /// The command that `spawn` runs.
    pub fn up(&self) -> Command {
        let listen = format!("127.0.0.1:{}", self.port.number);
        let mut command = self.command(&["up", "--runtime", self.runtime.flag()]);
        command.args(["--listen", &listen, "--node-name", &self.node]);
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(network) = &self.network {
            command.args(["--pod-cidr", &network.pods(), "--service-cidr", &network.services()]);
        }
        command
    }

    /// Starts kactor without waiting for it.
    #[track_caller]
    pub fn spawn(&mut self) {
        self.spawn_with(&[]);
    }

    /// With more arguments.
    #[track_caller]
    pub fn spawn_with(&mut self, args: &[&str]) {
        self.spawn_where(args, || Ok(()));
    }

    /// Starts it where no process may hold more files open.
    #[track_caller]
    pub fn spawn_with_open_files(&mut self, limit: u64) {
        self.spawn_where(&[], move || {
            setrlimit(Resource::RLIMIT_NOFILE, limit, limit).map_err(std::io::Error::from)
        });
    }

    /// `prepare` runs in the child before it becomes kactor: only what is async-signal-safe.
    #[track_caller]
    fn spawn_where(
        &mut self,
        args: &[&str],
        prepare: impl Fn() -> std::io::Result<()> + Send + Sync + 'static,
    ) {
        assert!(self.child.is_none(), "it runs already");
        let log = |name: &str| {
            let mut options = File::options();
            let opened = options.create(true).append(true).open(self.log(name));
            Stdio::from(opened.expect("the log can be written"))
        };
        let mut command = self.up();
        command.args(args).stdin(Stdio::null()).stdout(log("stdout")).stderr(log("stderr"));
        // SAFETY: signal and prctl are async-signal-safe and touch no memory of ours.
        unsafe {
            command.pre_exec(move || {
                // As under nohup: what kactor was started with must not reach its pods.
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                // Dies with the test's thread, however that ends.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                prepare()
            });
        }
        self.child = Some(command.spawn().expect("kactor can be started"));
    }

    /// Waits through `kactor status --wait` until the cluster serves.
    ///
    /// # Panics
    /// When kactor ends instead, or does not serve within [`PATIENCE`].
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let patience = Patience::of(PATIENCE);
        loop {
            let answer = self.kactor(&["status", "--wait", "--timeout", "10"]);
            if answer.is_ok() {
                return;
            }
            if let Some(status) = self.try_wait() {
                panic!("`kactor up` ended with {status}\n{}", self.output());
            }
            assert!(!patience.is_over(), "it does not serve: {}\n{}", answer.both(), self.output());
            patience.pause();
        }
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("the cluster was started");
        child.try_wait().expect("a child can be waited for")
    }

    /// SIGKILL, as a crash.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the cluster runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Sends a signal and waits for the end.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = i32::try_from(self.pid()).expect("pids are positive");
        kill(Pid::from_raw(pid), signal).expect("a child can be signalled");
        self.wait_end()
    }

    /// Waits until kactor ends by itself.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let patience = Patience::of(Duration::from_secs(60));
        loop {
            if let Some(status) = self.try_wait() {
                self.child = None;
                return status;
            }
            assert!(!patience.is_over(), "kactor does not end\n{}", self.output());
            patience.pause();
        }
    }

    /// Starts it again on the same data directory and port, and waits until it serves.
    #[track_caller]
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_ready();
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(name)
    }

    /// All that was printed on stdout, by all starts.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log("stdout")).unwrap_or_default()
    }

    /// All that was printed on stderr, by all starts.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.log("stderr")).unwrap_or_default()
    }

    /// The ends of stdout and stderr of all starts.
    pub fn output(&self) -> String {
        let tail = |name: &str| {
            let bytes = std::fs::read(self.log(name)).unwrap_or_default();
            let from = bytes.len().saturating_sub(TAIL_BYTES);
            format!("--- kactor's {name}\n{}\n", String::from_utf8_lossy(&bytes[from..]))
        };
        tail("stdout") + &tail("stderr")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.runtime.is_real() {
            let purged = self.kactor(&["down", "--purge"]);
            if !purged.is_ok() && !std::thread::panicking() {
                panic!("`kactor down --purge` failed: {}", purged.both());
            }
        }
        if std::thread::panicking() {
            eprintln!("{}", self.output());
        }
    }
}
