//! One host: a kactor in a namespace, with its data directory, and what can happen to it.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::binary;
use super::super::patience::{PATIENCE, Patience};
use super::super::process::{self, Answer};
use super::clock::Clock;
use super::disk::Disk;
use super::space::Space;

/// The one port between hosts.
const PORT: u16 = 6443;
/// How much of the output is shown when a test fails.
const TAIL_BYTES: usize = 12 << 10;

pub struct Host {
    name: String,
    address: Ipv4Addr,
    space: Space,
    folder: PathBuf,
    variables: Vec<(String, String)>,
    runtime: &'static str,
    child: Option<Child>,
    is_frozen: bool,
    disk: Option<Disk>,
    clock: Option<Clock>,
}

impl Host {
    pub(super) fn new(name: String, address: Ipv4Addr, space: Space, parent: &Path) -> Self {
        let folder = parent.join(&name);
        for it in ["home", "logs", "disk"] {
            std::fs::create_dir_all(folder.join(it)).expect("the folder is new");
        }
        Self {
            name,
            address,
            space,
            folder,
            variables: Vec::new(),
            runtime: "hollow",
            child: None,
            is_frozen: false,
            disk: None,
            clock: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// `10.203.0.1:6443`.
    pub fn server(&self) -> String {
        format!("{}:{PORT}", self.address)
    }

    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("disk").join("data")
    }

    /// The administrator's, leading to this host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// What runs its pods instead of `hollow`. Before the first start.
    pub fn run_on(&mut self, runtime: &'static str) {
        self.runtime = runtime;
    }

    /// An environment variable of `kactor up`, from its next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The data directory gets a disk of its own. Before the first start.
    pub fn give_disk(&mut self, mib: u64) -> &mut Disk {
        let (image, at) = (self.folder.join("disk.img"), self.folder.join("disk"));
        self.disk.insert(Disk::mount(&image, &at, mib))
    }

    /// # Panics
    /// When `give_disk` was not called.
    pub fn disk(&mut self) -> &mut Disk {
        self.disk.as_mut().expect("the host has a disk of its own")
    }

    /// The host gets a clock of its own, from its next start on.
    pub fn give_clock(&mut self) -> &Clock {
        let clock = Clock::new(self.folder.join("clock"));
        self.variables.extend(clock.variables());
        self.clock.insert(clock)
    }

    /// # Panics
    /// When `give_clock` was not called.
    pub fn clock(&self) -> &Clock {
        self.clock.as_ref().expect("the host has a clock of its own")
    }

    /// `kactor ARGS` on this host.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary::kactor());
        command.args(args).env("HOME", self.folder.join("home")).env_remove("KUBECONFIG");
        self.space.enter(&mut command);
        command
    }

    /// Runs `kactor ARGS --data-dir DIR` to its end.
    #[track_caller]
    pub fn kactor(&self, args: &[&str]) -> Answer {
        process::run(self.command(args).arg("--data-dir").arg(self.data_dir()), "")
    }

    /// `kactor up`, with what each host is given.
    pub fn up(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["up", "--runtime", self.runtime]);
        command.args(["--listen", &self.server(), "--node-name", &self.name]);
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.args(args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Does something that opens sockets of this host.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.space.inside(work)
    }

    /// Whether a datagram from this host arrives at the other.
    pub fn tells(&self, other: &Host) -> bool {
        let open = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port is free");
            let patience = Some(Duration::from_secs(1));
            socket.set_read_timeout(patience).expect("a timeout can be set");
            socket
        };
        let (from, to) = (self.inside(open), other.inside(open));
        let at = (other.address, to.local_addr().expect("it is bound").port());
        // The kernel counts what a cut drops; the sender is not told.
        from.send_to(b"hello", at).expect("there is a route");
        to.recv(&mut [0; 8]).is_ok()
    }

    /// The year, as programs with this host's variables see it.
    pub fn date(&self) -> String {
        let mut command = Command::new("date");
        command.arg("+%Y").envs(self.variables.iter().map(|(name, value)| (name, value)));
        process::run(&mut command, "").both()
    }

    /// Begins a cluster, or goes on with what the data directory has, and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn_with(&[]);
        self.wait_ready();
    }

    /// Starts kactor without waiting for it.
    #[track_caller]
    pub fn spawn_with(&mut self, args: &[&str]) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = |name: &str| {
            let mut options = File::options();
            let opened = options.create(true).append(true).open(self.log(name));
            Stdio::from(opened.expect("the log can be written"))
        };
        let mut command = self.up(args);
        command.stdin(Stdio::null()).stdout(log("stdout")).stderr(log("stderr"));
        // SAFETY: prctl is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| {
                // Dies with the test's thread, however that ends.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        self.child = Some(command.spawn().expect("kactor can be started"));
    }

    /// Waits through `kactor status --wait` until this host serves.
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
                panic!("`kactor up` of {} ended with {status}\n{}", self.name, self.output());
            }
            let said = answer.both();
            assert!(!patience.is_over(), "{} does not serve: {said}", self.name);
            patience.pause();
        }
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("kactor was started");
        child.try_wait().expect("a child can be waited for")
    }

    /// Whether its kactor was started, not ended, and is not frozen.
    pub fn is_running(&self) -> bool {
        self.child.is_some() && !self.is_frozen
    }

    /// SIGKILL, as the loss of the host's power.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("kactor runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        self.is_frozen = false;
    }

    /// Every thread stands still; sockets stay open.
    pub fn freeze(&mut self) {
        self.signal(Signal::SIGSTOP);
        self.is_frozen = true;
    }

    pub fn thaw(&mut self) {
        self.signal(Signal::SIGCONT);
        self.is_frozen = false;
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("kactor runs");
        let pid = i32::try_from(child.id()).expect("pids are positive");
        kill(Pid::from_raw(pid), signal).expect("a child can be signalled");
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
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
            assert!(!patience.is_over(), "kactor of {} does not end", self.name);
            patience.pause();
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(name)
    }

    /// The ends of what all its starts printed.
    pub fn output(&self) -> String {
        let tail = |name: &str| {
            let bytes = std::fs::read(self.log(name)).unwrap_or_default();
            let from = bytes.len().saturating_sub(TAIL_BYTES);
            let text = String::from_utf8_lossy(&bytes[from..]).into_owned();
            format!("--- {} of {}\n{text}\n", name, self.name)
        };
        tail("stdout") + &tail("stderr")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(disk) = &mut self.disk {
            // A process that waits for a frozen disk cannot even be killed.
            if disk.is_frozen() {
                disk.thaw();
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.runtime == "embedded" {
            // Its pods outlive it, and the folder goes.
            let purged = self.kactor(&["down", "--purge"]);
            assert!(purged.is_ok() || std::thread::panicking(), "{}", purged.both());
        }
        if std::thread::panicking() {
            eprintln!("{}", self.output());
        }
    }
}
