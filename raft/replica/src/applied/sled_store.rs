//! The applied state in sled: written off the acknowledge path, really synced at each checkpoint.
//!
//! sled's `flush` on Linux is `sync_file_range`, no fdatasync: after it we fdatasync sled's files ourselves. A checkpoint
//! is three steps: the new versions, synced; the checkpoint's row in a tree of its own, synced; then the removal of what
//! the checkpoint forgot, which a crash may undo. Each step is harmless alone (`settle.rs`).
//!
//! Two things of sled 0.34 are avoided, because they belong to the whole process: `apply_batch` and transactions, the only
//! takers of its global write lock, on which two databases were seen to stand still (without a writer nobody ever
//! waits for it); and opening a database twice, whose file stays locked for a while after it was dropped. So `replace`
//! writes the new generation where it stays, and `current` names it once it is whole. It is also the cure after
//! an error: sled takes nothing more after one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use kactor_protocol::codec;
use kactor_protocol::ids::Revision;
use kactor_state::{ClusterState, RangeSum, VersionRecord};

use super::settle::{Settled, Settling};
use super::{
    APPLIED_FORMAT, AppliedError, AppliedMeta, AppliedStore, CheckpointRecord, Loaded, Rows,
    row_key,
};

const CACHE_BYTES: u64 = 8 << 20;
const SEGMENT_BYTES: usize = 256 << 10;
/// The tree and the key of the checkpoint's row.
const CHECKPOINT: &[u8] = b"checkpoint";
/// Where format 1 had its row: among the versions.
const META_ROW: &[u8] = b"meta";
const CURRENT: &str = "current";

pub struct SledStore {
    dir: PathBuf,
    generation: Generation,
    /// The revision of the last checkpoint: what is above it does not exist yet.
    newest: Revision,
    /// Keys to remove before the next rows are written: of a checkpoint that was cut short.
    unborn: BTreeSet<Bytes>,
    /// Keys to remove after the next checkpoint: no checkpoint needs them.
    forgotten: Vec<Bytes>,
}

/// One sled database.
struct Generation {
    nth: u64,
    path: PathBuf,
    rows: sled::Db,
    checkpoint: sled::Tree,
    /// Blobs that were synced: sled never writes one twice.
    blobs: BTreeSet<OsString>,
    #[cfg(test)]
    fuse: seam::Fuse,
}

impl SledStore {
    /// Opens the generation that `current` names and removes the others.
    pub fn open(dir: &Path) -> Result<Self, AppliedError> {
        fs::create_dir_all(dir).map_err(failed("making", dir))?;
        let found = generations(dir)?;
        let named = read_current(dir)?;
        let nth = match named {
            Some(nth) if !found.contains(&nth) => {
                return Err(AppliedError::NoGeneration {
                    path: dir.join(CURRENT),
                    generation: nth,
                });
            }
            Some(nth) => nth,
            // A fresh directory, or one whose first start was cut short.
            None => found.last().copied().unwrap_or(1),
        };
        let generation = Generation::open(dir, nth)?;
        sync_folder(dir)?;
        if named.is_none() {
            write_current(dir, nth)?;
        }
        for other in found.into_iter().filter(|it| *it != nth) {
            remove_generation(dir, other)?;
        }
        let dir = dir.to_owned();
        let (unborn, forgotten) = (BTreeSet::new(), Vec::new());
        Ok(Self { dir, generation, newest: Revision::ZERO, unborn, forgotten })
    }

    fn checkpoint_record(&self) -> Result<Option<(AppliedMeta, Option<RangeSum>)>, AppliedError> {
        let Generation { rows, checkpoint, .. } = &self.generation;
        if let Some(row) = checkpoint.get(CHECKPOINT).map_err(self.generation.io("reading"))? {
            let CheckpointRecord { meta, n_objects, sum } = self.generation.decode(&row)?;
            return Ok(Some((meta, Some(RangeSum { n_objects, sum }))));
        }
        match rows.get(META_ROW).map_err(self.generation.io("reading"))? {
            Some(row) => Ok(Some((self.generation.decode(&row)?, None))),
            None => Ok(None),
        }
    }
}

impl AppliedStore for SledStore {
    fn load(&mut self) -> Result<Option<Loaded>, AppliedError> {
        let path = self.generation.path.clone();
        let Some((meta, sum)) = self.checkpoint_record()? else {
            // The first checkpoint may have been cut short: then the journal has all of it, from its first entry.
            for row in self.generation.rows.iter().keys() {
                let key = row.map_err(self.generation.io("reading"))?;
                self.unborn.insert(Bytes::copy_from_slice(&key));
            }
            return Ok(None);
        };
        if meta.format > APPLIED_FORMAT {
            return Err(AppliedError::Newer { found: meta.format });
        }
        let mut settling = Settling::new(&meta.state);
        for row in self.generation.rows.scan_prefix(b"/") {
            let (_, value) = row.map_err(self.generation.io("reading"))?;
            settling.take(self.generation.decode::<VersionRecord>(&value)?);
        }
        let Settled { kept, unborn, forgotten } = settling.finish();
        let state = ClusterState::from_records(meta.state.clone(), kept)?;
        if let Some(expected) = sum.filter(|it| *it != state.checksum()) {
            let (found, expected) = (state.n_objects(), expected.n_objects);
            return Err(AppliedError::Differs { path, found, expected });
        }
        self.newest = meta.state.revision;
        self.unborn = unborn.into_iter().map(|(key, at)| row_key(&key, at)).collect();
        self.forgotten = forgotten.into_iter().map(|(key, at)| row_key(&key, at)).collect();
        if sum.is_none() {
            self.forgotten.push(Bytes::from_static(META_ROW));
        }
        Ok(Some(Loaded { meta, state }))
    }

