//! Writes a volume's files so that a reader sees the old set or the new set, never a mixture.
//!
//! The way of Kubernetes' AtomicWriter, which programs that watch mounted ConfigMaps rely on: files live in a
//! time-named folder, `..data` is a symbolic link to it that is swapped by one rename, and each top-level name is
//! a symbolic link through `..data`. Interrupted at any point, the next write begins from what `..data` says.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::content::Files;

const LINK: &str = "..data";
const LINK_NEXT: &str = "..data_tmp";

/// A file operation that failed, with its path.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}")]
pub struct PayloadError {
    pub doing: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

fn at<T>(doing: &'static str, path: &Path, result: io::Result<T>) -> Result<T, PayloadError> {
    result.map_err(|source| PayloadError { doing, path: path.to_owned(), source })
}

/// Whether anything had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Changed,
    Unchanged,
}

/// Makes `folder` hold exactly `files`. `stamp` names the new set; it must differ from the present one's.
/// `group` owns the files when the pod asks for an fsGroup.
pub fn write(
    folder: &Path,
    files: &Files,
    stamp: &str,
    group: Option<u32>,
) -> Result<Written, PayloadError> {
    at("making", folder, fs::create_dir_all(folder))?;
    let link = folder.join(LINK);
    let present = fs::read_link(&link).ok();
    if present.as_ref().is_some_and(|it| holds(&folder.join(it), files)) {
        return Ok(Written::Unchanged);
    }
    let set = format!("..{stamp}");
    let target = folder.join(&set);
    if target.exists() {
        at("removing an unfinished", &target, fs::remove_dir_all(&target))?;
    }
    at("making", &target, fs::create_dir(&target))?;
    at("opening", &target, fs::set_permissions(&target, fs::Permissions::from_mode(0o755)))?;
    for (path, file) in files {
        write_file(&target.join(path), &file.content, file.mode, group)?;
    }
    let next = folder.join(LINK_NEXT);
    if next.symlink_metadata().is_ok() {
        at("removing", &next, fs::remove_file(&next))?;
    }
    at("linking", &next, symlink(&set, &next))?;
    at("renaming", &next, fs::rename(&next, &link))?;
    link_names(folder, files)?;
    remove_stale(folder, &set)?;
    Ok(Written::Changed)
}

fn write_file(
    path: &Path,
    content: &[u8],
    mode: u32,
    group: Option<u32>,
) -> Result<(), PayloadError> {
    if let Some(parent) = path.parent() {
        at("making", parent, fs::create_dir_all(parent))?;
    }
    at("writing", path, fs::write(path, content))?;
    // A group that may read the volume needs the group's bits, as with Kubernetes' fsGroup.
    let mode = if group.is_some() { mode | ((mode & 0o400) >> 3) } else { mode };
    at("changing the mode of", path, fs::set_permissions(path, fs::Permissions::from_mode(mode)))?;
    if group.is_some() {
        at("changing the group of", path, std::os::unix::fs::chown(path, None, group))?;
    }
    Ok(())
}

/// True if the folder holds these files with these contents, and no others.
fn holds(folder: &Path, files: &Files) -> bool {
    let same = |(path, file): (&String, &crate::content::File)| {
        fs::read(folder.join(path)).is_ok_and(|it| it == file.content)
    };
    count(folder) == files.len() && files.iter().all(same)
}

fn count(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return usize::MAX };
    entries.flatten().map(|it| if it.path().is_dir() { count(&it.path()) } else { 1 }).sum()
}

fn top_names(files: &Files) -> BTreeSet<&str> {
    files.keys().filter_map(|it| it.split('/').next()).collect()
}

fn link_names(folder: &Path, files: &Files) -> Result<(), PayloadError> {
    for name in top_names(files) {
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            at("linking", &link, symlink(Path::new(LINK).join(name), &link))?;
        }
    }
    Ok(())
}

/// Names and sets that the present set no longer has.
fn remove_stale(folder: &Path, set: &str) -> Result<(), PayloadError> {
    let current = folder.join(LINK);
    for entry in at("listing", folder, fs::read_dir(folder))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if name == LINK || name == set {
            continue;
        }
        if name.starts_with("..") {
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            at("removing", &path, removed)?;
        } else if current.join(&name).symlink_metadata().is_err() {
            at("removing", &path, fs::remove_file(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::File;

    fn set(entries: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { content: text.as_bytes().to_vec(), mode: 0o640 };
        entries.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut out: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|it| it.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        out.sort();
        out
    }

    #[test]
    fn a_set_is_replaced_as_a_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let write = |files: &Files, stamp: &str| write(dir.path(), files, stamp, None).unwrap();
        assert_eq!(write(&set(&[("a", "1"), ("d/b", "2")]), "one"), Written::Changed);
        assert_eq!(fs::read_to_string(dir.path().join("d/b")).unwrap(), "2");
        assert_eq!(names(dir.path()), ["..data", "..one", "a", "d"]);
        assert_eq!(write(&set(&[("a", "1"), ("d/b", "2")]), "two"), Written::Unchanged);
        assert_eq!(write(&set(&[("a", "3")]), "two"), Written::Changed);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert_eq!(names(dir.path()), ["..data", "..two", "a"]);
    }

    #[test]
    fn an_interrupted_write_is_finished_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &set(&[("a", "1")]), "one", None).unwrap();
        fs::create_dir(dir.path().join("..two")).unwrap();
        fs::write(dir.path().join("..two/half"), "x").unwrap();
        symlink("..two", dir.path().join(LINK_NEXT)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
        write(dir.path(), &set(&[("a", "2")]), "two", None).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "2");
        assert_eq!(names(dir.path()), ["..data", "..two", "a"]);
    }

    #[test]
    fn modes_are_the_files_own() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &set(&[("a", "1")]), "one", None).unwrap();
        assert_eq!(fs::metadata(dir.path().join("a")).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
