//! One exec or attach: a [`CommandSession`] on a socket, and the container's streams.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::channel::mpsc;
use futures::io::{AsyncRead, AsyncWrite};

use super::{Link, STREAMS_WAIT_MAX, ServeError, Sleep, Step};
use crate::node_streams::{ContainerStreams, Outcome, TerminalSize};
use crate::remote_command::{CommandEvent, CommandSession};

/// Serves until the container's process ends or the client leaves.
pub async fn serve_command<IO>(
    io: IO,
    session: Box<dyn CommandSession>,
    streams: ContainerStreams,
    sleep: Sleep<'_>,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut pump = Pump {
        link: Link::new(io),
        session,
        stdin: Some(streams.stdin),
        resize: streams.resize,
        output: streams.output,
        outcome: streams.outcome,
        blocked: None,
        ready: false,
        output_ended: false,
        end: End::Running,
    };
    let mut late = sleep(STREAMS_WAIT_MAX);
    std::future::poll_fn(|cx| {
        let served = pump.poll(cx);
        if served.is_pending() && !pump.ready && late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ServeError::NoStreams));
        }
        served
    })
    .await?;
    let Pump { link, end, .. } = pump;
    if end == End::Finished {
        link.close(sleep).await;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Running,
    /// The container's end was told to the client.
    Finished,
    /// The client went first.
    Left,
}

struct Pump<IO> {
    link: Link<IO>,
    session: Box<dyn CommandSession>,
    stdin: Option<mpsc::Sender<Bytes>>,
    resize: mpsc::Sender<TerminalSize>,
    output: mpsc::Receiver<crate::node_streams::Output>,
    outcome: futures::channel::oneshot::Receiver<Outcome>,
    /// Stdin that the container does not take yet.
    blocked: Option<Bytes>,
    ready: bool,
    output_ended: bool,
    end: End,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Pump<IO> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        loop {
            let session = &mut self.session;
            let written = self.link.write(cx, || session.take_bytes())?;
            if self.end == End::Left || (self.end == End::Finished && self.nothing_unsent()) {
                return Poll::Ready(Ok(()));
            }
            let steps = [written, self.input(cx)?, self.output(cx)];
            if steps.iter().all(|it| *it == Step::Idle) {
                return Poll::Pending;
            }
        }
    }

    /// After the end nothing new is made, so an empty take means that all is out.
    fn nothing_unsent(&mut self) -> bool {
        if !self.link.is_clear() {
            return false;
        }
        self.link.unsent = self.session.take_bytes();
        self.link.is_clear()
    }

    /// From the socket to the container.
    fn input(&mut self, cx: &mut Context<'_>) -> Result<Step, ServeError> {
        if self.end != End::Running {
            return Ok(Step::Idle);
        }
        if let Some(bytes) = self.blocked.take() {
            return Ok(self.feed_stdin(cx, bytes));
        }
        if let Some(event) = self.session.next_event() {
            self.take(cx, event);
            return Ok(Step::Moved);
        }
        match self.link.read(cx)? {
            Some(n) => {
                self.session.receive(&self.link.buffer[..n])?;
                Ok(Step::Moved)
            }
            None if self.link.ended => {
                self.end = End::Left;
                Ok(Step::Moved)
            }
            None => Ok(Step::Idle),
        }
    }

    fn take(&mut self, cx: &mut Context<'_>, event: CommandEvent) {
        match event {
            CommandEvent::Ready => self.ready = true,
            CommandEvent::Stdin(bytes) => {
                self.feed_stdin(cx, bytes);
            }
            CommandEvent::StdinClosed => self.stdin = None,
            // Only the newest size matters; one that finds the slot taken is followed by another.
            CommandEvent::Resize(size) => drop(self.resize.try_send(size)),
            CommandEvent::Closed => self.end = End::Left,
        }
    }

    fn feed_stdin(&mut self, cx: &mut Context<'_>, bytes: Bytes) -> Step {
        let Some(stdin) = &mut self.stdin else {
            return Step::Moved; // Nobody reads it any more.
        };
        match stdin.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                if stdin.start_send(bytes).is_err() {
                    self.stdin = None;
                }
                Step::Moved
            }
            Poll::Ready(Err(_)) => {
                self.stdin = None;
                Step::Moved
            }
            Poll::Pending => {
                self.blocked = Some(bytes);
                Step::Idle
            }
        }
    }

    /// From the container to the session, and the end behind the last output.
    fn output(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.ready || self.end != End::Running || !self.session.takes_output() {
            return Step::Idle;
        }
        if !self.output_ended {
            match Pin::new(&mut self.output).poll_next(cx) {
                Poll::Ready(Some(output)) => self.session.write(output),
                Poll::Ready(None) => self.output_ended = true,
                Poll::Pending => return Step::Idle,
            }
            return Step::Moved;
        }
        match Pin::new(&mut self.outcome).poll(cx) {
            Poll::Ready(outcome) => {
                let lost = |_| Outcome::Failed("the node's connection was lost".to_owned());
                self.session.finish(&outcome.unwrap_or_else(lost));
                self.end = End::Finished;
                Step::Moved
            }
            Poll::Pending => Step::Idle,
        }
    }
}
