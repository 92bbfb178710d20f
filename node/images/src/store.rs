//! The image store of a data folder: content by sha256, an index of names, unpacked layers.
//!
//! Layout: `blobs/sha256/<hex>` (immutable), `layers/<hex of diff id>` (unpacked, for overlayfs), `index.json`
//! (what is named; replaced by rename after an fsync), `partial/` (emptied at open). Whatever the index does not
//! reach is garbage, so a crash in the middle of anything costs only space. One process uses a store at a time;
//! within it the index is behind a mutex that is never held while bytes are copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kactor_drivers::Image;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hashing};
use crate::error::{Doing, ImageError};
use crate::layer::{LayerLimits, Whiteouts, unpack};
use crate::manifest::{self, Config, DOCUMENT_BYTES_MAX, Manifest, check_together};
use crate::reference::Reference;

/// Bounds of what a store takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub blob_bytes_max: u64,
    pub layer: LayerLimits,
    /// What must stay free on the file system.
    pub free_bytes_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            blob_bytes_max: 16 << 30,
            layer: LayerLimits { bytes_max: 32 << 30, entries_max: 2_000_000 },
            free_bytes_min: 256 << 20,
        }
    }
}

/// A blob is written this much at a time between looks at the free space.
const CHUNK_BYTES: u64 = 32 << 20;
const IMAGES_MAX: usize = 10_000;

pub struct ImageStore {
    root: PathBuf,
    limits: Limits,
    index: Mutex<Index>,
    next_partial: AtomicU64,
    /// How many `Hold`s there are; a sweep keeps this locked.
    holds: Mutex<u32>,
}

/// What is named. Manifests without a name stay until `prune`: containers may still use them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    version: u32,
    manifests: BTreeSet<Digest>,
    /// `registry/repository:tag` to manifest.
    tags: BTreeMap<String, Digest>,
    /// `registry/repository@sha256:…`, as pulled, to manifest.
    digests: BTreeMap<String, Digest>,
}

/// Taken by whoever brings an image in, whose parts have no name until all are there, and by whoever makes a container,
/// which is no user of its image until it is written down.
pub struct Hold {
    store: Arc<ImageStore>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        *self.store.holds.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

/// An image's documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub manifest_digest: Digest,
    pub manifest: Manifest,
    pub config: Config,
}

impl Resolved {
    /// Digest of the config: what Docker and Kubernetes call the image's id.
    pub fn id(&self) -> &Digest {
        &self.manifest.config.digest
    }
}

impl ImageStore {
    /// Opens or makes a store; leftovers of a crash are removed.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, ImageError> {
        let partial = root.join("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).doing(|| format!("emptying {}", partial.display()))?;
        }
        for dir in ["partial", "blobs/sha256", "layers"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        }
        let index = match fs::read(root.join("index.json")) {
            Ok(bytes) => manifest::parse("the image store's index.json", &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(error) => return Err(ImageError::io("reading index.json", error)),
        };
        if index.version > 1 {
            let why = format!("version {} is newer than this kactor knows (1)", index.version);
            return Err(ImageError::malformed("the image store's index.json", why));
        }
        Ok(Self {
            root: root.to_owned(),
            limits,
            index: Mutex::new(index),
            next_partial: AtomicU64::new(0),
            holds: Mutex::new(0),
        })
    }

    /// Nothing is swept while somebody holds the store; what was to be swept is at the next `prune`. May block while
    /// a sweep is under way.
    pub fn hold(self: &Arc<Self>) -> Hold {
        *self.holds.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Hold { store: self.clone() }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Free bytes less what must stay free; an error when nothing is left.
    fn room(&self) -> Result<u64, ImageError> {
        let free_bytes = free_bytes(&self.root)?;
        match free_bytes.checked_sub(self.limits.free_bytes_min) {
            Some(room) if room > 0 => Ok(room),
            _ => Err(ImageError::DiskFull { free_bytes, wanted_bytes: self.limits.free_bytes_min }),
        }
    }

    fn partial(&self) -> PathBuf {
        let n = self.next_partial.fetch_add(1, Ordering::Relaxed);
        self.root.join("partial").join(n.to_string())
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Keeps what the reader gives, hashed on the way; a digest that is expected must come out.
    pub fn write_blob(
        &self,
        name: &str,
        mut content: impl Read,
        wanted: Option<&Digest>,
    ) -> Result<(Digest, u64), ImageError> {
        let mut blob = self.begin_blob(name)?;
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return blob.finish(wanted),
                Ok(n) => blob.write(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImageError::io(format!("reading {name}"), error)),
            }
        }
    }

