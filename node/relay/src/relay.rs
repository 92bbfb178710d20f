//! The listening side: takes connections while there is room, finds each a control host, and counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kactor_runtime::env::{Env, Lane, TaskHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::choice::Choice;
use crate::pass::pass;

/// A pause after an accept that failed, as when the process has no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the relay may take.
#[derive(Debug, Clone, Copy)]
pub struct RelayLimits {
    /// Most connections at once; those beyond wait in the listener's queue.
    pub connections_max: u32,
    /// Longest that one control host is waited for before the next is tried.
    pub dial: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self { connections_max: 1024, dial: Duration::from_secs(1) }
    }
}

/// What the relay has done, for status and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub open: u64,
    pub passed_on: u64,
    /// Connections that were closed because no control host answered.
    pub turned_away: u64,
    /// Dials of a control host that failed.
    pub dials_failed: u64,
}

#[derive(Default)]
struct Counters {
    passed_on: AtomicU64,
    turned_away: AtomicU64,
    dials_failed: AtomicU64,
}

/// Relays until it is closed or dropped; connections that are passed on already go on.
pub struct Relay {
    inner: Arc<Inner>,
    accepting: TaskHandle,
    address: SocketAddr,
}

struct Inner {
    env: Env,
    limits: RelayLimits,
    targets: watch::Receiver<Vec<SocketAddr>>,
    choice: Mutex<Choice>,
    room: Arc<Semaphore>,
    counters: Counters,
}

impl Relay {
    /// `targets` are the API addresses of the control hosts that live, the best first; its owner keeps it true.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn start(
        env: &Env,
        listener: std::net::TcpListener,
        targets: watch::Receiver<Vec<SocketAddr>>,
        limits: RelayLimits,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let room = usize::try_from(limits.connections_max).unwrap_or(Semaphore::MAX_PERMITS);
        let inner = Arc::new(Inner {
            env: env.clone(),
            limits,
            targets,
            choice: Mutex::default(),
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            counters: Counters::default(),
        });
        let accepting = env.spawn(Lane::Node, inner.clone().accept(listener));
        Ok(Self { inner, accepting, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counts(&self) -> Counts {
        let counters = &self.inner.counters;
        let free = u64::try_from(self.inner.room.available_permits()).unwrap_or(u64::MAX);
        Counts {
            open: u64::from(self.inner.limits.connections_max).saturating_sub(free),
            passed_on: counters.passed_on.load(Ordering::Relaxed),
            turned_away: counters.turned_away.load(Ordering::Relaxed),
            dials_failed: counters.dials_failed.load(Ordering::Relaxed),
        }
    }

    /// Takes no more connections.
    pub fn close(&self) {
        self.accepting.abort();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    async fn accept(self: Arc<Self>, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(it) => it,
            Err(error) => return tracing::error!(%error, "the API is not relayed on this host"),
        };
        loop {
            // First the room, then the connection: what waits, waits in the kernel's bounded queue.
            let Ok(place) = self.room.clone().acquire_owned().await else { return };
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    self.env.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let me = self.clone();
            self.env.spawn(Lane::Node, async move {
                me.serve(client).await;
                drop(place);
            });
        }
    }

    async fn serve(&self, client: TcpStream) {
        let Some((host, target)) = self.dial().await else {
            self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("no control host answers: a connection is turned away");
            return;
        };
        self.counters.passed_on.fetch_add(1, Ordering::Relaxed);
        pass(client, host, target, self.targets.clone()).await;
    }

    /// The first control host that answers.
    async fn dial(&self) -> Option<(TcpStream, SocketAddr)> {
        let targets = self.targets.borrow().clone();
        let order = self.choice().order(&targets, self.env.monotonic());
        for target in order {
            let dialled = tokio::select! { biased;
                it = TcpStream::connect(target) => it.ok(),
                () = self.env.sleep(self.limits.dial) => None,
            };
            match dialled {
                Some(host) => {
                    self.choice().worked(target);
                    return Some((host, target));
                }
                None => {
                    self.counters.dials_failed.fetch_add(1, Ordering::Relaxed);
                    self.choice().failed(target, self.env.monotonic());
                }
            }
        }
        None
    }

    fn choice(&self) -> std::sync::MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
