//! Exec, attach and port-forward: the HTTP upgrade, then the connection belongs to kactor-streams.
//!
//! Everything that can be refused is refused before the 101: permission, pod, container, protocol, and the node's
//! own no. After it the status travels on the session's error stream. WebSockets upgrade by GET, which RBAC calls
//! `get`; as Kubernetes since 1.35 that needs `create` too, so that a reader of pods cannot run commands in them.

use std::sync::Arc;

use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kactor_api::{Attributes, Reason, Resource, Status};
use kactor_runtime::env::Env;
use kactor_streams::port_forward::{Carrier, PortForward, SPDY_PROTOCOL, TUNNEL_PROTOCOL};
use kactor_streams::remote_command::{
    CommandSession, SpdyCommand, WebSocketCommand, choose_spdy, choose_websocket,
};
use kactor_streams::serve::{ServeError, serve_command, serve_port_forward};
use kactor_streams::websocket::accept_key;
use kactor_streams::{
    AttachRequest, BoxFuture, ContainerStreams, ExecRequest, NodeStreams, PodTarget,
    PortConnection, PortForwardRequest, StdStreams, StreamError,
};
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::containers::{find_pod, refused};
use crate::gateway::{Asked, Gateway, method_not_allowed};
use crate::query::Query;
use crate::reply::{Reply, ReplyBody};

static STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SPDY: &str = "SPDY/3.1";

/// What the client upgrades to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Spdy,
    WebSocket,
}

/// The rest of the connection's life, once it is upgraded.
enum Session {
    Command(Box<dyn CommandSession>, ContainerStreams),
    PortForward(Box<PortForward>, PodTarget),
}

pub(crate) async fn serve(
    gateway: &Arc<Gateway>,
    asked: Asked,
    resource: Resource,
) -> Result<Reply, Status> {
    let verb = match asked.method.as_str() {
        "GET" => "get",
        "POST" => "create",
        _ => return Err(method_not_allowed()),
    };
    let pod = find_pod(gateway, &asked, verb, &resource).await?;
    if verb == "get" {
        gateway.api.require(&Attributes::new(&asked.caller.user, "create", &resource))?;
    }
    let transport = transport(&asked.headers)?;
    let mut head = Response::new(ReplyBody::empty());
    *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    shake(transport, &asked.headers, head.headers_mut())?;
    let session = match resource.subresource.as_deref() {
        Some("portforward") => {
            let carrier = agree_on_port_forward(transport, &asked.headers, head.headers_mut())?;
            Session::PortForward(Box::new(PortForward::new(carrier)), pod.target()?)
        }
        sub => {
            let streams = std_streams(&asked.query)?;
            let target = pod.container_target(asked.query.get("container"))?;
            let session = agree_on_command(transport, &asked.headers, streams, head.headers_mut())?;
            let opened = if sub == Some("exec") {
                let command: Vec<String> = asked.query.all("command").map(str::to_owned).collect();
                if command.is_empty() {
                    return Err(Status::bad_request(
                        "you must specify at least 1 command for the container",
                    ));
                }
                gateway.nodes.open_exec(ExecRequest { target, command, streams }).await
            } else {
                gateway.nodes.open_attach(AttachRequest { target, streams }).await
            };
            Session::Command(session, opened.map_err(refused)?)
        }
    };
    hand_over(gateway, asked, session);
    Ok(head)
}

/// The connection's task begins when hyper gives the connection away, after the 101 was sent.
fn hand_over(gateway: &Gateway, asked: Asked, session: Session) {
    let (env, nodes) = (gateway.env.clone(), Arc::clone(&gateway.nodes));
    let (audit_id, address) = (asked.caller.audit_id, asked.connection.address);
    let upgrade = hyper::upgrade::on(asked.http);
    gateway.env.spawn(asked.connection.lane, async move {
        let io = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded).compat(),
            Err(error) => {
                tracing::debug!(%audit_id, %address, %error, "the client left before the upgrade");
                return;
            }
        };
        if let Err(error) = converse(&env, &nodes, io, session).await {
            tracing::debug!(%audit_id, %address, %error, "a stream ended with an error");
        }
    });
}

async fn converse<IO>(
    env: &Env,
    nodes: &Arc<dyn NodeStreams>,
    io: IO,
    session: Session,
) -> Result<(), ServeError>
where
    IO: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let clock = env.clone();
    let sleep = move |time| -> BoxFuture<'static, ()> { clock.sleep(time) };
    match session {
        Session::Command(session, streams) => serve_command(io, session, streams, &sleep).await,
        Session::PortForward(session, target) => {
            let nodes = Arc::clone(nodes);
            let connect = move |port| -> BoxFuture<'static, Result<PortConnection, StreamError>> {
                let (nodes, target) = (Arc::clone(&nodes), target.clone());
                Box::pin(async move {
                    nodes.open_port_forward(PortForwardRequest { target, port }).await
                })
            };
            serve_port_forward(io, *session, &connect, &sleep).await
        }
    }
}

fn transport(headers: &HeaderMap) -> Result<Transport, Status> {
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
    Err(Status::bad_request("Upgrade request required"))
}

/// The half of the answer that does not depend on what is carried.
fn shake(transport: Transport, asked: &HeaderMap, answer: &mut HeaderMap) -> Result<(), Status> {
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
                return Err(Status::bad_request(why));
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

fn no_protocol(offered: &[&str], known: &[&str]) -> Status {
    let why = format!(
        "unable to negotiate protocol: client supports {offered:?}, server accepts {known:?}"
    );
    Status::new(Reason::Forbidden, why)
}

fn agree_on_command(
    transport: Transport,
    headers: &HeaderMap,
    streams: StdStreams,
    answer: &mut HeaderMap,
) -> Result<Box<dyn CommandSession>, Status> {
    use kactor_streams::remote_command::{SPDY_PROTOCOLS, WEBSOCKET_PROTOCOLS};
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

fn agree_on_port_forward(
    transport: Transport,
    headers: &HeaderMap,
    answer: &mut HeaderMap,
) -> Result<Carrier, Status> {
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

fn std_streams(query: &Query) -> Result<StdStreams, Status> {
    let streams = StdStreams {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
    };
    // With a terminal stderr is part of stdout, so it does not count.
    if !streams.stdin && !streams.stdout && (!streams.stderr || streams.tty) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(streams)
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
        assert_eq!(transport(&HeaderMap::new()).unwrap_err().code, 400);
        let old = headers(&[("sec-websocket-version", "8"), ("sec-websocket-key", "x")]);
        assert_eq!(shake(Transport::WebSocket, &old, &mut HeaderMap::new()).unwrap_err().code, 400);
        let chat = headers(&[("sec-websocket-protocol", "chat")]);
        let refused =
            agree_on_port_forward(Transport::WebSocket, &chat, &mut HeaderMap::new()).unwrap_err();
        assert_eq!(refused.code, 403);
        assert!(std_streams(&Query::parse("tty=1&stderr=1")).is_err());
        assert!(std_streams(&Query::parse("stdin=1&tty=1")).is_ok());
    }
}
