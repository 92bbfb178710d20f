//! Taking in `docker save` and OCI layout tarballs.
//!
//! One pass: every file of the tarball becomes a blob under its own digest, names are resolved at the end, and
//! only then is anything named. So nothing of the tarball is believed, its order does not matter, and one that
//! fails half-way leaves garbage that the next sweep takes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kactor_drivers::Image;
use serde::Deserialize;
use tar::EntryType;

use crate::digest::Digest;
use crate::error::{Doing, ImageError};
use crate::layer::decompress;
use crate::manifest::{
    self, CONFIG_TYPE, Config, Descriptor, Index, LAYER_TYPE, MANIFEST_TYPE, Manifest,
};
use crate::reference::Reference;
use crate::rooted::normal;
use crate::store::ImageStore;

const FILES_MAX: usize = 10_000;
const IMAGES_MAX: usize = 100;
const LINKS_FOLLOWED_MAX: usize = 8;
const INDEX_DEPTH_MAX: usize = 3;

/// Takes the images of a tarball: all or none.
pub fn import(store: &ImageStore, tarball: &Path) -> Result<Vec<Image>, ImageError> {
    let file = File::open(tarball).doing(|| format!("opening {}", tarball.display()))?;
    import_from(store, file)
}

pub fn import_from(store: &ImageStore, tarball: impl Read) -> Result<Vec<Image>, ImageError> {
    let files = Files::read(store, tarball)?;
    let images = if files.find("manifest.json").is_some() {
        docker_images(store, &files)?
    } else if files.find("index.json").is_some() {
        layout_images(store, &files)?
    } else {
        let why = "it holds neither manifest.json (docker save) nor index.json (OCI layout)";
        return Err(ImageError::NotAnImage { why: why.to_owned() });
    };
    store.register(&images)
}

/// The tarball's files by name, as blobs, and its links.
struct Files {
    blobs: BTreeMap<PathBuf, (Digest, u64)>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Files {
    fn read(store: &ImageStore, tarball: impl Read) -> Result<Self, ImageError> {
        let mut files = Files { blobs: BTreeMap::new(), links: BTreeMap::new() };
        let mut archive = tar::Archive::new(decompress(tarball)?);
        let malformed = |why| ImageError::malformed("the tarball", why);
        for entry in archive.entries().map_err(malformed)?.raw(true) {
            let mut entry = entry.map_err(malformed)?;
            let shown = String::from_utf8_lossy(&entry.header().path_bytes()).into_owned();
            let path = normal(&entry.header().path_bytes())
                .map_err(|it| ImageError::Escape { path: shown.clone(), why: it.why() })?;
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let blob = store.write_blob(&shown, &mut entry, None)?;
                    files.blobs.insert(path, blob);
                }
                EntryType::Symlink => {
                    let target = entry.header().link_name_bytes().unwrap_or_default();
                    let from = path.parent().unwrap_or(Path::new(""));
                    if let Some(target) = relative(from, &target) {
                        files.links.insert(path, target);
                    }
                }
                EntryType::Link => {
                    let target = entry.header().link_name_bytes().unwrap_or_default();
                    if let Ok(target) = normal(&target) {
                        files.links.insert(path, target);
                    }
                }
                _ => {} // Folders and remarks: only files are asked for by name below.
            }
            if files.blobs.len() + files.links.len() > FILES_MAX {
                return Err(ImageError::TooMany {
                    name: "the tarball".to_owned(),
                    n_max: FILES_MAX,
                });
            }
        }
        Ok(files)
    }

    /// Old `docker save` has links to layers that it wrote before.
    fn find(&self, name: &str) -> Option<&(Digest, u64)> {
        let mut path = normal(name.as_bytes()).ok()?;
        for _ in 0..LINKS_FOLLOWED_MAX {
            match (self.blobs.get(&path), self.links.get(&path)) {
                (Some(blob), _) => return Some(blob),
                (None, Some(target)) => path.clone_from(target),
                (None, None) => return None,
            }
        }
        None
    }

    fn need(&self, name: &str) -> Result<&(Digest, u64), ImageError> {
        self.find(name).ok_or_else(|| ImageError::NotAnImage {
            why: format!(
                "it names {:?}, which is not in it",
                name.chars().take(100).collect::<String>()
            ),
        })
    }

    fn document(&self, store: &ImageStore, name: &str) -> Result<Vec<u8>, ImageError> {
        store.read_document(&self.need(name)?.0)
    }
}

