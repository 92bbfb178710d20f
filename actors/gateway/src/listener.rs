//! The HTTPS listener: accepts, shakes hands, and gives each connection to one of the gateway's lanes.
//!
//! It decides nothing about requests: a [`Serve`] does. Bounded: connections, header bytes, the time of a
//! handshake, idle time. Draining stops accepting, lets requests in flight end, and ends what remains after a
//! grace. Everything runs as a task of `Env`; hyper's own tasks too ([`LaneExecutor`]).

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kactor_runtime::env::{Env, Lane};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::reply::ReplyBody;
use crate::tls::{ClientCertificates, Peer};

/// Requests at once on one HTTP/2 connection: a node agent or an operator holds hundreds of watches on one.
const STREAMS_PER_CONNECTION_MAX: u32 = 2000;
const HEADER_BYTES_MAX: usize = 64 * 1024;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// An HTTP/1.1 connection without a request, or with half a header, ends after this.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(120);
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_WAIT_MAX: Duration = Duration::from_secs(15);
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// After a failed accept (out of file descriptors) nothing is accepted for this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection knows of its client.
#[derive(Debug, Clone)]
pub struct Connection {
    pub peer: Peer,
    pub address: SocketAddr,
    /// The lane that serves it; tasks that belong to the connection run there too.
    pub lane: Lane,
}

/// Answers requests. It never fails: what goes wrong is an answer too.
pub trait Serve: Send + Sync + 'static {
    fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>;
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {source}; choose another with --listen IP:PORT")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A listening socket that is served. Dropping it does not stop it; [`Listener::drain`] does.
pub struct Listener {
    address: SocketAddr,
    draining: watch::Sender<Draining>,
    connections: Arc<Semaphore>,
    connections_max: usize,
    env: Env,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    No,
    /// Accept nothing more, end connections when their requests have ended.
    Gently,
    /// End connections now.
    Now,
}

impl Listener {
    /// Binds at once, so that a port in use is the caller's error; serves on the gateway's lanes, so many connections
    /// at once.
    pub fn start(
        env: &Env,
        address: SocketAddr,
        tls: (Arc<ServerConfig>, ClientCertificates),
        serve: Arc<dyn Serve>,
        connections_max: usize,
    ) -> Result<Self, ListenError> {
        let bound = StdListener::bind(address)
            .and_then(|it| Self::serve_on(env, it, tls, serve, connections_max));
        bound.map_err(|source| ListenError::Bind { address, source })
    }

    /// Serves a socket that is bound already.
    pub fn serve_on(
        env: &Env,
        socket: StdListener,
        tls: (Arc<ServerConfig>, ClientCertificates),
        serve: Arc<dyn Serve>,
        connections_max: usize,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let (draining, drained) = watch::channel(Draining::No);
        let connections = Arc::new(Semaphore::new(connections_max));
        let accept = Accept {
            env: env.clone(),
            tls: TlsAcceptor::from(tls.0),
            judge: tls.1,
            serve,
            connections: Arc::clone(&connections),
            draining: drained,
        };
        env.spawn(Lane::Gateway(0), accept.run(socket));
        Ok(Self { address: local, draining, connections, connections_max, env: env.clone() })
    }

    /// Where it listens, with the port that the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.connections_max - self.connections.available_permits()
    }

    /// Accepts no more, waits up to `grace` for requests in flight, then ends every connection.
    pub async fn drain(&self, grace: Duration) {
        self.draining.send_replace(Draining::Gently);
        let all = u32::try_from(self.connections_max).expect("a few thousand");
        let gone = pin!(self.connections.acquire_many(all));
        if let Either::Right((_, _)) = select(gone, self.env.sleep(grace)).await {
            self.draining.send_replace(Draining::Now);
        }
    }
}

struct Accept {
    env: Env,
    tls: TlsAcceptor,
    judge: ClientCertificates,
    serve: Arc<dyn Serve>,
    connections: Arc<Semaphore>,
    draining: watch::Receiver<Draining>,
}

