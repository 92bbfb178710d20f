//! One connection at work: a writer that coalesces frames onto our stream, and readers of the other end's streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use kactor_protocol::HostId;
use kactor_protocol::frame::{Frame, LENGTH_BYTES};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::hello::{HELLO_BYTES, Hello};
use crate::identity::Identity;

/// Frames that wait for one lane to one host.
const QUEUE_FRAMES: usize = 1024;
/// Bytes that wait; above one frame's limit, so that every frame can be queued.
const QUEUE_BYTES: usize = 16 << 20;
/// Frames that are put together for one write.
const BURST_FRAMES: usize = 64;
const BURST_BYTES: usize = 64 << 10;
/// Most that is taken from a stream at once.
const READ_BYTES: usize = 256 << 10;

pub(crate) const CLOSE_GOING: VarInt = VarInt::from_u32(0);
pub(crate) const CLOSE_REFUSED: VarInt = VarInt::from_u32(1);
pub(crate) const CLOSE_SUPERSEDED: VarInt = VarInt::from_u32(2);

/// What one lane carried, for `links` in inspection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub sent_frames: AtomicU64,
    pub sent_bytes: AtomicU64,
    pub received_frames: AtomicU64,
    pub received_bytes: AtomicU64,
}

impl Traffic {
    fn sent(&self, n_frames: usize, n_bytes: usize) {
        self.sent_frames.fetch_add(n_frames as u64, Ordering::Relaxed);
        self.sent_bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }

    fn received(&self, n_bytes: usize) {
        self.received_frames.fetch_add(1, Ordering::Relaxed);
        self.received_bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }
}

/// Which halves of a connection have served their time.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    /// Nothing more will be sent by us, and all that was is acknowledged.
    pub we_are_done: AtomicBool,
    /// The other end finished its stream.
    pub they_are_done: AtomicBool,
    /// The other end began a stream.
    pub they_began: AtomicBool,
}

impl Halves {
    pub fn are_done(&self) -> bool {
        self.we_are_done.load(Ordering::SeqCst) && self.they_are_done.load(Ordering::SeqCst)
    }
}

/// A frame in the queue; it holds its bytes' room until it is written.
pub(crate) struct Queued {
    frame: Bytes,
    _room: OwnedSemaphorePermit,
}

/// The sending half that a lane uses now.
pub(crate) struct Channel {
    pub connection: Connection,
    /// Which host dialed it: of two that cross, both sides keep the one that the smaller name dialed.
    pub dialer: HostId,
    /// Who the other end showed to be.
    pub identity: Identity,
    /// Numbers our streams on this lane; an ask remembers which one carried it.
    pub generation: u64,
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

/// What a new channel's writer needs.
pub(crate) struct Outgoing {
    pub connection: Connection,
    pub hello: Hello,
    pub traffic: Arc<Traffic>,
    queue: mpsc::Receiver<Queued>,
}

impl Channel {
    pub fn new(
        connection: Connection,
        (dialer, identity): (HostId, &Identity),
        hello: Hello,
        traffic: Arc<Traffic>,
    ) -> (Arc<Self>, Outgoing) {
        let (sender, queue) = mpsc::channel(QUEUE_FRAMES);
        let channel = Self {
            connection: connection.clone(),
            dialer,
            identity: identity.clone(),
            generation: hello.generation,
            queue: sender,
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
        };
        (Arc::new(channel), Outgoing { connection, hello, traffic, queue })
    }

    /// Waits for room in the queue. `Err` when the writer ended: nothing was sent.
    pub async fn send(&self, frame: Bytes) -> Result<(), ()> {
        let n_bytes = u32::try_from(frame.len()).map_err(|_| ())?;
        let room = self.room.clone().acquire_many_owned(n_bytes).await.map_err(|_| ())?;
        self.queue.send(Queued { frame, _room: room }).await.map_err(|_| ())
    }
}

/// Writes until nobody holds the channel any more (then the stream is finished and everything acknowledged), or the
/// connection ends. Answers whether all was delivered.
pub(crate) async fn write(mut out: Outgoing) -> bool {
    let Ok(mut stream) = out.connection.open_uni().await else { return false };
    if stream.write_all(&out.hello.encode()).await.is_err() {
        return false;
    }
    let mut burst = Vec::with_capacity(BURST_FRAMES);
    while let Some(first) = out.queue.recv().await {
        let mut n_bytes = first.frame.len();
        burst.push(first);
        while burst.len() < BURST_FRAMES && n_bytes < BURST_BYTES {
            let Ok(next) = out.queue.try_recv() else { break };
            n_bytes += next.frame.len();
            burst.push(next);
        }
        let mut frames: Vec<Bytes> = burst.iter().map(|it| it.frame.clone()).collect();
        if stream.write_all_chunks(&mut frames).await.is_err() {
            return false;
        }
        out.traffic.sent(burst.len(), n_bytes);
        burst.clear();
    }
    finish(stream).await
}

async fn finish(mut stream: SendStream) -> bool {
    stream.finish().is_ok() && matches!(stream.stopped().await, Ok(None))
}

/// The hello of a stream that the other end began.
pub(crate) async fn read_hello(stream: &mut RecvStream) -> Option<Hello> {
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).await.ok()?;
    Hello::decode(&bytes)
}

/// Why reading a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadEnd {
    /// The sender finished it.
    Finished,
    /// The connection or the stream broke off.
    Broken,
    /// What came is no frame.
    Malformed(String),
}

/// Hands on every frame, in order. What `take` does must not wait.
pub(crate) async fn read(
    stream: &mut RecvStream,
    traffic: &Traffic,
    mut take: impl FnMut(Bytes),
) -> ReadEnd {
    let mut buffer = BytesMut::new();
    loop {
        let chunk = match stream.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => chunk.bytes,
            Ok(None) if buffer.is_empty() => return ReadEnd::Finished,
            Ok(None) => return ReadEnd::Malformed("the stream ends inside a frame".to_owned()),
            Err(_) => return ReadEnd::Broken,
        };
        buffer.extend_from_slice(&chunk);
        loop {
            match Frame::len_bytes(&buffer) {
                Ok(Some(n_bytes)) if buffer.len() >= n_bytes => {
                    traffic.received(n_bytes);
                    take(buffer.split_to(n_bytes).freeze());
                }
                Ok(Some(n_bytes)) => {
                    buffer.reserve(n_bytes.max(LENGTH_BYTES) - buffer.len());
                    break;
                }
                Ok(None) => break,
                Err(error) => return ReadEnd::Malformed(error.to_string()),
            }
        }
    }
}
