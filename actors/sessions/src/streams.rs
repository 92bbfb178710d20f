//! Exec, attach, logs and port-forward to a node, by messages: what the gateway calls.
//!
//! Each stream has pumps: bytes to the node wait for its credit, bytes from the node are passed on before new credit
//! is granted. Whoever goes away first ends both sides: a client that drops its end cancels the stream on the node, a
//! node that ends it (or is lost) ends the client's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::{Either, select};
use futures::{FutureExt, SinkExt, StreamExt};
use kactor_protocol::Timestamp;
use kactor_protocol::ids::Uid;
use kactor_protocol::node::{
    Channels, LogOptions, OpenStream, OpenStreamError, STREAM_CHUNK_BYTES_MAX, StreamChannel,
    StreamCredit, StreamData, StreamEnd, StreamEnded, StreamId, StreamPurpose, StreamResize,
};
use kactor_runtime::env::Lane;
use kactor_runtime::window::{CHUNKS_MAX, Window, cost};
use kactor_runtime::{ActorSystem, Asker, Recipient};
use kactor_streams::node_streams::{
    AttachRequest, BoxFuture, ContainerEnd, ContainerStreams, ExecRequest, LogRequest, NodeStreams,
    Outcome, Output, PodTarget, PortConnection, PortEnd, PortForwardRequest, StdStreams,
    StreamError, TerminalSize,
};

/// How long a node may take to open a stream.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// Streams that one control host carries at once.
pub const STREAMS_LEN_MAX: usize = 1024;

/// The stream actor of one node.
#[derive(Clone)]
pub struct NodeLink {
    pub open: Asker<OpenStream>,
    pub data: Recipient<StreamData>,
    pub credit: Recipient<StreamCredit>,
    pub resize: Recipient<StreamResize>,
    pub ended: Recipient<StreamEnded>,
}

/// What comes from the node for one stream.
#[derive(Debug)]
pub(crate) enum Inbound {
    Data(StreamChannel, Bytes),
    Ended(StreamEnd),
}

/// The control host's side of one open stream.
pub(crate) struct OpenEnd {
    pub inbound: tokio::sync::mpsc::Sender<Inbound>,
    /// Of the bytes that go to the node.
    pub stdin: Window,
}

/// Open streams and linked nodes of this control host; shared with `StreamsActor`, which fills in what arrives.
#[derive(Clone)]
pub struct SessionStreams {
    system: ActorSystem,
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    nodes: BTreeMap<String, NodeLink>,
    open: BTreeMap<StreamId, OpenEnd>,
}

impl SessionStreams {
    pub fn new(system: ActorSystem) -> Self {
        Self { system, table: Arc::default() }
    }

    /// From now on this node can be reached.
    pub fn link(&self, node: &str, link: NodeLink) {
        self.table().nodes.insert(node.to_owned(), link);
    }

