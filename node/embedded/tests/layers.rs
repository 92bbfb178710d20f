//! Two layers as one root file system: overlayfs and the copying fallback show the same.

use std::path::Path;
use std::sync::Arc;

use kactor_images::rootfs::{Kind, Preference, prepare, release};
use kactor_images::{Digest, ImageStore, Limits, archive};

fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, name, *bytes).expect("written to memory");
    }
    tar.into_inner().expect("written to memory")
}

/// `docker save` of two layers, the upper of which deletes and hides.
fn two_layers() -> Vec<u8> {
    let lower = tarball(&[("a", b"1"), ("d/x", b"1"), ("d/y", b"1"), ("e/z", b"1")]);
    let upper =
        tarball(&[(".wh.a", b""), ("d/.wh.x", b""), ("e/.wh..wh..opq", b""), ("e/new", b"1")]);
    let ids = [Digest::of(&lower), Digest::of(&upper)];
    let config = serde_json::json!({
        "architecture": kactor_images::manifest::architecture(), "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let manifest =
        serde_json::json!([{ "Config": "c", "RepoTags": ["two:1"], "Layers": ["l", "u"] }]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    tarball(&[
        ("l", &lower),
        ("u", &upper),
        ("c", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ])
}

fn shown(root: &Path) -> [bool; 5] {
    ["a", "d/x", "d/y", "e/z", "e/new"].map(|it| root.join(it).exists())
}

#[test]
fn deleted_files_of_lower_layers_do_not_show() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        assert!(std::env::var_os("KACTOR_E2E").is_none(), "skipped under KACTOR_E2E=1: needs root");
        eprintln!("skipped: mounting needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let images = ImageStore::open(&dir.path().join("images"), Limits::default()).unwrap();
    let images = Arc::new(images);
    archive::import_from(&images, two_layers().as_slice()).unwrap();
    let image = images.find("two:1").unwrap().unwrap();
    for (preference, wanted) in
        [(Preference::Overlay, Kind::Overlay), (Preference::Copy, Kind::Copied)]
    {
        let own = dir.path().join(format!("{wanted:?}"));
        std::fs::create_dir(&own).unwrap();
        let kind = prepare(&images, &image, &own, preference).unwrap();
        let found = shown(&own.join("rootfs"));
        release(&own).unwrap();
        assert_eq!(kind, wanted);
        assert_eq!(found, [false, false, true, false, true], "{kind:?}");
    }
}