    /// A blob that comes in pieces.
    pub fn begin_blob(&self, name: &str) -> Result<BlobWriter<'_>, ImageError> {
        self.room()?;
        let path = self.partial();
        let file = File::create_new(&path).doing(|| format!("making {}", path.display()))?;
        Ok(BlobWriter {
            store: self,
            name: name.to_owned(),
            path,
            file: Some(Hashing::new(file)),
            checked_at: 0,
        })
    }

    pub fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob_path(digest);
        let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
        let mut bytes = Vec::new();
        let read = file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.doing(|| format!("reading {}", path.display()))?;
        match bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            true => Err(ImageError::TooLarge {
                name: digest.to_string(),
                bytes_max: DOCUMENT_BYTES_MAX,
            }),
            false => Ok(bytes),
        }
    }

    fn resolve(&self, manifest_digest: &Digest) -> Result<Resolved, ImageError> {
        let bytes = self.read_document(manifest_digest)?;
        let manifest: Manifest = manifest::parse("the manifest", &bytes)?;
        let config = self.read_document(&manifest.config.digest)?;
        let config: Config = manifest::parse("the image's config", &config)?;
        Ok(Resolved { manifest_digest: manifest_digest.clone(), manifest, config })
    }

    /// Names images whose content is all here: every one or none. Checked before anything is named.
    pub fn register(&self, images: &[(Digest, Vec<Reference>)]) -> Result<Vec<Image>, ImageError> {
        for (manifest, _) in images {
            self.check_complete(manifest)?;
        }
        let mut index = self.lock();
        let mut next = index.clone();
        next.version = 1;
        for (manifest, references) in images {
            next.manifests.insert(manifest.clone());
            for reference in references {
                if let Some(tag) = reference.tagged() {
                    next.tags.insert(tag, manifest.clone());
                }
                if let Some(digest) = &reference.digest {
                    let name = format!("{}@{digest}", reference.name());
                    next.digests.insert(name, manifest.clone());
                }
            }
        }
        if next.manifests.len() > IMAGES_MAX {
            let name = "the image store".to_owned();
            return Err(ImageError::TooMany { name, n_max: IMAGES_MAX });
        }
        self.save(&mut index, next)?;
        images.iter().map(|(manifest, _)| self.describe(&index, manifest)).collect()
    }

    fn check_complete(&self, digest: &Digest) -> Result<(), ImageError> {
        let resolved = self.resolve(digest)?;
        check_together(&resolved.manifest, &resolved.config)?;
        for layer in &resolved.manifest.layers {
            if !self.has_blob(&layer.digest) {
                return Err(ImageError::NotAnImage {
                    why: format!("layer {} is missing", layer.digest),
                });
            }
        }
        Ok(())
    }

    /// By name, by `name@digest`, by id or by a manifest's digest.
    pub fn find(&self, reference: &str) -> Result<Option<Resolved>, ImageError> {
        let manifest = find_in(&self.lock(), reference);
        if let Some(manifest) = manifest {
            return self.resolve(&manifest).map(Some);
        }
        let Ok(id) = reference.parse::<Digest>() else {
            return Ok(None);
        };
        let manifests = self.lock().manifests.clone();
        for manifest in manifests {
            let resolved = self.resolve(&manifest)?;
            if *resolved.id() == id {
                return Ok(Some(resolved));
            }
        }
        Ok(None)
    }

    pub fn image(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        match self.find(reference)? {
            Some(it) => self.describe(&self.lock(), &it.manifest_digest).map(Some),
            None => Ok(None),
        }
    }

    /// Sorted by id.
    pub fn images(&self) -> Result<Vec<Image>, ImageError> {
        let index = self.lock().clone();
        let described = index.manifests.iter().map(|it| self.describe(&index, it));
        let mut images: Vec<Image> = described.collect::<Result<_, _>>()?;
        images.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(images)
    }

    fn describe(&self, index: &Index, manifest: &Digest) -> Result<Image, ImageError> {
        let resolved = self.resolve(manifest)?;
        let names = |it: &BTreeMap<String, Digest>| -> Vec<String> {
            it.iter().filter(|(_, to)| *to == manifest).map(|(name, _)| name.clone()).collect()
        };
        let layers = resolved.manifest.layers.iter().map(|it| it.size).sum::<u64>();
        Ok(Image {
            id: resolved.id().to_string(),
            tags: names(&index.tags),
            digests: names(&index.digests),
            size_bytes: layers + resolved.manifest.config.size,
            config: resolved.config.run(),
        })
    }

    /// Takes a name away; the image goes with its last name. `n_users` counts an image id's containers: one that
    /// is used keeps its last name.
    pub fn remove(
        &self,
        reference: &str,
        n_users: &dyn Fn(&str) -> usize,
    ) -> Result<(), ImageError> {
        let not_found = || ImageError::NotFound { reference: reference.to_owned() };
        let resolved = self.find(reference)?.ok_or_else(not_found)?;
        let manifest = &resolved.manifest_digest;
        let mut index = self.lock();
        let mut next = index.clone();
        match reference.parse::<Digest>() {
            Ok(_) => {
                next.tags.retain(|_, to| to != manifest); // An id names all of it.
                next.digests.retain(|_, to| to != manifest);
            }
            Err(_) => {
                let name: Reference = reference.parse()?;
                if let Some(tag) = name.tagged() {
                    next.tags.remove(&tag);
                }
                match &name.digest {
                    Some(digest) => {
                        next.digests.remove(&format!("{}@{digest}", name.name()));
                    }
                    // Docker: a repository's digests go with its last tag.
                    None if !has_tag_of(&next, &name, manifest) => {
                        let prefix = format!("{}@", name.name());
                        next.digests.retain(|at, to| to != manifest || !at.starts_with(&prefix));
                    }
                    None => {}
                }
            }
        }
        let is_named = next.tags.values().chain(next.digests.values()).any(|to| to == manifest);
        if !is_named {
            let n_users = n_users(resolved.id().as_str());
            if n_users > 0 {
                return Err(ImageError::InUse { reference: reference.to_owned(), n_users });
            }
            next.manifests.remove(manifest);
        }
        self.save(&mut index, next)?;
        drop(index);
        self.sweep()
    }

    /// Drops images that have lost their names (a tag moved on) and that no container uses; nothing while somebody
    /// holds the store. `n_users` is asked while nobody can begin to.
    pub fn prune(&self, n_users: &dyn Fn(&str) -> usize) -> Result<(), ImageError> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if *holds > 0 {
            return Ok(());
        }
        let mut index = self.lock();
        let mut next = index.clone();
        let named: BTreeSet<Digest> =
            next.tags.values().chain(next.digests.values()).cloned().collect();
        let nameless: Vec<Digest> = next.manifests.difference(&named).cloned().collect();
        for manifest in nameless {
            if n_users(self.resolve(&manifest)?.id().as_str()) == 0 {
                next.manifests.remove(&manifest);
            }
        }
        self.save(&mut index, next)?;
        drop(index);
        self.sweep_unheld()
    }

    /// Forgets all images and removes their content: for `purge`, when no container is left.
    pub fn clear(&self) -> Result<(), ImageError> {
        let mut index = self.lock();
        self.save(&mut index, Index { version: 1, ..Index::default() })?;
        drop(index);
        self.sweep()
    }

    /// Removes blobs and layers that no image reaches. Layers are shared: reach counts, not owners.
    fn sweep(&self) -> Result<(), ImageError> {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if *holds > 0 {
            return Ok(());
        }
        self.sweep_unheld()
    }

    fn sweep_unheld(&self) -> Result<(), ImageError> {
        let index = self.lock();
        let mut blobs = BTreeSet::new();
        let mut layers = BTreeSet::new();
        for digest in &index.manifests {
            let resolved = self.resolve(digest)?;
            blobs.insert(digest.hex().to_owned());
            blobs.insert(resolved.id().hex().to_owned());
            blobs.extend(resolved.manifest.layers.iter().map(|it| it.digest.hex().to_owned()));
            layers.extend(resolved.config.rootfs.diff_ids.iter().map(|it| it.hex().to_owned()));
        }
        self.sweep_dir("blobs/sha256", &blobs)?;
        self.sweep_dir("layers", &layers)
    }

    fn sweep_dir(&self, dir: &str, kept: &BTreeSet<String>) -> Result<(), ImageError> {
        let dir = self.root.join(dir);
        let doing = || format!("sweeping {}", dir.display());
        for entry in fs::read_dir(&dir).doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if kept.contains(&name) {
                continue;
            }
            match entry.file_type().doing(doing)?.is_dir() {
                true => fs::remove_dir_all(entry.path()).doing(doing)?,
                false => fs::remove_file(entry.path()).doing(doing)?,
            }
        }
        Ok(())
    }

    /// The unpacked layers of an image, lowest first, unpacking what is missing.
    pub fn layer_dirs(&self, image: &Resolved) -> Result<Vec<PathBuf>, ImageError> {
        let pairs = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
        pairs
            .map(|(layer, diff_id)| {
                let dir = self.root.join("layers").join(diff_id.hex());
                if !dir.is_dir() {
                    self.unpack_layer(&layer.digest, diff_id, &dir)?;
                }
                Ok(dir)
            })
            .collect()
    }

    fn unpack_layer(&self, blob: &Digest, diff_id: &Digest, dir: &Path) -> Result<(), ImageError> {
        let partial = self.partial();
        fs::create_dir(&partial).doing(|| format!("making {}", partial.display()))?;
        let done = self.unpack_blob(blob, diff_id, &partial, Whiteouts::Marks).and_then(|()| {
            match fs::rename(&partial, dir) {
                // Two unpacked it at once: equal digests, equal content.
                Err(_) if dir.is_dir() => fs::remove_dir_all(&partial),
                other => other,
            }
            .doing(|| format!("keeping {}", dir.display()))
        });
        if done.is_err() {
            let _ = fs::remove_dir_all(&partial); // Else it goes at the next open.
        }
        done
    }

    /// Unpacks one layer's blob over `dir`.
    pub fn unpack_blob(
        &self,
        blob: &Digest,
        diff_id: &Digest,
        dir: &Path,
        whiteouts: Whiteouts,
    ) -> Result<(), ImageError> {
        let room = self.room()?;
        let mut limits = self.limits.layer;
        limits.bytes_max = limits.bytes_max.min(room);
        let path = self.blob_path(blob);
        let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
        unpack(file, dir, diff_id, whiteouts, limits).map(|_| ())
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Nothing in the critical sections leaves the index half changed: `save` replaces it whole.
        self.index.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn save(&self, index: &mut Index, next: Index) -> Result<(), ImageError> {
        if *index == next {
            return Ok(());
        }
        let path = self.root.join("index.json");
        let partial = self.partial();
        let doing = || format!("writing {}", path.display());
        let mut file = File::create_new(&partial).doing(doing)?;
        file.write_all(&manifest::print(&next)).doing(doing)?;
        file.sync_all().doing(doing)?;
        fs::rename(&partial, &path).doing(doing)?;
        File::open(&self.root).and_then(|it| it.sync_all()).doing(doing)?;
        *index = next;
        Ok(())
    }
}

