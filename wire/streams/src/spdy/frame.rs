//! SPDY/3.1 frames: 8 bytes of head, then the payload; header blocks stay compressed here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{FRAME_BYTES_MAX, StreamId, frame_is_whole};

const CONTROL: u16 = 0x8000;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const ID_MASK: u32 = 0x7fff_ffff;
/// SETTINGS_INITIAL_WINDOW_SIZE
const SETTING_WINDOW: u32 = 7;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: StreamId,
        block: Bytes,
        finished: bool,
    },
    SynReply {
        stream: StreamId,
        block: Bytes,
    },
    RstStream {
        stream: StreamId,
        status: u32,
    },
    Settings {
        initial_window: Option<u32>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last_stream: StreamId,
        status: u32,
    },
    Headers {
        stream: StreamId,
        block: Bytes,
    },
    WindowUpdate {
        stream: StreamId,
        delta: u32,
    },
    Data {
        stream: StreamId,
        bytes: Bytes,
        finished: bool,
    },
    /// A control frame of a type that SPDY/3.1 does not have; skipped.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes, at most {FRAME_BYTES_MAX} are taken")]
    TooLarge { len: usize },
    #[error("SPDY version {version}, only 3 is spoken")]
    Version { version: u16 },
    #[error("a frame of type {kind} ended early")]
    Short { kind: u16 },
}

impl Frame {
    /// The next whole frame, taken from the front of `input`; `None` until it is all there.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(len) = frame_is_whole(input)? else {
            return Ok(None);
        };
        let first = input.get_u32();
        let flags = input.get_u8();
        input.advance(3);
        let payload = input.split_to(len).freeze();
        let finished = flags & FLAG_FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: first, bytes: payload, finished }));
        }
        let version = (first >> 16) as u16 & !CONTROL;
        if version != VERSION {
            return Err(FrameError::Version { version });
        }
        control(first as u16, finished, payload).map(Some)
    }

    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Frame::Data { stream, bytes, finished } => {
                out.put_u32(stream & ID_MASK);
                put_length(out, u8::from(*finished) * FLAG_FIN, bytes.len());
                out.put_slice(bytes);
            }
            Frame::SynStream { stream, block, finished } => {
                head(out, 1, u8::from(*finished) * FLAG_FIN, 10 + block.len());
                out.put_u32(*stream);
                out.put_bytes(0, 6);
                out.put_slice(block);
            }
            Frame::SynReply { stream, block } => {
                head(out, 2, 0, 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(block);
            }
            Frame::RstStream { stream, status } => numbers(out, 3, *stream, *status),
            Frame::Settings { initial_window } => {
                let entries = u32::from(initial_window.is_some());
                head(out, 4, 0, 4 + 8 * entries as usize);
                out.put_u32(entries);
                if let Some(window) = initial_window {
                    out.put_u32(SETTING_WINDOW);
                    out.put_u32(*window);
                }
            }
            Frame::Ping { id } => {
                head(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last_stream, status } => numbers(out, 7, *last_stream, *status),
            Frame::Headers { stream, block } => {
                head(out, 8, 0, 4 + block.len());
                out.put_u32(*stream);
                out.put_slice(block);
            }
            Frame::WindowUpdate { stream, delta } => numbers(out, 9, *stream, *delta),
            Frame::Unknown => head(out, 0x7fff, 0, 0),
        }
    }
}

fn control(kind: u16, finished: bool, mut payload: Bytes) -> Result<Frame, FrameError> {
    let needed = match kind {
        1 => 10,
        2 | 4 | 6 | 8 => 4,
        3 | 7 | 9 => 8,
        _ => return Ok(Frame::Unknown),
    };
    if payload.len() < needed {
        return Err(FrameError::Short { kind });
    }
    let first = payload.get_u32();
    let stream = first & ID_MASK;
    Ok(match kind {
        1 => {
            payload.advance(6); // Associated stream, priority, slot: of no use here.
            Frame::SynStream { stream, block: payload, finished }
        }
        2 => Frame::SynReply { stream, block: payload },
        3 => Frame::RstStream { stream, status: payload.get_u32() },
        4 => Frame::Settings { initial_window: initial_window(first, payload)? },
        6 => Frame::Ping { id: first },
        7 => Frame::GoAway { last_stream: stream, status: payload.get_u32() },
        8 => Frame::Headers { stream, block: payload },
        _ => Frame::WindowUpdate { stream, delta: payload.get_u32() & ID_MASK },
    })
}

fn initial_window(n_entries: u32, mut entries: Bytes) -> Result<Option<u32>, FrameError> {
    let mut window = None;
    for _ in 0..n_entries {
        if entries.len() < 8 {
            return Err(FrameError::Short { kind: 4 });
        }
        let id = entries.get_u32() & 0x00ff_ffff;
        let value = entries.get_u32();
        if id == SETTING_WINDOW {
            window = Some(value & ID_MASK);
        }
    }
    Ok(window)
}

fn head(out: &mut BytesMut, kind: u16, flags: u8, len: usize) {
    out.put_u16(CONTROL | VERSION);
    out.put_u16(kind);
    put_length(out, flags, len);
}

fn put_length(out: &mut BytesMut, flags: u8, len: usize) {
    let len = u32::try_from(len).expect("frames are cut to FRAME_BYTES_MAX");
    assert!(len < 1 << 24, "a SPDY frame has a length of 24 bits");
    out.put_u32(u32::from(flags) << 24 | len);
}

fn numbers(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    head(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}
