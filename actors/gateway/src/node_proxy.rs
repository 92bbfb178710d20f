//! `nodes/NAME/proxy/…`: the kubelet's API of a node, through the node's session.
//!
//! A real kube-apiserver dials the node's port. Here the request travels as HTTP/1.1 on a stream of the session: a
//! node behind another network is reached as well, no second connection has to be trusted, and upgrades go through.
//! The client's right is asked here (`nodes/proxy`, as upstream); the kubelet trusts the control plane then. An
//! upgrade runs something in a container, so it needs `create` whatever its method, as `pods/exec` does.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Either, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kactor_api::{
    Attributes, Caller, Operation, Options, Reason, Request as ApiRequest, Resource, Status, User,
};
use kactor_streams::PortConnection;
use kactor_streams::node_streams::CHUNK_BYTES_MAX;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::containers::refused;
use crate::gateway::{Asked, Gateway, method_not_allowed};
use crate::reply::{Reply, ReplyBody};

/// Who looks the node up for a request that was permitted.
const LOOKUP_AGENT: &str = "kactor-gateway";

pub(crate) fn is_node_proxy(resource: &Resource) -> bool {
    resource.group.is_empty()
        && resource.resource == "nodes"
        && resource.subresource.as_deref() == Some("proxy")
}

pub(crate) async fn serve(
    gateway: &Arc<Gateway>,
    asked: Asked,
    resource: Resource,
) -> Result<Reply, Status> {
    let upgrades = asked.headers.contains_key(UPGRADE);
    let verb = match asked.method.as_str() {
        _ if upgrades => "create",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => return Err(method_not_allowed()),
    };
    let id = resource.name.clone().unwrap_or_default();
    let (node, port) = node_and_port(&id)
        .ok_or_else(|| Status::bad_request(format!("invalid node request {id:?}")))?;
    let named = Resource { name: Some(node.to_owned()), ..resource };
    gateway.api.require(&Attributes::new(&asked.caller.user, verb, &named))?;
    check_node(gateway, &asked, node, port).await?;
    let uri = proxied(asked.http.uri())
        .ok_or_else(|| Status::bad_request("the proxied path is no path"))?;
    let connection = gateway.nodes.open_kubelet(node.to_owned()).await.map_err(refused)?;
    forward(gateway, asked, uri, connection).await
}

/// `NAME`, `NAME:PORT`, `SCHEME:NAME:PORT`; the kubelet speaks https whatever is said.
fn node_and_port(id: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (node, port) = match parts.as_slice() {
        [node] => (*node, ""),
        [node, port] => (*node, *port),
        ["http" | "https", node, port] => (*node, *port),
        _ => return None,
    };
    (!node.is_empty()).then_some((node, port))
}

/// The node must be there, and only its kubelet's port is reached this way.
async fn check_node(
    gateway: &Gateway,
    asked: &Asked,
    node: &str,
    port: &str,
) -> Result<(), Status> {
    let request = ApiRequest {
        caller: Caller::internal(User::api(), LOOKUP_AGENT, asked.caller.trace),
        resource: Resource::new("", "v1", "nodes").named(node),
        operation: Operation::Get,
        options: Options::default(),
        body: None,
        deadline: asked.deadline,
    };
    let tree = gateway.api.handle(request).await?.object.to_tree();
    let own = tree.pointer("/status/daemonEndpoints/kubeletEndpoint/Port");
    let own = own.and_then(serde_json::Value::as_u64).map(|it| it.to_string());
    if port.is_empty() || own.as_deref() == Some(port) {
        return Ok(());
    }
    let own = own.unwrap_or_else(|| "not known yet".to_owned());
    Err(Status::bad_request(format!(
        "port {port} of node {node} is not proxied, only its kubelet's, which is {own}"
    )))
}

/// What follows `/api/v1/nodes/NAME/proxy`, as it was written, with the query.
fn proxied(uri: &Uri) -> Option<Uri> {
    let mut rest = uri.path();
    for _ in 0..5 {
        let begun = rest.trim_start_matches('/');
        rest = &begun[begun.find('/').unwrap_or(begun.len())..];
    }
    let path = if rest.is_empty() { "/" } else { rest };
    match uri.query() {
        Some(query) => format!("{path}?{query}").parse().ok(),
        None => path.parse().ok(),
    }
}

