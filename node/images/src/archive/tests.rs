//! Tarballs as docker and others write them, and as they do not.

use super::*;
use crate::store::Limits;
use serde_json::{Value, json};

fn tarball(files: &[(&str, Vec<u8>)], links: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    }
    tar.into_inner().unwrap()
}

fn layer() -> Vec<u8> {
    tarball(&[("bin/hello", b"#!".to_vec())], &[])
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|it| Digest::of(it).to_string()).collect();
    let config = json!({
        "architecture": manifest::architecture(), "os": "linux",
        "config": {"Cmd": ["/bin/hello"], "Entrypoint": null, "Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    config.to_string().into_bytes()
}

fn try_import(tarball: &[u8]) -> (tempfile::TempDir, ImageStore, Result<Vec<Image>, ImageError>) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), Limits::default()).unwrap();
    let done = import_from(&store, tarball);
    (dir, store, done)
}

fn docker_manifest(layers: &[&str]) -> Vec<u8> {
    let manifest = json!([{"Config": "c.json", "RepoTags": ["app:1"], "Layers": layers}]);
    manifest.to_string().into_bytes()
}

#[test]
fn docker_save_tarballs_are_taken_with_their_links() {
    let manifest = docker_manifest(&["one/layer.tar", "two/layer.tar"]);
    let files = [
        ("one/layer.tar", layer()),
        ("c.json", config(&[&layer(), &layer()])),
        ("manifest.json", manifest),
    ];
    let plain = tarball(&files, &[("two/layer.tar", "../one/layer.tar")]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &plain).unwrap();
    for bytes in [plain, gz.finish().unwrap()] {
        let (_dir, store, done) = try_import(&bytes);
        let images = done.unwrap();
        assert_eq!(images[0].tags, ["docker.io/library/app:1"]);
        assert_eq!(images[0].config.cmd, ["/bin/hello"]);
        let found = store.find("app:1").unwrap().unwrap();
        assert_eq!(found.manifest.layers.len(), 2);
    }
}

fn oci_layout(change: impl Fn(&mut Value)) -> Vec<u8> {
    let (layer, config) = (layer(), config(&[&layer()]));
    let blob = |it: &[u8]| format!("blobs/sha256/{}", Digest::of(it).hex());
    let about = |kind: &str, it: &[u8]| json!({"mediaType": kind, "digest": Digest::of(it).to_string(), "size": it.len()});
    let manifest = json!({
        "schemaVersion": 2, "config": about(CONFIG_TYPE, &config), "layers": [about(LAYER_TYPE, &layer)],
    })
    .to_string()
    .into_bytes();
    let mut entry = about(MANIFEST_TYPE, &manifest);
    entry["annotations"] = json!({"io.containerd.image.name": "ghcr.io/o/app:2"});
    let mut index = json!({"schemaVersion": 2, "manifests": [entry]});
    change(&mut index);
    let (l, c, m) = (blob(&layer), blob(&config), blob(&manifest));
    let index = index.to_string().into_bytes();
    tarball(&[("index.json", index), (&l, layer), (&c, config), (&m, manifest)], &[])
}

#[test]
fn oci_layouts_are_taken_and_named_by_their_annotation() {
    let (_dir, _store, done) = try_import(&oci_layout(|_| {}));
    assert_eq!(done.unwrap()[0].tags, ["ghcr.io/o/app:2"]);
}

#[test]
fn images_for_other_machines_are_no_images_here() {
    let other = |it: &mut Value| {
        it["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "s390x"});
    };
    let (_dir, _store, done) = try_import(&oci_layout(other));
    assert!(matches!(done, Err(ImageError::NotAnImage { .. })), "{done:?}");
}

#[test]
fn broken_tarballs_are_refused_and_name_nothing() {
    let whole = [
        ("l", layer()),
        ("c.json", config(&[&layer()])),
        ("manifest.json", docker_manifest(&["l"])),
    ];
    let without = |name: &str| {
        let kept: Vec<_> = whole.iter().filter(|it| it.0 != name).cloned().collect();
        tarball(&kept, &[])
    };
    let cases = [
        tarball(&[("readme", b"hi".to_vec())], &[]),
        without("l"),
        without("c.json"),
        tarball(&[("manifest.json", b"{".to_vec())], &[]),
        tarball(
            &[("c.json", config(&[])), ("l", layer()), ("manifest.json", docker_manifest(&["l"]))],
            &[],
        ),
        tarball(&[("manifest.json", docker_manifest(&["x"]))], &[("x", "y"), ("y", "x")]),
        tarball(&[("manifest.json", vec![b' '; 5 << 20])], &[]),
        b"no tarball at all, but long enough to be read as a header of 512 bytes".repeat(20),
    ];
    for (index, bytes) in cases.iter().enumerate() {
        let (_dir, store, done) = try_import(bytes);
        assert!(done.is_err(), "case {index}");
        assert_eq!(store.images().unwrap(), [], "case {index}");
    }
}

#[test]
fn a_layer_that_lies_about_its_content_is_found_when_unpacked() {
    let lying = [
        ("l", layer()),
        ("c.json", config(&[b"other"])),
        ("manifest.json", docker_manifest(&["l"])),
    ];
    let (_dir, store, done) = try_import(&tarball(&lying, &[]));
    done.unwrap();
    let found = store.find("app:1").unwrap().unwrap();
    assert!(matches!(store.layer_dirs(&found), Err(ImageError::WrongDigest { .. })));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(100))]
    #[test]
    fn damaged_tarballs_give_errors(at in 0_usize..10_000, to in proptest::prelude::any::<u8>()) {
        let mut bytes = oci_layout(|_| {});
        let at = at % bytes.len();
        bytes[at] = to;
        let _ = try_import(&bytes); // No panic; what is named is whole.
    }
}
