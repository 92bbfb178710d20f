//! From dockerd's log stream to CRI entries, and which of them a log file has already. Pure but for reading the file.
//!
//! dockerd's stream has, with timestamps asked for, one message per line or part of a line: `<time> <text>[\n]`. The
//! same container gives the same messages with the same times again, so what was copied is known by time, stream and
//! tag: a copier that comes after a crash reads again from a little before the last entry and skips what is there.
//! Times of two streams may be out of order by a moment; hence the overlap and the count per entry, not one mark.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;

use bytes::{Buf, BytesMut};
use kactor_drivers::cri_log::{LINE_BYTES_MAX, numbered};
use kactor_protocol::Timestamp;

use crate::frames::{Frames, Stream};

/// `2016-10-06T00:17:09.669794202Z`, always nine digits.
const TIME_BYTES: usize = 30;
/// How far before the last entry dockerd is read again.
const OVERLAP_S: u64 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub time: String,
    pub stream: Stream,
    /// `F`, or `P` for a part of a line that goes on.
    pub tag: char,
    pub text: Vec<u8>,
}

/// Cuts dockerd's stream into entries.
pub enum Cutter {
    /// Two streams, framed; a frame is a message.
    Framed(Frames),
    /// A terminal's one stream, as it is.
    Terminal(BytesMut),
}

