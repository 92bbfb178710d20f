//! Layers as strangers make them.

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tar::Builder;

const LIMITS: LayerLimits = LayerLimits { bytes_max: 1 << 20, entries_max: 100 };

/// One line an entry: `dir a`, `file a/b text`, `link a target`, `hard a target`, `fifo a`, `char a`.
fn layer(lines: &str) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for line in lines.lines().map(str::trim).filter(|it| !it.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_size(0);
        let content = words.get(2).copied().unwrap_or_default();
        let kind = match words[0] {
            "dir" => EntryType::Directory,
            "file" => EntryType::Regular,
            "link" => EntryType::Symlink,
            "hard" => EntryType::Link,
            "fifo" => EntryType::Fifo,
            "char" => EntryType::Char,
            "sparse" => EntryType::GNUSparse,
            other => panic!("{other}"),
        };
        header.set_entry_type(kind);
        if kind == EntryType::Directory {
            header.set_mode(0o755);
        }
        // Written raw: the builder refuses names that the tests need.
        let name = words[1].as_bytes();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content.as_bytes()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

fn unpack_over(dir: &Path, bytes: &[u8], whiteouts: Whiteouts) -> Result<u64, ImageError> {
    unpack(bytes, dir, &Digest::of(bytes), whiteouts, LIMITS)
}

#[track_caller]
fn refused(lines: &str) -> ImageError {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let error = unpack_over(&root, &layer(lines), Whiteouts::Deletions).unwrap_err();
    let beside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "something was made outside of the root");
    error
}

#[test]
fn files_folders_and_links_arrive_with_mode_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "dir a\nfile a/b text\nlink a/c b\nhard d a/b\nfifo e\nfile new/parents/f x";
    unpack_over(dir.path(), &layer(lines), Whiteouts::Deletions).unwrap();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(std::fs::read_to_string(at("a/b")).unwrap(), "text");
    assert_eq!(std::fs::read_to_string(at("a/c")).unwrap(), "text");
    let file = std::fs::metadata(at("a/b")).unwrap();
    assert_eq!((file.permissions().mode() & 0o7777, file.mtime()), (0o644, 7));
    assert_eq!(file.ino(), std::fs::metadata(at("d")).unwrap().ino());
    assert_eq!(std::fs::read_to_string(at("new/parents/f")).unwrap(), "x");
}

#[test]
fn nothing_reaches_outside_of_the_root() {
    assert!(matches!(refused("file ../x y"), ImageError::Escape { .. }));
    assert!(matches!(refused("file a/../../x y"), ImageError::Escape { .. }));
    assert!(matches!(refused("hard x ../../etc/passwd"), ImageError::Escape { .. }));
    assert!(matches!(refused("hard x /"), ImageError::Escape { .. }));
    assert!(matches!(refused("file .wh... x"), ImageError::Escape { .. }));
}

#[test]
fn links_planted_by_earlier_entries_stay_inside() {
    let host = tempfile::tempdir().unwrap();
    let root = host.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(host.path().join("victim"), "whole").unwrap();
    // Through a folder link, and through a file link of the same name.
    let lines = "link up ..\nfile up/victim broken\nlink v ../victim\nfile v broken\nlink abs /\nfile abs/z y";
    unpack_over(&root, &layer(lines), Whiteouts::Deletions).unwrap();
    assert_eq!(std::fs::read_to_string(host.path().join("victim")).unwrap(), "whole");
    assert_eq!(std::fs::read_to_string(root.join("victim")).unwrap(), "broken");
    assert_eq!(std::fs::read_to_string(root.join("v")).unwrap(), "broken");
    assert_eq!(std::fs::read_to_string(root.join("z")).unwrap(), "y");
}

#[test]
fn devices_and_unknown_kinds_are_refused_by_name() {
    assert!(matches!(refused("char sda"), ImageError::Device { path } if path == "sda"));
    assert!(matches!(refused("sparse s"), ImageError::EntryKind { .. }));
    let dir = tempfile::tempdir().unwrap();
    unpack_over(dir.path(), &layer("char dev/null"), Whiteouts::Deletions).unwrap();
    assert!(!dir.path().join("dev/null").exists());
}

