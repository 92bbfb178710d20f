//! What QUIC runs on: tasks and time of the host's `Env`, which this crate can't name, behind quinn's own seam.
//!
//! Sockets stay tokio's: links are made and run on one event loop. What is simulated is the seam above links.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// Tasks and time.
pub trait Ground: Send + Sync + 'static {
    /// Runs a task on the event loop that links were made on.
    fn spawn(&self, task: BoxFuture<'static, ()>);
    /// Time that never goes back.
    fn now(&self) -> Duration;
    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()>;
}

/// Lets links run on `ground`.
pub fn runtime(ground: Arc<dyn Ground>) -> Arc<dyn Runtime> {
    let start = TokioRuntime.now();
    Arc::new(OnGround(Clock { begun: ground.now(), ground, start }))
}

/// QUIC's instants, counted from one moment by the ground's clock.
#[derive(Clone)]
struct Clock {
    ground: Arc<dyn Ground>,
    start: Instant,
    begun: Duration,
}

impl Clock {
    fn instant(&self) -> Instant {
        self.start + self.ground.now().saturating_sub(self.begun)
    }

    fn time(&self, at: Instant) -> Duration {
        self.begun + at.saturating_duration_since(self.start)
    }
}

struct OnGround(Clock);

impl fmt::Debug for OnGround {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnGround")
    }
}

impl Runtime for OnGround {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer { clock: self.0.clone(), at, armed: None })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.ground.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        self.0.instant()
    }
}

/// QUIC moves its timers with nearly every packet, mostly to later: the sleep that is armed is kept then, and armed again
/// when it ends too early.
struct Timer {
    clock: Clock,
    at: Instant,
    armed: Option<(Instant, BoxFuture<'static, ()>)>,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("at", &self.at).finish_non_exhaustive()
    }
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.at = at;
        if self.armed.as_ref().is_some_and(|(armed, _)| at < *armed) {
            self.armed = None;
        }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if this.clock.instant() >= this.at {
                return Poll::Ready(());
            }
            let (clock, at) = (&this.clock, this.at);
            let (_, sleep) =
                this.armed.get_or_insert_with(|| (at, clock.ground.sleep_until(clock.time(at))));
            match sleep.as_mut().poll(context) {
                Poll::Ready(()) => this.armed = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
