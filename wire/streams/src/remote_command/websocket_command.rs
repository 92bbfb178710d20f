//! Exec and attach over a WebSocket: the first byte of a message is its channel.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};

use super::{
    CommandEvent, CommandSession, Encoding, SessionError, Version, effective, last_words,
    terminal_size,
};
use crate::node_streams::{Outcome, Output, StdStreams};
use crate::websocket::{Kind, Message, WebSocket};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Since version 5: the next byte is a channel that the client closes.
const CLOSE: u8 = 255;
const NORMAL: u16 = 1000;
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

pub struct WebSocketCommand {
    socket: WebSocket,
    version: Version,
    encoding: Encoding,
    wanted: StdStreams,
    events: VecDeque<CommandEvent>,
}

impl WebSocketCommand {
    /// The first message is an empty one, so that the client knows that it is connected.
    pub fn new(version: Version, encoding: Encoding, wanted: StdStreams) -> Self {
        let wanted = effective(wanted);
        let mut session = Self {
            socket: WebSocket::new(),
            version,
            encoding,
            wanted,
            events: VecDeque::from([CommandEvent::Ready]),
        };
        let first = match wanted {
            StdStreams { stdout: true, .. } => STDOUT,
            StdStreams { stderr: true, .. } => STDERR,
            _ => ERROR,
        };
        session.send(first, &[]);
        session
    }

    fn send(&mut self, channel: u8, bytes: &[u8]) {
        match self.encoding {
            Encoding::Binary => self.socket.send(Kind::Binary, &[&[channel], bytes]),
            Encoding::Base64 => {
                let text = STANDARD.encode(bytes);
                self.socket.send(Kind::Text, &[&[b'0' + channel], text.as_bytes()]);
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), SessionError> {
        let mut payload = match message {
            Message::Close => {
                self.events.push_back(CommandEvent::Closed);
                return Ok(());
            }
            Message::Text(payload) | Message::Binary(payload) => payload,
        };
        if payload.is_empty() {
            return Ok(());
        }
        let first = payload.get_u8();
        let (channel, bytes) = match self.encoding {
            Encoding::Binary => (first, payload),
            Encoding::Base64 => {
                let bytes = STANDARD.decode(&payload).map_err(|_| SessionError::Base64)?;
                (first.wrapping_sub(b'0'), Bytes::from(bytes))
            }
        };
        match channel {
            STDIN if self.wanted.stdin => {
                if !bytes.is_empty() {
                    self.events.push_back(CommandEvent::Stdin(bytes));
                }
            }
            RESIZE => self.events.extend(terminal_size(&bytes).map(CommandEvent::Resize)),
            CLOSE if self.version >= Version::V5 && bytes.first() == Some(&STDIN) => {
                self.events.push_back(CommandEvent::StdinClosed);
            }
            CLOSE if self.version >= Version::V5 => {}
            STDIN | STDOUT | STDERR | ERROR => {} // Not asked for, or not the client's to write.
            other => return Err(SessionError::Channel(other)),
        }
        Ok(())
    }
}

impl CommandSession for WebSocketCommand {
    fn receive(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.socket.receive(bytes)?;
        while let Some(message) = self.socket.next_message() {
            self.take(message)?;
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<CommandEvent> {
        self.events.pop_front()
    }

    fn takes_output(&self) -> bool {
        self.socket.output_len() < OUTPUT_BYTES_MAX
    }

    fn write(&mut self, output: Output) {
        match output {
            Output::Stdout(bytes) if self.wanted.stdout => self.send(STDOUT, &bytes),
            Output::Stderr(bytes) if self.wanted.stderr => self.send(STDERR, &bytes),
            Output::Stdout(_) | Output::Stderr(_) => {}
        }
    }

    fn finish(&mut self, outcome: &Outcome) {
        let words = last_words(self.version, outcome);
        if !words.is_empty() {
            self.send(ERROR, &words);
        }
        self.socket.close(NORMAL);
    }

    fn take_bytes(&mut self) -> Bytes {
        self.socket.take_output()
    }
}
