//! Makes and removes a pod's volumes on this host.
//!
//! Layout, the kubelet's, because log and backup agents know it:
//! `ROOT/pods/UID/volumes/kubernetes.io~KIND/NAME`. Removal never follows what a container put there: mounts below
//! the pod's folder are detached first, and symbolic links are removed, not followed.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::content::Files;
use crate::payload::{self, PayloadError, Written};
use crate::plan::{HostPathKind, Source, Volume};

/// Why a volume could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {volume}: {doing} {path}")]
    Io {
        volume: String,
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("volume {volume}: hostPath {path} is no {wanted:?}")]
    WrongKind { volume: String, path: PathBuf, wanted: HostPathKind },
    #[error("volume {volume}")]
    Payload {
        volume: String,
        #[source]
        source: PayloadError,
    },
}

/// A pod's volumes below one folder.
#[derive(Debug, Clone)]
pub struct PodVolumes {
    folder: PathBuf,
    group: Option<u32>,
}

impl PodVolumes {
    /// `root` is the kubelet's folder, `/var/lib/kubelet` on an ordinary host; `group` is the pod's fsGroup.
    pub fn new(root: &Path, pod_uid: &str, group: Option<u32>) -> Self {
        Self { folder: root.join("pods").join(pod_uid).join("volumes"), group }
    }

    /// Where the volume is, or will be, on the host.
    pub fn path(&self, volume: &Volume) -> PathBuf {
        let kind = match &volume.source {
            Source::HostPath { path, .. } => return PathBuf::from(path),
            Source::EmptyDir { .. } => "kubernetes.io~empty-dir",
            Source::Projected { .. } => "kubernetes.io~projected",
        };
        self.folder.join(kind).join(&volume.name)
    }

    /// Makes an emptyDir or checks a hostPath. Projected volumes are made by `write`.
    pub fn make(&self, volume: &Volume, size_limit_bytes: Option<u64>) -> Result<(), VolumeError> {
        let path = self.path(volume);
        match &volume.source {
            Source::EmptyDir { in_memory, .. } => {
                self.make_empty(volume, &path, *in_memory, size_limit_bytes)
            }
            Source::HostPath { kind, .. } => check_host_path(volume, &path, *kind),
            Source::Projected { .. } => Ok(()),
        }
    }

    /// Brings a projected volume's files up to date.
    pub fn write(
        &self,
        volume: &Volume,
        files: &Files,
        stamp: &str,
    ) -> Result<Written, VolumeError> {
        let path = self.path(volume);
        let in_memory = holds_secrets(volume);
        if in_memory && !is_mounted(&path) {
            // What is secret never reaches a disk.
            self.make_tmpfs(volume, &path, None)?;
        }
        payload::write(&path, files, stamp, self.group)
            .map_err(|source| VolumeError::Payload { volume: volume.name.clone(), source })
    }

    fn make_empty(
        &self,
        volume: &Volume,
        path: &Path,
        in_memory: bool,
        limit: Option<u64>,
    ) -> Result<(), VolumeError> {
        if in_memory && !is_mounted(path) {
            self.make_tmpfs(volume, path, limit)?;
        }
        doing(volume, "making", path, fs::create_dir_all(path))?;
        // Any user of the pod may write; with an fsGroup new files belong to the group.
        let mode = if self.group.is_some() { 0o2777 } else { 0o777 };
        if self.group.is_some() {
            doing(
                volume,
                "changing the group of",
                path,
                std::os::unix::fs::chown(path, None, self.group),
            )?;
        }
        doing(
            volume,
            "changing the mode of",
            path,
            fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        )
    }

    fn make_tmpfs(
        &self,
        volume: &Volume,
        path: &Path,
        limit: Option<u64>,
    ) -> Result<(), VolumeError> {
        doing(volume, "making", path, fs::create_dir_all(path))?;
        let options = limit.map(|it| format!("size={it}"));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let mounted = mount(Some("tmpfs"), path, Some("tmpfs"), flags, options.as_deref());
        doing(volume, "mounting a tmpfs on", path, mounted.map_err(io::Error::from))
    }