impl Cutter {
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Cutter::Framed(frames) => frames.push(bytes),
            Cutter::Terminal(buffer) => buffer.extend_from_slice(bytes),
        }
    }

    pub fn next(&mut self) -> Result<Option<Entry>, String> {
        match self {
            Cutter::Framed(frames) => match frames.next()? {
                Some((stream, message)) => entry(stream, &message).map(Some),
                None => Ok(None),
            },
            Cutter::Terminal(buffer) => terminal_entry(buffer),
        }
    }

    /// What is left when the stream has ended.
    pub fn finish(&mut self) -> Result<Option<Entry>, String> {
        match self {
            Cutter::Terminal(buffer) if buffer.len() > TIME_BYTES => {
                let rest = buffer.split();
                entry(Stream::Stdout, &rest).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// dockerd cuts lines at 16 KiB; of a terminal only the length tells where the next message begins.
fn terminal_entry(buffer: &mut BytesMut) -> Result<Option<Entry>, String> {
    let part = TIME_BYTES + 1 + LINE_BYTES_MAX;
    let newline = buffer.iter().take(part + 1).position(|it| *it == b'\n');
    let length = match newline {
        Some(at) => at + 1,
        None if buffer.len() > part => part,
        None => return Ok(None),
    };
    let found = entry(Stream::Stdout, &buffer[..length]);
    buffer.advance(length);
    found.map(Some)
}

fn entry(stream: Stream, message: &[u8]) -> Result<Entry, String> {
    let malformed = || {
        let start = String::from_utf8_lossy(&message[..message.len().min(40)]).into_owned();
        format!("dockerd sent a log message without a time: {start:?}")
    };
    let (time, rest) = message.split_at_checked(TIME_BYTES).ok_or_else(malformed)?;
    let time = std::str::from_utf8(time).map_err(|_| malformed())?;
    if !time.ends_with('Z') || time.as_bytes()[10] != b'T' {
        return Err(malformed());
    }
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (text, tag) = match rest.strip_suffix(b"\n") {
        Some(text) => (text, 'F'),
        // dockerd cuts at this length only; anything shorter without a newline is a stream's last line.
        None if rest.len() >= LINE_BYTES_MAX => (rest, 'P'),
        None => (rest, 'F'),
    };
    Ok(Entry { time: time.to_owned(), stream, tag, text: text.to_vec() })
}

/// The last moments of a log file: what is there, and from where dockerd is to be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Seconds since 1970; 0 reads all.
    pub since_s: u64,
    /// Time, stream, tag, and how many such entries there are.
    entries: BTreeMap<(String, String, char), u32>,
}

impl Seen {
    /// Reads the file, and rotated ones as far back as the overlap goes.
    pub fn read(log: &Path, files_max: u32) -> io::Result<Self> {
        let mut seen = Self::default();
        let mut since = String::new();
        for n in 0..=files_max {
            let path = if n == 0 { log.to_owned() } else { numbered(log, n) };
            let lines = match std::fs::File::open(&path) {
                Ok(file) => BufReader::new(file).split(b'\n'),
                Err(error) if error.kind() == ErrorKind::NotFound && n == 0 => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let found: Vec<_> = lines
                .filter_map(|it| it.map(|it| key(&it)).transpose())
                .collect::<Result<_, _>>()?;
            let Some(newest) = found.iter().map(|it| it.0.as_str()).max() else { continue };
            if seen.since_s == 0 {
                let newest = newest.parse().unwrap_or(Timestamp::EPOCH);
                seen.since_s = (newest.0 / 1000).saturating_sub(OVERLAP_S);
                // Without its Z it is less than every time within that second.
                since = Timestamp::from_seconds(seen.since_s).to_string();
                since.pop();
            }
            let is_older = found.iter().any(|it| it.0 < since);
            for it in found.into_iter().filter(|it| it.0 >= since) {
                *seen.entries.entry(it).or_default() += 1;
            }
            if is_older {
                break;
            }
        }
        Ok(seen)
    }

    /// `true` once for each entry that is there.
    pub fn take(&mut self, entry: &Entry) -> bool {
        if self.entries.is_empty() {
            return false; // The ordinary case, after the first moments.
        }
        let key = (entry.time.clone(), entry.stream.name().to_owned(), entry.tag);
        match self.entries.get_mut(&key) {
            Some(1) => self.entries.remove(&key).is_some(),
            Some(n) => {
                *n -= 1;
                true
            }
            None => false,
        }
    }
}

fn key(line: &[u8]) -> Option<(String, String, char)> {
    let mut parts = line.splitn(4, |it| *it == b' ');
    let mut next = || std::str::from_utf8(parts.next()?).ok().map(str::to_owned);
    let (time, stream, tag) = (next()?, next()?, next()?);
    (time.len() == TIME_BYTES).then_some((time, stream, tag.chars().next()?))
}

#[cfg(test)]
mod tests {
    use kactor_drivers::cri_log::CriLog;

    use super::*;

    fn time(second: u32, nano: u32) -> String {
        format!("2026-11-21T10:00:{second:02}.{nano:09}Z")
    }

    fn message(at: &str, text: &str) -> Vec<u8> {
        format!("{at} {text}").into_bytes()
    }

    fn terminal(pieces: &[&[u8]]) -> Vec<(char, usize)> {
        let mut cutter = Cutter::Terminal(BytesMut::new());
        let mut found = Vec::new();
        for piece in pieces {
            cutter.push(piece);
            while let Some(it) = cutter.next().unwrap() {
                found.push((it.tag, it.text.len()));
            }
        }
        found.extend(cutter.finish().unwrap().map(|it| (it.tag, it.text.len())));
        found
    }

    #[test]
    fn a_message_is_a_line_but_a_full_one_without_its_newline_is_a_part() {
        let whole = entry(Stream::Stderr, &message(&time(1, 5), "a b\n")).unwrap();
        let (text, tag) = (b"a b".to_vec(), 'F');
        assert_eq!(whole, Entry { time: time(1, 5), stream: Stream::Stderr, tag, text });
        assert_eq!(entry(Stream::Stdout, &message(&time(1, 5), "last")).unwrap().tag, 'F');
        let part = message(&time(1, 5), &"x".repeat(LINE_BYTES_MAX));
        assert_eq!(entry(Stream::Stdout, &part).unwrap().tag, 'P');
        assert_eq!(entry(Stream::Stdout, &message(&time(1, 5), "\n")).unwrap().text, b"");
        assert!(entry(Stream::Stdout, b"no time\n").is_err());
    }

    #[test]
    fn a_terminals_long_line_comes_in_parts_and_nothing_is_kept_without_bound() {
        let long =
            [message(&time(1, 0), &"x".repeat(LINE_BYTES_MAX)), message(&time(1, 1), "y\r\n")]
                .concat();
        let wanted = [('P', LINE_BYTES_MAX), ('F', 2)];
        assert_eq!(terminal(&[&long]), wanted);
        let (head, tail) = long.split_at(20_000.min(long.len() - 5));
        assert_eq!(terminal(&[head, tail]), wanted);
        assert_eq!(terminal(&[&message(&time(1, 0), "prompt$ ")]), [('F', 8)]);
    }

    #[test]
    fn entries_that_are_in_the_file_are_taken_once_each_also_out_of_order_and_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = CriLog::open(&path, 1 << 20, 2).unwrap();
        let write = |log: &mut CriLog, at: String| log.write(&at, "stdout", 'F', b"t").unwrap();
        write(&mut log, time(1, 0));
        write(&mut log, time(9, 7));
        write(&mut log, time(9, 7));
        log.rotate().unwrap();
        write(&mut log, time(10, 2));
        write(&mut log, time(10, 1));
        let mut seen = Seen::read(&path, 2).unwrap();
        assert_eq!(Timestamp::from_seconds(seen.since_s).to_string(), "2026-11-21T10:00:08Z");
        let mut takes = |at| {
            let text = b"t".to_vec();
            seen.take(&Entry { time: at, stream: Stream::Stdout, tag: 'F', text })
        };
        assert_eq!([takes(time(9, 7)), takes(time(9, 7)), takes(time(9, 7))], [true, true, false]);
        assert!(!takes(time(1, 0)), "older than the overlap: dockerd is not asked for it");
        assert!(!takes(time(10, 0)), "written by the container, not yet by us");
        assert!(takes(time(10, 1)) && takes(time(10, 2)));
    }

    #[test]
    fn without_a_file_everything_is_new() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Seen::read(&dir.path().join("0.log"), 4).unwrap(), Seen::default());
    }
}
