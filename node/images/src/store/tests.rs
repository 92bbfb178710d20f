//! Names, shared content, and what a crash leaves.

use super::*;
use crate::build::{Content, Entry, image_from_files};
use kactor_drivers::ImageConfig;

fn open(dir: &Path) -> ImageStore {
    ImageStore::open(dir, Limits::default()).unwrap()
}

fn make(store: &ImageStore, name: &str, text: &str, cmd: &str) -> Image {
    let content = Content::Bytes(text.as_bytes().to_vec());
    let entry = Entry { path: "/file".to_owned(), content, mode: 0o644 };
    let config = ImageConfig { cmd: vec![cmd.to_owned()], ..ImageConfig::default() };
    image_from_files(store, name, &[entry], &config).unwrap()
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn images_are_found_by_every_name_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let image = make(&open(dir.path()), "app:1", "x", "a");
    let store = open(dir.path());
    let by_manifest = store.find("app:1").unwrap().unwrap().manifest_digest.to_string();
    for name in ["app:1", "docker.io/library/app:1", &image.id, &by_manifest] {
        assert_eq!(store.image(name).unwrap().as_ref(), Some(&image), "{name}");
    }
    assert_eq!(store.image("app:2").unwrap(), None);
    assert_eq!(store.images().unwrap(), [image]);
}

#[test]
fn shared_layers_go_with_the_last_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blobs = dir.path().join("blobs/sha256");
    make(&store, "a", "same", "one");
    make(&store, "b", "same", "two");
    assert_eq!(count(&blobs), 5, "two manifests, two configs, one layer");
    store.remove("a", &|_| 0).unwrap();
    assert_eq!(count(&blobs), 3);
    store.remove("b", &|_| 0).unwrap();
    assert_eq!(count(&blobs), 0);
    assert!(matches!(store.remove("b", &|_| 0), Err(ImageError::NotFound { .. })));
}

#[test]
fn a_used_image_keeps_its_last_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let image = make(&store, "a:1", "x", "x");
    make(&store, "a:2", "x", "x");
    let used = |id: &str| usize::from(id == image.id);
    store.remove("a:1", &used).unwrap();
    let refused = store.remove("a:2", &used);
    assert!(matches!(refused, Err(ImageError::InUse { n_users: 1, .. })));
    assert!(store.image("a:2").unwrap().is_some());
}

#[test]
fn a_tag_that_moves_leaves_the_used_image_until_prune() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = make(&store, "a", "old", "x");
    let new = make(&store, "a", "new", "x");
    assert_eq!(store.image("a").unwrap().unwrap().id, new.id);
    store.prune(&|id| usize::from(id == old.id)).unwrap();
    assert!(store.image(&old.id).unwrap().is_some());
    store.prune(&|_| 0).unwrap();
    assert!(store.image(&old.id).unwrap().is_none());
    assert!(store.image("a").unwrap().is_some());
}

#[test]
fn wrong_or_large_content_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { blob_bytes_max: 10, ..Limits::default() };
    let store = ImageStore::open(dir.path(), limits).unwrap();
    let other = Digest::of(b"other");
    let wrong = store.write_blob("x", &b"this"[..], Some(&other));
    assert!(matches!(wrong, Err(ImageError::WrongDigest { .. })));
    let large = store.write_blob("x", &[0_u8; 11][..], None);
    assert!(matches!(large, Err(ImageError::TooLarge { .. })));
    assert_eq!(count(&dir.path().join("blobs/sha256")), 0);
    assert_eq!(count(&dir.path().join("partial")), 0);
}

#[test]
fn a_full_disk_is_refused_before_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { free_bytes_min: u64::MAX, ..Limits::default() };
    let store = ImageStore::open(dir.path(), limits).unwrap();
    let written = store.write_blob("x", &b"this"[..], None);
    assert!(matches!(written, Err(ImageError::DiskFull { .. })));
}

#[test]
fn leftovers_of_a_crash_go_and_a_newer_index_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::create_dir(dir.path().join("partial/9")).unwrap();
    drop(open(dir.path()));
    assert_eq!(count(&dir.path().join("partial")), 0);
    let newer = r#"{"version":2,"manifests":[],"tags":{},"digests":{}}"#;
    fs::write(dir.path().join("index.json"), newer).unwrap();
    let opened = ImageStore::open(dir.path(), Limits::default());
    assert!(matches!(opened, Err(ImageError::Malformed { .. })));
}

#[test]
fn what_comes_in_or_is_being_used_is_not_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let old = make(&store, "a", "old", "x");
    make(&store, "a", "new", "x");
    let (hold, other) = (store.hold(), store.hold());
    // A layer of a pull that is under way: nothing names it yet.
    let (layer, _) = store.write_blob("layer", &b"layer"[..], None).unwrap();
    make(&store, "b", "b", "x");
    store.remove("b", &|_| 0).unwrap();
    drop(other);
    store.prune(&|_| 0).unwrap();
    assert!(store.has_blob(&layer), "one still holds the store");
    assert!(store.image(&old.id).unwrap().is_some());
    drop(hold);
    store.prune(&|_| 0).unwrap();
    assert!(!store.has_blob(&layer));
    assert!(store.image(&old.id).unwrap().is_none());
}
