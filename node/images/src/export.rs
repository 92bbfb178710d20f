//! Writing images of a store as a `docker save` tarball: what `docker load` of every version takes.
//!
//! Layers go as they lie in the store, compressed or not. Order and dates are fixed, so equal images give equal bytes.

use std::fs::File;
use std::io::{Read, Write};

use serde_json::json;
use tar::{EntryType, Header};

use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::manifest;
use crate::store::{ImageStore, Resolved};

/// Writes the images with these ids, each with the names that are given for it.
pub fn docker_archive(
    store: &ImageStore,
    images: &[(String, Vec<String>)],
    out: impl Write,
) -> Result<(), ImageError> {
    let doing = || "writing a docker archive".to_owned();
    let mut tar = tar::Builder::new(out);
    let mut listed = Vec::new();
    let mut written: Vec<Digest> = Vec::new();
    for (id, tags) in images {
        let not_found = || ImageError::NotFound { reference: id.clone() };
        let Resolved { manifest, .. } = store.find(id)?.ok_or_else(not_found)?;
        let config = format!("{}.json", manifest.config.digest.hex());
        let layers: Vec<String> = manifest.layers.iter().map(|it| layer_name(&it.digest)).collect();
        listed.push(json!({ "Config": config, "RepoTags": tags, "Layers": layers }));
        let blobs = manifest.layers.iter().map(|it| (layer_name(&it.digest), &it.digest));
        for (name, digest) in blobs.chain([(config.clone(), &manifest.config.digest)]) {
            if written.contains(digest) {
                continue; // Images share layers.
            }
            let path = store.blob_path(digest);
            let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
            let len = file.metadata().doing(doing)?.len();
            tar.append_data(&mut header(len), &name, file.take(len)).doing(doing)?;
            written.push(digest.clone());
        }
    }
    let listed = manifest::print(&listed);
    let mut header = header(listed.len() as u64);
    tar.append_data(&mut header, "manifest.json", listed.as_slice()).doing(doing)?;
    tar.into_inner().and_then(|mut it| it.flush()).doing(doing)
}

fn layer_name(digest: &Digest) -> String {
    format!("{}/layer.tar", digest.hex())
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use kactor_drivers::ImageConfig;

    use super::*;
    use crate::archive;
    use crate::build::{Content, Entry, image_from_files};
    use crate::store::Limits;

    #[test]
    fn what_is_written_is_taken_in_again_under_the_same_id() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = ImageStore::open(from.path(), Limits::default()).unwrap();
        let to = ImageStore::open(to.path(), Limits::default()).unwrap();
        let file = Entry {
            path: "/etc/a".to_owned(),
            content: Content::Bytes(b"a".to_vec()),
            mode: 0o644,
        };
        let config = ImageConfig { cmd: vec!["/bin/x".to_owned()], ..ImageConfig::default() };
        let image = image_from_files(&from, "kactor/x:1", &[file], &config).unwrap();
        let mut bytes = Vec::new();
        let tags = vec!["kactor/x:1".to_owned()];
        docker_archive(&from, &[(image.id.clone(), tags)], &mut bytes).unwrap();
        let taken = archive::import_from(&to, bytes.as_slice()).unwrap();
        assert_eq!((&taken[0].id, &taken[0].tags), (&image.id, &image.tags));
        let absent = docker_archive(&from, &[("nothing:1".to_owned(), vec![])], Vec::new());
        assert!(matches!(absent, Err(ImageError::NotFound { .. })), "{absent:?}");
    }
}
