//! The applied state in sled: written in batches off the acknowledge path, really synced at each checkpoint.
//!
//! sled's `flush` on Linux is `sync_file_range`, no fdatasync: after it we fdatasync sled's `db` file ourselves. A batch
//! of sled is atomic, and each carries the meta row, so a lost tail leaves an earlier checkpoint whole. sled does not
//! give space back: when the state machine finds too much garbage, `replace` writes the state into a fresh generation,
//! which takes the old one's place by a rename.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kactor_protocol::codec;
use kactor_state::{ClusterState, VersionRecord};

use super::{APPLIED_FORMAT, AppliedError, AppliedMeta, AppliedStore, Loaded, Rows, row_key};

const CACHE_BYTES: u64 = 8 << 20;
const SEGMENT_BYTES: usize = 256 << 10;
const META_ROW: &[u8] = b"meta";
/// Rows of one sled batch while a generation is written.
const BATCH_LEN: usize = 1000;
const NEW_SUFFIX: &str = ".new";

pub struct SledStore {
    dir: PathBuf,
    generation: u64,
    db: sled::Db,
    /// Blobs that were synced: sled never writes one twice.
    blobs: BTreeSet<OsString>,
}

impl SledStore {
    /// Opens the newest whole generation in `dir` and removes what else is there.
    pub fn open(dir: &Path) -> Result<Self, AppliedError> {
        fs::create_dir_all(dir).map_err(failed("making", dir))?;
        let mut generations = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed("listing", dir))? {
            let name = entry.map_err(failed("listing", dir))?.file_name();
            let name = name.to_string_lossy();
            match name.strip_prefix("generation-").and_then(|it| it.parse::<u64>().ok()) {
                Some(generation) => generations.push(generation),
                None if name.ends_with(NEW_SUFFIX) => {
                    fs::remove_dir_all(dir.join(&*name)).map_err(failed("removing", dir))?;
                }
                None => {}
            }
        }
        generations.sort_unstable();
        let generation = generations.pop().unwrap_or(1);
        for old in generations {
            fs::remove_dir_all(generation_path(dir, old)).map_err(failed("removing", dir))?;
        }
        let path = generation_path(dir, generation);
        let db = open_sled(&path)?;
        sync_folder(dir)?;
        Ok(Self { dir: dir.to_owned(), generation, db, blobs: BTreeSet::new() })
    }

    fn path(&self) -> PathBuf {
        generation_path(&self.dir, self.generation)
    }

    fn io(&self, what: &'static str) -> impl Fn(sled::Error) -> AppliedError {
        let path = self.path();
        move |error| AppliedError::Io { what, path: path.clone(), source: io::Error::other(error) }
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, AppliedError> {
        codec::decode(bytes).map_err(|source| AppliedError::Row { path: self.path(), source })
    }
}

impl AppliedStore for SledStore {
    fn load(&mut self) -> Result<Option<Loaded>, AppliedError> {
        let Some(meta) = self.db.get(META_ROW).map_err(self.io("reading"))? else {
            return match self.db.is_empty() {
                true => Ok(None),
                false => Err(AppliedError::NoMeta { path: self.path() }),
            };
        };
        let meta: AppliedMeta = self.decode(&meta)?;
        if meta.format > APPLIED_FORMAT {
            return Err(AppliedError::Newer { found: meta.format });
        }
        let mut rows: Vec<VersionRecord> = Vec::new();
        for row in self.db.scan_prefix(b"/") {
            let (_, value) = row.map_err(self.io("reading"))?;
            rows.push(self.decode(&value)?);
        }
        let state = ClusterState::from_records(meta.state.clone(), rows)?;
        Ok(Some(Loaded { meta, state }))
    }

    fn checkpoint(&mut self, rows: &Rows, meta: &AppliedMeta) -> Result<(), AppliedError> {
        let mut batch = sled::Batch::default();
        for ((key, revision), row) in rows {
            let at = row_key(key, *revision);
            match row {
                Some(row) => batch.insert(&*at, &*encode(&self.path(), row)?),
                None => batch.remove(&*at),
            }
        }
        batch.insert(META_ROW, &*encode(&self.path(), meta)?);
        self.db.apply_batch(batch).map_err(self.io("writing"))?;
        sync_sled(&self.db, &self.path(), &mut self.blobs)
    }

    fn replace(&mut self, state: &ClusterState, meta: &AppliedMeta) -> Result<(), AppliedError> {
        let next = self.generation + 1;
        let path = generation_path(&self.dir, next);
        let new = path.with_extension(&NEW_SUFFIX[1..]);
        {
            let db = open_sled(&new)?;
            let wrong = |error| AppliedError::Io {
                what: "writing",
                path: new.clone(),
                source: io::Error::other(error),
            };
            let mut batch = sled::Batch::default();
            for (nth, row) in state.version_records().enumerate() {
                batch.insert(&*row_key(&row.key, row.revision), &*encode(&new, &row)?);
                if nth % BATCH_LEN == BATCH_LEN - 1 {
                    db.apply_batch(std::mem::take(&mut batch)).map_err(wrong)?;
                }
            }
            batch.insert(META_ROW, &*encode(&new, meta)?);
            db.apply_batch(batch).map_err(wrong)?;
            sync_sled(&db, &new, &mut BTreeSet::new())?;
        }
        sync_folder(&new)?;
        fs::rename(&new, &path).map_err(failed("renaming", &new))?;
        sync_folder(&self.dir)?;
        let old = self.path();
        self.db = open_sled(&path)?;
        self.generation = next;
        self.blobs = BTreeSet::new();
        fs::remove_dir_all(&old).map_err(failed("removing", &old))
    }

    fn bytes_on_disk(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

fn open_sled(path: &Path) -> Result<sled::Db, AppliedError> {
    sled::Config::new()
        .path(path)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(None)
        .open()
        .map_err(|error| AppliedError::Io {
            what: "opening",
            path: path.to_owned(),
            source: io::Error::other(error),
        })
}

/// sled's flush reaches the operating system; the fdatasync after it reaches the disk. Large pages lie in files of
/// their own, which sled does not sync either; they come first, because the log points at them.
fn sync_sled(
    db: &sled::Db,
    path: &Path,
    known: &mut BTreeSet<OsString>,
) -> Result<(), AppliedError> {
    db.flush().map_err(|error| AppliedError::Io {
        what: "flushing",
        path: path.to_owned(),
        source: io::Error::other(error),
    })?;
    sync_blobs(&path.join("blobs"), known)?;
    let file = path.join("db");
    File::open(&file).and_then(|it| it.sync_data()).map_err(failed("syncing", &file))
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

fn sync_folder(path: &Path) -> Result<(), AppliedError> {
    File::open(path).and_then(|it| it.sync_all()).map_err(failed("syncing", path))
}

fn encode<T: serde::Serialize>(path: &Path, row: &T) -> Result<bytes::Bytes, AppliedError> {
    codec::encode(row).map_err(|source| AppliedError::Row { path: path.to_owned(), source })
}

fn generation_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("generation-{generation}"))
}

fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> AppliedError {
    let path = path.to_owned();
    move |source| AppliedError::Io { what, path: path.clone(), source }
}
