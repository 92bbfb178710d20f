//! The node's side of exec, attach, logs and port-forward: opens them at the driver and pumps their bytes.
//!
//! Bytes to the client wait for its credit; bytes from the client are granted again once the container has taken
//! them. A stream ends on both sides together: the process's exit, a failure, the client's cancel, or the loss of the
//! control host that opened it. Only the host that opened a stream has a say in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join;
use kactor_drivers::session::{ExecSession, WindowSize};
use kactor_protocol::node::{
    OpenStream, OpenStreamError, STREAM_CHUNK_BYTES_MAX, StreamChannel, StreamCredit, StreamData,
    StreamEnd, StreamEnded, StreamId, StreamPurpose, StreamResize,
};
use kactor_protocol::{ActorAddress, ActorName, HostId, Incarnation};
use kactor_runtime::prelude::*;
use kactor_runtime::window::{CHUNKS_MAX, Window, cost};
use kactor_runtime::{Origin, PeerDown};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::open_stream::{OpenLog, Source, open};
use crate::perform::Host;
use crate::ports::{Duplex, KubeletDoor, PodDialer};

/// Streams of one node at once.
const STREAMS_LEN_MAX: usize = 256;
/// Letters that control hosts may have under way by the credit that they were granted: a mailbox of this length refuses
/// none of theirs, and a refused one would be a hole in a stream.
pub const STREAMS_MAILBOX: u32 = (STREAMS_LEN_MAX * (3 * CHUNKS_MAX + 8)) as u32;
/// The actor's name on every node.
pub const NAME: &str = "node-streams";

/// Where a node's streams go on the control host.
#[derive(Clone)]
pub struct ControlEnd {
    pub data: Recipient<StreamData>,
    pub credit: Recipient<StreamCredit>,
    pub ended: Recipient<StreamEnded>,
}

impl ControlEnd {
    /// Of another host.
    fn remote(system: &ActorSystem, host: &HostId) -> Self {
        let address = ActorAddress {
            host: host.clone(),
            name: ActorName::new("streams").expect("the name is a constant"),
            incarnation: Incarnation::default(),
        };
        Self {
            data: system.remote_tells(address.clone()),
            credit: system.remote_tells(address.clone()),
            ended: system.remote_tells(address),
        }
    }
}

/// The ways out of a node's streams.
#[derive(Clone)]
pub struct Ways {
    pub system: ActorSystem,
    /// Where this host's own control plane is, if it has one.
    pub local: Option<ControlEnd>,
}

pub struct StreamsActor {
    ways: Ways,
    host: Host,
    dialer: Arc<dyn PodDialer>,
    kubelet: Arc<dyn KubeletDoor>,
    open: BTreeMap<StreamId, Open>,
    /// Control hosts that are not known to be lost.
    watched: BTreeSet<HostId>,
}

struct Open {
    /// The control host that opened it; `None` when it is this one.
    from: Option<HostId>,
    stdin: mpsc::Sender<Bytes>,
    resize: mpsc::Sender<WindowSize>,
    /// Of stdout, stderr.
    windows: [Window; 2],
    pumps: Option<SpawnHandle>,
}

/// The ends that the pumps of one stream hold.
struct Pumps {
    stream: StreamId,
    control: ControlEnd,
    stdin: mpsc::Receiver<Bytes>,
    resize: mpsc::Receiver<WindowSize>,
    windows: [Window; 2],
}

impl StreamsActor {
    pub fn new(
        host: Host,
        dialer: Arc<dyn PodDialer>,
        kubelet: Arc<dyn KubeletDoor>,
        ways: Ways,
    ) -> Self {
        Self { ways, host, dialer, kubelet, open: BTreeMap::new(), watched: BTreeSet::new() }
    }

    /// The way back to who opens a stream. Its host is watched from now on.
    fn way_back(&mut self, from: &Origin) -> Result<(ControlEnd, Option<HostId>), String> {
        let host = match from {
            Origin::Local(_) => {
                let local = self.ways.local.clone();
                return Ok((local.ok_or("this host has no control plane")?, None));
            }
            Origin::Peer { host, .. } => host,
        };
        let system = &self.ways.system;
        if !self.watched.contains(host) {
            let own = system.find::<Self>(NAME).ok_or("the node is stopping")?;
            let watched = system.watch_peer(host.clone(), own.tells::<PeerDown>());
            watched.map_err(|it| it.to_string())?;
            self.watched.insert(host.clone());
        }
        Ok((ControlEnd::remote(system, host), Some(host.clone())))
    }