    fn checkpoint(
        &mut self,
        rows: &Rows,
        meta: &AppliedMeta,
        sum: RangeSum,
    ) -> Result<(), AppliedError> {
        let generation = &mut self.generation;
        for key in std::mem::take(&mut self.unborn) {
            generation.remove(&key)?;
        }
        for ((key, revision), row) in rows {
            match row {
                Some(row) => generation.insert(&row_key(key, *revision), row)?,
                None => {
                    // Came and went since the last checkpoint. If it was a deletion, older versions on disk are dead
                    // only beside it, until they are removed.
                    if *revision > self.newest {
                        let tombstone = VersionRecord::of(key.clone(), *revision, None);
                        generation.insert(&row_key(key, *revision), &tombstone)?;
                    }
                    self.forgotten.push(row_key(key, *revision));
                }
            }
        }
        generation.sync()?;
        generation.conclude(meta, sum)?;
        self.newest = meta.state.revision;
        for key in std::mem::take(&mut self.forgotten) {
            generation.remove(&key)?;
        }
        Ok(())
    }

    fn replace(&mut self, state: &ClusterState, meta: &AppliedMeta) -> Result<(), AppliedError> {
        let mut next = self.write_generation(state, meta)?;
        std::mem::swap(&mut self.generation, &mut next);
        (self.unborn, self.forgotten) = (BTreeSet::new(), Vec::new());
        self.newest = meta.state.revision;
        let old = next.nth;
        drop(next);
        // sled may still write there; what stays is removed when the directory is opened, or by the next rewrite.
        if let Err(error) = remove_generation(&self.dir, old) {
            tracing::warn!(%error, "a generation that is used no more stays for now");
        }
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        bytes_under(&self.dir)
    }
}

impl SledStore {
    /// Writes the state beside the present generation, and makes it the one that counts.
    fn write_generation(
        &self,
        state: &ClusterState,
        meta: &AppliedMeta,
    ) -> Result<Generation, AppliedError> {
        // Never a number that was used: what is left of a failed rewrite may still write there.
        let found = generations(&self.dir)?;
        let nth = found.last().copied().unwrap_or(0).max(self.generation.nth) + 1;
        for other in found.into_iter().filter(|it| *it != self.generation.nth) {
            remove_generation(&self.dir, other)?;
        }
        let mut next = Generation::open(&self.dir, nth)?;
        #[cfg(test)]
        self.generation.fuse.light(&mut next.fuse);
        for row in state.version_records() {
            next.insert(&row_key(&row.key, row.revision), &row)?;
        }
        next.sync()?;
        next.conclude(meta, state.checksum())?;
        sync_folder(&next.path)?;
        sync_folder(&self.dir)?;
        write_current(&self.dir, nth)?;
        Ok(next)
    }
}

impl Generation {
    fn open(dir: &Path, nth: u64) -> Result<Self, AppliedError> {
        let path = generation_path(dir, nth);
        let config = sled::Config::new()
            .path(&path)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None);
        let opened = config.open().and_then(|rows| {
            let checkpoint = rows.open_tree(CHECKPOINT)?;
            Ok((rows, checkpoint))
        });
        let (rows, checkpoint) = opened.map_err(sled_failed("opening", &path))?;
        Ok(Self {
            nth,
            path,
            rows,
            checkpoint,
            blobs: BTreeSet::new(),
            #[cfg(test)]
            fuse: seam::Fuse::default(),
        })
    }

    fn io(&self, what: &'static str) -> impl Fn(sled::Error) -> AppliedError {
        sled_failed(what, &self.path)
    }

    fn insert(&mut self, key: &[u8], row: &VersionRecord) -> Result<(), AppliedError> {
        #[cfg(test)]
        self.fuse.burn()?;
        self.rows.insert(key, &*self.encode(row)?).map(drop).map_err(self.io("writing"))
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), AppliedError> {
        #[cfg(test)]
        self.fuse.burn()?;
        self.rows.remove(key).map(drop).map_err(self.io("writing"))
    }

    /// Makes what was written before a checkpoint, durably.
    fn conclude(&mut self, meta: &AppliedMeta, sum: RangeSum) -> Result<(), AppliedError> {
        #[cfg(test)]
        self.fuse.burn()?;
        let RangeSum { n_objects, sum } = sum;
        let row = self.encode(&CheckpointRecord { meta: meta.clone(), n_objects, sum })?;
        self.checkpoint.insert(CHECKPOINT, &*row).map_err(self.io("writing"))?;
        self.sync()
    }

    /// sled's flush reaches the operating system; the fdatasync after it reaches the disk. Large pages lie in files
    /// of their own, which sled does not sync either; they come first, because the log points at them.
    fn sync(&mut self) -> Result<(), AppliedError> {
        #[cfg(test)]
        self.fuse.burn()?;
        self.rows.flush().map_err(self.io("flushing"))?;
        sync_blobs(&self.path.join("blobs"), &mut self.blobs)?;
        let file = self.path.join("db");
        File::open(&file).and_then(|it| it.sync_data()).map_err(failed("syncing", &file))
    }

    fn encode<T: serde::Serialize>(&self, row: &T) -> Result<Bytes, AppliedError> {
        codec::encode(row).map_err(|source| AppliedError::Row { path: self.path.clone(), source })
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, AppliedError> {
        codec::decode(bytes).map_err(|source| AppliedError::Row { path: self.path.clone(), source })
    }
}

