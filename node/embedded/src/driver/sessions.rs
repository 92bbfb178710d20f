//! Exec and attach: the descriptors that the shim sends, as asynchronous streams.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use kactor_drivers::{
    ContainerId, DriverError, ExecExit, ExecSession, SessionWindow, Stdin, WindowSize,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{EmbeddedDriver, refused};
use crate::protocol::{Reply, Request};

impl EmbeddedDriver {
    pub(super) async fn session(
        &self,
        id: &ContainerId,
        request: Request,
        stdin: Stdin,
    ) -> Result<ExecSession, DriverError> {
        let mut connection = self.connect(&id.sandbox)?;
        let reply = connection.ask(&request, &self.inner.env).await?;
        let (has_stdin, has_stdout, has_stderr, terminal) = match reply {
            Reply::Streams { stdin, stdout, stderr, terminal } => (stdin, stdout, stderr, terminal),
            Reply::Refused { kind, why } => return Err(refused(id, kind, why)),
            other => return Err(connection.unexpected(&other)),
        };
        let mut descriptors = connection.take_descriptors();
        let io = |it| DriverError::io(format!("opening a session in {id}"), it);
        let mut next = |present: bool| -> Result<Option<OwnedFd>, DriverError> {
            match (present, present.then(|| descriptors.pop_front()).flatten()) {
                (true, None) => Err(DriverError::Runtime {
                    doing: format!("opening a session in {id}"),
                    why: "the shim sent fewer streams than it said".to_owned(),
                }),
                (_, it) => Ok(it),
            }
        };
        let first = next(has_stdin)?;
        let (stdout, stderr) = (next(has_stdout)?, next(has_stderr)?);
        let window = match (&first, terminal) {
            (Some(master), true) => Some(Terminal { master: master.try_clone().map_err(io)? }),
            _ => None,
        };
        // A terminal of exec is read from its master itself.
        let stdout = match (stdout, &first) {
            (None, Some(master)) if terminal => Some(master.try_clone().map_err(io)?),
            (it, _) => it,
        };
        let stdin = first.filter(|_| stdin != Stdin::Closed);
        let stream = |it: Option<OwnedFd>| it.map(Descriptor::new).transpose().map_err(io);
        let id = id.clone();
        let exit = async move {
            match connection.receive().await? {
                Reply::Exited { exit, .. } => Ok(ExecExit { code: exit.code }),
                Reply::Refused { kind, why } => Err(refused(&id, kind, why)),
                other => Err(connection.unexpected(&other)),
            }
        };
        Ok(ExecSession {
            stdin: stream(stdin)?.map(|it| Box::new(it) as _),
            stdout: stream(stdout)?.map(|it| Box::new(it) as _),
            stderr: stream(stderr)?.map(|it| Box::new(it) as _),
            window: window.map(|it| Box::new(it) as _),
            exit: exit.boxed(),
        })
    }
}

struct Terminal {
    master: OwnedFd,
}

impl SessionWindow for Terminal {
    fn resize(&self, size: WindowSize) -> Result<(), DriverError> {
        let WindowSize { columns, rows } = size;
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open, `size` is a live winsize.
        match unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
            0 => Ok(()),
            _ => Err(DriverError::io("resizing the terminal", io::Error::last_os_error())),
        }
    }
}

/// A pipe's end or a terminal's master.
struct Descriptor {
    fd: AsyncFd<OwnedFd>,
}

impl Descriptor {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open; both commands take integers.
        let done = unsafe {
            let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
        };
        match done {
            // SAFETY: an OwnedFd keeps its descriptor open until it is dropped, and always names the same one.
            0.. => Ok(Self { fd: unsafe { AsyncFd::register(fd) }? }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsyncRead for Descriptor {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(context))?;
            let room = out.initialize_unfilled();
            let done = guard.try_io(|it| {
                let fd = it.get_ref().as_fd().as_raw_fd();
                // SAFETY: `room` is writable and its length is given.
                let n = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
                usize::try_from(n).map_err(|_| io::Error::last_os_error())
            });
            match done {
                Ok(Ok(n)) => {
                    out.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // A terminal ends so when the last program has left it.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Descriptor {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(context))?;
            let done = guard.try_io(|it| {
                let fd = it.get_ref().as_fd().as_raw_fd();
                // SAFETY: the slice is live and its length is given.
                let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
                usize::try_from(n).map_err(|_| io::Error::last_os_error())
            });
            match done {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(done) => return Poll::Ready(done),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The end of a pipe is its drop.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