    pub fn unlink(&self, node: &str) {
        self.table().nodes.remove(node);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// (open streams, linked nodes)
    pub(crate) fn counts(&self) -> (usize, usize) {
        let table = self.table();
        (table.open.len(), table.nodes.len())
    }

    /// Takes what a node sent; a stream that is over here ignores it.
    pub(crate) fn arrived(&self, stream: StreamId, inbound: Inbound) {
        let mut table = self.table();
        let Some(end) = table.open.get(&stream) else { return };
        // A full queue means that the node sends beyond its window: the stream is not to be trusted any more.
        let cheats = end.inbound.try_send(inbound).is_err();
        if cheats {
            table.open.remove(&stream);
        }
    }

    pub(crate) fn granted(&self, stream: StreamId, bytes: u32) {
        if let Some(end) = self.table().open.get(&stream) {
            end.stdin.grant(bytes);
        }
    }

    /// Opens a stream on the node; what arrives for it comes out of the receiver.
    async fn open(
        &self,
        target: &PodTarget,
        purpose: StreamPurpose,
    ) -> Result<Opened, StreamError> {
        let stream = StreamId(self.system.env().random_u64());
        let (inbound, arrivals) = tokio::sync::mpsc::channel(2 * CHUNKS_MAX + 4);
        let stdin = Window::default();
        let link = {
            let mut table = self.table();
            let Some(link) = table.nodes.get(&target.node).cloned() else {
                let why = "it has no session with this control host".to_owned();
                return Err(StreamError::NodeUnreachable { node: target.node.clone(), why });
            };
            if table.open.len() >= STREAMS_LEN_MAX {
                let why =
                    format!("{STREAMS_LEN_MAX} streams are open on this host; try again later");
                return Err(StreamError::Failed(why));
            }
            table.open.insert(stream, OpenEnd { inbound, stdin: stdin.clone() });
            link
        };
        let opened = Opened { stream, link, arrivals, stdin, streams: self.clone() };
        let request = OpenStream {
            stream,
            namespace: target.namespace.clone(),
            pod: target.pod.clone(),
            uid: (!target.uid.is_empty()).then(|| Uid::from(target.uid.as_str())),
            purpose,
        };
        match opened.link.open.ask(request, self.system.deadline(OPEN_MAX)).await {
            Ok(Ok(())) => Ok(opened),
            Ok(Err(error)) => Err(refused(target, error)),
            Err(refusal) => {
                let why = refusal.to_string();
                Err(StreamError::NodeUnreachable { node: target.node.clone(), why })
            }
        }
    }

    fn spawn(&self, pump: impl Future<Output = ()> + Send + 'static) {
        // The pump ends with its stream, so nobody needs its handle.
        let _ = self.system.env().spawn(Lane::Control, pump);
    }
}

fn refused(target: &PodTarget, error: OpenStreamError) -> StreamError {
    match error {
        OpenStreamError::NoPod { .. } => {
            StreamError::NotFound { what: format!("pod {}", target.pod), why: error.to_string() }
        }
        // In the kubelet's words, which people search for.
        OpenStreamError::NotStarted { pod, container, reason } => StreamError::BadRequest(format!(
            "container {container:?} in pod {pod:?} is waiting to start: {reason}"
        )),
        OpenStreamError::NoPrevious { pod, container } => StreamError::BadRequest(format!(
            "previous terminated container {container:?} in pod {pod:?} not found"
        )),
        OpenStreamError::NoContainer { .. } => StreamError::BadRequest(error.to_string()),
        OpenStreamError::Failed(_) | OpenStreamError::Overloaded { .. } => {
            StreamError::Failed(error.to_string())
        }
    }
}

/// A stream that is open on both sides. Dropping it closes the node's side.
struct Opened {
    stream: StreamId,
    link: NodeLink,
    arrivals: tokio::sync::mpsc::Receiver<Inbound>,
    stdin: Window,
    streams: SessionStreams,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let was_open = self.streams.table().open.remove(&self.stream).is_some();
        self.stdin.close();
        if was_open {
            let ended = self
                .link
                .ended
                .tell(StreamEnded { stream: self.stream, end: StreamEnd::Cancelled });
            self.streams.spawn(ended.map(drop));
        }
    }
}

impl Opened {
    /// The next thing from the node; `Ended` once, then `None`.
    async fn next(&mut self) -> Option<Inbound> {
        let next = self.arrivals.recv().await;
        if matches!(next, None | Some(Inbound::Ended(_))) {
            // Over on the node's side already: nothing to cancel.
            self.streams.table().open.remove(&self.stream);
        }
        next
    }

    async fn grant(&self, channel: StreamChannel, bytes: usize) {
        let credit = StreamCredit { stream: self.stream, channel, bytes: cost(bytes) };
        let _ = self.link.credit.tell(credit).await; // A lost node ends the stream by itself.
    }

    /// Sends bytes to the node, in chunks, within its window; an empty chunk at the end closes the channel.
    fn sender(&self) -> StdinSender {
        StdinSender {
            stream: self.stream,
            data: self.link.data.clone(),
            window: self.stdin.clone(),
        }
    }
}

struct StdinSender {
    stream: StreamId,
    data: Recipient<StreamData>,
    window: Window,
}

impl StdinSender {
    async fn pump(self, mut from: mpsc::Receiver<Bytes>) {
        while let Some(mut bytes) = from.next().await {
            while !bytes.is_empty() {
                let chunk = bytes.split_to(bytes.len().min(STREAM_CHUNK_BYTES_MAX));
                if self.window.take(chunk.len()).await.is_err() || !self.send(chunk).await {
                    return;
                }
            }
        }
        self.send(Bytes::new()).await;
    }

    async fn send(&self, data: Bytes) -> bool {
        let data = StreamData { stream: self.stream, channel: StreamChannel::Stdin, data };
        self.data.tell(data).await.is_ok()
    }
}

fn channels(streams: StdStreams) -> Channels {
    Channels {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        tty: streams.tty,
    }
}

impl SessionStreams {
    async fn connection(
        &self,
        target: &PodTarget,
        purpose: StreamPurpose,
    ) -> Result<PortConnection, StreamError> {
        let opened = self.open(target, purpose).await?;
        let (client, PortEnd { from_client, to_client }) = PortConnection::pair();
        self.spawn(opened.sender().pump(from_client));
        self.spawn(pump_bytes(opened, to_client));
        Ok(client)
    }