fn sync_blobs(folder: &Path, known: &mut BTreeSet<OsString>) -> Result<(), AppliedError> {
    let mut present = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed("listing", folder))? {
        let name = entry.map_err(failed("listing", folder))?.file_name();
        let path = folder.join(&name);
        if !known.contains(&name) {
            match File::open(&path).and_then(|it| it.sync_all()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // Garbage already.
                synced => synced.map_err(failed("syncing", &path))?,
            }
        }
        present.insert(name);
    }
    if present != *known {
        sync_folder(folder)?;
        *known = present;
    }
    Ok(())
}

fn generation_path(dir: &Path, nth: u64) -> PathBuf {
    dir.join(format!("generation-{nth}"))
}

/// All that are there, oldest first.
fn generations(dir: &Path) -> Result<Vec<u64>, AppliedError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("listing", dir))? {
        let name = entry.map_err(failed("listing", dir))?.file_name();
        let nth = name.to_str().and_then(|it| it.strip_prefix("generation-")?.parse::<u64>().ok());
        found.extend(nth);
    }
    found.sort_unstable();
    Ok(found)
}

fn remove_generation(dir: &Path, nth: u64) -> Result<(), AppliedError> {
    let path = generation_path(dir, nth);
    fs::remove_dir_all(&path).map_err(failed("removing", &path))
}

fn read_current(dir: &Path) -> Result<Option<u64>, AppliedError> {
    let path = dir.join(CURRENT);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("reading", &path)(error)),
        Ok(text) => {
            let nth = text.trim().parse::<u64>().map_err(io::Error::other);
            nth.map(Some).map_err(failed("reading", &path))
        }
    }
}

/// Swapped in whole, and durable when it returns.
fn write_current(dir: &Path, nth: u64) -> Result<(), AppliedError> {
    let (path, new) = (dir.join(CURRENT), dir.join("current.new"));
    let written = File::create(&new).and_then(|mut file| {
        writeln!(file, "{nth}")?;
        file.sync_all()
    });
    written.map_err(failed("writing", &new))?;
    fs::rename(&new, &path).map_err(failed("renaming", &new))?;
    sync_folder(dir)
}

fn sync_folder(path: &Path) -> Result<(), AppliedError> {
    File::open(path).and_then(|it| it.sync_all()).map_err(failed("syncing", path))
}

/// What the files take; one that vanishes meanwhile takes nothing.
fn bytes_under(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let bytes = entries.flatten().map(|it| match it.metadata() {
        Ok(meta) if meta.is_dir() => bytes_under(&it.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> AppliedError {
    let path = path.to_owned();
    move |source| AppliedError::Io { what, path: path.clone(), source }
}

/// Keeps the kind: a full disk is told from a broken one.
fn sled_failed(what: &'static str, path: &Path) -> impl Fn(sled::Error) -> AppliedError {
    let failed = failed(what, path);
    move |error| match error {
        sled::Error::Io(source) => failed(source),
        other => failed(io::Error::other(other)),
    }
}

/// Where tests cut the power, and look behind the curtain.
#[cfg(test)]
mod seam {
    use kactor_protocol::store::Key;

    use super::*;

    /// Steps until nothing works any more.
    #[derive(Default)]
    pub struct Fuse {
        steps_left: Option<u32>,
        for_next: Option<u32>,
    }

    impl Fuse {
        pub fn burn(&mut self) -> Result<(), AppliedError> {
            match &mut self.steps_left {
                Some(0) => Err(AppliedError::Ended),
                Some(left) => {
                    *left -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }

        pub fn light(&self, next: &mut Fuse) {
            next.steps_left = self.for_next;
        }
    }

    impl SledStore {
        pub fn fail_at(&mut self, n_steps: u32) {
            self.generation.fuse.steps_left = Some(n_steps);
        }

        pub fn fail_next_generation_at(&mut self, n_steps: u32) {
            self.generation.fuse.for_next = Some(n_steps);
        }

        pub fn flush(&self) {
            self.generation.rows.flush().unwrap();
        }

        pub fn lose(&self, key: &Key, revision: Revision) {
            self.generation.rows.remove(row_key(key, revision)).unwrap().unwrap();
        }
    }
}
