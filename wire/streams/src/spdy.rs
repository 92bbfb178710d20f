//! SPDY/3.1, the server's half: frames in, events out, frames out.
//!
//! Only what Kubernetes' clients use: they open streams, we answer on them. One zlib stream with SPDY's dictionary
//! compresses all header blocks of a direction. Flow control: our credit is always given back, and the peer's is
//! honoured only once it showed that it keeps books (a SETTINGS or WINDOW_UPDATE frame), because the Go client
//! that all of Kubernetes uses (moby/spdystream) never sends credit and would stall at 64 KiB.
//! Bounds: frame bytes, header bytes after inflation, streams open at once, bytes waiting to be sent.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};

mod frame;
mod header_block;

pub use frame::{Frame, FrameError};
pub use header_block::{HeaderBlockError, Headers};

use header_block::{Compressor, Decompressor};

/// Largest frame that is taken; the Go client writes at most 32 KiB of data into one.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Streams open at once on one connection. A port-forward uses two for each connection through it.
pub const STREAMS_MAX: usize = 1024;
/// Data that waits for a slow peer in one connection; `send` asks for no more above it.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Largest data frame that is written.
const DATA_BYTES_MAX: usize = 16 * 1024;
const WINDOW_BYTES: i64 = 64 * 1024;

pub type StreamId = u32;

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It opened a stream; answer with [`Spdy::accept`] or [`Spdy::reset`].
    Opened {
        stream: StreamId,
        headers: Headers,
    },
    Data {
        stream: StreamId,
        bytes: Bytes,
    },
    /// It will send nothing more on this stream.
    Finished {
        stream: StreamId,
    },
    /// It gave the stream up, both directions.
    Reset {
        stream: StreamId,
    },
    /// It will open no more streams.
    GoneAway,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    #[error("the peer sent a bad SPDY frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the peer sent a bad SPDY header block: {0}")]
    Headers(#[from] HeaderBlockError),
    #[error("the peer opened stream {stream} after {last}; ids of a client are odd and grow")]
    StreamOrder { stream: StreamId, last: StreamId },
}

#[derive(Debug)]
struct Stream {
    /// What the peer still takes, if it keeps books.
    credit: i64,
    /// Data that waits for credit.
    waiting: VecDeque<Bytes>,
    /// We have finished, as soon as `waiting` is sent.
    finishing: bool,
    finished_by_us: bool,
    finished_by_peer: bool,
}

/// One connection.
pub struct Spdy {
    input: BytesMut,
    output: BytesMut,
    events: VecDeque<Event>,
    streams: BTreeMap<StreamId, Stream>,
    last_stream: StreamId,
    inflate: Decompressor,
    deflate: Compressor,
    /// The peer sent SETTINGS or WINDOW_UPDATE, so it counts what it takes.
    peer_counts: bool,
    initial_credit: i64,
    waiting_bytes: usize,
}

impl Default for Spdy {
    fn default() -> Self {
        Self::new()
    }
}

impl Spdy {
    pub fn new() -> Self {
        Self {
            input: BytesMut::new(),
            output: BytesMut::new(),
            events: VecDeque::new(),
            streams: BTreeMap::new(),
            last_stream: 0,
            inflate: Decompressor::new(),
            deflate: Compressor::new(),
            peer_counts: false,
            initial_credit: WINDOW_BYTES,
            waiting_bytes: 0,
        }
    }

