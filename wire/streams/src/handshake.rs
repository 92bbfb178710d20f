//! The HTTP upgrade to SPDY or a WebSocket: what a client offers, what is agreed, and the rest of the connection's life.
//!
//! Shared by the gateway and the kubelet's API, which speak the same to their clients (kubernetes
//! staging/src/k8s.io/apimachinery/pkg/util/httpstream). Everything that can be refused is refused here, before the
//! 101; the caller turns a [`Refused`] into its own answer.

use std::sync::Arc;

use futures::io::{AsyncRead, AsyncWrite};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};

use crate::node_streams::{
    BoxFuture, ContainerStreams, NodeStreams, PodTarget, PortConnection, PortForwardRequest,
    StdStreams, StreamError,
};
use crate::port_forward::{Carrier, PortForward, SPDY_PROTOCOL, TUNNEL_PROTOCOL};
use crate::remote_command::{
    CommandSession, SPDY_PROTOCOLS, SpdyCommand, WEBSOCKET_PROTOCOLS, WebSocketCommand,
    choose_spdy, choose_websocket,
};
use crate::serve::{ServeError, Sleep, serve_command, serve_port_forward};
use crate::websocket::accept_key;

static STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SPDY: &str = "SPDY/3.1";

/// What the client upgrades to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Spdy,
    WebSocket,
}

/// Why there is no 101.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 400.
    #[error("{0}")]
    BadRequest(String),
    /// 403, as Kubernetes answers when no protocol is common.
    #[error("{0}")]
    Forbidden(String),
}

/// What an upgraded connection carries.
pub enum Session {
    Command(Box<dyn CommandSession>, ContainerStreams),
    PortForward(Box<PortForward>, PodTarget),
}

impl Session {
    /// Serves the connection to its end.
    pub async fn converse<IO>(
        self,
        io: IO,
        nodes: &Arc<dyn NodeStreams>,
        sleep: Sleep<'_>,
    ) -> Result<(), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        match self {
            Session::Command(session, streams) => serve_command(io, session, streams, sleep).await,
            Session::PortForward(session, target) => {
                let connect =
                    move |port| -> BoxFuture<'static, Result<PortConnection, StreamError>> {
                        let (nodes, target) = (Arc::clone(nodes), target.clone());
                        Box::pin(async move {
                            nodes.open_port_forward(PortForwardRequest { target, port }).await
                        })
                    };
                serve_port_forward(io, *session, &connect, sleep).await
            }
        }
    }
}

pub fn transport(headers: &HeaderMap) -> Result<Transport, Refused> {
    let mentions = |name: HeaderName, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|it| it.to_str().ok())
            .flat_map(|it| it.split(','))
            .any(|it| it.trim().eq_ignore_ascii_case(word))
    };
    if mentions(CONNECTION, "upgrade") {
        if mentions(UPGRADE, "websocket") {
            return Ok(Transport::WebSocket);
        }
        if mentions(UPGRADE, SPDY) {
            return Ok(Transport::Spdy);
        }
    }
    Err(Refused::BadRequest("Upgrade request required".to_owned()))
}

