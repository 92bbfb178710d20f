//! Reads a container's log file through `Env`'s disk: a tail, then what is added, across rotations.
//!
//! A rotation renames the file to `NAME.1` and begins a new one; a reader that finds the file shorter than where it
//! stood reads the rest of the renamed one first, so a follower misses nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::node::{LogOptions, STREAM_CHUNK_BYTES_MAX};
use kactor_runtime::env::{Disk, DiskFile, Env, OpenMode};

use crate::logs::{Printer, Wanted, tail_offset};

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// A tail is searched in at most this many bytes; a rotated file is 10 MiB.
const TAIL_BYTES_MAX: u64 = 16 << 20;

pub struct LogReader {
    env: Env,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    offset: u64,
    printer: Printer,
    follow: bool,
}

fn open(disk: &dyn Disk, path: &Path) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.open(path, OpenMode::Read) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(file: &dyn DiskFile, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes_max];
    let n = file.read_at(offset, &mut buffer)?;
    buffer.truncate(n);
    Ok(buffer)
}

impl LogReader {
    pub fn new(env: Env, path: &Path, options: &LogOptions) -> io::Result<Self> {
        let wanted =
            Wanted { timestamps: options.timestamps, since: options.since, ..Wanted::default() };
        let file = open(env.disk.as_ref(), path)?;
        let mut offset = 0;
        if let (Some(lines), Some(file)) = (options.tail_lines, &file) {
            let len = file.len()?;
            let from = len.saturating_sub(TAIL_BYTES_MAX);
            let bytes =
                read(file.as_ref(), from, usize::try_from(len - from).unwrap_or(usize::MAX))?;
            offset = from + tail_offset(&bytes, lines) as u64;
        }
        let printer = Printer::new(wanted, options.limit_bytes);
        Ok(Self { env, path: path.to_owned(), file, offset, printer, follow: options.follow })
    }

    /// The next bytes to show; `None` at the log's end, which with `follow` is when `is_over` says so.
    pub async fn next(&mut self, is_over: impl AsyncFn() -> bool) -> io::Result<Option<Bytes>> {
        loop {
            if self.printer.is_full() {
                return Ok(None);
            }
            // Asked before the read: what was written up to its end is then read.
            let over = !self.follow || is_over().await;
            let bytes = self.read_on()?;
            if !bytes.is_empty() {
                let shown = self.printer.push(&bytes);
                if !shown.is_empty() {
                    return Ok(Some(Bytes::from(shown)));
                }
                continue;
            }
            if over {
                return Ok(None);
            }
            self.env.sleep(LOOK_EVERY).await;
        }
    }

    fn read_on(&mut self) -> io::Result<Vec<u8>> {
        if self.file.is_none() {
            self.file = open(self.env.disk.as_ref(), &self.path)?;
        }
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let bytes = read(file.as_ref(), self.offset, STREAM_CHUNK_BYTES_MAX)?;
        self.offset += bytes.len() as u64;
        if bytes.is_empty() && self.was_rotated()? {
            // The held file was read to its end; the next one begins the new name.
            (self.file, self.offset) = (None, 0);
        }
        Ok(bytes)
    }

    /// The name leads to another, shorter file than the one that is held.
    fn was_rotated(&self) -> io::Result<bool> {
        match open(self.env.disk.as_ref(), &self.path)? {
            Some(now) => Ok(now.len()? < self.offset),
            None => Ok(false),
        }
    }
}