/// What is between this client and us only.
fn strip(headers: &mut HeaderMap, upgrades: bool) {
    let ours = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("impersonate-")
            || matches!(name, "authorization" | "host" | "te" | "keep-alive" | "proxy-connection")
            || (!upgrades && matches!(name, "connection" | "upgrade"))
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|it| ours(it)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

async fn forward(
    gateway: &Gateway,
    asked: Asked,
    uri: Uri,
    connection: PortConnection,
) -> Result<Reply, Status> {
    let lost = |it: hyper::Error| {
        Status::new(Reason::ServiceUnavailable, format!("error trying to reach service: {it}"))
    };
    let (mut sender, driven) =
        hyper::client::conn::http1::handshake(TokioIo::new(duplex(connection)))
            .await
            .map_err(lost)?;
    let lane = asked.connection.lane;
    gateway.env.spawn(lane, async move {
        if let Err(error) = driven.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection to a kubelet ended");
        }
    });
    let upgrades = asked.headers.contains_key(UPGRADE);
    let body = asked.body.take().map_or_else(|| Either::Right(Empty::<Bytes>::new()), Either::Left);
    let mut client = asked.http;
    let mut request = Request::new(body);
    *request.method_mut() = asked.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = asked.headers;
    strip(request.headers_mut(), upgrades);
    request.headers_mut().insert(HOST, HeaderValue::from_static("kubelet"));
    let mut answer = sender.send_request(request).await.map_err(lost)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (ours, theirs) = (hyper::upgrade::on(&mut client), hyper::upgrade::on(&mut answer));
        gateway.env.spawn(lane, async move {
            let (Ok(ours), Ok(theirs)) = (ours.await, theirs.await) else { return };
            let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
            // An end of either side is the end; there is nobody left to tell of an error.
            let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
        });
        let (head, _) = answer.into_parts();
        return Ok(Response::from_parts(head, ReplyBody::empty()));
    }
    Ok(returned(answer))
}

fn returned(answer: Response<Incoming>) -> Reply {
    let (mut head, body) = answer.into_parts();
    head.headers.remove(CONNECTION);
    // A kubelet that goes away in the middle ends the body; the status was sent already.
    let bytes = body.into_data_stream().take_while(|it| std::future::ready(it.is_ok()));
    Response::from_parts(
        head,
        ReplyBody::stream(bytes.filter_map(|it| std::future::ready(it.ok()))),
    )
}

/// The session's stream as something that reads and writes.
fn duplex(
    connection: PortConnection,
) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static {
    use futures::SinkExt;
    let read = connection.from_pod.map(|it| it.map_err(std::io::Error::other));
    let broken = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let write = connection.to_pod.sink_map_err(broken).with_flat_map(|bytes: Bytes| {
        futures::stream::iter(pieces(bytes).into_iter().map(Ok::<_, std::io::Error>))
    });
    tokio::io::join(StreamReader::new(read), SinkWriter::new(CopyToBytes::new(write)))
}

/// Readers of a stream rely on a chunk's size.
fn pieces(mut bytes: Bytes) -> Vec<Bytes> {
    let mut all = Vec::with_capacity(bytes.len() / CHUNK_BYTES_MAX + 1);
    while !bytes.is_empty() {
        all.push(bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_alone_or_with_scheme_and_port() {
        assert_eq!(node_and_port("n1"), Some(("n1", "")));
        assert_eq!(node_and_port("n1:10250"), Some(("n1", "10250")));
        assert_eq!(node_and_port("https:n1:"), Some(("n1", "")));
        for bad in ["", ":1", "ftp:n1:1", "a:b:c:d"] {
            assert_eq!(node_and_port(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_follows_proxy_is_passed_on_as_it_was_written() {
        for (given, expected) in [
            ("/api/v1/nodes/n1/proxy", "/"),
            ("/api/v1/nodes/n1/proxy/", "/"),
            ("/api/v1/nodes/n1/proxy/stats/summary", "/stats/summary"),
            ("/api/v1/nodes/https:n1:/proxy/pods/?x=%20a", "/pods/?x=%20a"),
            ("/api/v1/nodes/n1/proxy/exec/a%2Fb/proxy", "/exec/a%2Fb/proxy"),
        ] {
            assert_eq!(proxied(&given.parse().unwrap()).unwrap().to_string(), expected, "{given}");
        }
    }

    #[test]
    fn what_proves_who_the_client_is_stays_here() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "impersonate-user", "connection", "upgrade", "accept"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        let mut upgrading = headers.clone();
        strip(&mut headers, false);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
        strip(&mut upgrading, true);
        assert_eq!(upgrading.len(), 3);
    }

    #[test]
    fn chunks_stay_within_their_bound() {
        let sizes = |n: usize| pieces(Bytes::from(vec![0; n])).iter().map(Bytes::len).collect();
        let all: Vec<usize> = sizes(CHUNK_BYTES_MAX * 2 + 1);
        assert_eq!(all, [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 1]);
        assert!(pieces(Bytes::new()).is_empty());
    }
}
