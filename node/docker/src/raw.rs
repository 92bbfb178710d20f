//! Streams of dockerd that are read here byte by byte: logs, exec, attach.
//!
//! bollard guesses from a stream's first byte whether it is framed, and waits for a newline where there is none; a
//! terminal that prints a byte below 3, or never a newline, would be misread or kept without bound. So these three
//! have a connection each, and whether they are framed is known from the container.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kactor_drivers::DriverError;
use kactor_runtime::env::{Env, Lane};
use tokio::net::UnixStream;

use crate::engine::{Engine, chain};

/// Both directions of a session.
pub type Duplex = TokioIo<hyper::upgrade::Upgraded>;

const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Why dockerd gave no stream.
#[derive(Debug)]
pub enum Refusal {
    /// It answered: status code and message.
    Answered(u16, String),
    Unreachable(DriverError),
}

/// A request that dockerd answers with a body that may be endless.
pub async fn body(engine: &Engine, env: &Env, path: &str) -> Result<Incoming, Refusal> {
    let response = send(engine, env, Method::GET, path, None).await?;
    Ok(response.into_body())
}

/// A request after which the connection belongs to the session.
pub async fn upgrade(
    engine: &Engine,
    env: &Env,
    path: &str,
    body: Option<serde_json::Value>,
) -> Result<Duplex, Refusal> {
    let response = send(engine, env, Method::POST, path, body).await?;
    let upgraded = hyper::upgrade::on(response).await;
    upgraded.map(TokioIo::new).map_err(|it| Refusal::Unreachable(engine.unreachable(chain(&it))))
}

async fn send(
    engine: &Engine,
    env: &Env,
    method: Method,
    path: &str,
    body: Option<serde_json::Value>,
) -> Result<Response<Incoming>, Refusal> {
    let lost = |it: &dyn std::error::Error| Refusal::Unreachable(engine.unreachable(chain(it)));
    let socket = UnixStream::connect(&engine.socket).await.map_err(|it| lost(&it))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|it| lost(&it))?;
    env.spawn(Lane::Node, async move {
        let _ = connection.with_upgrades().await; // Its end is seen by whoever reads the stream.
    });
    let version = engine.docker.client_version();
    let uri = format!("/v{}.{}{path}", version.major_version, version.minor_version);
    let mut request = Request::builder().method(&method).uri(uri).header("Host", "docker");
    if method == Method::POST {
        request = request.header("Connection", "Upgrade").header("Upgrade", "tcp");
    }
    let content = body.map(|it| Bytes::from(it.to_string())).unwrap_or_default();
    let request = request.header("Content-Type", "application/json").body(Full::new(content));
    let request = request.map_err(|it| lost(&it))?;
    let response = sender.send_request(request).await.map_err(|it| lost(&it))?;
    match response.status() {
        StatusCode::OK | StatusCode::SWITCHING_PROTOCOLS => Ok(response),
        status => {
            let text = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
            let text = text.map(|it| it.to_bytes()).unwrap_or_default();
            let said: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            let message = said["message"].as_str().unwrap_or("it gave no reason").to_owned();
            Err(Refusal::Answered(status.as_u16(), message))
        }
    }
}