#[test]
fn sizes_counts_and_digests_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let small = LayerLimits { bytes_max: 3, entries_max: 2 };
    let try_layer = |lines: &str| {
        let bytes = layer(lines);
        unpack(bytes.as_slice(), dir.path(), &Digest::of(&bytes), Whiteouts::Deletions, small)
    };
    assert!(matches!(try_layer("file a 1234"), Err(ImageError::TooLarge { .. })));
    assert!(matches!(try_layer("dir a\ndir b\ndir c"), Err(ImageError::TooMany { .. })));
    let bytes = layer("file a 1");
    let other = Digest::of(b"other");
    let done = unpack(bytes.as_slice(), dir.path(), &other, Whiteouts::Deletions, LIMITS);
    assert!(matches!(done, Err(ImageError::WrongDigest { .. })));
}

#[test]
fn a_name_of_a_gigabyte_does_not_fill_the_memory() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let bytes = header.as_bytes().to_vec();
    let stream = bytes.as_slice().chain(io::repeat(b'a'));
    let dir = tempfile::tempdir().unwrap();
    let done = unpack(stream, dir.path(), &Digest::of(b""), Whiteouts::Deletions, LIMITS);
    assert!(matches!(done, Err(ImageError::TooLarge { bytes_max: EXTENSION_BYTES_MAX, .. })));
}

#[test]
fn long_names_and_gzip_and_zstd_are_read() {
    let long = format!("{}/file", "d".repeat(150));
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(2);
    tar.append_data(&mut header, &long, &b"ok"[..]).unwrap();
    let plain = tar.into_inner().unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gz, &plain).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(
        plain.as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    for packed in [plain.clone(), gz.finish().unwrap(), zstd] {
        let dir = tempfile::tempdir().unwrap();
        let id = Digest::of(&plain);
        unpack(packed.as_slice(), dir.path(), &id, Whiteouts::Deletions, LIMITS).unwrap();
        assert_eq!(std::fs::read(dir.path().join(&long)).unwrap(), b"ok");
    }
}

#[test]
fn whiteouts_delete_when_layers_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    let lower = "file a 1\ndir d\nfile d/x 1\nfile d/y 1\ndir e\nfile e/z 1";
    unpack_over(dir.path(), &layer(lower), Whiteouts::Deletions).unwrap();
    let upper = "file .wh.a x\nfile d/.wh.x x\nfile e/.wh..wh..opq x\nfile e/new 1";
    unpack_over(dir.path(), &layer(upper), Whiteouts::Deletions).unwrap();
    let here = |name: &str| dir.path().join(name).exists();
    assert_eq!(["a", "d/x", "d/y", "e/z", "e/new"].map(here), [false, false, true, false, true]);
}

/// A tar, or nonsense that is mostly one.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let spots = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..12);
    let lines = proptest::sample::select(vec![
        "dir a\nfile a/b text\nlink a/c b\nhard d a/b",
        "link x ..\nfile x/y z\nfile .wh.q z",
        "file a/.wh..wh..opq z\nfifo p",
    ]);
    (lines, spots).prop_map(|(lines, spots)| {
        let mut bytes = layer(lines);
        for (at, to) in spots {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        for block in 0..bytes.len() / 512 {
            // Half of the damage would only be caught by the checksum: mend it now and then.
            if block % 2 == 0 {
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[block * 512..(block + 1) * 512]);
                if header.as_bytes()[0] != 0 {
                    header.set_cksum();
                    bytes[block * 512..(block + 1) * 512].copy_from_slice(header.as_bytes());
                }
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_layers_give_errors_and_touch_nothing_outside(bytes in damaged()) {
        let host = tempfile::tempdir().unwrap();
        let root = host.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(host.path().join("victim"), "whole").unwrap();
        let _ = unpack_over(&root, &bytes, Whiteouts::Deletions);
        let names: Vec<_> = std::fs::read_dir(host.path()).unwrap().collect();
        prop_assert_eq!(names.len(), 2);
        prop_assert_eq!(std::fs::read_to_string(host.path().join("victim")).unwrap(), "whole");
    }
}

#[test]
fn empty_owner_and_time_count_as_zero_and_nonsense_is_refused() {
    let layer_with = |owner: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o755);
        header.as_old_mut().uid[..owner.len()].copy_from_slice(owner);
        let mut tar = Builder::new(Vec::new());
        tar.append_data(&mut header, "bin", &b"hi"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    let unpacked = |layer: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let done = unpack_over(dir.path(), layer, Whiteouts::Deletions);
        done.map(|_| std::fs::metadata(dir.path().join("bin")).unwrap().mtime())
    };
    assert_eq!(unpacked(&layer_with(b"")).unwrap(), 0);
    assert_eq!(unpacked(&layer_with(b"   ")).unwrap(), 0);
    let refused = unpacked(&layer_with(b"nobody")).unwrap_err();
    assert!(refused.to_string().contains("malformed"), "{refused}");
}
