//! Free space under the data directory: looked at rarely, asked often.
//!
//! Writes are refused while less than the reserve is free, so that what was taken can be finished: a checkpoint, the journal's
//! next segment. Nothing here is remembered, so writes go on by themselves once there is space.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kactor_runtime::env::Env;

/// How often the disk is asked while writes come: seldom enough to cost nothing, often enough that a quick disk takes a
/// small part of the reserve in between.
const LOOK_MS: u64 = 10;
/// How often one looks who waits for space.
const WAIT: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) struct Space {
    env: Env,
    dir: PathBuf,
    pub reserve_bytes: u64,
    seen: Arc<Seen>,
}

struct Seen {
    free_bytes: AtomicU64,
    /// When; never 0 after the first look.
    looked_ms: AtomicU64,
}

impl Space {
    pub fn new(env: Env, dir: PathBuf, reserve_bytes: u64) -> Self {
        let seen = Seen { free_bytes: AtomicU64::new(u64::MAX), looked_ms: AtomicU64::new(0) };
        Self { env, dir, reserve_bytes, seen: Arc::new(seen) }
    }

    pub fn free_bytes(&self) -> u64 {
        let now_ms = u64::try_from(self.env.monotonic().as_millis()).unwrap_or(u64::MAX);
        let looked_ms = self.seen.looked_ms.load(Ordering::Relaxed);
        if looked_ms == 0 || now_ms >= looked_ms.saturating_add(LOOK_MS) {
            self.seen.looked_ms.store(now_ms.max(1), Ordering::Relaxed);
            let free = self.env.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
            self.seen.free_bytes.store(free, Ordering::Relaxed);
        }
        self.seen.free_bytes.load(Ordering::Relaxed)
    }

    pub fn is_short(&self) -> bool {
        self.free_bytes() < self.reserve_bytes
    }

    /// Waits until so much is free.
    pub async fn until_free(&self, bytes: u64) {
        while self.free_bytes() < bytes {
            self.env.sleep(WAIT).await;
        }
    }
}
