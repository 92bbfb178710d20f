//! A network namespace that lives as long as the value, and commands inside it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};

use nix::sched::{CloneFlags, setns, unshare};

/// A thread waits inside for as long as the value lives: no name is left anywhere.
pub struct Space {
    path: PathBuf,
    _alive: Option<SyncSender<()>>,
}

impl Space {
    /// # Panics
    /// When the kernel makes none.
    pub fn new() -> Self {
        let (alive, ended) = sync_channel::<()>(0);
        let (tell, told) = sync_channel(0);
        let work = move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).map(|()| nix::unistd::gettid());
            let _ = tell.send(made);
            let _ = ended.recv(); // Ends with an error, when the value is dropped.
        };
        #[expect(clippy::disallowed_methods, reason = "the harness stands outside the cluster")]
        std::thread::spawn(work);
        let thread = told.recv().expect("the thread tells").expect("root may make namespaces");
        Self { path: path_of(thread), _alive: Some(alive) }
    }

    /// The one that the calling thread is in; it lives as long as the thread.
    pub fn of_this_thread() -> Self {
        Self { path: path_of(nix::unistd::gettid()), _alive: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The command will run inside.
    pub fn enter<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let namespace = File::open(&self.path).expect("the namespace lives");
        // SAFETY: setns is one system call; the file is open and stays so in the child.
        unsafe {
            command.pre_exec(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
            })
        }
    }

    /// Runs it on a thread inside. Sockets stay in the namespace that they were made in.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(&self.path).expect("the namespace lives");
        let enter = move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter namespaces");
            work()
        };
        std::thread::scope(|scope| {
            scope.spawn(enter).join().unwrap_or_else(|it| std::panic::resume_unwind(it))
        })
    }

    /// Runs `ip ARGS` inside.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn ip(&self, args: &str) {
        self.run(Command::new("ip").args(args.split_whitespace()), "");
    }

    /// Runs `nft -f -` inside.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn nft(&self, script: &str) {
        self.run(Command::new("nft").args(["-f", "-"]), script);
    }

    #[track_caller]
    fn run(&self, command: &mut Command, input: &str) {
        let pipes = self.enter(command).stdin(Stdio::piped()).stderr(Stdio::piped());
        let child = pipes.spawn();
        let mut child = child.unwrap_or_else(|it| panic!("{command:?} cannot be started: {it}"));
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // What it did not read is told by how it ends.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("a child can be waited for");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?} {input}: {said}");
    }
}

/// By the process's own number: other processes have another `/proc/self`.
fn path_of(thread: nix::unistd::Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}/task/{thread}/ns/net", std::process::id()))
}
