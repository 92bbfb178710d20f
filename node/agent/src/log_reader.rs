//! Reads a container's log file through `Env`'s disk: a tail, then what is added, across rotations.
//!
//! A rotation renames the file to `NAME.1`, that one to `NAME.2`, and begins a new one. A follower knows the file it
//! holds by its first bytes, which begin with a time of nanoseconds: it reads it to its end, finds it under its new
//! name and goes on with the one before, so it misses nothing, however many rotations lie between two looks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kactor_protocol::node::{LogOptions, STREAM_CHUNK_BYTES_MAX};
use kactor_runtime::env::{Disk, DiskFile, Env, OpenMode};

use crate::logs::{Printer, Wanted, tail_offset};

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Enough of a log's beginning to tell it from every other.
const HEAD_BYTES: usize = 64;
/// Rotated files that are looked at; a container has four.
const ROTATED_MAX: u32 = 16;
/// A tail is searched in at most this many bytes; a rotated file is 10 MiB.
const TAIL_BYTES_MAX: u64 = 16 << 20;

/// Says whether the run that writes the log is over.
pub type IsOver = dyn Fn() -> BoxFuture<'static, bool> + Send + Sync;

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
    pub async fn next(&mut self, is_over: &IsOver) -> io::Result<Option<Bytes>> {
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
        let Some(file) = self.file.clone() else { return Ok(Vec::new()) };
        let mut bytes = read(file.as_ref(), self.offset, STREAM_CHUNK_BYTES_MAX)?;
        if bytes.is_empty()
            && let Some(next) = self.file_after(file.as_ref())?
        {
            // Between our read and the rotation a last line may have come.
            bytes = read(file.as_ref(), self.offset, STREAM_CHUNK_BYTES_MAX)?;
            if bytes.is_empty() {
                (self.file, self.offset) = (Some(next), 0);
                return self.read_on();
            }
        }
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }

    /// What was begun after the held file; `None` while that is the newest.
    fn file_after(&self, held: &dyn DiskFile) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let head = read(held, 0, HEAD_BYTES)?;
        let mut after = open(self.env.disk.as_ref(), &self.path)?;
        let is_held = |it: &Option<Arc<dyn DiskFile>>| match it {
            Some(file) => Ok::<_, io::Error>(read(file.as_ref(), 0, HEAD_BYTES)? == head),
            None => Ok(false),
        };
        if head.is_empty() || after.is_none() || is_held(&after)? {
            return Ok(None);
        }
        for n in 1..=ROTATED_MAX {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            let older = open(self.env.disk.as_ref(), Path::new(&name))?;
            if older.is_none() || is_held(&older)? {
                break; // Or the held one was dropped already: the oldest that is left comes next.
            }
            after = older;
        }
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use kactor_runtime::env::Machine;

    use super::*;

    fn line(n: u32) -> String {
        format!("2026-11-21T12:00:00.{n:09}Z stdout F {n}\n")
    }

    fn reader(machine: &Machine, path: &Path, options: &LogOptions) -> LogReader {
        LogReader::new(machine.env().clone(), path, options).unwrap()
    }

    /// Everything that is there now.
    fn rest(reader: &mut LogReader) -> String {
        let mut out = Vec::new();
        while let Some(bytes) =
            block_on(reader.next(&|| Box::pin(std::future::ready(true)))).unwrap()
        {
            out.extend_from_slice(&bytes);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_follower_misses_no_line_over_any_number_of_rotations() {
        let (temp, machine) = (tempfile::tempdir().unwrap(), Machine::start());
        let path = temp.path().join("0.log");
        let numbered = |n: u32| temp.path().join(format!("0.log.{n}"));
        let append = |n: u32| {
            let mut options = std::fs::File::options();
            let mut file = options.create(true).append(true).open(&path).unwrap();
            std::io::Write::write_all(&mut file, line(n).as_bytes()).unwrap();
        };
        let rotate = || {
            for n in (1..4).rev() {
                let _ = std::fs::rename(numbered(n), numbered(n + 1));
            }
            std::fs::rename(&path, numbered(1)).unwrap();
        };
        append(1);
        let mut follower =
            reader(&machine, &path, &LogOptions { follow: true, ..LogOptions::default() });
        assert_eq!(rest(&mut follower), "1\n");
        append(2);
        rotate();
        append(3);
        rotate();
        for n in 4..=40 {
            append(n); // Longer than the one that is held.
        }
        let expected: String = (2..=40).map(|it| format!("{it}\n")).collect();
        assert_eq!(rest(&mut follower), expected);
        append(41);
        assert_eq!(rest(&mut follower), "41\n");
    }

    #[test]
    fn a_tail_begins_with_its_first_line() {
        let (temp, machine) = (tempfile::tempdir().unwrap(), Machine::start());
        let path = temp.path().join("0.log");
        std::fs::write(&path, (1..=9).map(line).collect::<String>()).unwrap();
        let options = LogOptions { tail_lines: Some(2), ..LogOptions::default() };
        assert_eq!(rest(&mut reader(&machine, &path, &options)), "8\n9\n");
        let absent = temp.path().join("1.log");
        assert_eq!(rest(&mut reader(&machine, &absent, &options)), "");
    }
}
