//! A data directory that this kactor must not start from: it says what, why and what to do, ends with an error, and
//! leaves every name and byte as it was.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kactor_tests::harness::{Cluster, Runtime, process};

/// Every file and folder under `root`, with what is in it.
fn everything(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match entry.file_type().unwrap().is_dir() {
            true => {
                found.extend(everything(&path));
                found.insert(path, None);
            }
            false => drop(found.insert(path.clone(), Some(fs::read(&path).unwrap()))),
        }
    }
    found
}

/// A directory that a kactor used and left.
fn used() -> Cluster {
    let mut cluster = Cluster::start(Runtime::None);
    cluster.kill();
    cluster
}

/// Starts it; answers what it said.
#[track_caller]
fn refused(cluster: &Cluster) -> String {
    let before = everything(&cluster.data_dir());
    assert!(before.len() > 5, "there is nothing to touch: {:?}", before.keys());
    let answer = process::run(&mut cluster.up(), "");
    assert_ne!(answer.code, 0, "{}", answer.both());
    let after = everything(&cluster.data_dir());
    let names = |it: &BTreeMap<PathBuf, _>| it.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    for (path, bytes) in before {
        assert!(after[&path] == bytes, "{} has changed", path.display());
    }
    assert_eq!(answer.stderr.trim().lines().count(), 1, "{}", answer.stderr);
    assert_eq!(answer.stdout, "");
    answer.stderr
}

#[test]
fn a_store_of_a_newer_version_is_refused_untouched_and_taken_again_as_it_was() {
    let mut cluster = used();
    let identity = cluster.data_dir().join("store/identity");
    let ours = fs::read(&identity).unwrap();
    let mut newer = ours.clone();
    newer[8..12].copy_from_slice(&999_u32.to_le_bytes());
    fs::write(&identity, newer).unwrap();
    let said = refused(&cluster);
    for part in ["format 999", "nothing was touched", "newer kactor"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    fs::write(&identity, ours).unwrap();
    cluster.restart();
}

#[test]
fn a_store_of_another_cluster_is_refused_untouched() {
    let (cluster, other) = (used(), used());
    let store = cluster.data_dir().join("store");
    fs::rename(&store, cluster.folder().join("aside")).unwrap();
    fs::rename(other.data_dir().join("store"), &store).unwrap();
    let said = refused(&cluster);
    for part in ["belongs to cluster", "nothing was touched", "--data-dir"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn a_directory_whose_store_is_gone_never_becomes_a_new_cluster() {
    let mut cluster = used();
    let store = cluster.data_dir().join("store");
    let aside = cluster.folder().join("aside");
    fs::rename(&store, &aside).unwrap();
    let said = refused(&cluster);
    for part in ["its store is not in", "nothing was touched", "snapshot"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    fs::rename(&aside, &store).unwrap();
    cluster.restart();
}

#[test]
fn a_damaged_identity_is_refused_untouched() {
    let cluster = used();
    let identity = cluster.data_dir().join("store/identity");
    let mut bytes = fs::read(&identity).unwrap();
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    fs::write(&identity, bytes).unwrap();
    let said = refused(&cluster);
    for part in ["is damaged", "nothing was touched", "Restore a snapshot"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn what_holds_objects_and_keys_is_readable_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let cluster = used();
    for folder in ["store", "pki"] {
        let mode = fs::metadata(cluster.data_dir().join(folder)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{folder} has mode {mode:o}");
    }
}