/// A link's target from its folder, by names alone; `None` if it leaves the tarball.
fn relative(from: &Path, target: &[u8]) -> Option<PathBuf> {
    let target = std::str::from_utf8(target).ok()?;
    let mut path = from.to_owned();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if !path.pop() {
                    return None;
                }
            }
            name => path.push(name),
        }
    }
    Some(path)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

type Named = (Digest, Vec<Reference>);

fn docker_images(store: &ImageStore, files: &Files) -> Result<Vec<Named>, ImageError> {
    let bytes = files.document(store, "manifest.json")?;
    let images: Vec<DockerImage> = manifest::parse("manifest.json", &bytes)?;
    if images.len() > IMAGES_MAX {
        return Err(ImageError::TooMany { name: "manifest.json".to_owned(), n_max: IMAGES_MAX });
    }
    images.iter().map(|it| docker_image(store, files, it)).collect()
}

/// `docker save` has no OCI manifest: one is written for it.
fn docker_image(
    store: &ImageStore,
    files: &Files,
    image: &DockerImage,
) -> Result<Named, ImageError> {
    let describe = |media_type: &str, (digest, size): &(Digest, u64)| Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.clone(),
        size: *size,
        annotations: BTreeMap::new(),
        platform: None,
    };
    let layers = image.layers.iter().map(|it| Ok(describe(LAYER_TYPE, files.need(it)?)));
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST_TYPE.to_owned()),
        config: describe(CONFIG_TYPE, files.need(&image.config)?),
        layers: layers.collect::<Result<_, ImageError>>()?,
    };
    let bytes = manifest::print(&manifest);
    let (digest, _) = store.write_blob("the manifest", bytes.as_slice(), None)?;
    let tags = image.repo_tags.iter().flatten();
    let names = tags.map(|it| Reference::from_str(it)).collect::<Result<_, _>>()?;
    Ok((digest, names))
}

fn layout_images(store: &ImageStore, files: &Files) -> Result<Vec<Named>, ImageError> {
    let index = files.document(store, "index.json")?;
    let index: Index = manifest::parse("index.json", &index)?;
    let mut images = Vec::new();
    for entry in &index.manifests {
        let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .iter()
            .find_map(|it| entry.annotations.get(*it));
        // A bare `latest` names no repository; the image stays reachable by its digest.
        let names: Vec<Reference> = match name.filter(|it| it.contains(['/', ':'])) {
            Some(name) => vec![name.parse()?],
            None => Vec::new(),
        };
        if let Some(manifest) = choose(store, files, entry, INDEX_DEPTH_MAX)? {
            images.push((manifest, names));
        }
    }
    match images.len() {
        0 => Err(ImageError::NotAnImage { why: "it has no image for this machine".to_owned() }),
        n if n > IMAGES_MAX => {
            Err(ImageError::TooMany { name: "index.json".to_owned(), n_max: IMAGES_MAX })
        }
        _ => Ok(images),
    }
}

/// The manifest for this machine behind a descriptor, through nested indexes.
fn choose(
    store: &ImageStore,
    files: &Files,
    entry: &Descriptor,
    depth: usize,
) -> Result<Option<Digest>, ImageError> {
    let fits = |it: &Descriptor| {
        it.platform
            .as_ref()
            .is_none_or(|it| it.os == "linux" && it.architecture == manifest::architecture())
    };
    if !fits(entry) || depth == 0 {
        return Ok(None);
    }
    let name = format!("blobs/sha256/{}", entry.digest.hex());
    let (found, _) = files.need(&name)?;
    if *found != entry.digest {
        let wanted = entry.digest.clone();
        return Err(ImageError::WrongDigest { name, wanted, found: found.clone() });
    }
    let bytes = store.read_document(found)?;
    if let Ok(index) = manifest::parse::<Index>("the index", &bytes) {
        for entry in &index.manifests {
            if let Some(digest) = choose(store, files, entry, depth - 1)? {
                return Ok(Some(digest));
            }
        }
        return Ok(None);
    }
    let image: Manifest = manifest::parse("the manifest", &bytes)?;
    let config = store.read_document(&files.need(&blob_name(&image.config))?.0)?;
    let config: Config = manifest::parse("the config", &config)?;
    config.check_platform()?;
    for layer in &image.layers {
        files.need(&blob_name(layer))?;
    }
    Ok(Some(entry.digest.clone()))
}

fn blob_name(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.hex())
}

#[cfg(test)]
mod tests;
