//! Exec and attach over SPDY: the client opens one stream for each of error, stdin, stdout, stderr and resize.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{
    CommandEvent, CommandSession, SessionError, Version, effective, last_words, terminal_size,
};
use crate::node_streams::{Outcome, Output, StdStreams};
use crate::spdy::{Event, Headers, Spdy, StreamId};

/// Longest JSON of a terminal's size that is collected.
const RESIZE_BYTES_MAX: usize = 4096;
const REFUSED: u32 = 3;

pub struct SpdyCommand {
    spdy: Spdy,
    version: Version,
    wanted: StdStreams,
    error: Option<StreamId>,
    stdin: Option<StreamId>,
    stdout: Option<StreamId>,
    stderr: Option<StreamId>,
    resize: Option<StreamId>,
    resize_text: BytesMut,
    ready: bool,
    events: VecDeque<CommandEvent>,
}

impl SpdyCommand {
    pub fn new(version: Version, wanted: StdStreams) -> Self {
        Self {
            spdy: Spdy::new(),
            version,
            wanted: effective(wanted),
            error: None,
            stdin: None,
            stdout: None,
            stderr: None,
            resize: None,
            resize_text: BytesMut::new(),
            ready: false,
            events: VecDeque::new(),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Opened { stream, headers } => self.opened(stream, &headers),
            Event::Data { stream, bytes } if Some(stream) == self.stdin => {
                self.events.push_back(CommandEvent::Stdin(bytes));
            }
            Event::Data { stream, bytes } if Some(stream) == self.resize => self.resized(&bytes),
            Event::Finished { stream } if Some(stream) == self.stdin => {
                self.events.push_back(CommandEvent::StdinClosed);
            }
            Event::Reset { stream } if Some(stream) == self.stdin => {
                self.events.push_back(CommandEvent::StdinClosed);
            }
            Event::Data { .. } | Event::Finished { .. } | Event::Reset { .. } => {}
            Event::GoneAway => self.events.push_back(CommandEvent::Closed),
        }
    }

    fn opened(&mut self, stream: StreamId, headers: &Headers) {
        let slot = match headers.get("streamtype") {
            Some("error") => Some(&mut self.error),
            Some("stdin") if self.wanted.stdin => Some(&mut self.stdin),
            Some("stdout") if self.wanted.stdout => Some(&mut self.stdout),
            Some("stderr") if self.wanted.stderr => Some(&mut self.stderr),
            Some("resize") if self.wanted.tty => Some(&mut self.resize),
            _ => None,
        };
        match slot {
            Some(slot @ None) => {
                *slot = Some(stream);
                self.spdy.accept(stream);
            }
            _ => self.spdy.reset(stream, REFUSED), // Unknown, not asked for, or the second of its kind.
        }
        let missing = |wanted: bool, stream: Option<StreamId>| wanted && stream.is_none();
        let whole = self.error.is_some()
            && !missing(self.wanted.stdin, self.stdin)
            && !missing(self.wanted.stdout, self.stdout)
            && !missing(self.wanted.stderr, self.stderr)
            && !missing(self.wanted.tty && self.version >= Version::V3, self.resize);
        if whole && !self.ready {
            self.ready = true;
            self.events.push_back(CommandEvent::Ready);
        }
    }

    /// Sizes are JSON objects one after the other, cut anywhere.
    fn resized(&mut self, bytes: &[u8]) {
        self.resize_text.extend_from_slice(bytes);
        while let Some(end) = self.resize_text.iter().position(|it| *it == b'}') {
            let text = self.resize_text.split_to(end + 1);
            self.events.extend(terminal_size(&text).map(CommandEvent::Resize));
        }
        if self.resize_text.len() > RESIZE_BYTES_MAX {
            self.resize_text.clear();
        }
    }
}

impl CommandSession for SpdyCommand {
    fn receive(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.spdy.receive(bytes)?;
        while let Some(event) = self.spdy.next_event() {
            self.take(event);
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<CommandEvent> {
        self.events.pop_front()
    }

    fn takes_output(&self) -> bool {
        self.spdy.takes_data()
    }

    fn write(&mut self, output: Output) {
        let (stream, bytes) = match output {
            Output::Stdout(bytes) => (self.stdout, bytes),
            Output::Stderr(bytes) => (self.stderr, bytes),
        };
        if let Some(stream) = stream {
            self.spdy.send(stream, bytes);
        }
    }

    fn finish(&mut self, outcome: &Outcome) {
        for stream in [self.stdout, self.stderr].into_iter().flatten() {
            self.spdy.finish(stream);
        }
        if let Some(error) = self.error {
            self.spdy.send(error, last_words(self.version, outcome));
            self.spdy.finish(error);
        }
        for stream in [self.stdin, self.resize].into_iter().flatten() {
            self.spdy.finish(stream);
        }
    }

    fn take_bytes(&mut self) -> Bytes {
        self.spdy.take_output()
    }
}