    /// Detaches and removes everything below the pod's volumes folder. Doing it again does nothing.
    pub fn remove(&self) -> Result<(), VolumeError> {
        let failed = |doing, path: &Path, source| VolumeError::Io {
            volume: "*".to_owned(),
            doing,
            path: path.to_owned(),
            source,
        };
        for path in mounts_below(&self.folder).iter().rev() {
            umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
                .map_err(|it| failed("unmounting", path, it.into()))?;
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removing", &self.folder, error))
            }
            _ => Ok(()),
        }
    }
}

fn holds_secrets(volume: &Volume) -> bool {
    use crate::plan::Projection::{Secret, ServiceAccountToken};
    let Source::Projected { sources, .. } = &volume.source else { return false };
    sources.iter().any(|it| matches!(it, Secret { .. } | ServiceAccountToken { .. }))
}

fn doing<T>(
    volume: &Volume,
    doing: &'static str,
    path: &Path,
    result: io::Result<T>,
) -> Result<T, VolumeError> {
    let (volume, path) = (volume.name.clone(), path.to_owned());
    result.map_err(|source| VolumeError::Io { volume, doing, path, source })
}

fn check_host_path(volume: &Volume, path: &Path, kind: HostPathKind) -> Result<(), VolumeError> {
    match kind {
        HostPathKind::DirectoryOrCreate if !path.exists() => {
            return doing(volume, "making", path, fs::create_dir_all(path));
        }
        HostPathKind::FileOrCreate if !path.exists() => {
            return doing(volume, "making", path, fs::File::create_new(path).map(drop));
        }
        HostPathKind::Any => return Ok(()),
        _ => {}
    }
    let it = doing(volume, "looking at", path, fs::metadata(path))?.file_type();
    let right = match kind {
        HostPathKind::Any => true,
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate => it.is_dir(),
        HostPathKind::File | HostPathKind::FileOrCreate => it.is_file(),
        HostPathKind::Socket => it.is_socket(),
        HostPathKind::CharDevice => it.is_char_device(),
        HostPathKind::BlockDevice => it.is_block_device(),
    };
    let wrong = || VolumeError::WrongKind {
        volume: volume.name.clone(),
        path: path.to_owned(),
        wanted: kind,
    };
    if right { Ok(()) } else { Err(wrong()) }
}

/// Mount points at or below `folder`, parents before children.
fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|it| PathBuf::from(unescape(it)))
        .filter(|it| it.starts_with(folder))
        .collect();
    found.sort();
    found
}

fn is_mounted(path: &Path) -> bool {
    mounts_below(path).iter().any(|it| it == path)
}

/// mountinfo writes blanks, tabs, newlines and backslashes as three octal digits (proc(5)).
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |it: &[u8]| it.iter().all(|b| (b'0'..=b'7').contains(b));
        if first == b'\\' && tail.len() >= 3 && octal(&tail[..3]) {
            let value = tail[..3].iter().fold(0_u32, |sum, b| sum * 8 + u32::from(b - b'0'));
            out.push(value as u8);
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(source: Source) -> Volume {
        Volume { name: "v".to_owned(), source }
    }

    #[test]
    fn an_empty_dir_is_made_once_and_removed_whole() {
        let root = tempfile::tempdir().unwrap();
        let volumes = PodVolumes::new(root.path(), "uid", None);
        let it = volume(Source::EmptyDir { in_memory: false, size_limit: None });
        volumes.make(&it, None).unwrap();
        fs::write(volumes.path(&it).join("kept"), "x").unwrap();
        volumes.make(&it, None).unwrap();
        assert!(volumes.path(&it).join("kept").exists(), "a second start keeps what is there");
        std::os::unix::fs::symlink("/", volumes.path(&it).join("root")).unwrap();
        volumes.remove().unwrap();
        assert!(!volumes.path(&it).exists() && Path::new("/proc").exists());
        volumes.remove().unwrap();
    }

    #[test]
    fn host_paths_are_checked_for_their_kind() {
        let root = tempfile::tempdir().unwrap();
        let volumes = PodVolumes::new(root.path(), "uid", None);
        let path = root.path().join("made");
        let host = |kind| volume(Source::HostPath { path: path.display().to_string(), kind });
        assert!(volumes.make(&host(HostPathKind::Directory), None).is_err());
        volumes.make(&host(HostPathKind::DirectoryOrCreate), None).unwrap();
        let error = volumes.make(&host(HostPathKind::File), None).unwrap_err();
        assert!(error.to_string().ends_with("is no File"), "{error}");
    }

    #[test]
    fn mount_points_with_blanks_are_read_back() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }
}
