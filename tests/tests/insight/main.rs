//! Looking inside a running kactor: the REPL's scripts, and that nobody sees a secret there.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod repl;
mod secrets;
mod settled;