impl Accept {
    async fn run(self, socket: StdListener) {
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "the listening socket cannot be registered with the event loop");
                return;
            }
        };
        let mut next_lane = 0;
        let mut draining = self.draining.clone();
        let mut drained = pin!(async move {
            let _ = draining.wait_for(|it| *it != Draining::No).await;
        });
        loop {
            let accepted = pin!(self.accept(&socket));
            let (stream, address, permit) = match select(drained.as_mut(), accepted).await {
                Either::Left(_) => return,
                Either::Right((Ok(accepted), _)) => accepted,
                Either::Right((Err(error), _)) => {
                    tracing::warn!(%error, "accepting a connection failed; trying again in 100 ms");
                    self.env.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let lane = Lane::Gateway(next_lane);
            next_lane = (next_lane + 1) % self.env.gateway_lanes.max(1);
            self.hand_over(lane, stream, address, permit);
        }
    }

    /// At the limit the next client waits in the kernel's queue.
    async fn accept(
        &self,
        socket: &TcpListener,
    ) -> io::Result<(StdStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.connections)
            .acquire_owned()
            .await
            .map_err(|_| io::Error::other("the listener's semaphore was closed"))?;
        let (stream, address) = socket.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream.into_std()?, address, permit))
    }

    fn hand_over(
        &self,
        lane: Lane,
        stream: StdStream,
        address: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let (env, tls) = (self.env.clone(), self.tls.clone());
        let (judge, serve) = (self.judge.clone(), Arc::clone(&self.serve));
        let draining = self.draining.clone();
        self.env.spawn(lane, async move {
            let _permit = permit;
            let shaken = pin!(shake_hands(&env, stream, tls));
            let stream = match select(shaken, env.sleep(HANDSHAKE_TIME_MAX)).await {
                Either::Left((Ok(stream), _)) => stream,
                Either::Left((Err(error), _)) => {
                    tracing::debug!(%address, %error, "TLS handshake failed");
                    return;
                }
                Either::Right(_) => return,
            };
            let peer = judge.judge(stream.get_ref().1.peer_certificates(), &env);
            let connection = Arc::new(Connection { peer, address, lane });
            converse(&env, stream, connection, serve, draining).await;
        });
    }
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

async fn shake_hands(_env: &Env, stream: StdStream, tls: TlsAcceptor) -> io::Result<Stream> {
    tls.accept(TcpStream::from_std(stream)?).await
}

async fn converse(
    env: &Env,
    stream: Stream,
    connection: Arc<Connection>,
    serve: Arc<dyn Serve>,
    mut draining: watch::Receiver<Draining>,
) {
    let executor = LaneExecutor { env: env.clone(), lane: connection.lane };
    let builder = http_builder(executor);
    let address = connection.address;
    let service = hyper::service::service_fn(move |request| {
        let (serve, connection) = (Arc::clone(&serve), Arc::clone(&connection));
        async move { Ok::<_, std::convert::Infallible>(serve.serve(request, connection).await) }
    });
    let mut http = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut told = Draining::No;
    loop {
        let ended = {
            let changed = pin!(draining.wait_for(move |it| *it != told));
            match select(http.as_mut(), changed).await {
                Either::Left((result, _)) => Some(result),
                Either::Right((Ok(now), _)) if *now == Draining::Gently => None,
                Either::Right(_) => Some(Ok(())), // Now, or the listener is gone.
            }
        };
        match ended {
            Some(Ok(())) => return,
            Some(Err(error)) => {
                tracing::debug!(%address, %error, "a connection ended with an error");
                return;
            }
            None => {
                told = Draining::Gently;
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

fn http_builder(executor: LaneExecutor) -> auto::Builder<LaneExecutor> {
    let mut builder = auto::Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT_MAX);
    builder
}

/// Runs hyper's tasks (one for each HTTP/2 stream) on the connection's lane.
#[derive(Clone)]
struct LaneExecutor {
    env: Env,
    lane: Lane,
}

impl<F> hyper::rt::Executor<F> for LaneExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.env.spawn(self.lane, future);
    }
}
