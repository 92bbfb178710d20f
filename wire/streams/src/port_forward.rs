//! Port-forward: pairs of SPDY streams (`error`, `data`) for each connection, plain or inside a WebSocket.
//!
//! kubectl from 1.31 tunnels the same SPDY bytes in binary messages of a WebSocket (KEP-4006, subprotocol
//! `SPDY/3.1+portforward.k8s.io`). Streams of one pair share a `requestID`; the Go client of old sends none, and
//! then the data stream's id is the error stream's plus two (kubelet portforward/httpstream.go).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::remote_command::SessionError;
use crate::spdy::{Event, Headers, Spdy, StreamId};
use crate::websocket::{Kind, Message, WebSocket};

/// `X-Stream-Protocol-Version` over SPDY.
pub const SPDY_PROTOCOL: &str = "portforward.k8s.io";
/// `Sec-WebSocket-Protocol` of the tunnel.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

const PROTOCOL_ERROR: u32 = 1;
/// Error streams whose data stream has not come yet.
const HALF_PAIRS_MAX: usize = 256;
const TUNNEL_OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// What the client did. A connection is named by its data stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortForwardEvent {
    Opened {
        connection: StreamId,
        port: u16,
    },
    Data {
        connection: StreamId,
        bytes: Bytes,
    },
    /// The client will send no more on this connection.
    Finished {
        connection: StreamId,
    },
    /// The client gave the connection up.
    Reset {
        connection: StreamId,
    },
    /// The client ended the session.
    Closed,
}

/// One session, without IO.
pub struct PortForward {
    spdy: Spdy,
    tunnel: Option<WebSocket>,
    /// Error streams by the key of their pair.
    half: BTreeMap<String, StreamId>,
    /// Data stream to error stream.
    pairs: BTreeMap<StreamId, StreamId>,
    events: VecDeque<PortForwardEvent>,
}

/// What carries the SPDY bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Plain,
    WebSocket,
}

impl PortForward {
    pub fn new(carrier: Carrier) -> Self {
        Self {
            spdy: Spdy::new(),
            tunnel: (carrier == Carrier::WebSocket).then(WebSocket::new),
            half: BTreeMap::new(),
            pairs: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        match &mut self.tunnel {
            None => self.spdy.receive(bytes)?,
            Some(socket) => {
                socket.receive(bytes)?;
                while let Some(message) = socket.next_message() {
                    match message {
                        Message::Binary(bytes) | Message::Text(bytes) => {
                            self.spdy.receive(&bytes)?
                        }
                        Message::Close => self.events.push_back(PortForwardEvent::Closed),
                    }
                }
            }
        }
        while let Some(event) = self.spdy.next_event() {
            self.take(event);
        }
        Ok(())
    }

    pub fn next_event(&mut self) -> Option<PortForwardEvent> {
        self.events.pop_front()
    }

    pub fn takes_data(&self) -> bool {
        let waiting = self.tunnel.as_ref().map_or(0, WebSocket::output_len);
        waiting < TUNNEL_OUTPUT_BYTES_MAX && self.spdy.takes_data()
    }

    pub fn send(&mut self, connection: StreamId, bytes: Bytes) {
        self.spdy.send(connection, bytes);
    }

    /// The pod closed the connection.
    pub fn finish(&mut self, connection: StreamId) {
        self.spdy.finish(connection);
        if let Some(error) = self.pairs.remove(&connection) {
            self.spdy.finish(error);
        }
    }

    /// The connection failed; the client prints the text.
    pub fn fail(&mut self, connection: StreamId, why: &str) {
        if let Some(error) = self.pairs.remove(&connection) {
            self.spdy.send(error, Bytes::from(why.to_owned()));
            self.spdy.finish(error);
        }
        self.spdy.finish(connection);
    }

    pub fn take_bytes(&mut self) -> Bytes {
        let bytes = self.spdy.take_output();
        match &mut self.tunnel {
            None => bytes,
            Some(socket) => {
                if !bytes.is_empty() {
                    socket.send(Kind::Binary, &[&bytes]);
                }
                socket.take_output()
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Opened { stream, headers } => self.opened(stream, &headers),
            Event::Data { stream, bytes } if self.pairs.contains_key(&stream) => {
                self.events.push_back(PortForwardEvent::Data { connection: stream, bytes });
            }
            Event::Finished { stream } if self.pairs.contains_key(&stream) => {
                self.events.push_back(PortForwardEvent::Finished { connection: stream });
            }
            Event::Reset { stream } => {
                self.half.retain(|_, it| *it != stream);
                if self.pairs.remove(&stream).is_some() {
                    self.events.push_back(PortForwardEvent::Reset { connection: stream });
                }
            }
            Event::Data { .. } | Event::Finished { .. } => {} // The client's half of an error stream.
            Event::GoneAway => self.events.push_back(PortForwardEvent::Closed),
        }
    }

    fn opened(&mut self, stream: StreamId, headers: &Headers) {
        let port = headers.get("port").and_then(|it| it.parse::<u16>().ok()).filter(|it| *it > 0);
        let request = headers.get("requestid").map(str::to_owned);
        match (headers.get("streamtype"), port) {
            (Some("error"), Some(_)) if self.half.len() < HALF_PAIRS_MAX => {
                let key = request.unwrap_or_else(|| stream.to_string());
                self.half.insert(key, stream);
                self.spdy.accept(stream);
            }
            (Some("data"), Some(port)) => {
                let key = request.unwrap_or_else(|| stream.saturating_sub(2).to_string());
                let Some(error) = self.half.remove(&key) else {
                    return self.spdy.reset(stream, PROTOCOL_ERROR);
                };
                self.pairs.insert(stream, error);
                self.spdy.accept(stream);
                self.events.push_back(PortForwardEvent::Opened { connection: stream, port });
            }
            _ => self.spdy.reset(stream, PROTOCOL_ERROR),
        }
    }
}

#[cfg(test)]
mod tests;
