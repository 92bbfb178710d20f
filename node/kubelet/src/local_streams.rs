//! `NodeStreams` on the node itself: no session between, the driver's streams are pumped here.
//!
//! Backpressure is that of the channels: a client that does not read stops the pump, and the pipe stops the process.
//! A client that goes away ends the stream although the container is silent.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::{Either, join, select};
use futures::{SinkExt, StreamExt};
use kactor_agent::open_stream::{OpenLog, Source, open};
use kactor_agent::perform::Host;
use kactor_agent::ports::{Duplex, PodDialer};
use kactor_drivers::session::{ExecSession, WindowSize};
use kactor_protocol::Timestamp;
use kactor_protocol::ids::Uid;
use kactor_protocol::node::{
    Channels, LogOptions, OpenStream, OpenStreamError, StreamId, StreamPurpose,
};
use kactor_runtime::env::Lane;
use kactor_streams::node_streams::{CHANNEL_CHUNKS_MAX, CHUNK_BYTES_MAX};
use kactor_streams::{
    AttachRequest, BoxFuture, ContainerEnd, ContainerStreams, ExecRequest, LogRequest, NodeStreams,
    Outcome, Output, PodTarget, PortConnection, PortEnd, PortForwardRequest, StdStreams,
    StreamError,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[derive(Clone)]
pub struct LocalStreams {
    pub host: Host,
    pub dialer: Arc<dyn PodDialer>,
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

impl LocalStreams {
    async fn open(&self, pod: &PodTarget, purpose: StreamPurpose) -> Result<Source, StreamError> {
        let request = OpenStream {
            stream: StreamId(0), // Nobody addresses it: its bytes never leave this process.
            namespace: pod.namespace.clone(),
            pod: pod.pod.clone(),
            uid: (!pod.uid.is_empty()).then(|| Uid::from(pod.uid.as_str())),
            purpose,
        };
        let opened = open(&self.host, self.dialer.as_ref(), &request).await;
        opened.map_err(|error| match error {
            OpenStreamError::NoPod { .. } => {
                let why = error.to_string();
                StreamError::NotFound { what: format!("pod {}", pod.pod), why }
            }
            OpenStreamError::Failed(why) => StreamError::Failed(why),
            other => StreamError::BadRequest(other.to_string()),
        })
    }

    async fn container(
        &self,
        pod: &PodTarget,
        purpose: StreamPurpose,
    ) -> Result<ContainerStreams, StreamError> {
        match self.open(pod, purpose).await? {
            Source::Session(session) => {
                let (client, end) = ContainerStreams::pair();
                self.spawn(pump_session(session, end));
                Ok(client)
            }
            _ => Err(StreamError::Failed("the node opened something else".to_owned())),
        }
    }

    fn spawn(&self, pump: impl Future<Output = ()> + Send + 'static) {
        self.host.env.spawn(Lane::Node, pump);
    }
}

fn channels(it: StdStreams) -> Channels {
    Channels { stdin: it.stdin, stdout: it.stdout, stderr: it.stderr, tty: it.tty }
}

async fn pump_session(mut session: ExecSession, end: ContainerEnd) {
    let ContainerEnd { stdin, mut resize, output, mut outcome } = end;
    let out = pump_out(session.stdout.take(), output.clone(), Output::Stdout);
    let err = pump_out(session.stderr.take(), output, Output::Stderr);
    let window = session.window.take();
    let sizes = async move {
        while let Some(size) = resize.next().await {
            if let Some(window) = &window {
                // The process may have ended meanwhile.
                let _ = window.resize(WindowSize { columns: size.width, rows: size.height });
            }
        }
    };
    let side = join(pump_in(stdin, session.stdin.take()), sizes);
    let work = async move {
        let finished = Box::pin(async move { join(join(out, err), session.exit).await.1 });
        match select(finished, Box::pin(side)).await {
            Either::Left((exit, _)) => exit,
            Either::Right((_, finished)) => finished.await,
        }
    };
    let exit = {
        let gone = outcome.cancellation();
        match select(Box::pin(work), gone).await {
            Either::Left((exit, _)) => exit,
            Either::Right(_) => return, // The client went away; its streams close with `work`.
        }
    };
    let told = match exit {
        Ok(exit) => Outcome::Exited(exit.code),
        Err(error) => Outcome::Failed(error.to_string()),
    };
    let _ = outcome.send(told); // Gone in this very moment: nobody wants to know.
}

async fn pump_out(
    from: Option<Reader>,
    mut to: mpsc::Sender<Output>,
    as_output: fn(Bytes) -> Output,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        match from.read(&mut buffer).await {
            // A terminal ends with an error instead of an end of file.
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if to.send(as_output(Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Dropping the writer at the end is the process's end of file.
async fn pump_in(mut from: mpsc::Receiver<Bytes>, mut to: Option<Writer>) {
    while let Some(bytes) = from.next().await {
        let Some(writer) = &mut to else { continue };
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            to = None; // The process closed its stdin; what still comes is dropped, as a pipe would.
        }
    }
    if let Some(mut writer) = to {
        let _ = writer.shutdown().await; // Already closed by the process is fine.
    }
}

async fn pump_connection(connection: Box<dyn Duplex>, end: PortEnd) {
    let (mut read, write) = tokio::io::split(connection);
    let PortEnd { from_client, mut to_client } = end;
    let out = async move {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) => return,
                Ok(n) => {
                    if to_client.send(Ok(Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let _ = to_client.send(Err(StreamError::Failed(error.to_string()))).await;
                    return;
                }
            }
        }
    };
    // The pod's side decides: a client may close its half and still wait for the answer.
    let input = Box::pin(pump_in(from_client, Some(Box::new(write))));
    match select(Box::pin(out), input).await {
        Either::Left(_) => {}
        Either::Right((_, out)) => out.await,
    }
}

async fn pump_log(
    host: Host,
    mut log: Box<OpenLog>,
    mut to: mpsc::Sender<Result<Bytes, StreamError>>,
) {
    loop {
        // A follower that went away is noticed although nothing is logged: the channel wakes who waits to send.
        let gone = futures::future::poll_fn(|cx| match to.poll_ready(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        });
        let next = match select(Box::pin(log.next(&host)), gone).await {
            Either::Left((next, _)) => next,
            Either::Right(_) => return,
        };
        let (item, goes_on) = match next {
            Ok(Some(bytes)) => (Ok(bytes), true),
            Ok(None) => return,
            Err(error) => (Err(StreamError::Failed(format!("reading the log: {error}"))), false),
        };
        if to.send(item).await.is_err() || !goes_on {
            return;
        }
    }
}

impl NodeStreams for LocalStreams {
    fn open_exec(
        &self,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ContainerStreams, StreamError>> {
        let ExecRequest { target, command, streams } = request;
        let container = target.container;
        let purpose = StreamPurpose::Exec { container, command, channels: channels(streams) };
        Box::pin(async move { self.container(&target.pod, purpose).await })
    }

    fn open_attach(
        &self,
        request: AttachRequest,
    ) -> BoxFuture<'_, Result<ContainerStreams, StreamError>> {
        let AttachRequest { target, streams } = request;
        let container = target.container;
        let purpose = StreamPurpose::Attach { container, channels: channels(streams) };
        Box::pin(async move { self.container(&target.pod, purpose).await })
    }

    fn open_port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'_, Result<PortConnection, StreamError>> {
        let purpose = StreamPurpose::Connect { port: request.port };
        Box::pin(async move {
            match self.open(&request.target, purpose).await? {
                Source::Connection(connection) => {
                    let (client, end) = PortConnection::pair();
                    self.spawn(pump_connection(connection, end));
                    Ok(client)
                }
                _ => Err(StreamError::Failed("the node opened something else".to_owned())),
            }
        })
    }

    fn open_logs(
        &self,
        request: LogRequest,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Result<Bytes, StreamError>>, StreamError>> {
        let options = LogOptions {
            follow: request.follow,
            previous: request.previous,
            timestamps: request.timestamps,
            since: request.since_ms.map(Timestamp),
            tail_lines: request.tail_lines,
            limit_bytes: request.limit_bytes,
        };
        let purpose = StreamPurpose::Logs { container: request.target.container, options };
        let pod = request.target.pod;
        Box::pin(async move {
            match self.open(&pod, purpose).await? {
                Source::Log(log) => {
                    let (to, from) = mpsc::channel(CHANNEL_CHUNKS_MAX);
                    self.spawn(pump_log(self.host.clone(), log, to));
                    Ok(from)
                }
                _ => Err(StreamError::Failed("the node opened something else".to_owned())),
            }
        })
    }

    fn open_kubelet(&self, _: String) -> BoxFuture<'_, Result<PortConnection, StreamError>> {
        let why = "this is the kubelet's API already".to_owned();
        Box::pin(async { Err(StreamError::BadRequest(why)) })
    }
}