    fn opened(
        &mut self,
        stream: StreamId,
        source: Source,
        (control, from): (ControlEnd, Option<HostId>),
        ctx: &mut Context<Self>,
    ) {
        let (stdin, stdin_end) = mpsc::channel(CHUNKS_MAX + 1);
        let (resize, resize_end) = mpsc::channel(4);
        let windows = [Window::default(), Window::default()];
        let pumps = Pumps {
            stream,
            control,
            stdin: stdin_end,
            resize: resize_end,
            windows: windows.clone(),
        };
        let host = self.host.clone();
        let run = async move {
            let ended = pumps.control.ended.clone();
            let end = match source {
                Source::Session(session) => pumps.session(session).await,
                Source::Connection(connection) => pumps.connection(connection).await,
                Source::Log(log) => pumps.log(&host, *log).await,
            };
            let _ = ended.tell(StreamEnded { stream, end }).await; // A control host that is gone needs no end.
        };
        let handle = ctx
            .spawn(run.into_actor(self).map(move |(), actor, _| drop(actor.open.remove(&stream))));
        self.open.insert(stream, Open { from, stdin, resize, windows, pumps: Some(handle) });
    }
}

impl Pumps {
    async fn session(self, mut session: ExecSession) -> StreamEnd {
        let Pumps { stream, control, stdin, mut resize, windows } = self;
        let [out_window, err_window] = windows;
        let out =
            pump_out(stream, &control, StreamChannel::Stdout, session.stdout.take(), &out_window);
        let err =
            pump_out(stream, &control, StreamChannel::Stderr, session.stderr.take(), &err_window);
        let input = pump_in(stream, &control, stdin, session.stdin.take());
        let window = session.window.take();
        let sizes = async {
            while let Some(size) = resize.recv().await {
                if let Some(window) = &window {
                    let _ = window.resize(size); // The process may have ended meanwhile.
                }
            }
        };
        let output = join(out, err);
        let exit = session.exit;
        let finished = join(output, exit).map(|(_, exit)| exit);
        let side = join(input, sizes);
        let (finished, side) = (std::pin::pin!(finished), std::pin::pin!(side));
        let exit = match futures::future::select(finished, side).await {
            futures::future::Either::Left((exit, _)) => exit,
            futures::future::Either::Right((_, finished)) => finished.await,
        };
        match exit {
            Ok(exit) => StreamEnd::Exit(exit.code),
            Err(error) => StreamEnd::Failed(error.to_string()),
        }
    }

    async fn connection(self, connection: Box<dyn Duplex>) -> StreamEnd {
        let (read, write) = tokio::io::split(connection);
        let [window, _] = &self.windows;
        let out = pump_out(
            self.stream,
            &self.control,
            StreamChannel::Stdout,
            Some(Box::new(read)),
            window,
        );
        let input = pump_in(self.stream, &self.control, self.stdin, Some(Box::new(write)));
        // The pod's side decides: a client may close its half and still wait for the answer.
        let (out, input) = (std::pin::pin!(out), std::pin::pin!(input));
        match futures::future::select(out, input).await {
            futures::future::Either::Left(_) => {}
            futures::future::Either::Right((_, out)) => out.await,
        }
        StreamEnd::Exit(0)
    }

    async fn log(self, host: &Host, mut log: OpenLog) -> StreamEnd {
        loop {
            match log.next(host).await {
                Ok(Some(bytes)) => {
                    let (to, window) = (&self.control, &self.windows[0]);
                    if !send(self.stream, to, StreamChannel::Stdout, bytes, window).await {
                        return StreamEnd::Cancelled;
                    }
                }
                Ok(None) => return StreamEnd::Exit(0),
                Err(error) => return StreamEnd::Failed(format!("reading the log: {error}")),
            }
        }
    }
}

type Reader = Option<Box<dyn AsyncRead + Send + Unpin>>;
type Writer = Option<Box<dyn AsyncWrite + Send + Unpin>>;

async fn pump_out(
    stream: StreamId,
    control: &ControlEnd,
    channel: StreamChannel,
    from: Reader,
    window: &Window,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; STREAM_CHUNK_BYTES_MAX];
    loop {
        match from.read(&mut buffer).await {
            // A terminal ends with an error instead of an end of file.
            Ok(0) | Err(_) => break,
            Ok(n) => {
                let bytes = Bytes::copy_from_slice(&buffer[..n]);
                if !send(stream, control, channel, bytes, window).await {
                    return;
                }
            }
        }
    }
}

async fn send(
    stream: StreamId,
    control: &ControlEnd,
    channel: StreamChannel,
    mut bytes: Bytes,
    window: &Window,
) -> bool {
    while !bytes.is_empty() {
        let data = bytes.split_to(bytes.len().min(STREAM_CHUNK_BYTES_MAX));
        if window.take(data.len()).await.is_err() {
            return false;
        }
        if control.data.tell(StreamData { stream, channel, data }).await.is_err() {
            return false;
        }
    }
    true
}

