//! The host's `Env` as QUIC needs it: one lane for tasks, its clock for time.

use std::time::Duration;

use futures::future::BoxFuture;
use kactor_quic::Ground;
use kactor_runtime::env::{Env, Lane};

pub(crate) struct EnvGround(pub Env);

impl Ground for EnvGround {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(Lane::Links, task);
    }

    fn now(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<'static, ()> {
        self.0.clock.sleep_until(at)
    }
}
