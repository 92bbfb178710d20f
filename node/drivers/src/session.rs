//! Exec and attach: live streams into a container.
//!
//! Streams are the kernel's own pipes or the terminal's master where a driver can give them, so their bounds
//! are the kernel's and a slow reader slows the writer. Dropping a session closes its streams; a process that
//! was started by exec is not killed by that (as in Kubernetes), it sees its pipes close.

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::DriverError;
use crate::spec::{Stdin, Terminal};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// The program and its arguments, not a shell line; must not be empty.
    pub command: Vec<String>,
    pub stdin: Stdin,
    /// With a terminal there is no stderr of its own.
    pub terminal: Terminal,
    /// Set before the process starts.
    pub size: Option<WindowSize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachSpec {
    /// Anything but `Closed` asks for the container's stdin.
    pub stdin: Stdin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    pub columns: u16,
    pub rows: u16,
}

/// A live session. Take the streams out; `exit` completes when the process has ended (exec) or the container
/// has (attach).
pub struct ExecSession {
    /// Dropping it is end of file for the process.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Present with a terminal.
    pub window: Option<Box<dyn SessionWindow>>,
    pub exit: BoxFuture<'static, Result<ExecExit, DriverError>>,
}

/// The terminal's size, changed while the session lives.
pub trait SessionWindow: Send + Sync {
    fn resize(&self, size: WindowSize) -> Result<(), DriverError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecExit {
    /// 128 + signal when a signal ended it.
    pub code: i32,
}

/// What `exec_sync` collected; each stream is cut at `EXEC_OUTPUT_BYTES_MAX`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub code: i32,
}

/// Most output that a probe or hook may leave in our memory.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 16 * 1024;
