//! Exec and attach: which protocol is spoken, and one machine for each transport with the same events.
//!
//! References: k8s.io/apimachinery pkg/util/remotecommand (versions), k8s.io/kubelet streaming (SPDY streams named by
//! `streamType`), k8s.io/apiserver wsstream and KEP-4006 (WebSocket channels, CLOSE in v5).

use bytes::Bytes;
use serde_json::{Value, json};

use crate::node_streams::{Outcome, Output, StdStreams, TerminalSize};
use crate::spdy::SpdyError;
use crate::websocket::WebSocketError;

mod spdy_command;
mod websocket_command;

pub use spdy_command::SpdyCommand;
pub use websocket_command::WebSocketCommand;

/// What the versions added: 2 fixed half-closing, 3 resizing, 4 the exit code as a Status, 5 closing one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1,
    V2,
    V3,
    V4,
    V5,
}

/// The names of SPDY's protocols, newest first: `X-Stream-Protocol-Version`.
pub const SPDY_PROTOCOLS: [(&str, Version); 4] = [
    ("v4.channel.k8s.io", Version::V4),
    ("v3.channel.k8s.io", Version::V3),
    ("v2.channel.k8s.io", Version::V2),
    ("channel.k8s.io", Version::V1),
];

/// How the bytes of a WebSocket channel stand in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Binary,
    Base64,
}

/// The names of WebSocket subprotocols.
pub const WEBSOCKET_PROTOCOLS: [(&str, Version, Encoding); 5] = [
    ("v5.channel.k8s.io", Version::V5, Encoding::Binary),
    ("v4.channel.k8s.io", Version::V4, Encoding::Binary),
    ("v4.base64.channel.k8s.io", Version::V4, Encoding::Base64),
    ("channel.k8s.io", Version::V1, Encoding::Binary),
    ("base64.channel.k8s.io", Version::V1, Encoding::Base64),
];

/// The first that the client offers and that is known. A client that offers none speaks the oldest, unnamed.
pub fn choose_spdy(offered: &[&str]) -> Option<(Option<&'static str>, Version)> {
    if offered.is_empty() {
        return Some((None, Version::V1));
    }
    offered.iter().find_map(|name| {
        let (name, version) = SPDY_PROTOCOLS.iter().find(|(it, _)| it == name)?;
        Some((Some(*name), *version))
    })
}

/// The same for WebSocket subprotocols.
pub fn choose_websocket(offered: &[&str]) -> Option<(Option<&'static str>, Version, Encoding)> {
    if offered.is_empty() {
        return Some((None, Version::V1, Encoding::Binary));
    }
    offered.iter().find_map(|name| {
        let (name, version, encoding) = WEBSOCKET_PROTOCOLS.iter().find(|(it, _, _)| it == name)?;
        Some((Some(*name), *version, *encoding))
    })
}

/// What the client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEvent {
    /// Every stream is there; output may flow.
    Ready,
    Stdin(Bytes),
    StdinClosed,
    Resize(TerminalSize),
    /// The client ended the session.
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Spdy(#[from] SpdyError),
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    #[error("the client sent a message on channel {0}, which there is not")]
    Channel(u8),
    #[error("the client sent base64 that is none")]
    Base64,
}

/// One exec or attach on one connection, without IO.
pub trait CommandSession: Send {
    /// Takes bytes from the client.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), SessionError>;
    fn next_event(&mut self) -> Option<CommandEvent>;
    /// Whether more output is welcome; false while the client is slow.
    fn takes_output(&self) -> bool;
    /// What the container wrote; of a stream that was not asked for it is dropped.
    fn write(&mut self, output: Output);
    /// Ends all streams and says how it ended. Nothing is written after it.
    fn finish(&mut self, outcome: &Outcome);
    /// Bytes for the client; empty when there are none.
    fn take_bytes(&mut self) -> Bytes;
}

/// With a terminal there is no stderr of its own.
pub(crate) fn effective(streams: StdStreams) -> StdStreams {
    StdStreams { stderr: streams.stderr && !streams.tty, ..streams }
}

/// The `Status` that ends a session of version 4 and later.
pub fn status(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        Outcome::Exited(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Outcome::Failed(why) => {
            let why = format!("error executing command in container: {why}");
            json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {why}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": why}]},
                "code": 500,
            })
        }
    }
}

/// What the error stream carries at the end. Before version 4 that is text, and nothing for a success.
pub(crate) fn last_words(version: Version, outcome: &Outcome) -> Bytes {
    let status = status(outcome);
    if version >= Version::V4 {
        return Bytes::from(status.to_string());
    }
    Bytes::from(status["message"].as_str().unwrap_or_default().to_owned())
}

/// `{"Width":80,"Height":24}`; clients end each with a newline.
pub(crate) fn terminal_size(json: &[u8]) -> Option<TerminalSize> {
    serde_json::from_slice(json.trim_ascii()).ok()
}

#[cfg(test)]
mod tests;