    /// Takes bytes from the peer. After an error the connection is of no use.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), SpdyError> {
        self.input.extend_from_slice(bytes);
        while let Some(frame) = Frame::decode(&mut self.input)? {
            self.take(frame)?;
        }
        Ok(())
    }

    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes for the peer; empty when there are none.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether more data is welcome: false while too much waits.
    pub fn takes_data(&self) -> bool {
        self.output.len() + self.waiting_bytes < OUTPUT_BYTES_MAX
    }

    /// Answers an opened stream.
    pub fn accept(&mut self, stream: StreamId) {
        if self.streams.contains_key(&stream) {
            let block = self.deflate.compress(&Headers::default());
            Frame::SynReply { stream, block }.encode(&mut self.output);
        }
    }

    /// Puts data on a stream; on one that is gone or finished it is dropped.
    pub fn send(&mut self, stream: StreamId, mut bytes: Bytes) {
        let Some(state) = self.streams.get_mut(&stream).filter(|it| !it.finishing) else {
            return;
        };
        self.waiting_bytes += bytes.len();
        while !bytes.is_empty() {
            state.waiting.push_back(bytes.split_to(bytes.len().min(DATA_BYTES_MAX)));
        }
        self.flush(stream);
    }

    /// Nothing more comes on this stream from us.
    pub fn finish(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.finishing = true;
            self.flush(stream);
        }
    }

    /// Gives a stream up. `status` is SPDY's: 1 protocol error, 3 refused, 5 cancel.
    pub fn reset(&mut self, stream: StreamId, status: u32) {
        if self.forget(stream) {
            Frame::RstStream { stream, status }.encode(&mut self.output);
        }
    }

    /// Says that no more streams are taken.
    pub fn go_away(&mut self) {
        Frame::GoAway { last_stream: self.last_stream, status: 0 }.encode(&mut self.output);
    }

    pub fn is_open(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    fn forget(&mut self, stream: StreamId) -> bool {
        let Some(state) = self.streams.remove(&stream) else {
            return false;
        };
        self.waiting_bytes -= state.waiting.iter().map(Bytes::len).sum::<usize>();
        true
    }

    fn take(&mut self, frame: Frame) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream { stream, block, finished } => {
                self.opened(stream, &block, finished)?
            }
            Frame::SynReply { block, .. } | Frame::Headers { block, .. } => {
                self.inflate.decompress(&block)?; // Nothing in it matters, but the zlib stream goes on.
            }
            Frame::Data { stream, bytes, finished } => self.data(stream, bytes, finished),
            Frame::RstStream { stream, .. } => {
                if self.forget(stream) {
                    self.events.push_back(Event::Reset { stream });
                }
            }
            // A client's pings are odd; even ones would answer ours.
            Frame::Ping { id } if id % 2 == 1 => Frame::Ping { id }.encode(&mut self.output),
            Frame::Ping { .. } | Frame::Unknown => {}
            Frame::GoAway { .. } => self.events.push_back(Event::GoneAway),
            Frame::Settings { initial_window } => {
                self.peer_counts = true;
                if let Some(window) = initial_window {
                    self.set_initial_credit(i64::from(window));
                }
            }
            Frame::WindowUpdate { stream, delta } => {
                self.peer_counts = true;
                if let Some(state) = self.streams.get_mut(&stream) {
                    state.credit = state.credit.saturating_add(i64::from(delta));
                    self.flush(stream);
                }
            }
        }
        Ok(())
    }

    fn opened(&mut self, stream: StreamId, block: &[u8], finished: bool) -> Result<(), SpdyError> {
        let headers = self.inflate.decompress(block)?;
        if stream.is_multiple_of(2) || stream <= self.last_stream {
            return Err(SpdyError::StreamOrder { stream, last: self.last_stream });
        }
        self.last_stream = stream;
        if self.streams.len() >= STREAMS_MAX {
            Frame::RstStream { stream, status: 3 }.encode(&mut self.output);
            return Ok(());
        }
        self.streams.insert(
            stream,
            Stream {
                credit: self.initial_credit,
                waiting: VecDeque::new(),
                finishing: false,
                finished_by_us: false,
                finished_by_peer: finished,
            },
        );
        self.events.push_back(Event::Opened { stream, headers });
        if finished {
            self.events.push_back(Event::Finished { stream });
        }
        Ok(())
    }

    fn data(&mut self, stream: StreamId, bytes: Bytes, finished: bool) {
        let Some(state) = self.streams.get_mut(&stream).filter(|it| !it.finished_by_peer) else {
            return; // Late data of a stream that we gave up.
        };
        state.finished_by_peer = finished;
        if !bytes.is_empty() {
            // Given back at once: the reader of these events bounds them by not reading the socket.
            let delta = u32::try_from(bytes.len()).expect("a frame has at most 2^24 bytes");
            for id in [stream, 0] {
                Frame::WindowUpdate { stream: id, delta }.encode(&mut self.output);
            }
            self.events.push_back(Event::Data { stream, bytes });
        }
        if finished {
            self.events.push_back(Event::Finished { stream });
            self.forget_if_done(stream);
        }
    }

    fn set_initial_credit(&mut self, window: i64) {
        let change = window - self.initial_credit;
        self.initial_credit = window;
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(state) = self.streams.get_mut(&id) {
                state.credit = state.credit.saturating_add(change);
            }
            self.flush(id);
        }
    }

    /// Writes what the peer takes of a stream's waiting data, and the end behind it.
    fn flush(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream) else {
            return;
        };
        while let Some(mut chunk) = state.waiting.pop_front() {
            let allowed = match self.peer_counts {
                true => usize::try_from(state.credit).unwrap_or(0).min(chunk.len()),
                false => chunk.len(),
            };
            if allowed == 0 {
                state.waiting.push_front(chunk);
                return;
            }
            let part = chunk.split_to(allowed);
            if !chunk.is_empty() {
                state.waiting.push_front(chunk);
            }
            state.credit -= i64::try_from(part.len()).unwrap_or(i64::MAX);
            self.waiting_bytes -= part.len();
            Frame::Data { stream, bytes: part, finished: false }.encode(&mut self.output);
        }
        if state.finishing && !state.finished_by_us {
            state.finished_by_us = true;
            Frame::Data { stream, bytes: Bytes::new(), finished: true }.encode(&mut self.output);
            self.forget_if_done(stream);
        }
    }

    fn forget_if_done(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(|it| it.finished_by_us && it.finished_by_peer) {
            self.forget(stream);
        }
    }
}

/// Whether a whole frame lies in `input`: its header says how long it is.
fn frame_is_whole(input: &BytesMut) -> Result<Option<usize>, FrameError> {
    let Some(head) = input.get(..8) else {
        return Ok(None);
    };
    let len = (&mut &head[4..8]).get_u32() as usize & 0x00ff_ffff;
    if len > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { len });
    }
    Ok((input.len() >= 8 + len).then_some(len))
}

#[cfg(test)]
mod tests;
