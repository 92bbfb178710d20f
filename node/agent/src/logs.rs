//! Reading a container's log: the CRI format, tails, times. Pure; the shell brings the bytes.
//!
//! A line is `TIME STREAM TAG TEXT`, TAG is `F` for a whole line and `P` for a part of one
//! (kubernetes design-proposals, kubelet-cri-logging). A torn last line, as a crash leaves it, is not shown.

use kactor_protocol::time::Timestamp;

/// One entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub time: &'a str,
    pub is_stderr: bool,
    /// The entry ends a line.
    pub ends_line: bool,
    pub text: &'a [u8],
}

/// Reads one entry from a line without its newline; `None` for what is no entry.
pub fn entry(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |it| *it == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = parts.next()?;
    let tag = parts.next()?;
    let text = parts.next().unwrap_or_default();
    let is_stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    // Tags are separated by colons; only the first says whether the line goes on.
    let ends_line = match tag.split(|it| *it == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Entry { time, is_stderr, ends_line, text })
}

/// Which entries a reader wants and how they are shown.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub stdout_only: bool,
    pub stderr_only: bool,
}

/// Turns log bytes into what `kubectl logs` shows, entry by entry, within a byte budget.
#[derive(Debug)]
pub struct Printer {
    wanted: Wanted,
    at_line_start: bool,
    /// Bytes that may still be shown.
    left: Option<u64>,
    /// A line whose end has not come yet.
    partial: Vec<u8>,
}

/// A line longer than this is shown in pieces; the shim cuts at 16 KiB already.
const LINE_BYTES_MAX: usize = 256 * 1024;

impl Printer {
    pub fn new(wanted: Wanted, limit_bytes: Option<u64>) -> Self {
        Self { wanted, at_line_start: true, left: limit_bytes, partial: Vec::new() }
    }

    /// True once the byte budget is used up.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes the next bytes of the log and gives what is to be shown.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(end) = bytes.iter().position(|it| *it == b'\n') {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.print(&line, &mut out);
        }
        if self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            self.partial.clear(); // No entry of ours is that long: the file is not a log.
        } else {
            self.partial.extend_from_slice(bytes);
        }
        out
    }

    fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = entry(line) else { return };
        let other_stream = (self.wanted.stdout_only && entry.is_stderr)
            || (self.wanted.stderr_only && !entry.is_stderr);
        if other_stream || self.is_too_old(entry.time) {
            return;
        }
        if self.wanted.timestamps && self.at_line_start {
            self.put(entry.time.as_bytes(), out);
            self.put(b" ", out);
        }
        self.put(entry.text, out);
        if entry.ends_line {
            self.put(b"\n", out);
        }
        self.at_line_start = entry.ends_line;
    }

    fn is_too_old(&self, time: &str) -> bool {
        let since = self.wanted.since;
        since.is_some_and(|since| time.parse::<Timestamp>().is_ok_and(|it| it < since))
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let n = self
            .left
            .map_or(bytes.len(), |it| bytes.len().min(usize::try_from(it).unwrap_or(usize::MAX)));
        out.extend_from_slice(&bytes[..n]);
        if let Some(left) = &mut self.left {
            *left -= n as u64;
        }
    }
}

/// Where the last `n` lines begin in a log's bytes. Parts of one line count once.
pub fn tail_offset(bytes: &[u8], n: u64) -> usize {
    if n == 0 {
        return bytes.len();
    }
    let mut lines_seen = 0;
    let mut end = bytes.len();
    let mut begin = end;
    // Walk backwards over whole lines; each `F` that is met begins a further line from the end.
    while end > 0 {
        let line_end = if bytes[end - 1] == b'\n' { end - 1 } else { end };
        let start = bytes[..line_end].iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1);
        if entry(&bytes[start..line_end]).is_some_and(|it| it.ends_line) {
            lines_seen += 1;
            if lines_seen > n {
                return begin;
            }
        }
        begin = start;
        end = start;
    }
    begin
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2026-11-21T12:00:00.1Z stdout F one\n2026-11-21T12:00:01Z stderr P tw\n2026-11-21T12:00:02Z stderr F o\n2026-11-21T12:00:03Z stdout F three\n";

    fn show(wanted: Wanted, limit: Option<u64>) -> String {
        String::from_utf8(Printer::new(wanted, limit).push(LOG)).unwrap()
    }

    #[test]
    fn parts_are_joined_and_times_shown_once_a_line() {
        assert_eq!(show(Wanted::default(), None), "one\ntwo\nthree\n");
        let timed = show(Wanted { timestamps: true, ..Wanted::default() }, None);
        assert_eq!(timed.lines().nth(1), Some("2026-11-21T12:00:01Z two"));
    }

    #[test]
    fn streams_times_and_bytes_narrow_what_is_shown() {
        assert_eq!(show(Wanted { stdout_only: true, ..Wanted::default() }, None), "one\nthree\n");
        assert_eq!(show(Wanted { stderr_only: true, ..Wanted::default() }, None), "two\n");
        let since = "2026-11-21T12:00:02Z".parse().ok();
        assert_eq!(show(Wanted { since, ..Wanted::default() }, None), "o\nthree\n");
        assert_eq!(show(Wanted::default(), Some(6)), "one\ntw");
    }

    #[test]
    fn bytes_may_come_in_any_pieces_and_a_torn_end_is_not_shown() {
        for size in 1..20 {
            let mut printer = Printer::new(Wanted::default(), None);
            let mut out = Vec::new();
            for piece in LOG.chunks(size) {
                out.extend(printer.push(piece));
            }
            out.extend(printer.push(b"2026-11-21T12:00:04Z stdout F to"));
            assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo\nthree\n", "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let mut printer = Printer::new(Wanted::default(), None);
        assert_eq!(printer.push(b"garbage\n\n\xff\xfe x F y\nt stdout F ok\n"), b"ok\n");
    }

    #[test]
    fn tails_count_whole_lines() {
        for (n, expected) in [
            (0, ""),
            (1, "three\n"),
            (2, "two\nthree\n"),
            (3, "one\ntwo\nthree\n"),
            (9, "one\ntwo\nthree\n"),
        ] {
            let from = tail_offset(LOG, n);
            let shown = Printer::new(Wanted::default(), None).push(&LOG[from..]);
            assert_eq!(String::from_utf8(shown).unwrap(), expected, "{n}");
        }
        assert_eq!(tail_offset(b"", 3), 0);
    }
}
