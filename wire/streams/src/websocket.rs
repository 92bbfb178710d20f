//! WebSocket (RFC 6455), the server's half: bytes in, messages out, and back.
//!
//! Fragments are joined up to a limit, pings are answered, a close is echoed. Extensions are never agreed to, so
//! reserved bits are an error. Invariant: a client's frames are masked, and no message grows beyond
//! [`MESSAGE_BYTES_MAX`].

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// Largest message after joining. client-go writes at most 32 KiB into one.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: usize = 125;
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Text(Bytes),
    Binary(Bytes),
    /// It closes; the answer is in the output already.
    Close,
}

/// Which kind of message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    #[error("the client sent a message of more than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the client sent a frame that is not masked")]
    Unmasked,
    #[error("the client broke the WebSocket protocol: {0}")]
    Protocol(&'static str),
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub fn accept_key(key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{}{GUID}", key.trim()).as_bytes());
    STANDARD.encode(hash.as_ref())
}

#[derive(Debug, Default)]
pub struct WebSocket {
    input: BytesMut,
    output: BytesMut,
    messages: VecDeque<Message>,
    /// The message whose fragments are coming.
    partial: Option<(Kind, BytesMut)>,
    closed: bool,
}

struct Head {
    fin: bool,
    opcode: u8,
    len: usize,
    head_len: usize,
}

impl WebSocket {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), WebSocketError> {
        if self.closed {
            return Ok(());
        }
        self.input.extend_from_slice(bytes);
        while let Some(head) = self.head()? {
            if self.input.len() < head.head_len + head.len {
                break;
            }
            self.input.advance(head.head_len - 4);
            let mask = [self.input[0], self.input[1], self.input[2], self.input[3]];
            self.input.advance(4);
            let mut payload = self.input.split_to(head.len);
            for (at, byte) in payload.iter_mut().enumerate() {
                *byte ^= mask[at % 4];
            }
            self.frame(&head, payload)?;
        }
        Ok(())
    }

    pub fn next_message(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    pub fn send(&mut self, kind: Kind, parts: &[&[u8]]) {
        let opcode = match kind {
            Kind::Text => 1,
            Kind::Binary => 2,
        };
        self.write(opcode, parts);
    }

    /// Says goodbye; `code` is 1000 for a normal end.
    pub fn close(&mut self, code: u16) {
        if !self.closed {
            self.closed = true;
            self.write(8, &[&code.to_be_bytes()]);
        }
    }

    /// The next frame's head, once it is there; refuses what can be refused before the payload comes.
    fn head(&self) -> Result<Option<Head>, WebSocketError> {
        let (Some(&first), Some(&second)) = (self.input.first(), self.input.get(1)) else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(WebSocketError::Protocol("reserved bits are set"));
        }
        if second & 0x80 == 0 {
            return Err(WebSocketError::Unmasked);
        }
        let (len, extra) = match second & 0x7f {
            126 => match self.input.get(2..4) {
                Some(mut it) => (u64::from(it.get_u16()), 2),
                None => return Ok(None),
            },
            127 => match self.input.get(2..10) {
                Some(mut it) => (it.get_u64(), 8),
                None => return Ok(None),
            },
            short => (u64::from(short), 0),
        };
        let head = Head {
            fin: first & 0x80 != 0,
            opcode: first & 0x0f,
            len: usize::try_from(len).unwrap_or(usize::MAX),
            head_len: 2 + extra + 4,
        };
        let joined = self.partial.as_ref().map_or(0, |(_, it)| it.len());
        if head.opcode >= 8 && (head.len > CONTROL_BYTES_MAX || !head.fin) {
            return Err(WebSocketError::Protocol("a control frame is long or in pieces"));
        }
        if head.len > MESSAGE_BYTES_MAX
            || (head.opcode < 8 && joined + head.len > MESSAGE_BYTES_MAX)
        {
            return Err(WebSocketError::TooLarge);
        }
        Ok(Some(head))
    }

    fn frame(&mut self, head: &Head, payload: BytesMut) -> Result<(), WebSocketError> {
        match (head.opcode, self.partial.take()) {
            (0, Some((kind, mut joined))) => {
                joined.extend_from_slice(&payload);
                self.part(head.fin, kind, joined);
            }
            (0, None) => return Err(WebSocketError::Protocol("a continuation of nothing")),
            (1 | 2, Some(_)) => {
                return Err(WebSocketError::Protocol("a message inside another"));
            }
            (1, None) => self.part(head.fin, Kind::Text, payload),
            (2, None) => self.part(head.fin, Kind::Binary, payload),
            (opcode, partial) => {
                self.partial = partial; // Control frames may stand between fragments.
                self.control(opcode, &payload)?;
            }
        }
        Ok(())
    }

    fn part(&mut self, fin: bool, kind: Kind, joined: BytesMut) {
        match (fin, kind) {
            (false, _) => self.partial = Some((kind, joined)),
            (true, Kind::Text) => self.messages.push_back(Message::Text(joined.freeze())),
            (true, Kind::Binary) => self.messages.push_back(Message::Binary(joined.freeze())),
        }
    }

    fn control(&mut self, opcode: u8, payload: &[u8]) -> Result<(), WebSocketError> {
        match opcode {
            8 => {
                self.close(1000);
                self.messages.push_back(Message::Close);
            }
            9 => self.write(10, &[payload]),
            10 => {}
            _ => return Err(WebSocketError::Protocol("an opcode that there is not")),
        }
        Ok(())
    }

    fn write(&mut self, opcode: u8, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|it| it.len()).sum();
        self.output.put_u8(0x80 | opcode);
        match len {
            0..126 => self.output.put_u8(len as u8),
            126..0x1_0000 => {
                self.output.put_u8(126);
                self.output.put_u16(len as u16);
            }
            _ => {
                self.output.put_u8(127);
                self.output.put_u64(len as u64);
            }
        }
        for part in parts {
            self.output.put_slice(part);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
