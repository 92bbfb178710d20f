//! A container's log file in CRI's format: `<RFC 3339 with nanoseconds> <stream> <P|F> <text>`.
//!
//! One file grows to its bound and then becomes `.1`; older ones move up and the last goes. Who writes gives the
//! time: the shim its own, the docker driver the one that dockerd noted. Format reference: kubernetes
//! design-proposals, "CRI logging".

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A longer line is written in parts marked `P`.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

pub struct CriLog {
    path: PathBuf,
    file: File,
    n_bytes: u64,
    bytes_max: u64,
    files_max: u32,
}

impl CriLog {
    /// Appends to what is there: a restarted attempt has a file of its own name.
    pub fn open(path: &Path, bytes_max: u64, files_max: u32) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let n_bytes = file.metadata()?.len();
        let bytes_max = bytes_max.max(LINE_BYTES_MAX as u64 * 2);
        Ok(Self { path: path.to_owned(), file, n_bytes, bytes_max, files_max })
    }

    /// One entry, whole in one write.
    pub fn write(&mut self, time: &str, stream: &str, tag: char, text: &[u8]) -> io::Result<()> {
        let mut bytes = format!("{time} {stream} {tag} ").into_bytes();
        bytes.extend_from_slice(text);
        bytes.push(b'\n');
        if self.n_bytes + bytes.len() as u64 > self.bytes_max {
            let _ = self.rotate(); // If it cannot be renamed, it goes on growing rather than losing lines.
        }
        self.file.write_all(&bytes)?;
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    pub fn rotate(&mut self) -> io::Result<()> {
        if self.files_max == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for n in (1..self.files_max).rev() {
                // It need not be there yet.
                let _ = fs::rename(numbered(&self.path, n), numbered(&self.path, n + 1));
            }
            fs::rename(&self.path, numbered(&self.path, 1))?;
        }
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.n_bytes = 0;
        Ok(())
    }
}

/// The name of a rotated file: 1 is the youngest.
pub fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}
