//! Putting one entry of a layer on disk, by descriptors of its parent folder only.
//!
//! The last name is never followed: what stands there is removed first, so that an earlier entry cannot plant a
//! link for a later one to write through.

use super::*;

/// Owner, mode and time of an entry.
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub modified: u64,
}

#[expect(clippy::too_many_arguments, reason = "one entry of a tar has this many parts")]
pub(super) fn place(
    rooted: &Rooted,
    path: &Path,
    kind: EntryType,
    link: &[u8],
    content: &mut impl Read,
    owner: &Owner,
    attributes: &[(String, Vec<u8>)],
    shown: &str,
) -> Result<(), ImageError> {
    let doing = || format!("unpacking {shown}");
    let (dir, name) = rooted.parent(path).doing(doing)?;
    match kind {
        EntryType::Directory => {
            keep_only_dir(&dir, &name).doing(doing)?;
            make_dir(&dir, &name, 0o700).doing(doing)?;
        }
        EntryType::Regular | EntryType::Continuous => {
            remove_at(&dir, &name).doing(doing)?;
            let mut file = create(&dir, &name).doing(doing)?;
            io::copy(content, &mut file).map_err(|it| tar_error(shown, it))?;
        }
        EntryType::Symlink => {
            remove_at(&dir, &name).doing(doing)?;
            let target = CString::new(link).map_err(|why| ImageError::malformed(shown, why))?;
            // SAFETY: both strings are NUL-terminated and outlive the call.
            check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) })
                .doing(doing)?;
            return chown(&dir, &name, owner).doing(doing);
        }
        EntryType::Link => return hard_link(rooted, &dir, &name, link, shown),
        EntryType::Fifo => {
            remove_at(&dir, &name).doing(doing)?;
            // SAFETY: the name is NUL-terminated and outlives the call.
            check(unsafe { libc::mkfifoat(dir.as_raw_fd(), name.as_ptr(), 0o600) }).doing(doing)?;
        }
        EntryType::Char | EntryType::Block => {
            // Images of old carry the usual /dev, which the runtime mounts anew anyway.
            if path.starts_with("dev") {
                return Ok(());
            }
            return Err(ImageError::Device { path: shown.to_owned() });
        }
        other => {
            let kind = char::from(other.as_byte());
            return Err(ImageError::EntryKind { path: shown.to_owned(), kind });
        }
    }
    chown(&dir, &name, owner).doing(doing)?;
    for (attribute, value) in attributes {
        set_attribute(rooted, path, attribute, value).doing(doing)?;
    }
    change_mode(&dir, &name, owner.mode).doing(doing)?; // After chown, which drops setuid.
    set_time(&dir, &name, owner.modified).doing(doing)
}

/// The entry `./`.
pub(super) fn own_root(dir: &Path, owner: &Owner) -> Result<(), ImageError> {
    let name = c_string(dir.as_os_str()).doing(|| "the root folder".to_owned())?;
    // SAFETY: the name is NUL-terminated and outlives the calls.
    let done = unsafe {
        if libc::geteuid() == 0 {
            libc::chown(name.as_ptr(), owner.uid, owner.gid);
        }
        libc::chmod(name.as_ptr(), owner.mode)
    };
    check(done).doing(|| "setting the mode of the root folder".to_owned())
}

fn hard_link(
    rooted: &Rooted,
    dir: &OwnedFd,
    name: &CString,
    link: &[u8],
    shown: &str,
) -> Result<(), ImageError> {
    let doing = || format!("linking {shown}");
    let target =
        normal(link).map_err(|it| ImageError::Escape { path: shown.to_owned(), why: it.why() })?;
    let Some(last) = target.file_name() else {
        let why = "it is a link to the root folder";
        return Err(ImageError::Escape { path: shown.to_owned(), why });
    };
    let above = target.parent().unwrap_or(Path::new(""));
    let from = rooted.open_at(above, libc::O_PATH | libc::O_DIRECTORY).doing(doing)?;
    let last = c_string(last).doing(doing)?;
    if is_same(&from, &last, dir, name) {
        return Ok(());
    }
    remove_at(dir, name).doing(doing)?;
    // SAFETY: both names are NUL-terminated and outlive the call; without AT_SYMLINK_FOLLOW a link is linked
    // itself.
    let done =
        unsafe { libc::linkat(from.as_raw_fd(), last.as_ptr(), dir.as_raw_fd(), name.as_ptr(), 0) };
    check(done).doing(doing)
}