async fn pump_in(
    stream: StreamId,
    control: &ControlEnd,
    mut from: mpsc::Receiver<Bytes>,
    to: Writer,
) {
    let mut to = to;
    while let Some(bytes) = from.recv().await {
        if bytes.is_empty() {
            break; // The client closed its half.
        }
        let failed = match &mut to {
            Some(writer) => {
                writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err()
            }
            None => false,
        };
        if failed {
            to = None; // The process closed its stdin; what still comes is dropped, as a pipe would.
        }
        let credit =
            StreamCredit { stream, channel: StreamChannel::Stdin, bytes: cost(bytes.len()) };
        if control.credit.tell(credit).await.is_err() {
            return;
        }
    }
    if let Some(mut writer) = to {
        let _ = writer.shutdown().await; // Already closed by the process is fine.
    }
    // Dropping the writer is the end of file.
}

impl Actor for StreamsActor {
    type Context = Context<Self>;
}

impl Inspect for StreamsActor {
    const KIND: &'static str = "NodeStreams";

    fn state(&self) -> Value {
        json!({ "open": self.open.len(), "open_max": STREAMS_LEN_MAX })
    }
}

impl Handler<Ask<OpenStream>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<OpenStream>, ctx: &mut Context<Self>) {
        let request = ask.body;
        remark(format!("{}/{}", request.namespace, request.pod));
        if self.open.len() >= STREAMS_LEN_MAX {
            return ask
                .reply
                .reply(Err(OpenStreamError::Overloaded { limit: STREAMS_LEN_MAX as u32 }));
        }
        let way = match self.way_back(&ask.trail.from) {
            Ok(way) => way,
            Err(why) => return ask.reply.reply(Err(OpenStreamError::Failed(why))),
        };
        let (host, dialer, token) = (self.host.clone(), self.dialer.clone(), ask.reply);
        let kubelet = self.kubelet.clone();
        let work = async move {
            let source = match &request.purpose {
                StreamPurpose::Kubelet => Ok(Source::Connection(kubelet.connect())),
                _ => open(&host, dialer.as_ref(), &request).await,
            };
            (request.stream, source)
        };
        ctx.spawn(work.into_actor(self).map(move |(stream, source), actor, ctx| match source {
            Ok(source) => {
                let is_lost = way.1.as_ref().is_some_and(|it| !actor.watched.contains(it));
                if is_lost {
                    return; // Whoever asked is not there any more.
                }
                actor.opened(stream, source, way, ctx);
                token.reply(Ok(()));
            }
            Err(error) => token.reply(Err(error)),
        }));
    }
}

impl Handler<Tell<StreamData>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<StreamData>, ctx: &mut Context<Self>) {
        let StreamData { stream, data, .. } = tell.body;
        let Some(open) = self.open_by(stream, &tell.trail.from) else { return };
        // Full means that the sender ignores its window.
        if open.stdin.try_send(data).is_err() && !open.stdin.is_closed() {
            self.end(stream, ctx);
        }
    }
}

impl StreamsActor {
    /// The stream, when the letter comes from who opened it.
    fn open_by(&self, stream: StreamId, from: &Origin) -> Option<&Open> {
        let open = self.open.get(&stream)?;
        let is_theirs = match from {
            Origin::Local(_) => open.from.is_none(),
            Origin::Peer { host, .. } => open.from.as_ref() == Some(host),
        };
        is_theirs.then_some(open)
    }

    fn end(&mut self, stream: StreamId, ctx: &mut Context<Self>) {
        if let Some(mut open) = self.open.remove(&stream) {
            open.windows.iter().for_each(Window::close);
            if let Some(pumps) = open.pumps.take() {
                ctx.cancel_future(pumps);
            }
        }
    }
}

impl Handler<Tell<StreamCredit>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<StreamCredit>, _: &mut Context<Self>) {
        let StreamCredit { stream, channel, bytes } = tell.body;
        if let Some(open) = self.open_by(stream, &tell.trail.from) {
            open.windows[usize::from(channel == StreamChannel::Stderr)].grant(bytes);
        }
    }
}

impl Handler<Tell<StreamResize>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<StreamResize>, _: &mut Context<Self>) {
        let StreamResize { stream, columns, rows } = tell.body;
        if let Some(open) = self.open_by(stream, &tell.trail.from) {
            let _ = open.resize.try_send(WindowSize { columns, rows }); // Newer sizes follow.
        }
    }
}

impl Handler<Tell<StreamEnded>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<StreamEnded>, ctx: &mut Context<Self>) {
        if self.open_by(tell.body.stream, &tell.trail.from).is_some() {
            self.end(tell.body.stream, ctx);
        }
    }
}

impl Handler<Tell<PeerDown>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<PeerDown>, ctx: &mut Context<Self>) {
        let host = tell.body.host;
        self.watched.remove(&host);
        let is_theirs = |it: &Open| it.from.as_ref() == Some(&host);
        let theirs: Vec<StreamId> =
            self.open.iter().filter(|(_, it)| is_theirs(it)).map(|(stream, _)| *stream).collect();
        for stream in theirs {
            self.end(stream, ctx);
        }
    }
}
