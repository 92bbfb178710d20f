//! File access that cannot leave a folder, whatever symbolic links lie in it.
//!
//! Layers and root file systems come from strangers: `etc -> /` followed by `etc/passwd` must not reach the host.
//! Each path is resolved by the kernel with `openat2(RESOLVE_IN_ROOT)`, so that links and `..` stay inside; the
//! last step is done on the parent's descriptor without following.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A folder as a jail.
pub struct Rooted {
    dir: OwnedFd,
}

/// Why a path cannot name an entry of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathProblem {
    ParentDir,
    TooLong,
    Nul,
}

impl PathProblem {
    pub fn why(self) -> &'static str {
        match self {
            PathProblem::ParentDir => "it has a .. in it",
            PathProblem::TooLong => "it is longer than 4096 bytes",
            PathProblem::Nul => "it holds a zero byte",
        }
    }
}

const PATH_BYTES_MAX: usize = 4096;

/// `./a//b/` and `/a/b` are both `a/b`; empty is the folder itself.
pub fn normal(path: &[u8]) -> Result<PathBuf, PathProblem> {
    if path.len() > PATH_BYTES_MAX {
        return Err(PathProblem::TooLong);
    }
    if path.contains(&0) {
        return Err(PathProblem::Nul);
    }
    let mut out = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => return Err(PathProblem::ParentDir),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

impl Rooted {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let file = File::open(dir)?;
        if !file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { dir: file.into() })
    }

    /// Opens what lies at `path`, links resolved within the folder.
    pub fn open_at(&self, path: &Path, flags: i32) -> io::Result<OwnedFd> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let path = c_string(path.as_os_str())?;
        // SAFETY: open_how is plain integers; all zeroes is its documented default.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = (flags | libc::O_CLOEXEC) as u64;
        how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
        loop {
            // SAFETY: the path is NUL-terminated, `how` is a live open_how whose size is given; both outlive
            // the call.
            let fd = unsafe {
                libc::syscall(
                    libc::SYS_openat2,
                    self.dir.as_raw_fd(),
                    path.as_ptr(),
                    std::ptr::from_ref(&how),
                    size_of::<libc::open_how>(),
                )
            };
            if fd >= 0 {
                // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
                return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) });
            }
            let error = io::Error::last_os_error();
            // EAGAIN: a rename raced with the walk; the kernel asks to try again.
            if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
                return Err(error);
            }
        }
    }

    /// The open folder that holds `path`'s last name, made with its parents if missing, and that name.
    pub fn parent(&self, path: &Path) -> io::Result<(OwnedFd, CString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.make_dir_all(parent)?, c_string(name)?))
    }

    /// Makes missing folders; what is there already, links to folders included, is kept.
    pub fn make_dir_all(&self, path: &Path) -> io::Result<OwnedFd> {
        const DIR: i32 = libc::O_PATH | libc::O_DIRECTORY;
        match self.open_at(path, DIR) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => return other,
        }
        let mut so_far = PathBuf::new();
        let mut dir = self.open_at(&so_far, DIR)?;
        for part in path.iter() {
            so_far.push(part);
            dir = match self.open_at(&so_far, DIR) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    make_dir(&dir, &c_string(part)?, 0o755)?;
                    self.open_at(&so_far, DIR)?
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// A whole small file; `None` if it is not there. Only regular files are read.
    pub fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_at(path, libc::O_RDONLY | libc::O_NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > bytes_max {
            true => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
            false => Ok(Some(bytes)),
        }
    }
}

pub(crate) fn c_string(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// mkdirat that is content with a folder that exists.
pub(crate) fn make_dir(parent: &OwnedFd, name: &CString, mode: u32) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    let done = unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), mode) };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_dots_do_not_leave_the_folder() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(host.path().join("secret"), "host").unwrap();
        std::fs::write(root.join("etc/passwd"), "inside").unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("../../../../../../etc", root.join("climbing")).unwrap();
        symlink(host.path().join("secret"), root.join("leak")).unwrap();
        let rooted = Rooted::open(&root).unwrap();
        for path in ["absolute/passwd", "climbing/passwd", "etc/passwd"] {
            let found = rooted.read(Path::new(path), 100).unwrap();
            assert_eq!(found.as_deref(), Some(&b"inside"[..]), "{path}");
        }
        assert_eq!(rooted.read(Path::new("leak"), 100).unwrap(), None);
        assert_eq!(rooted.read(Path::new("../secret"), 100).unwrap(), None);
        rooted.make_dir_all(Path::new("absolute/deep/er")).unwrap();
        assert!(root.join("etc/deep/er").is_dir());
        assert!(rooted.read(Path::new("etc/passwd"), 3).is_err(), "larger than allowed");
    }

    #[test]
    fn names_are_made_relative_or_refused() {
        assert_eq!(normal(b"./a//b/").unwrap(), Path::new("a/b"));
        assert_eq!(normal(b"/etc/passwd").unwrap(), Path::new("etc/passwd"));
        assert_eq!(normal(b"./").unwrap(), Path::new(""));
        assert_eq!(normal(b"a/../b"), Err(PathProblem::ParentDir));
        assert_eq!(normal(&[b'a'; 5000]), Err(PathProblem::TooLong));
        assert_eq!(normal(b"a\0b"), Err(PathProblem::Nul));
    }
}
