//! The shim: one single-threaded process per pod, the parent of its containers for as long as they live.
//!
//! It holds what a crash of the agent must not take: the pipes of the containers' output, the right to reap them,
//! the pod's namespaces. What becomes of a container goes to `state.json` before anybody is told. It has no tokio and
//! allocates little, for each pod pays for one. It decides nothing: no restarts, no grace periods, no images.
//! Losing the shim ends its containers (PDEATHSIG): nothing of a pod runs unwatched.

#![expect(
    clippy::disallowed_methods,
    reason = "the shim is a process of its own: no Env reaches into it, and it must read the clock to log"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::layout::{ContainerLayout, PodLayout, read_json};
use crate::protocol::wire::{Inbox, frame, send};
use crate::protocol::{Exit, PodLaunch, RefusedKind, Reply, Request, VERSION};

mod console;
mod container;
mod errors;
mod execute;
mod log;
mod namespaces;
mod poll;
mod requests;

use container::Container;
use poll::{PollSet, Ready};

/// Connections at once; more are hung up on.
const CLIENTS_MAX: usize = 64;

/// The hidden command `kactor shim --pod DIR`. Returns only when the pod is to end or could not begin.
pub fn shim_main(args: &[String]) -> ExitCode {
    let [flag, dir] = args else {
        eprintln!("usage: shim --pod DIR (kactor starts this itself)");
        return ExitCode::from(2);
    };
    if flag != "--pod" {
        eprintln!("usage: shim --pod DIR (kactor starts this itself)");
        return ExitCode::from(2);
    }
    let dir = PathBuf::from(dir);
    match Shim::begin(&dir).and_then(Shim::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = fs::write(dir.join("shim.err"), error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Milliseconds since 1970, for records.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Shim {
    layout: PodLayout,
    launch: PodLaunch,
    listener: UnixListener,
    signals: OwnedFd,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    containers: BTreeMap<String, Container>,
    /// Processes of exec, by pid, with who is told of their end.
    execs: BTreeMap<i32, u64>,
    pause: Option<i32>,
    n_consoles: u64,
    /// Held for as long as this process lives.
    _lock: File,
}

/// One connection.
struct Client {
    stream: UnixStream,
    inbox: Inbox,
    waits: Waits,
}

/// What a connection is told of later.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Waits {
    Nothing,
    Container(String),
    All,
}

fn context(doing: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    let doing = doing.to_string();
    move |error| io::Error::new(error.kind(), format!("{doing}: {error}"))
}

impl Shim {
    fn begin(dir: &Path) -> io::Result<Self> {
        end_on_panic();
        errors::keep();
        let lock = File::create(dir.join("shim.lock")).map_err(context("making the lock"))?;
        take(&lock)?;
        let launch: PodLaunch = read_json(&dir.join("shim.json"))
            .ok_or_else(|| io::Error::other("shim.json is absent or malformed"))?;
        if launch.version != VERSION {
            let why = format!("this shim speaks v{VERSION}, shim.json is v{}", launch.version);
            return Err(io::Error::other(why));
        }
        // SAFETY: both calls take integers and a NUL-terminated name, and concern this process only.
        unsafe {
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_NAME, c"kactor-shim".as_ptr(), 0, 0, 0);
        }
        for group in &launch.cgroups {
            let file = group.join("cgroup.procs");
            fs::write(&file, "0").map_err(context(format_args!("joining {}", group.display())))?;
        }
        let layout = PodLayout { state: dir.to_owned(), run: launch.run.clone() };
        // Sockets are bound by relative names: a path may be longer than a socket's address.
        std::env::set_current_dir(&layout.run).map_err(context("entering the run folder"))?;
        let signals = poll::child_signals().map_err(context("watching for ended children"))?;
        let pause = namespaces::pin(&layout, &launch)?;
        let _ = fs::remove_file("shim.sock"); // Of a shim that is gone: the lock says so.
        let listener = UnixListener::bind("shim.sock").map_err(context("listening"))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            layout,
            launch,
            listener,
            signals,
            clients: BTreeMap::new(),
            next_client: 0,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            pause,
            n_consoles: 0,
            _lock: lock,
        })
    }

    /// Until the pause process dies or the agent ends this process.
    fn run(mut self) -> io::Result<()> {
        loop {
            for ready in self.poll_set().wait()? {
                match ready {
                    Ready::Signals => {
                        poll::drain(&self.signals);
                        self.reap()?;
                    }
                    Ready::Listener => self.accept(),
                    Ready::Client(id) => self.client_ready(id),
                    Ready::Output(name, index) => {
                        if let Some(it) = self.containers.get_mut(&name) {
                            it.output_ready(index);
                        }
                    }
                    Ready::Room(name, index) => {
                        if let Some(it) = self.containers.get_mut(&name) {
                            it.unblock(index);
                        }
                    }
                }
            }
            for container in self.containers.values_mut() {
                container.drop_ended_streams();
            }
        }
    }

    fn poll_set(&self) -> PollSet {
        let mut set = PollSet::default();
        set.readable(self.signals.as_fd(), Ready::Signals);
        set.readable(self.listener.as_fd(), Ready::Listener);
        for (id, client) in &self.clients {
            set.readable(client.stream.as_fd(), Ready::Client(*id));
        }
        for container in self.containers.values() {
            container.add_to(&mut set);
        }
        set
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return; // The peer left again, or we are out of descriptors: it will try again.
        };
        if self.clients.len() >= CLIENTS_MAX || stream.set_nonblocking(true).is_err() {
            return;
        }
        let client = Client { stream, inbox: Inbox::default(), waits: Waits::Nothing };
        self.clients.insert(self.next_client, client);
        self.next_client += 1;
    }

    fn client_ready(&mut self, id: u64) {
        loop {
            let Some(client) = self.clients.get_mut(&id) else {
                return;
            };
            match client.inbox.fill(client.stream.as_fd()) {
                Ok(true) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(false) | Err(_) => return self.hang_up(id),
            }
            loop {
                let Some(client) = self.clients.get_mut(&id) else {
                    return;
                };
                match client.inbox.frame() {
                    Ok(Some(body)) => self.request(id, &body),
                    Ok(None) => break,
                    Err(_) => return self.hang_up(id),
                }
            }
        }
    }

    fn request(&mut self, id: u64, body: &[u8]) {
        match Request::decode(body) {
            Ok(request) => requests::handle(self, id, request),
            Err(refusal) => self.reply(id, &refusal, &[]),
        }
    }

    /// Sends at once or hangs up: a peer that lets replies pile up is broken.
    fn reply(&mut self, id: u64, reply: &Reply, with: &[&OwnedFd]) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        let body = serde_json::to_vec(reply).expect("replies hold only text and numbers");
        let bytes = frame(&body);
        let with: Vec<_> = with.iter().map(|it| it.as_fd()).collect();
        match send(client.stream.as_fd(), &bytes, &with) {
            Ok(n) if n == bytes.len() => {}
            _ => self.hang_up(id),
        }
    }

    fn refuse(&mut self, id: u64, kind: RefusedKind, why: impl ToString) {
        self.reply(id, &Reply::Refused { kind, why: why.to_string() }, &[]);
    }

    fn hang_up(&mut self, id: u64) {
        self.clients.remove(&id);
        for container in self.containers.values_mut() {
            container.detach(id);
        }
    }

    /// Takes the exit codes of all children that have ended.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            let mut status = 0;
            // SAFETY: `status` is writable and outlives the call.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return Ok(());
            }
            if Some(pid) == self.pause {
                return Err(io::Error::other(
                    "the pause process ended, and all of the pod with it",
                ));
            }
            if let Some(client) = self.execs.remove(&pid) {
                let exit = exit_of(status);
                self.reply(client, &Reply::Exited { container: String::new(), exit }, &[]);
                continue;
            }
            let found = self.containers.values_mut().find(|it| it.runs_as(pid));
            if let Some(container) = found {
                let exit = container.ended(exit_of(status));
                let name = container.name().to_owned();
                self.tell_exit(&name, &exit);
            }
        }
    }

    fn tell_exit(&mut self, name: &str, exit: &Exit) {
        let told = self.clients.iter().filter(|(_, it)| match &it.waits {
            Waits::Nothing => false,
            Waits::Container(waited) => waited == name,
            Waits::All => true,
        });
        let told: Vec<u64> = told.map(|(id, _)| *id).collect();
        for id in told {
            self.reply(id, &Reply::Exited { container: name.to_owned(), exit: exit.clone() }, &[]);
        }
    }

    fn container_layout(&self, name: &str) -> ContainerLayout {
        ContainerLayout::new(self.layout.containers().join(name))
    }
}

/// The agent tries the lock for an instant when it looks for us: then it is free again.
fn take(lock: &File) -> io::Result<()> {
    for _ in 0..100 {
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(io::Error::other("another shim runs this pod"))
}

fn exit_of(status: i32) -> Exit {
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    let code = signal.map_or_else(|| libc::WEXITSTATUS(status), |it| 128 + it);
    Exit { finished_ms: now_ms(), code, signal, oom_killed: false }
}

/// libcontainer forks: a panic that unwound in its child would come out here as a second shim. So nothing unwinds.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|_| {
        // SAFETY: ends this process; nothing of it is used any more.
        unsafe { libc::_exit(70) }
    }));
}

/// A pipe's reading and writing end, both closed on exec.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader.into(), writer.into()))
}

fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open; both commands take integers.
    let done = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    match done {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
