//! Bounded waiting on a condition: polls, and panics with what was last seen.
//!
//! The bound is generous because it guards against hanging for ever and is not a statement about speed.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// Runs out at some moment.
#[derive(Clone, Copy)]
pub struct Patience {
    until: Instant,
}

impl Patience {
    pub fn of(length: Duration) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the harness stands outside the cluster")]
        let now = Instant::now();
        Self { until: now + length }
    }

    pub fn left(&self) -> Duration {
        #[expect(clippy::disallowed_methods, reason = "the harness stands outside the cluster")]
        let now = Instant::now();
        self.until.saturating_duration_since(now)
    }

    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// A pause between two looks.
    pub fn pause(&self) {
        sleep(POLL.min(self.left()));
    }
}

/// Looks until the condition holds. `look` answers what it found, or what it saw instead.
///
/// # Panics
/// When patience runs out, with the last thing seen.
#[track_caller]
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let patience = Patience::of(PATIENCE);
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if patience.is_over() => {
                panic!("{what}: not within {} s; last seen:\n{seen}", PATIENCE.as_secs())
            }
            Err(_) => patience.pause(),
        }
    }
}