fn is_same(a_dir: &OwnedFd, a: &CString, b_dir: &OwnedFd, b: &CString) -> bool {
    match (stat_at(a_dir, a), stat_at(b_dir, b)) {
        (Ok(a), Ok(b)) => a.st_dev == b.st_dev && a.st_ino == b.st_ino,
        _ => false,
    }
}

fn stat_at(dir: &OwnedFd, name: &CString) -> io::Result<libc::stat> {
    // SAFETY: stat is plain integers; the kernel fills it before it is read.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the name is NUL-terminated and `stat` is writable; both outlive the call.
    let done = unsafe {
        libc::fstatat(dir.as_raw_fd(), name.as_ptr(), &raw mut stat, libc::AT_SYMLINK_NOFOLLOW)
    };
    check(done).map(|()| stat)
}

fn keep_only_dir(dir: &OwnedFd, name: &CString) -> io::Result<()> {
    match stat_at(dir, name) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => Ok(()),
        Ok(_) => remove_at(dir, name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what has this name, folders with all below them; nothing there is fine. Follows no link.
pub(super) fn remove_at(dir: &OwnedFd, name: &CString) -> io::Result<()> {
    let stat = match stat_at(dir, name) {
        Ok(stat) => stat,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        // /proc/self/fd names the folder itself, whatever its path is; remove_dir_all follows no links below.
        let name = std::ffi::OsStr::from_bytes(name.to_bytes());
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        return std::fs::remove_dir_all(path);
    }
    // SAFETY: the name is NUL-terminated and outlives the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) })
}

/// Everything below `path` goes; the folder stays.
pub(super) fn empty(rooted: &Rooted, path: &Path) -> io::Result<()> {
    let dir = rooted.open_at(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
        remove_at(&dir, &c_string(&entry?.file_name())?)?;
    }
    Ok(())
}

/// overlayfs: a 0/0 character device hides the name below.
pub(super) fn mark_hidden(dir: &OwnedFd, name: &CString) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), libc::S_IFCHR, 0) })
}

/// overlayfs: the attribute `trusted.overlay.opaque` hides all that is below.
pub(super) fn mark_opaque(dir: &OwnedFd) -> io::Result<()> {
    attribute_of(dir, c"trusted.overlay.opaque", b"y")
}

fn set_attribute(rooted: &Rooted, path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let file = rooted.open_at(path, libc::O_PATH | libc::O_NOFOLLOW)?;
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    match attribute_of(&file, &name, value) {
        // Without root, or on a file system without attributes: the image runs, the program lacks its extra.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP)) => {
            Ok(())
        }
        other => other,
    }
}

fn attribute_of(file: &OwnedFd, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: path and name are NUL-terminated, the value is a live slice of the given length.
    check(unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    })
}

fn create(dir: &OwnedFd, name: &CString) -> io::Result<File> {
    const FLAGS: i32 =
        libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let fd = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), FLAGS, 0o600) };
    check(fd.min(0))?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// Owners are kept only by root: without it everything belongs to whoever unpacks.
fn chown(dir: &OwnedFd, name: &CString, owner: &Owner) -> io::Result<()> {
    // SAFETY: geteuid has no preconditions; the name is NUL-terminated and outlives the call.
    let done = unsafe {
        if libc::geteuid() != 0 {
            return Ok(());
        }
        libc::fchownat(
            dir.as_raw_fd(),
            name.as_ptr(),
            owner.uid,
            owner.gid,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    check(done)
}

/// Only for what was just made here and is no link.
fn change_mode(dir: &OwnedFd, name: &CString, mode: u32) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    check(unsafe { libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), mode, 0) })
}

fn set_time(dir: &OwnedFd, name: &CString, seconds: u64) -> io::Result<()> {
    let time = libc::timespec { tv_sec: seconds as libc::time_t, tv_nsec: 0 };
    let times = [time, time];
    // SAFETY: the name is NUL-terminated, `times` is an array of two; both outlive the call.
    check(unsafe {
        libc::utimensat(dir.as_raw_fd(), name.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })
}

fn check(done: i32) -> io::Result<()> {
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