    fn container(&self, opened: Opened) -> ContainerStreams {
        let (client, end) = ContainerStreams::pair();
        let ContainerEnd { stdin, resize, output, outcome } = end;
        self.spawn(opened.sender().pump(stdin));
        self.spawn(pump_resize(opened.stream, opened.link.resize.clone(), resize));
        self.spawn(pump_output(opened, output, outcome));
        client
    }
}

async fn pump_resize(
    stream: StreamId,
    to: Recipient<StreamResize>,
    mut from: mpsc::Receiver<TerminalSize>,
) {
    while let Some(size) = from.next().await {
        let resize = StreamResize { stream, columns: size.width, rows: size.height };
        if to.tell(resize).await.is_err() {
            return;
        }
    }
}

async fn pump_output(
    mut opened: Opened,
    mut output: mpsc::Sender<Output>,
    outcome: oneshot::Sender<Outcome>,
) {
    loop {
        let next = opened.next();
        // A client that went away is noticed although the container is silent.
        let gone = futures::future::poll_fn(|cx| match output.poll_ready(cx) {
            std::task::Poll::Ready(Err(_)) => std::task::Poll::Ready(()),
            _ => std::task::Poll::Pending,
        });
        let arrived = match select(Box::pin(next), Box::pin(gone)).await {
            Either::Left((arrived, _)) => arrived,
            Either::Right(_) => return,
        };
        match arrived {
            Some(Inbound::Data(channel, bytes)) => {
                let length = bytes.len();
                let piece = match channel {
                    StreamChannel::Stderr => Output::Stderr(bytes),
                    _ => Output::Stdout(bytes),
                };
                if length > 0 && output.send(piece).await.is_err() {
                    return;
                }
                opened.grant(channel, length).await;
            }
            Some(Inbound::Ended(end)) => {
                drop(output);
                let _ = outcome.send(match end {
                    StreamEnd::Exit(code) => Outcome::Exited(code),
                    StreamEnd::Failed(why) => Outcome::Failed(why),
                    StreamEnd::Cancelled => Outcome::Failed("the node ended the stream".to_owned()),
                });
                return;
            }
            None => {
                let _ = outcome.send(Outcome::Failed("the stream to the node broke".to_owned()));
                return;
            }
        }
    }
}

async fn pump_bytes(mut opened: Opened, mut to: mpsc::Sender<Result<Bytes, StreamError>>) {
    loop {
        match opened.next().await {
            Some(Inbound::Data(channel, bytes)) => {
                let length = bytes.len();
                if length > 0 && to.send(Ok(bytes)).await.is_err() {
                    return;
                }
                opened.grant(channel, length).await;
            }
            Some(Inbound::Ended(StreamEnd::Failed(why))) => {
                let _ = to.send(Err(StreamError::Failed(why))).await;
                return;
            }
            Some(Inbound::Ended(_)) | None => return,
        }
    }
}

impl NodeStreams for SessionStreams {
    fn open_exec(
        &self,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ContainerStreams, StreamError>> {
        let purpose = StreamPurpose::Exec {
            container: request.target.container.clone(),
            command: request.command.clone(),
            channels: channels(request.streams),
        };
        Box::pin(async move { Ok(self.container(self.open(&request.target.pod, purpose).await?)) })
    }

    fn open_attach(
        &self,
        request: AttachRequest,
    ) -> BoxFuture<'_, Result<ContainerStreams, StreamError>> {
        let container = request.target.container.clone();
        let purpose = StreamPurpose::Attach { container, channels: channels(request.streams) };
        Box::pin(async move { Ok(self.container(self.open(&request.target.pod, purpose).await?)) })
    }

    fn open_port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'_, Result<PortConnection, StreamError>> {
        let purpose = StreamPurpose::Connect { port: request.port };
        Box::pin(async move { self.connection(&request.target, purpose).await })
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
        let purpose = StreamPurpose::Logs { container: request.target.container.clone(), options };
        Box::pin(async move {
            let opened = self.open(&request.target.pod, purpose).await?;
            let (to, from) = mpsc::channel(kactor_streams::node_streams::CHANNEL_CHUNKS_MAX);
            self.spawn(pump_bytes(opened, to));
            Ok(from)
        })
    }

    fn open_kubelet(&self, node: String) -> BoxFuture<'_, Result<PortConnection, StreamError>> {
        let nothing = String::new;
        let target = PodTarget { node, namespace: nothing(), pod: nothing(), uid: nothing() };
        Box::pin(async move { self.connection(&target, StreamPurpose::Kubelet).await })
    }
}
