//! The shim's executable: a sealed copy of ours in memory, without debug sections.
//!
//! A container's process could write through `/proc/<shim>/exe` (CVE-2019-5736) if the shim ran from the file itself,
//! and a package upgrade would pull the file from under running shims. A memfd that is sealed against writing has
//! neither problem. All shims of one agent share its pages.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use kactor_images::elf;

/// A program that nobody can change any more; it lives as long as this value or a process that runs it.
#[derive(Debug)]
pub struct SealedProgram {
    file: OwnedFd,
}

impl SealedProgram {
    /// Copies what `path` loads into memory and seals it.
    pub fn copy(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.read_to_end(&mut bytes)?;
        let linkage =
            elf::linkage(&path.display().to_string(), &bytes).map_err(io::Error::other)?;
        let loaded = usize::try_from(linkage.loaded_bytes).unwrap_or(usize::MAX).min(bytes.len());
        bytes.truncate(loaded);
        forget_sections(&mut bytes);
        let mut file = File::from(new_memfd()?);
        file.write_all(&bytes)?;
        const SEALS: i32 =
            libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: the descriptor is open; F_ADD_SEALS takes an integer.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file: file.into() })
    }

    /// A path under which a child of any process can execute it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }
}

fn new_memfd() -> io::Result<OwnedFd> {
    const FLAGS: u32 = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is NUL-terminated; EXEC is asked for where the kernel knows it (6.3), else by default.
    let fd = unsafe {
        match libc::memfd_create(c"kactor-shim".as_ptr(), FLAGS | libc::MFD_EXEC) {
            fd if fd >= 0 => fd,
            _ => libc::memfd_create(c"kactor-shim".as_ptr(), FLAGS),
        }
    };
    match fd {
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The section table lay behind what is loaded: the header must not point there any more.
fn forget_sections(elf: &mut [u8]) {
    const SECTION_OFFSET: std::ops::Range<usize> = 40..48;
    const SECTION_COUNT_AND_NAMES: std::ops::Range<usize> = 60..64;
    if elf.len() >= SECTION_COUNT_AND_NAMES.end {
        elf[SECTION_OFFSET].fill(0);
        elf[SECTION_COUNT_AND_NAMES].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_runs_and_cannot_be_written() {
        let sealed = SealedProgram::copy(Path::new("/bin/sh")).unwrap();
        let said =
            std::process::Command::new(sealed.path()).args(["-c", "echo hi"]).output().unwrap();
        assert_eq!(said.stdout, b"hi\n");
        let written = std::fs::OpenOptions::new()
            .write(true)
            .open(sealed.path())
            .and_then(|mut it| it.write_all(b"x"));
        assert!(written.is_err());
    }
}
