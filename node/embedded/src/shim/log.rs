//! From what a container writes to the entries of its log file: lines, and parts of lines that are too long.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kactor_drivers::cri_log::CriLog;
pub use kactor_drivers::cri_log::LINE_BYTES_MAX;
use kactor_protocol::Timestamp;

pub struct Log {
    file: CriLog,
}

/// One stream's unfinished line.
#[derive(Default)]
pub struct Line {
    bytes: Vec<u8>,
}

impl Log {
    pub fn open(path: &Path, bytes_max: u64, files_max: u32) -> io::Result<Self> {
        Ok(Self { file: CriLog::open(path, bytes_max, files_max)? })
    }

    /// Takes output as it comes; whole lines go out. A disk that refuses loses the line, never the container.
    pub fn take(&mut self, stream: &str, line: &mut Line, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|it| *it == b'\n') {
            let mut rest = piece;
            while line.bytes.len() + rest.len() > LINE_BYTES_MAX {
                let (head, tail) = rest.split_at(LINE_BYTES_MAX - line.bytes.len());
                line.bytes.extend_from_slice(head);
                rest = tail;
                self.write(stream, 'P', &std::mem::take(&mut line.bytes));
            }
            line.bytes.extend_from_slice(rest);
            if line.bytes.last() == Some(&b'\n') {
                line.bytes.pop();
                self.write(stream, 'F', &std::mem::take(&mut line.bytes));
            }
        }
    }

    /// The stream ended: what is left is its last line.
    pub fn finish(&mut self, stream: &str, line: &mut Line) {
        if !line.bytes.is_empty() {
            self.write(stream, 'F', &std::mem::take(&mut line.bytes));
        }
    }

    fn write(&mut self, stream: &str, tag: char, text: &[u8]) {
        let _ = self.file.write(&nano(SystemTime::now()), stream, tag, text);
    }

    pub fn rotate(&mut self) -> io::Result<()> {
        self.file.rotate()
    }
}

fn nano(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = Timestamp::from_seconds(since.as_secs()).to_string();
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), since.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(dir: &Path, files_max: u32) -> Log {
        Log::open(&dir.join("deep/0.log"), 0, files_max).unwrap()
    }

    /// Without the times.
    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|it| it.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_come_out_whole_however_they_come_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 1);
        let (mut out, mut err) = (Line::default(), Line::default());
        log.take("stdout", &mut out, b"one\ntw");
        log.take("stderr", &mut err, b"bad\n\n");
        log.take("stdout", &mut out, b"o\nlast");
        log.finish("stdout", &mut out);
        log.finish("stderr", &mut err);
        let found = lines(&dir.path().join("deep/0.log"));
        assert_eq!(
            found,
            ["stdout F one", "stderr F bad", "stderr F ", "stdout F two", "stdout F last"]
        );
    }

    #[test]
    fn long_lines_are_cut_into_marked_parts() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 1);
        let mut line = Line::default();
        let mut long = vec![b'x'; LINE_BYTES_MAX + 5];
        long.push(b'\n');
        log.take("stdout", &mut line, &long);
        let found = lines(&dir.path().join("deep/0.log"));
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("stdout P xxx"));
        assert_eq!(found[1], "stdout F xxxxx");
    }

    #[test]
    fn the_log_never_outgrows_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 2);
        let mut line = Line::default();
        for n in 0..100 {
            let text = format!("{n} {}\n", "y".repeat(2000));
            log.take("stdout", &mut line, text.as_bytes());
        }
        let mut names: Vec<_> = fs::read_dir(dir.path().join("deep"))
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
        for name in names {
            let len = fs::metadata(dir.path().join("deep").join(name)).unwrap().len();
            assert!(len <= LINE_BYTES_MAX as u64 * 2);
        }
        assert!(lines(&dir.path().join("deep/0.log")).last().unwrap().contains(" 99 "));
    }

    #[test]
    fn times_have_nine_digits() {
        let time = UNIX_EPOCH + Duration::new(1_000_000_000, 7);
        assert_eq!(nano(time), "2001-09-09T01:46:40.000000007Z");
    }
}
