//! What happened in a run, line by line, stamped with virtual time: two runs of one seed are compared by it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines kept; later ones only enter the hash.
pub const LINES_MAX: usize = 1_000_000;

/// A clone writes to the same trace.
#[derive(Clone, Default)]
pub struct Trace {
    lines: Arc<Mutex<Lines>>,
}

struct Lines {
    kept: Vec<String>,
    hash: u64,
}

impl Default for Lines {
    fn default() -> Self {
        Self { kept: Vec::new(), hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Trace {
    pub fn write(&self, at: Duration, event: impl fmt::Display) {
        let line = format!("{:>10}.{:03} {event}", at.as_millis(), at.subsec_micros() % 1000);
        let mut lines = self.locked();
        for byte in line.bytes().chain([b'\n']) {
            lines.hash = (lines.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if lines.kept.len() < LINES_MAX {
            lines.kept.push(line);
        }
    }

    /// Of all lines, also those that are not kept.
    pub fn hash(&self) -> u64 {
        self.locked().hash
    }

    pub fn lines(&self) -> Vec<String> {
        self.locked().kept.clone()
    }

    fn locked(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.locked();
        lines.kept.iter().try_for_each(|it| writeln!(f, "{it}"))?;
        writeln!(f, "hash {:016x}", lines.hash)
    }
}
