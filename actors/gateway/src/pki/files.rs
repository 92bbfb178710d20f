//! The authority's files: whole or absent, readable by their owner only.
//!
//! The mode is set on the empty file, before the key is in it. A disk that is not the machine's (a simulated one)
//! has no modes; there the call finds no such file and that is fine.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kactor_runtime::env::{Disk, Env, OpenMode};

use super::PkiError;

/// Longest file that is read: a chain of certificates is a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<String, PkiError> {
    let failed = |source| PkiError::Disk { what: "reading", path: path.to_path_buf(), source };
    let unreadable =
        |reason: &str| PkiError::Unreadable { path: path.to_path_buf(), reason: reason.to_owned() };
    let file = disk.open(path, OpenMode::Read).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    if len > FILE_BYTES_MAX {
        return Err(unreadable("it is longer than 1 MiB"));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("at most 1 MiB")];
    let mut at = 0;
    while at < bytes.len() {
        let n = file.read_at(at as u64, &mut bytes[at..]).map_err(failed)?;
        if n == 0 {
            return Err(unreadable("it ended early"));
        }
        at += n;
    }
    String::from_utf8(bytes).map_err(|_| unreadable("it is not text"))
}

pub(super) fn create_folder(disk: &dyn Disk, folder: &Path) -> Result<(), PkiError> {
    let failed = |source| PkiError::Disk { what: "making", path: folder.to_path_buf(), source };
    disk.create_dir_all(folder).map_err(failed)?;
    restrict(folder, 0o700)
}

/// Writes every file beside its name, syncs it, then renames them in the given order.
pub(super) async fn write_all(
    env: &Env,
    folder: &Path,
    contents: &[(&str, &str)],
) -> Result<(), PkiError> {
    let disk = &*env.disk;
    for (name, text) in contents {
        let path = folder.join(format!("{name}.new"));
        let failed = |source| PkiError::Disk { what: "writing", path: path.clone(), source };
        let file = disk.open(&path, OpenMode::ReadWriteCreate).map_err(failed)?;
        restrict(&path, 0o600)?;
        file.truncate(0).map_err(failed)?;
        file.write_all_at(0, text.as_bytes()).map_err(failed)?;
        file.sync_data().await.map_err(failed)?;
    }
    for (name, _) in contents {
        let to = folder.join(name);
        disk.rename(&folder.join(format!("{name}.new")), &to).map_err(|source| PkiError::Disk {
            what: "renaming to",
            path: to,
            source,
        })?;
    }
    disk.sync_dir(folder).await.map_err(|source| PkiError::Disk {
        what: "syncing",
        path: folder.to_path_buf(),
        source,
    })
}

fn restrict(path: &Path, mode: u32) -> Result<(), PkiError> {
    match std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(PkiError::Disk {
            what: "restricting the mode of",
            path: path.to_path_buf(),
            source,
        }),
    }
}
