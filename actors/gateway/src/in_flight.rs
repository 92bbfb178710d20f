//! How many requests are worked on at once: beyond it, 429 with `Retry-After`, so that latency stays bounded.
//!
//! Reads and writes are counted apart, so that a flood of lists cannot keep writes out. Streams (watch, log,
//! exec, attach, port-forward) hold no slot, and `system:masters` always gets in, as in Kubernetes' max-in-flight
//! filter: whoever must repair an overloaded cluster must be heard.

use std::sync::Arc;

use kactor_api::{Status, User};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Upstream's are 400 and 200 for a whole server; a request here costs a fraction.
const READS_MAX: usize = 2000;
const WRITES_MAX: usize = 2000;
const RETRY_AFTER_SECONDS: u32 = 1;

/// What a request occupies while it is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Read,
    Write,
    /// A stream: nothing.
    LongRunning,
}

#[derive(Debug, Clone)]
pub struct InFlight {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub reads: usize,
    pub writes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { reads: READS_MAX, writes: WRITES_MAX }
    }
}

/// Held while the request is worked on.
#[derive(Debug)]
pub struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
}

impl InFlight {
    pub fn new(limits: Limits) -> Self {
        Self {
            reads: Arc::new(Semaphore::new(limits.reads)),
            writes: Arc::new(Semaphore::new(limits.writes)),
            limits,
        }
    }

    pub fn enter(&self, weight: Weight, user: &User) -> Result<Slot, Status> {
        let slots = match weight {
            Weight::Read => &self.reads,
            Weight::Write => &self.writes,
            Weight::LongRunning => return Ok(Slot { _permit: None }),
        };
        match Arc::clone(slots).try_acquire_owned() {
            Ok(permit) => Ok(Slot { _permit: Some(permit) }),
            Err(_) if user.is_in("system:masters") => Ok(Slot { _permit: None }),
            Err(_) => Err(Status::too_many_requests(
                "Too many requests, please try again later.",
                RETRY_AFTER_SECONDS,
            )),
        }
    }

    /// Reads and writes in flight, for the metrics.
    pub fn now(&self) -> (usize, usize) {
        let used = |all: usize, slots: &Semaphore| all - slots.available_permits();
        (used(self.limits.reads, &self.reads), used(self.limits.writes, &self.writes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_strangers_are_told_to_retry_and_masters_get_in() {
        let in_flight = InFlight::new(Limits { reads: 1, writes: 1 });
        let user = User::authenticated("jane", &[]);
        let first = in_flight.enter(Weight::Read, &user).unwrap();
        assert_eq!(in_flight.now(), (1, 0));
        let refused = in_flight.enter(Weight::Read, &user).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_seconds()), (429, Some(1)));
        in_flight.enter(Weight::Write, &user).expect("writes have slots of their own");
        in_flight.enter(Weight::LongRunning, &user).expect("streams hold no slot");
        in_flight.enter(Weight::Read, &User::api()).expect("masters always get in");
        drop(first);
        in_flight.enter(Weight::Read, &user).expect("a slot that was left is free again");
    }
}
