//! Exec, attach, logs and port-forward to a node, by messages: what the gateway calls.
//!
//! Each stream has pumps: bytes to the node wait for its credit, bytes from the node are passed on before new credit
//! is granted. Whoever goes away first ends both sides: a client that drops its end cancels the stream on the node, a
//! node that ends it (or is lost) ends the client's. A node on another host is reached from any control host, with or
//! without a session here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::{Either, select};
use futures::{FutureExt, SinkExt, StreamExt};
use kactor_protocol::ids::Uid;
use kactor_protocol::node::{
    Channels, LogOptions, OpenStream, OpenStreamError, STREAM_CHUNK_BYTES_MAX, StreamChannel,
    StreamCredit, StreamData, StreamEnd, StreamEnded, StreamId, StreamPurpose, StreamResize,
};
use kactor_protocol::{ActorAddress, ActorName, HostId, Incarnation, Timestamp};
use kactor_runtime::env::Lane;
use kactor_runtime::window::{CHUNKS_MAX, Window, cost};
use kactor_runtime::{ActorSystem, Asker, Origin, PeerDown, Recipient};
use kactor_streams::node_streams::{
    AttachRequest, BoxFuture, ContainerEnd, ContainerStreams, ExecRequest, LogRequest, NodeStreams,
    Outcome, Output, PodTarget, PortConnection, PortEnd, PortForwardRequest, StdStreams,
    StreamError, TerminalSize,
};

/// How long a node may take to open a stream.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// Streams that one control host carries at once.
pub const STREAMS_LEN_MAX: usize = 1024;

/// Letters that nodes may have under way by the credit that they were granted: a mailbox of this length refuses none of
/// theirs, and a refused one would be a hole in a stream.
pub const STREAMS_MAILBOX: u32 = (STREAMS_LEN_MAX * (3 * CHUNKS_MAX + 2)) as u32;

/// The stream actor of one node.
#[derive(Clone)]
pub struct NodeLink {
    pub open: Asker<OpenStream>,
    pub data: Recipient<StreamData>,
    pub credit: Recipient<StreamCredit>,
    pub resize: Recipient<StreamResize>,
    pub ended: Recipient<StreamEnded>,
}

impl NodeLink {
    /// Of a node on another host.
    pub fn remote(system: &ActorSystem, host: &HostId) -> Self {
        let address = ActorAddress {
            host: host.clone(),
            name: ActorName::new("node-streams").expect("the name is a constant"),
            incarnation: Incarnation::default(),
        };
        Self {
            open: system.remote_asks(address.clone()),
            data: system.remote_tells(address.clone()),
            credit: system.remote_tells(address.clone()),
            resize: system.remote_tells(address.clone()),
            ended: system.remote_tells(address),
        }
    }
}

/// What comes from the node for one stream.
#[derive(Debug)]
pub(crate) enum Inbound {
    Data(StreamChannel, Bytes),
    Ended(StreamEnd),
}

/// The control host's side of one open stream.
pub(crate) struct OpenEnd {
    /// The node's host; `None` when it is this one.
    host: Option<HostId>,
    pub inbound: tokio::sync::mpsc::Sender<Inbound>,
    /// Of the bytes that go to the node.
    pub stdin: Window,
}

/// Open streams and linked nodes of this control host; shared with `StreamsActor`, which fills in what arrives.
#[derive(Clone)]
pub struct SessionStreams {
    system: ActorSystem,
    table: Arc<Mutex<Table>>,
    /// Who hears that a host is lost: `StreamsActor`.
    watcher: Arc<OnceLock<Recipient<PeerDown>>>,
}

#[derive(Default)]
struct Table {
    /// The nodes of this host.
    nodes: BTreeMap<String, NodeLink>,
    open: BTreeMap<StreamId, OpenEnd>,
    /// Hosts whose loss we will be told of.
    watched: BTreeSet<HostId>,
}

/// Whether a letter of `from` may be about a stream to `host`.
fn is_of(host: Option<&HostId>, from: &Origin) -> bool {
    match from {
        Origin::Local(_) => host.is_none(),
        Origin::Peer { host: peer, .. } => host == Some(peer),
    }
}

impl SessionStreams {
    pub fn new(system: ActorSystem) -> Self {
        Self { system, table: Arc::default(), watcher: Arc::default() }
    }

