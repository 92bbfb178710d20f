//! One line on the terminal that says what is waited for and how long already; gone when the waiting ends.
//!
//! Only people at a terminal see it: scripts and logs get the answer alone.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use kactor_runtime::env::Env;

const SHOW_EVERY: Duration = Duration::from_secs(1);

/// A line on stderr that is written over.
pub struct Progress {
    env: Env,
    begun: Duration,
    is_terminal: bool,
    shown: bool,
}

impl Progress {
    pub fn new(env: &Env) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { env: env.clone(), begun: env.monotonic(), is_terminal, shown: false }
    }

    /// Shows what is waited for now; nothing in the first second, which most waits don't outlast.
    pub fn show(&mut self, what: &str) {
        let waited = self.env.monotonic() - self.begun;
        if self.is_terminal && waited >= SHOW_EVERY {
            self.shown = true;
            let line: String = what.chars().take(120).collect();
            let _ = write!(std::io::stderr(), "\r\x1b[K{line} ({} s)", waited.as_secs());
        }
    }

    /// Waits for something that can't tell how far it is.
    pub async fn during<T>(mut self, what: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.env.sleep(SHOW_EVERY) => self.show(what),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
