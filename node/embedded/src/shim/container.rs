//! One container of the pod: its start, its output on the way to log and attached clients, its end.
//!
//! Output is read only when every attached client has room for it: a client that stalls stalls the container's
//! output, as under containerd, and needs no buffer here. Chunks are at most PIPE_BUF, so that a pipe with room
//! takes one whole.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

use super::console::Console;
use super::errors;
use super::execute::Execute;
use super::log::{Line, Log};
use super::poll::{PollSet, Ready, has_room};
use super::{now_ms, pipe, set_nonblocking};
use crate::cgroups::keyed;
use crate::layout::{ContainerLayout, read_json, write_json};
use crate::protocol::{ContainerLaunch, Exit, Record, StdinMode, VERSION};

const CHUNK_BYTES: usize = 4096;
/// Output that is drained when the container ends, so that a holder of its pipe cannot keep us here.
const DRAIN_BYTES_MAX: usize = 1 << 20;

pub struct Container {
    name: String,
    layout: ContainerLayout,
    launch: ContainerLaunch,
    record: Record,
    log: Log,
    streams: Vec<Stream>,
    /// Our end of its stdin; for a terminal its master.
    stdin: Option<OwnedFd>,
    attached: Vec<Attached>,
}

struct Stream {
    from: OwnedFd,
    output: Output,
    line: Line,
    /// The client that has no room.
    blocked_on: Option<u64>,
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Stdout,
    Stderr,
}

impl Output {
    fn name(self) -> &'static str {
        match self {
            Output::Stdout => "stdout",
            Output::Stderr => "stderr",
        }
    }
}

struct Attached {
    client: u64,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Descriptors for a client that attaches.
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: Option<OwnedFd>,
    pub terminal: bool,
}

/// What is given to the container's process, and what stays here.
struct Stdio {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Container {
    /// Runs it. A failure is written down as its end.
    pub fn start(
        name: &str,
        layout: ContainerLayout,
        launch: ContainerLaunch,
        console: Option<Console>,
    ) -> Result<Self, (String, Option<Exit>)> {
        let log = Log::open(&launch.log_path, launch.log_bytes_max, launch.log_files_max)
            .map_err(|it| (format!("opening {}: {it}", launch.log_path.display()), None))?;
        let mut container = Self {
            name: name.to_owned(),
            layout,
            launch,
            record: Record { version: VERSION, ..Record::default() },
            log,
            streams: Vec::new(),
            stdin: None,
            attached: Vec::new(),
        };
        errors::clear();
        match container.run(console) {
            Ok(()) => Ok(container),
            Err(why) => {
                let why = with_account(why);
                let exit = Exit { finished_ms: now_ms(), code: 128, ..Exit::default() };
                container.record.failed = Some(why.clone());
                container.record.exit = Some(exit.clone());
                container.save();
                Err((why, Some(exit)))
            }
        }
    }

    fn run(&mut self, console: Option<Console>) -> Result<(), String> {
        let said = |it: io::Error| it.to_string();
        let root = self.layout.runtime();
        fs::create_dir_all(&root).map_err(said)?;
        let mut builder = ContainerBuilder::new(self.name.clone(), SyscallType::default())
            .with_root_path(root)
            .map_err(|it| chain(&it))?
            .with_executor(Execute { seccomp: self.launch.seccomp });
        match &console {
            Some(console) => builder = builder.with_console_socket(Some(console.path())),
            None => {
                let stdio = self.open_stdio().map_err(said)?;
                builder = builder
                    .with_stdin(stdio.stdin)
                    .with_stdout(stdio.stdout)
                    .with_stderr(stdio.stderr);
            }
        }
        let built =
            builder.as_init(self.layout.bundle()).with_systemd(false).with_detach(true).build();
        let mut built = built.map_err(|it| chain(&it))?;
        if let Some(console) = console {
            let master = console.master().map_err(said)?;
            self.take_terminal(master).map_err(said)?;
        }
        let pid = built.pid().ok_or("libcontainer named no process")?.as_raw();
        self.adjust_oom_score(pid);
        built.start().map_err(|it| chain(&it))?;
        self.record.pid = u32::try_from(pid).ok();
        self.record.started_ms = Some(now_ms());
        self.save();
        Ok(())
    }