/// The half of the answer that does not depend on what is carried.
pub fn shake(
    transport: Transport,
    asked: &HeaderMap,
    answer: &mut HeaderMap,
) -> Result<(), Refused> {
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    match transport {
        Transport::Spdy => {
            answer.insert(UPGRADE, HeaderValue::from_static(SPDY));
        }
        Transport::WebSocket => {
            let version = asked.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
            let key = asked.get(SEC_WEBSOCKET_KEY).and_then(|it| it.to_str().ok());
            let (Some(b"13"), Some(key)) = (version, key) else {
                let why = "a WebSocket needs Sec-WebSocket-Version: 13 and a Sec-WebSocket-Key";
                return Err(Refused::BadRequest(why.to_owned()));
            };
            let accept = HeaderValue::from_str(&accept_key(key)).expect("base64 is a header value");
            answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
            answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
    }
    Ok(())
}

/// The protocols that the client offers, in its order.
fn offered(transport: Transport, headers: &HeaderMap) -> Vec<&str> {
    let name = match transport {
        Transport::Spdy => STREAM_PROTOCOL.clone(),
        Transport::WebSocket => SEC_WEBSOCKET_PROTOCOL,
    };
    headers
        .get_all(name)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect()
}

fn agree(transport: Transport, name: Option<&'static str>, answer: &mut HeaderMap) {
    if let Some(name) = name {
        let header = match transport {
            Transport::Spdy => STREAM_PROTOCOL.clone(),
            Transport::WebSocket => SEC_WEBSOCKET_PROTOCOL,
        };
        answer.insert(header, HeaderValue::from_static(name));
    }
}

fn no_protocol(offered: &[&str], known: &[&str]) -> Refused {
    Refused::Forbidden(format!(
        "unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}"
    ))
}

pub fn agree_on_command(
    transport: Transport,
    headers: &HeaderMap,
    streams: StdStreams,
    answer: &mut HeaderMap,
) -> Result<Box<dyn CommandSession>, Refused> {
    let offered = offered(transport, headers);
    match transport {
        Transport::Spdy => {
            let (name, version) = choose_spdy(&offered)
                .ok_or_else(|| no_protocol(&offered, &SPDY_PROTOCOLS.map(|it| it.0)))?;
            agree(transport, name, answer);
            Ok(Box::new(SpdyCommand::new(version, streams)))
        }
        Transport::WebSocket => {
            let (name, version, encoding) = choose_websocket(&offered)
                .ok_or_else(|| no_protocol(&offered, &WEBSOCKET_PROTOCOLS.map(|it| it.0)))?;
            agree(transport, name, answer);
            Ok(Box::new(WebSocketCommand::new(version, encoding, streams)))
        }
    }
}

pub fn agree_on_port_forward(
    transport: Transport,
    headers: &HeaderMap,
    answer: &mut HeaderMap,
) -> Result<Carrier, Refused> {
    let offered = offered(transport, headers);
    let (known, carrier) = match transport {
        Transport::Spdy => (SPDY_PROTOCOL, Carrier::Plain),
        Transport::WebSocket => (TUNNEL_PROTOCOL, Carrier::WebSocket),
    };
    if !offered.contains(&known) {
        return Err(no_protocol(&offered, &[known]));
    }
    agree(transport, Some(known), answer);
    Ok(carrier)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn an_upgrade_is_answered_with_what_was_agreed() {
        let spdy = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ]);
        let mut answer = HeaderMap::new();
        let found = transport(&spdy).unwrap();
        shake(found, &spdy, &mut answer).unwrap();
        agree_on_command(found, &spdy, StdStreams::default(), &mut answer).unwrap();
        assert_eq!(answer["upgrade"], "SPDY/3.1");
        assert_eq!(answer["x-stream-protocol-version"], "v4.channel.k8s.io");

        let socket = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io"),
        ]);
        let mut answer = HeaderMap::new();
        let found = transport(&socket).unwrap();
        shake(found, &socket, &mut answer).unwrap();
        assert_eq!(agree_on_port_forward(found, &socket, &mut answer).unwrap(), Carrier::WebSocket);
        assert_eq!(answer["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer["sec-websocket-protocol"], TUNNEL_PROTOCOL);
    }

    #[test]
    fn what_cannot_be_upgraded_is_refused_before_the_101() {
        let bad = |it: Refused| matches!(it, Refused::BadRequest(_));
        assert!(bad(transport(&HeaderMap::new()).unwrap_err()));
        let old = headers(&[("sec-websocket-version", "8"), ("sec-websocket-key", "x")]);
        assert!(bad(shake(Transport::WebSocket, &old, &mut HeaderMap::new()).unwrap_err()));
        let chat = headers(&[("sec-websocket-protocol", "chat")]);
        let refused =
            agree_on_port_forward(Transport::WebSocket, &chat, &mut HeaderMap::new()).unwrap_err();
        assert!(matches!(refused, Refused::Forbidden(_)), "{refused}");
    }
}