    /// From now on this node of this host can be reached.
    pub fn link(&self, node: &str, link: NodeLink) {
        self.table().nodes.insert(node.to_owned(), link);
    }

    pub(crate) fn system(&self) -> &ActorSystem {
        &self.system
    }

    pub(crate) fn set_watcher(&self, watcher: Recipient<PeerDown>) {
        let _ = self.watcher.set(watcher); // A later life has the same mailbox.
    }

    /// The host is gone: its streams end, for nobody knows what became of them.
    pub(crate) fn lost(&self, host: &HostId, reason: &str) {
        let mut table = self.table();
        table.watched.remove(host);
        table.open.retain(|_, end| {
            let is_lost = end.host.as_ref() == Some(host);
            if is_lost {
                let why = format!("the link to node {host} was lost: {reason}");
                // A queue without room has more than its window: not to be trusted either way.
                let _ = end.inbound.try_send(Inbound::Ended(StreamEnd::Failed(why)));
                end.stdin.close();
            }
            !is_lost
        });
    }

    /// The way to a node, and its host when that is another one.
    fn way_to(&self, node: &str) -> Result<(NodeLink, Option<HostId>), String> {
        if let Some(link) = self.table().nodes.get(node) {
            return Ok((link.clone(), None));
        }
        let host = HostId::new(node).map_err(|it| it.to_string())?;
        if host == *self.system.host() {
            return Err("no node runs on this host, or it is still starting".to_owned());
        }
        let is_watched = self.table().watched.contains(&host);
        if !is_watched && let Some(watcher) = self.watcher.get() {
            let watched = self.system.watch_peer(host.clone(), watcher.clone());
            watched.map_err(|it| it.to_string())?;
            self.table().watched.insert(host.clone());
        }
        Ok((NodeLink::remote(&self.system, &host), Some(host)))
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// (open streams, nodes of this host)
    pub(crate) fn counts(&self) -> (usize, usize) {
        let table = self.table();
        (table.open.len(), table.nodes.len())
    }

    /// Takes what a node sent. What comes for a stream that is over here ends the node's side of it.
    pub(crate) fn arrived(&self, from: &Origin, stream: StreamId, inbound: Inbound) {
        let is_end = matches!(inbound, Inbound::Ended(_));
        let mut table = self.table();
        let open = table.open.get(&stream).filter(|it| is_of(it.host.as_ref(), from));
        match open.map(|it| it.inbound.try_send(inbound)) {
            Some(Ok(())) => {}
            // A full queue means that the node sends beyond its window: the stream is not to be trusted any more.
            Some(Err(_)) => drop(table.open.remove(&stream)),
            None => {
                drop(table);
                if let (Origin::Peer { host, .. }, false) = (from, is_end) {
                    let ended = NodeLink::remote(&self.system, host).ended;
                    let end = StreamEnded { stream, end: StreamEnd::Cancelled };
                    self.spawn(ended.tell(end).map(drop));
                }
            }
        }
    }

    pub(crate) fn granted(&self, from: &Origin, stream: StreamId, bytes: u32) {
        let table = self.table();
        let open = table.open.get(&stream).filter(|it| is_of(it.host.as_ref(), from));
        if let Some(end) = open {
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
        let unreachable = |why| StreamError::NodeUnreachable { node: target.node.clone(), why };
        let (link, host) = self.way_to(&target.node).map_err(unreachable)?;
        {
            let mut table = self.table();
            if table.open.len() >= STREAMS_LEN_MAX {
                let why =
                    format!("{STREAMS_LEN_MAX} streams are open on this host; try again later");
                return Err(StreamError::Failed(why));
            }
            table.open.insert(stream, OpenEnd { host, inbound, stdin: stdin.clone() });
        }
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
            Err(refusal) => Err(unreachable(refusal.to_string())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_that_a_stream_goes_to_has_a_say_in_it() {
        let host = |name| HostId::new(name).expect("a name");
        let (w1, w2) = (host("w1"), host("w2"));
        let from = |host: &HostId| Origin::Peer { host: host.clone(), actor: None };
        assert!(is_of(Some(&w1), &from(&w1)));
        assert!(!is_of(Some(&w1), &from(&w2)), "another worker");
        assert!(!is_of(None, &from(&w2)), "a stream of this host");
        assert!(!is_of(Some(&w1), &Origin::Local(None)));
        assert!(is_of(None, &Origin::Local(None)));
    }
}
