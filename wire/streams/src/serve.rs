//! The one loop between a socket and a container: bytes from here to there, in both directions at once.
//!
//! Everything is polled in one task, so nothing is spawned and nothing outlives the connection: a client that
//! leaves drops the container's ends, and that ends the exec. Backpressure goes through: while the container does not
//! take stdin the socket is not read, while the client does not read the container's output waits in its channel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::io::{AsyncRead, AsyncWrite};

use crate::node_streams::BoxFuture;
use crate::remote_command::SessionError;

mod command;
mod port_forward;

pub use command::serve_command;
pub use port_forward::serve_port_forward;

/// Bytes read from a socket at once.
const READ_BYTES: usize = 16 * 1024;
/// Bytes written that the peer has not taken, above which its input waits too: it may be flooding us with pings.
const UNSENT_BYTES_MAX: usize = 512 * 1024;
/// How long after the end the client may take to close; then the socket is dropped.
const LINGER: Duration = Duration::from_secs(10);
/// How long a client may take to open its streams (kubelet: 30 seconds).
const STREAMS_WAIT_MAX: Duration = Duration::from_secs(30);

/// Waits by the caller's clock.
pub type Sleep<'a> = &'a (dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the client's connection broke")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the client did not open its streams within 30 seconds")]
    NoStreams,
}

/// A socket with what waits to be written to it.
struct Link<IO> {
    io: IO,
    unsent: Bytes,
    buffer: Vec<u8>,
    /// Nothing more will be read.
    ended: bool,
}

/// Whether a step got something done; when none does, the task sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Moved,
    Idle,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Link<IO> {
    fn new(io: IO) -> Self {
        Self { io, unsent: Bytes::new(), buffer: vec![0; READ_BYTES], ended: false }
    }

    /// Writes what `more` gives, as far as the socket takes it.
    fn write(&mut self, cx: &mut Context<'_>, more: impl FnOnce() -> Bytes) -> io::Result<Step> {
        if self.unsent.is_empty() {
            self.unsent = more();
        }
        let mut step = Step::Idle;
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.unsent)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => {
                    self.unsent.advance(n);
                    step = Step::Moved;
                }
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(result) = Pin::new(&mut self.io).poll_flush(cx) {
            result?;
        }
        Ok(step)
    }

    fn is_clear(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Reads once. `None` when nothing is there, or the end was reached (see `ended`).
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Option<usize>> {
        if self.ended || self.unsent.len() > UNSENT_BYTES_MAX {
            return Ok(None);
        }
        match Pin::new(&mut self.io).poll_read(cx, &mut self.buffer)? {
            Poll::Ready(0) => {
                self.ended = true;
                Ok(None)
            }
            Poll::Ready(n) => Ok(Some(n)),
            Poll::Pending => Ok(None),
        }
    }

    /// Closes our half and reads until the client closes its own, so that it loses nothing that was sent.
    async fn close(mut self, sleep: Sleep<'_>) {
        let mut late = sleep(LINGER);
        let mut closed = false;
        std::future::poll_fn(|cx| {
            if late.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !closed {
                match Pin::new(&mut self.io).poll_close(cx) {
                    Poll::Ready(Ok(())) => closed = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            loop {
                match Pin::new(&mut self.io).poll_read(cx, &mut self.buffer) {
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests;
