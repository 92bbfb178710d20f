//! One port-forward session: its connections come and go, each with a connection into the pod.
//!
//! While one connection's pod does not take data, the session's socket is not read: the clients of Kubernetes keep no
//! books per stream, so the others wait with it. That bounds memory; the data of each is in order.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::channel::mpsc;
use futures::io::{AsyncRead, AsyncWrite};

use super::{Link, ServeError, Sleep, Step};
use crate::node_streams::{BoxFuture, PortConnection, StreamError};
use crate::port_forward::{PortForward, PortForwardEvent};
use crate::spdy::StreamId;

/// Opens a connection to a port of the pod.
pub type Connect<'a> =
    &'a (dyn Fn(u16) -> BoxFuture<'static, Result<PortConnection, StreamError>> + Send + Sync);

/// Serves until the client leaves.
pub async fn serve_port_forward<IO>(
    io: IO,
    session: PortForward,
    connect: Connect<'_>,
    sleep: Sleep<'_>,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut pump = Pump {
        link: Link::new(io),
        session,
        connect,
        connections: BTreeMap::new(),
        blocked: None,
        left: false,
    };
    std::future::poll_fn(|cx| pump.poll(cx)).await?;
    let Pump { link, .. } = pump;
    link.close(sleep).await;
    Ok(())
}

enum Connection {
    Opening {
        port: u16,
        future: BoxFuture<'static, Result<PortConnection, StreamError>>,
        /// The client closed its half before the pod was reached.
        finished: bool,
    },
    Open {
        port: u16,
        to_pod: Option<mpsc::Sender<Bytes>>,
        from_pod: mpsc::Receiver<Result<Bytes, StreamError>>,
    },
}

struct Pump<'a, IO> {
    link: Link<IO>,
    session: PortForward,
    connect: Connect<'a>,
    connections: BTreeMap<StreamId, Connection>,
    /// Data that its connection does not take yet.
    blocked: Option<(StreamId, Bytes)>,
    left: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Pump<'_, IO> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        loop {
            let session = &mut self.session;
            let written = self.link.write(cx, || session.take_bytes())?;
            if self.left {
                return Poll::Ready(Ok(()));
            }
            let steps = [written, self.input(cx)?, self.output(cx)];
            if steps.iter().all(|it| *it == Step::Idle) {
                return Poll::Pending;
            }
        }
    }

    fn input(&mut self, cx: &mut Context<'_>) -> Result<Step, ServeError> {
        if let Some((connection, bytes)) = self.blocked.take() {
            return Ok(self.feed(cx, connection, bytes));
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
                self.left = true;
                Ok(Step::Moved)
            }
            None => Ok(Step::Idle),
        }
    }

    fn take(&mut self, cx: &mut Context<'_>, event: PortForwardEvent) {
        match event {
            PortForwardEvent::Opened { connection, port } => {
                let future = (self.connect)(port);
                self.connections
                    .insert(connection, Connection::Opening { port, future, finished: false });
            }
            PortForwardEvent::Data { connection, bytes } => {
                self.feed(cx, connection, bytes);
            }
            PortForwardEvent::Finished { connection } => {
                match self.connections.get_mut(&connection) {
                    Some(Connection::Opening { finished, .. }) => *finished = true,
                    Some(Connection::Open { to_pod, .. }) => *to_pod = None,
                    None => {}
                }
            }
            PortForwardEvent::Reset { connection } => drop(self.connections.remove(&connection)),
            PortForwardEvent::Closed => self.left = true,
        }
    }

    fn feed(&mut self, cx: &mut Context<'_>, connection: StreamId, bytes: Bytes) -> Step {
        let to_pod = match self.connections.get_mut(&connection) {
            Some(Connection::Open { to_pod: Some(to_pod), .. }) => to_pod,
            Some(Connection::Opening { .. }) => {
                self.blocked = Some((connection, bytes));
                return Step::Idle;
            }
            _ => return Step::Moved, // Nobody reads it any more.
        };
        match to_pod.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                // A receiver that went away in between is seen by the next read from the pod.
                drop(to_pod.start_send(bytes));
                Step::Moved
            }
            Poll::Ready(Err(_)) => Step::Moved,
            Poll::Pending => {
                self.blocked = Some((connection, bytes));
                Step::Idle
            }
        }
    }

    fn output(&mut self, cx: &mut Context<'_>) -> Step {
        let mut step = Step::Idle;
        let ids: Vec<StreamId> = self.connections.keys().copied().collect();
        for id in ids {
            if self.session.takes_data() && self.advance(cx, id) == Step::Moved {
                step = Step::Moved;
            }
        }
        step
    }

    /// One step of one connection: reached, data from the pod, or its end.
    fn advance(&mut self, cx: &mut Context<'_>, id: StreamId) -> Step {
        let ended = match self.connections.get_mut(&id) {
            None => return Step::Idle,
            Some(Connection::Opening { port, future, finished }) => {
                match future.as_mut().poll(cx) {
                    Poll::Pending => return Step::Idle,
                    Poll::Ready(Ok(PortConnection { to_pod, from_pod })) => {
                        let to_pod = (!*finished).then_some(to_pod);
                        let open = Connection::Open { port: *port, to_pod, from_pod };
                        self.connections.insert(id, open);
                        return Step::Moved;
                    }
                    Poll::Ready(Err(error)) => Some((*port, error)),
                }
            }
            Some(Connection::Open { port, from_pod, .. }) => {
                match Pin::new(from_pod).poll_next(cx) {
                    Poll::Pending => return Step::Idle,
                    Poll::Ready(Some(Ok(bytes))) => {
                        self.session.send(id, bytes);
                        return Step::Moved;
                    }
                    Poll::Ready(Some(Err(error))) => Some((*port, error)),
                    Poll::Ready(None) => None,
                }
            }
        };
        self.connections.remove(&id);
        match ended {
            Some((port, error)) => {
                self.session.fail(id, &format!("error forwarding port {port}: {error}"))
            }
            None => self.session.finish(id),
        }
        Step::Moved
    }
}
