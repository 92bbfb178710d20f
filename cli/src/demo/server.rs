//! What runs in the demo's pods: a server that answers with its pod's name, and a client for `kubectl exec`.
//!
//! Both are hidden commands of kactor itself, so the demo's image holds nothing else. The server is its container's
//! first process, which ignores SIGTERM unless it asks for it; it stops at once then, as the signal wants.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::args::{DemoClientArgs, DemoServerArgs};
use crate::client::block_on;

/// Connections that are served at the same time; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may live: nobody holds a place for ever.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
const REQUEST_MAX: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 1 << 20;

pub fn serve(args: &DemoServerArgs) -> anyhow::Result<ExitCode> {
    let name = std::env::var("POD_NAME").unwrap_or_else(|_| crate::machine_facts::hostname());
    block_on(async {
        let mut ends = crate::up::Ends::install()?;
        let address = SocketAddr::from(([0, 0, 0, 0], args.port));
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        say(&format!("{name} listens on {}", listener.local_addr()?));
        tokio::select! {
            biased;
            () = ends.next() => say(&format!("{name} was told to stop")),
            () = accept(&listener, &name) => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn accept(listener: &TcpListener, name: &str) {
    let arriving =
        futures::stream::unfold(listener, |it| async move { Some((it.accept().await, it)) });
    arriving
        .for_each_concurrent(CONNECTIONS_MAX, |accepted| async move {
            let Ok((stream, peer)) = accepted else { return };
            let answer = hyper::service::service_fn(|request| answer(request, name, peer));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            // Errors and slow ones concern that client alone.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
        })
        .await;
}

async fn answer(
    request: http::Request<Incoming>,
    name: &str,
    peer: SocketAddr,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let is_probe = request.uri().path() == "/healthz";
    if !is_probe {
        say(&format!("{} {} from {}", request.method(), request.uri().path(), peer.ip()));
    }
    let text = if is_probe { "ok\n".to_owned() } else { format!("hello from {name}\n") };
    Ok(http::Response::new(Full::new(text.into())))
}

fn say(line: &str) {
    // Nobody may read the log.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Asks again and again, each time on a new connection, so that each replica may answer.
pub fn ask(args: &DemoClientArgs) -> anyhow::Result<ExitCode> {
    let target = Target::parse(&args.url)?;
    block_on(async {
        for _ in 0..args.times {
            let answer = tokio::time::timeout(REQUEST_MAX, target.get());
            let answer = answer.await.with_context(|| {
                format!("{} did not answer within {} s", args.url, REQUEST_MAX.as_secs())
            })?;
            print!("{}", answer.with_context(|| format!("asking {}", args.url))?);
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `http://host[:port][/path]`.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    path: String,
}

impl Target {
    fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http"));
        let Some(host) = host else {
            bail!("{url:?} is no URL of the form http://host[:port][/path]");
        };
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
        })
    }

    async fn get(&self) -> anyhow::Result<String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = http::Request::get(&self.path)
            .header(http::header::HOST, &self.host)
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let code = response.status();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|it| anyhow::anyhow!("reading the answer: {it}"))?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            match code.is_success() {
                true => Ok(text),
                false => bail!("it answered {code}: {text}"),
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            ended = connection => {
                ended?;
                bail!("the connection was closed before the answer came")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_with_a_host() {
        let of = |url: &str| Target::parse(url).map(|it| (it.host, it.port, it.path));
        assert_eq!(of("http://hello").unwrap(), ("hello".to_owned(), 80, "/".to_owned()));
        let full = of("http://10.0.0.1:8080/a?b").unwrap();
        assert_eq!(full, ("10.0.0.1".to_owned(), 8080, "/a?b".to_owned()));
        for url in ["hello", "https://hello", "http://", "/a"] {
            assert!(of(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_client_hears_the_servers_name() {
        let heard = block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let port = listener.local_addr()?.port();
            let target = Target::parse(&format!("http://127.0.0.1:{port}"))?;
            tokio::select! {
                biased;
                heard = target.get() => heard,
                () = accept(&listener, "hello-a") => bail!("the server ended"),
            }
        });
        assert_eq!(heard.unwrap(), "hello from hello-a\n");
    }
}
