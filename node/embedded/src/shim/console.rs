//! Terminals: libcontainer opens one inside the container and sends its master over a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::protocol::wire::Inbox;

/// A socket that waits for one master; its file goes when it is dropped.
pub struct Console {
    listener: UnixListener,
    name: String,
    path: PathBuf,
}

impl Console {
    /// In the run folder, which is the working folder.
    pub fn listen(run: &Path, number: u64) -> io::Result<Self> {
        let name = format!("console-{number}.sock");
        let listener = UnixListener::bind(&name)?;
        Ok(Self { listener, path: run.join(&name), name })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// After libcontainer has built the container: the master is there already.
    pub fn master(self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        let mut inbox = Inbox::default();
        inbox.fill(stream.as_fd())?;
        inbox.take_descriptor().ok_or_else(|| io::Error::other("no terminal came over the socket"))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.name); // Else it goes with the pod.
    }
}

pub fn resize(master: &OwnedFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, `size` is a live winsize.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
