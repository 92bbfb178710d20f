//! A container's root file system: the image's layers below, a folder of its own above.
//!
//! overlayfs where the kernel and the file system allow it, else the layers are copied. The mount is the
//! caller's to undo with `release`.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Doing, ImageError};
use crate::layer::Whiteouts;
use crate::store::{ImageStore, Resolved};

/// How a root file system came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Overlay,
    Copied,
}

/// What to do if overlayfs refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    Overlay,
    Copy,
}

/// Makes `<dir>/rootfs` ready; `dir` exists and holds what the container writes.
pub fn prepare(
    store: &ImageStore,
    image: &Resolved,
    dir: &Path,
    preference: Preference,
) -> Result<Kind, ImageError> {
    let root = dir.join("rootfs");
    make(&root)?;
    if preference == Preference::Overlay && overlay(store, image, dir)? {
        return Ok(Kind::Overlay);
    }
    let pairs = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
    for (layer, diff_id) in pairs {
        store.unpack_blob(&layer.digest, diff_id, &root, Whiteouts::Deletions)?;
    }
    Ok(Kind::Copied)
}

/// Unmounts what `prepare` mounted; nothing mounted is fine. The folders stay.
pub fn release(dir: &Path) -> Result<(), ImageError> {
    let root = dir.join("rootfs");
    loop {
        match unmount(&root) {
            Ok(()) => {} // Once more: mounts stack.
            // Not mounted, or not there.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                return Ok(());
            }
            Err(error) => {
                return Err(ImageError::io(format!("unmounting {}", root.display()), error));
            }
        }
    }
}

/// Whether overlayfs took it. A refusal falls back to copying; broken layers are errors.
fn overlay(store: &ImageStore, image: &Resolved, dir: &Path) -> Result<bool, ImageError> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    make(&upper)?;
    make(&work)?;
    let layers = match store.layer_dirs(image) {
        Ok(layers) if !layers.is_empty() => layers,
        // No rights to make whiteout devices.
        Err(ImageError::Io { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
            return Ok(false);
        }
        Ok(_) => return Ok(false),
        Err(error) => return Err(error),
    };
    if let [.., top] = layers.as_slice() {
        copy_owner(top, &upper)?;
    }
    let mut lower: Vec<String> = Vec::new();
    for layer in layers.iter().rev() {
        lower.push(escape(&layer.display().to_string()));
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        escape(&upper.display().to_string()),
        escape(&work.display().to_string())
    );
    // mount(2) takes one page of options: deep images on long paths are copied.
    if options.len() >= 4096 {
        return Ok(false);
    }
    match mount_overlay(&dir.join("rootfs"), &options) {
        Ok(()) => Ok(true),
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "overlayfs refused; copying the layers");
            Ok(false)
        }
    }
}

/// The root folder shows the upper folder's mode and owner: they must be the image's.
fn copy_owner(from: &Path, to: &Path) -> Result<(), ImageError> {
    use std::os::unix::fs::MetadataExt;
    let doing = || format!("giving {} the image's owner", to.display());
    let it = fs::metadata(from).doing(doing)?;
    std::os::unix::fs::chown(to, Some(it.uid()), Some(it.gid())).doing(doing)?;
    fs::set_permissions(to, it.permissions()).doing(doing)
}

/// Colons and commas end a path in overlayfs's options.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

fn make(dir: &Path) -> Result<(), ImageError> {
    fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))
}

fn mount_overlay(target: &Path, options: &str) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    let options = CString::new(options)?;
    let kind = c"overlay".as_ptr();
    // SAFETY: all strings are NUL-terminated and outlive the call.
    match unsafe { libc::mount(kind, target.as_ptr(), kind, 0, options.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn unmount(target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL-terminated and outlives the call. Detached, so that a process that lingers in it
    // does not keep the pod.
    match unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