fn has_tag_of(index: &Index, name: &Reference, manifest: &Digest) -> bool {
    let prefix = format!("{}:", name.name());
    index.tags.iter().any(|(tag, to)| to == manifest && tag.starts_with(&prefix))
}

fn find_in(index: &Index, reference: &str) -> Option<Digest> {
    if let Ok(digest) = reference.parse::<Digest>() {
        return index.manifests.get(&digest).cloned();
    }
    let name: Reference = reference.parse().ok()?;
    match &name.digest {
        // A digest says more than the tag beside it.
        Some(digest) => index.digests.get(&format!("{}@{digest}", name.name())).cloned(),
        None => index.tags.get(&name.tagged()?).cloned(),
    }
}

/// A blob on its way in. Dropped unfinished, it leaves nothing.
pub struct BlobWriter<'a> {
    store: &'a ImageStore,
    name: String,
    path: PathBuf,
    file: Option<Hashing<File>>,
    checked_at: u64,
}

impl BlobWriter<'_> {
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let file = self.file.as_mut().expect("only finish takes the file");
        let total = file.n_bytes() + bytes.len() as u64;
        let bytes_max = self.store.limits.blob_bytes_max;
        if total > bytes_max {
            return Err(ImageError::TooLarge { name: self.name.clone(), bytes_max });
        }
        if total - self.checked_at > CHUNK_BYTES {
            self.store.room()?;
            self.checked_at = total;
        }
        file.write_all(bytes).doing(|| format!("writing {}", self.name))
    }

    /// Durable and in its place, or gone.
    pub fn finish(mut self, wanted: Option<&Digest>) -> Result<(Digest, u64), ImageError> {
        let hashing = self.file.take().expect("only finish takes the file");
        let (found, n_bytes, file) = hashing.finish();
        if let Some(wanted) = wanted.filter(|it| **it != found) {
            let name = self.name.clone();
            return Err(ImageError::WrongDigest { name, wanted: wanted.clone(), found });
        }
        file.sync_all().doing(|| format!("syncing {}", self.name))?;
        let home = self.store.blob_path(&found);
        fs::rename(&self.path, &home).doing(|| format!("keeping {}", home.display()))?;
        Ok((found, n_bytes))
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // After `finish` it has moved already.
    }
}

fn free_bytes(path: &Path) -> Result<u64, ImageError> {
    let doing = || format!("asking for the free space at {}", path.display());
    let file = File::open(path).doing(doing)?;
    // SAFETY: statvfs is plain integers; the kernel fills it before it is read.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `stat` is writable; both outlive the call.
    match unsafe { libc::fstatvfs(file.as_raw_fd(), &raw mut stat) } {
        0 => Ok(stat.f_bavail.saturating_mul(stat.f_frsize)),
        _ => Err(ImageError::io(doing(), io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests;
