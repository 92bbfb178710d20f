//! A worker and its sessions: it runs pods through any control host, and loses nothing when one is lost.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod kit;
mod sessions;
mod streams;
