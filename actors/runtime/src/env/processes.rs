//! Starting a process that is not ours: forked twice with a session of its own, so init reaps it, not kactor.
//!
//! The shim of a pod must outlive kactor's crash and upgrade. std's `Command` does the first fork and exec (and
//! reports a failed exec); its `pre_exec` does the second fork and sends the grandchild's id back through a pipe.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use nix::fcntl::OFlag;

use super::{Command, Processes};

pub(crate) struct MachineProcesses;

impl Processes for MachineProcesses {
    fn id(&self) -> u32 {
        std::process::id()
    }

    fn spawn_detached(&self, command: &Command) -> io::Result<u32> {
        let (id_in, id_out) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let mut start = std::process::Command::new(&command.program);
        start.args(&command.args).envs(command.env.iter().map(|(name, value)| (name, value)));
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(dir) = &command.dir {
            start.current_dir(dir);
        }
        let id_out_fd = id_out.as_raw_fd();
        // SAFETY: `leave_parent` makes async-signal-safe calls only and allocates nothing.
        unsafe { start.pre_exec(move || leave_parent(id_out_fd)) };
        let mut between = start.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", command.program.display()))
        })?;
        between.wait()?; // It ended right after the second fork.
        drop(id_out); // Else a failed fork would leave the read below waiting for ever.
        let mut id = [0; 4];
        File::from(id_in).read_exact(&mut id)?;
        Ok(u32::from_ne_bytes(id))
    }
}

/// Runs in the forked child: a new session, a second fork, and only the grandchild goes on to exec.
fn leave_parent(id_out_fd: i32) -> io::Result<()> {
    // SAFETY: setsid has no preconditions.
    if unsafe { libc::setsid() } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the process has one thread here (it is a fork), and both sides call async-signal-safe functions only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: getpid has no preconditions.
            let id = unsafe { libc::getpid() }.to_ne_bytes();
            // SAFETY: `id` lives through the call; the descriptor is the parent's, open until exec.
            let n = unsafe { libc::write(id_out_fd, id.as_ptr().cast(), id.len()) };
            if n == id.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
        // SAFETY: ends this process without running the destructors of its parent's state.
        _ => unsafe { libc::_exit(0) },
    }
}