    fn open_stdio(&mut self) -> io::Result<Stdio> {
        let stdin = match self.launch.stdin {
            StdinMode::Closed => OwnedFd::from(File::open("/dev/null")?),
            StdinMode::Open | StdinMode::Once => {
                let (reader, writer) = pipe()?;
                self.stdin = Some(writer);
                reader
            }
        };
        let (stdout_from, stdout) = pipe()?;
        let (stderr_from, stderr) = pipe()?;
        self.add_stream(stdout_from, Output::Stdout)?;
        self.add_stream(stderr_from, Output::Stderr)?;
        Ok(Stdio { stdin, stdout, stderr })
    }

    fn take_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        self.stdin = Some(master.try_clone()?);
        self.add_stream(master, Output::Stdout)
    }

    fn add_stream(&mut self, from: OwnedFd, output: Output) -> io::Result<()> {
        set_nonblocking(from.as_raw_fd())?;
        let line = Line::default();
        self.streams.push(Stream { from, output, line, blocked_on: None, ended: false });
        Ok(())
    }

    /// In the container's process, not in ours: it would stay with every later container.
    fn adjust_oom_score(&mut self, pid: i32) {
        let Some(wanted) = self.launch.oom_score_adj else {
            return;
        };
        if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), wanted.to_string()) {
            let warning = format!("oom_score_adj {wanted} was left out: {error}");
            self.record.warnings.push(warning);
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn exit(&self) -> Option<&Exit> {
        self.record.exit.as_ref()
    }

    pub fn runs_as(&self, pid: i32) -> bool {
        self.record.exit.is_none() && self.pid() == Some(pid)
    }

    /// Of the process that runs; `None` once it was reaped, when the number may be another's.
    pub fn pid(&self) -> Option<i32> {
        match self.record.exit {
            None => self.record.pid.and_then(|it| i32::try_from(it).ok()),
            Some(_) => None,
        }
    }

    pub fn launch(&self) -> &ContainerLaunch {
        &self.launch
    }

    pub fn layout(&self) -> &ContainerLayout {
        &self.layout
    }

    /// Everything in its cgroup, whoever started it there.
    pub fn kill_all(&self, signal: i32) {
        for group in &self.launch.cgroups {
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in text.lines().filter_map(|it| it.parse::<i32>().ok()).filter(|it| *it > 1) {
                // SAFETY: kill takes integers.
                unsafe { libc::kill(pid, signal) };
            }
        }
    }

    /// Its first process was reaped: takes the last of its output and writes its end down.
    pub fn ended(&mut self, mut exit: Exit) -> Exit {
        if self.launch.kills_leftovers {
            self.kill_all(libc::SIGKILL);
        }
        for index in 0..self.streams.len() {
            let mut n_bytes = 0;
            while n_bytes < DRAIN_BYTES_MAX {
                match self.read(index) {
                    Some(n) => n_bytes += n,
                    None => break,
                }
            }
        }
        let oom_kills = self.launch.oom_file.as_ref().and_then(|it| fs::read_to_string(it).ok());
        let oom_kills = oom_kills.and_then(|it| keyed(&it, "oom_kill")).unwrap_or_default();
        exit.oom_killed = oom_kills > 0 && exit.code != 0;
        self.record.exit = Some(exit.clone());
        self.save();
        self.stdin = None;
        self.attached.clear(); // Their streams end.
        exit
    }

    fn save(&self) {
        // A full disk must not end the pod: the agent then sees the container as it was before.
        let _ = write_json(&self.layout.state_json(), &self.record);
    }

    pub fn add_to(&self, set: &mut PollSet) {
        for (index, stream) in self.streams.iter().enumerate().filter(|(_, it)| !it.ended) {
            let held_up = stream.blocked_on.and_then(|it| self.end_of(it, stream.output));
            match held_up {
                Some(end) => set.writable(end.as_fd(), Ready::Room(self.name.clone(), index)),
                None => {
                    set.readable(stream.from.as_fd(), Ready::Output(self.name.clone(), index));
                }
            }
        }
    }

    fn end_of(&self, client: u64, output: Output) -> Option<&OwnedFd> {
        let attached = self.attached.iter().find(|it| it.client == client)?;
        match output {
            Output::Stdout => attached.stdout.as_ref(),
            Output::Stderr => attached.stderr.as_ref(),
        }
    }

    pub fn unblock(&mut self, index: usize) {
        if let Some(stream) = self.streams.get_mut(index) {
            stream.blocked_on = None;
        }
    }

    /// Moves one chunk, if all who listen have room.
    pub fn output_ready(&mut self, index: usize) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let output = stream.output;
        for attached in &mut self.attached {
            let end = attached.end_mut(output);
            match end.as_ref().map(|it| has_room(it.as_fd())) {
                Some(Some(false)) => {
                    stream.blocked_on = Some(attached.client);
                    return;
                }
                Some(None) => *end = None, // Its reader is gone.
                Some(Some(true)) | None => {}
            }
        }
        self.read(index);
    }

    /// Reads one chunk into log and attached pipes; `None` when there is no more for now.
    fn read(&mut self, index: usize) -> Option<usize> {
        let stream = &mut self.streams[index];
        if stream.ended {
            return None;
        }
        let mut buffer = [0_u8; CHUNK_BYTES];
        let n = match io::Read::read(&mut File::from(stream.from.try_clone().ok()?), &mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Some(0),
            Err(_) => 0, // EIO: a terminal whose last user has gone.
        };
        let name = stream.output.name();
        if n == 0 {
            self.log.finish(name, &mut stream.line);
            stream.ended = true;
            return None;
        }
        self.log.take(name, &mut stream.line, &buffer[..n]);
        for attached in &mut self.attached {
            let end = attached.end_mut(stream.output);
            let gone = end.as_ref().is_some_and(|it| write_once(it, &buffer[..n]).is_err());
            if gone {
                *end = None;
            }
        }
        Some(n)
    }

    pub fn drop_ended_streams(&mut self) {
        self.streams.retain(|it| !it.ended);
    }

    pub fn rotate_log(&mut self) -> io::Result<()> {
        self.log.rotate()
    }

    /// New pipes for a client; stdin is the container's own, so that its pace is the container's.
    pub fn attach(&mut self, client: u64, wants_stdin: bool) -> io::Result<Streams> {
        let terminal = self.launch.terminal;
        let stdin = match (wants_stdin || terminal, self.launch.stdin) {
            (false, _) => None,
            (true, StdinMode::Once) if !terminal => self.stdin.take(),
            (true, _) => self.stdin.as_ref().map(OwnedFd::try_clone).transpose()?,
        };
        let (stdout, stdout_to) = pipe()?;
        set_nonblocking(stdout_to.as_raw_fd())?;
        let (stderr, stderr_to) = match terminal {
            true => (None, None),
            false => {
                let (reader, writer) = pipe()?;
                set_nonblocking(writer.as_raw_fd())?;
                (Some(reader), Some(writer))
            }
        };
        self.attached.push(Attached { client, stdout: Some(stdout_to), stderr: stderr_to });
        Ok(Streams { stdin, stdout, stderr, terminal })
    }

    pub fn detach(&mut self, client: u64) {
        self.attached.retain(|it| it.client != client);
        for stream in &mut self.streams {
            if stream.blocked_on == Some(client) {
                stream.blocked_on = None;
            }
        }
    }
}

impl Attached {
    fn end_mut(&mut self, output: Output) -> &mut Option<OwnedFd> {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }
}

/// A chunk of at most PIPE_BUF goes whole or not at all.
fn write_once(to: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the slice is live and its length is given.
    let n = unsafe { libc::write(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    match n {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// libcontainer's errors say the useful part in their sources.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(it) = source {
        let more = it.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = it.source();
    }
    text
}

/// The last of an error's chain, with what was logged on the way to it.
pub fn with_account(why: String) -> String {
    match errors::account() {
        account if account.is_empty() => why,
        account => format!("{why} ({account})"),
    }
}

/// A container that this shim was told of before: whether it ran.
pub fn earlier_record(layout: &ContainerLayout) -> Option<Record> {
    read_json(&layout.state_json())
}
