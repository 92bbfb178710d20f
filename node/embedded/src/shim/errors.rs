//! libcontainer's own account of a failure: it returns "failed to prepare rootfs" and logs what really happened.
//!
//! The log lines come from forked children as well, so they are kept in a memfd that all of them share; the shim
//! reads it when a start has failed.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::FromRawFd;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// More says nothing new.
const ACCOUNT_BYTES_MAX: u64 = 4096;

static ACCOUNT: OnceLock<File> = OnceLock::new();

/// From now on errors are kept. Without a memfd they are lost, as before.
pub fn keep() {
    // SAFETY: the name is NUL-terminated; the kernel hands us a new descriptor.
    let fd = unsafe { libc::memfd_create(c"kactor-errors".as_ptr(), libc::MFD_CLOEXEC) };
    if fd >= 0 {
        // SAFETY: the descriptor is new and ours alone.
        let _ = ACCOUNT.set(unsafe { File::from_raw_fd(fd) }); // Set once, at start.
        let _ = tracing::subscriber::set_global_default(Keeper);
    }
}

/// Forgets what was kept, before something new is tried.
pub fn clear() {
    if let Some(mut file) = ACCOUNT.get() {
        let _ = file.set_len(0).and_then(|()| file.rewind());
    }
}

/// What was logged since `clear`, deepest first, joined by `; `.
pub fn account() -> String {
    let mut text = Vec::new();
    if let Some(mut file) = ACCOUNT.get() {
        let _ = file.rewind().and_then(|()| file.take(ACCOUNT_BYTES_MAX).read_to_end(&mut text));
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().collect::<Vec<_>>().join("; ")
}

struct Keeper;

impl Subscriber for Keeper {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        *about.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        line.0.truncate(line.0.floor_char_boundary(500));
        line.0.push('\n');
        if let Some(mut file) = ACCOUNT.get() {
            let _ = file.write_all(line.0.as_bytes());
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}").replace('\n', " ");
        let _ = match field.name() {
            "message" => write!(self.0, "{text} "),
            name => write!(self.0, "{name}={text} "),
        };
    }
}
