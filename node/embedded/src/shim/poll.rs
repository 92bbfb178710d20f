//! Waiting for many descriptors at once, and for ended children among them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What can be gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    Signals,
    Listener,
    Client(u64),
    /// A container's output stream has something.
    Output(String, usize),
    /// An attached reader that held up a stream has room, or is gone.
    Room(String, usize),
}

/// Descriptors with what each stands for; made anew for each wait, for there are few.
#[derive(Default)]
pub struct PollSet {
    raw: Vec<libc::pollfd>,
    meaning: Vec<Ready>,
}

impl PollSet {
    pub fn readable(&mut self, fd: BorrowedFd<'_>, ready: Ready) {
        self.add(fd, libc::POLLIN, ready);
    }

    pub fn writable(&mut self, fd: BorrowedFd<'_>, ready: Ready) {
        self.add(fd, libc::POLLOUT, ready);
    }

    fn add(&mut self, fd: BorrowedFd<'_>, events: i16, ready: Ready) {
        self.raw.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        self.meaning.push(ready);
    }

    /// Blocks until something is ready.
    pub fn wait(mut self) -> io::Result<Vec<Ready>> {
        let n = self.raw.len() as libc::nfds_t;
        // SAFETY: `raw` is a live array of `n` pollfds.
        if unsafe { libc::poll(self.raw.as_mut_ptr(), n, -1) } < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(Vec::new()),
                _ => Err(error),
            };
        }
        let pairs = self.raw.iter().zip(self.meaning);
        Ok(pairs.filter(|(raw, _)| raw.revents != 0).map(|(_, meaning)| meaning).collect())
    }
}

/// Whether a pipe takes a whole `PIPE_BUF` now; `None` if its reader is gone.
pub fn has_room(fd: BorrowedFd<'_>) -> Option<bool> {
    let mut one = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: `one` is a live pollfd.
    unsafe { libc::poll(&raw mut one, 1, 0) };
    match one.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) {
        0 => Some(one.revents & libc::POLLOUT != 0),
        _ => None,
    }
}

/// SIGCHLD as a descriptor. It stays blocked: programs get their own mask back in `execute`.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain integers and is initialised by sigemptyset before use; the kernel hands us a new
    // descriptor.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            fd @ 0.. => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Forgets the signals that came: children are asked for with waitpid.
pub fn drain(signals: &OwnedFd) {
    let mut buffer = [0_u8; 1024];
    // SAFETY: the buffer is writable and its length is given.
    while unsafe { libc::read(signals.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {
    }
}
