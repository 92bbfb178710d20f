//! A disk that forgets what was not synced: the file system of a simulated host.
//!
//! Writes land in a cache; a crash keeps any subset of unsynced sectors, torn, and loses names whose folder was not
//! synced. On request it flips bits, fails a sync (and then, like Linux, forgets that anything was unsynced), is full, or takes
//! its virtual time to sync. It counts syncs by path, so that a test can count them between propose and acknowledge.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kactor_runtime::env::{BoxFuture, Disk, DiskFile, OpenMode};

use crate::chance::Chance;

mod names;
mod sectors;

use names::{FileId, Names, Node};
pub use sectors::{SECTOR_BYTES, Torn};
use sectors::{Sectors, Snapshot};

/// A clone is the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
    report: Arc<dyn Fn(&str) + Send + Sync>,
}

struct State {
    chance: Chance,
    names: Names,
    files: BTreeMap<FileId, Sectors>,
    next_file: u64,
    /// Counts crashes: a handle from before one is dead.
    generation: u64,
    syncs: BTreeMap<PathBuf, u64>,
    faults: Faults,
}

struct Faults {
    capacity_bytes: u64,
    sync_time: Duration,
    /// Syncs that will fail.
    failing_syncs: u32,
    torn: Torn,
}

impl FaultyDisk {
    /// `report` hears of every change, for the run's trace.
    pub fn new(chance: Chance, report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let faults = Faults {
            capacity_bytes: 1 << 40,
            sync_time: Duration::ZERO,
            failing_syncs: 0,
            torn: Torn::InsideSectors,
        };
        let state = State {
            chance,
            names: Names::default(),
            files: BTreeMap::new(),
            next_file: 0,
            generation: 0,
            syncs: BTreeMap::new(),
            faults,
        };
        Self { state: Arc::new(Mutex::new(state)), report: Arc::new(report) }
    }

    /// The power goes and comes back: chance decides what is left of what was not synced. Old handles answer errors.
    pub fn crash(&self) {
        let mut state = self.locked();
        state.generation += 1;
        let State { chance, names, files, faults, .. } = &mut *state;
        names.crash(chance);
        let kept: Vec<FileId> = names.files().collect();
        files.retain(|id, _| kept.contains(id));
        files.values_mut().for_each(|it| it.crash(chance, faults.torn));
    }

    pub fn set_torn(&self, torn: Torn) {
        self.locked().faults.torn = torn;
    }

    /// How many bytes the disk holds; writes that need more fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: u64) {
        self.locked().faults.capacity_bytes = bytes;
    }

    /// How long each sync takes in virtual time.
    pub fn set_sync_time(&self, time: Duration) {
        self.locked().faults.sync_time = time;
    }

    /// The next `n` syncs of files fail.
    pub fn fail_syncs(&self, n: u32) {
        self.locked().faults.failing_syncs = n;
    }

    /// Flips one bit of a file on the medium. Says whether the file has that byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) -> bool {
        let mut state = self.locked();
        let Some(Node::File(id)) = state.names.get(path) else { return false };
        let sectors = state.files.get_mut(&id).expect("a name stands for a file that is there");
        let offset = to_index(offset);
        let is_inside = offset < sectors.len();
        sectors.flip(offset, bit);
        is_inside
    }

    /// Completed syncs of one file or folder.
    pub fn syncs_of(&self, path: &Path) -> u64 {
        self.locked().syncs.get(path).copied().unwrap_or(0)
    }

    /// Completed syncs of all files and folders.
    pub fn syncs(&self) -> u64 {
        self.locked().syncs.values().sum()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_at(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let mut state = self.locked();
        let id = match (state.names.get(path), mode) {
            (Some(Node::File(_)), OpenMode::CreateNew) => return Err(exists(path)),
            (Some(Node::File(id)), _) => id,
            (Some(Node::Folder), _) => return Err(io_error(io::ErrorKind::IsADirectory, path)),
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(not_found(path)),
            (None, OpenMode::ReadWriteCreate | OpenMode::CreateNew) => {
                state.folder_of(path)?;
                state.next_file += 1;
                let id = FileId(state.next_file);
                state.files.insert(id, Sectors::default());
                state.names.add(path, Node::File(id));
                (self.report)(&format!("creates {}", path.display()));
                id
            }
        };
        let generation = state.generation;
        Ok(SimFile { disk: self.clone(), path: path.into(), id, generation, mode })
    }
}

impl State {
    fn folder_of(&self, path: &Path) -> io::Result<()> {
        match path.parent().map(|it| (it, self.names.get(it))) {
            Some((_, Some(Node::Folder))) => Ok(()),
            Some((_, Some(Node::File(_)))) => Err(io_error(io::ErrorKind::NotADirectory, path)),
            _ => Err(not_found(path)),
        }
    }

    fn used_bytes(&self) -> u64 {
        // A file without a name is free space, though an open handle still reads it.
        self.names.files().map(|it| self.files[&it].len() as u64).sum()
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.open_at(path, mode)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        let mut folders: Vec<&Path> = path.ancestors().collect();
        folders.reverse();
        for folder in folders {
            match state.names.get(folder) {
                Some(Node::Folder) => {}
                Some(Node::File(_)) => return Err(io_error(io::ErrorKind::NotADirectory, folder)),
                None => state.names.add(folder, Node::Folder),
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.locked();
        match state.names.get(path) {
            Some(Node::Folder) => Ok(state.names.list(path)),
            Some(Node::File(_)) => Err(io_error(io::ErrorKind::NotADirectory, path)),
            None => Err(not_found(path)),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        self.locked().names.get(path).is_some()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.names.get(from).ok_or_else(|| not_found(from))?;
        state.folder_of(to)?;
        if from != to {
            state.names.rename(from, to);
            (self.report)(&format!("renames {} to {}", from.display(), to.display()));
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        match state.names.get(path) {
            Some(Node::File(_)) => state.names.remove(path),
            Some(Node::Folder) => return Err(io_error(io::ErrorKind::IsADirectory, path)),
            None => return Err(not_found(path)),
        }
        (self.report)(&format!("removes {}", path.display()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        match state.names.get(path) {
            Some(Node::Folder) => state.names.remove(path),
            Some(Node::File(_)) => return Err(io_error(io::ErrorKind::NotADirectory, path)),
            None => return Err(not_found(path)),
        }
        (self.report)(&format!("removes {}", path.display()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> BoxFuture<io::Result<()>> {
        let (disk, path) = (self.clone(), path.to_owned());
        Box::pin(async move {
            let (time, generation) = {
                let state = disk.locked();
                (state.faults.sync_time, state.generation)
            };
            take(time).await;
            let mut state = disk.locked();
            if state.generation != generation {
                return Err(dead_handle(&path));
            }
            if state.names.get(&path) != Some(Node::Folder) {
                return Err(not_found(&path));
            }
            state.names.sync(&path);
            *state.syncs.entry(path.clone()).or_default() += 1;
            (disk.report)(&format!("synced folder {}", path.display()));
            Ok(())
        })
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = self.locked();
        Ok(state.faults.capacity_bytes.saturating_sub(state.used_bytes()))
    }
}

struct SimFile {
    disk: FaultyDisk,
    path: PathBuf,
    id: FileId,
    generation: u64,
    mode: OpenMode,
}

impl SimFile {
    /// The state, if the host did not crash since this handle was opened.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.locked();
        if state.generation == self.generation { Ok(state) } else { Err(dead_handle(&self.path)) }
    }

    fn change(&self, len: u64, change: impl FnOnce(&mut Sectors)) -> io::Result<()> {
        if self.mode == OpenMode::Read {
            return Err(io_error(io::ErrorKind::PermissionDenied, &self.path));
        }
        let mut state = self.alive()?;
        let used = state.used_bytes();
        let capacity = state.faults.capacity_bytes;
        let file = state.files.get_mut(&self.id).expect("files stay until a crash");
        let growth = len.saturating_sub(file.len() as u64);
        if used + growth > capacity && growth > 0 {
            return Err(io_error(io::ErrorKind::StorageFull, &self.path));
        }
        change(file);
        Ok(())
    }

    /// What the sync under way will have made durable; or the failure that was asked for.
    fn begin_sync(&self) -> io::Result<(Snapshot, Duration)> {
        let mut state = self.alive()?;
        let State { files, faults, chance, .. } = &mut *state;
        let file = files.get_mut(&self.id).expect("files stay until a crash");
        if faults.failing_syncs > 0 {
            faults.failing_syncs -= 1;
            file.sync_failed(chance);
            (self.disk.report)(&format!("failed to sync {}", self.path.display()));
            return Err(io::Error::other(format!("{}: sync failed", self.path.display())));
        }
        Ok((file.snapshot(), faults.sync_time))
    }

    fn end_sync(&self, snapshot: Snapshot) -> io::Result<()> {
        let mut state = self.alive()?;
        state.files.get_mut(&self.id).expect("files stay until a crash").synced(snapshot);
        *state.syncs.entry(self.path.clone()).or_default() += 1;
        (self.disk.report)(&format!("synced {}", self.path.display()));
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let state = self.alive()?;
        Ok(state.files[&self.id].read(to_index(offset), out))
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(offset + data.len() as u64, |it| it.write(to_index(offset), data))?;
        (self.disk.report)(&format!("wrote {} at {offset}: {}", self.path.display(), data.len()));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.files[&self.id].len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(len, |it| {
            if to_index(len) > it.len() {
                it.set_len(to_index(len));
            }
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(len, |it| it.set_len(to_index(len)))
    }

    fn sync_data(&self) -> BoxFuture<io::Result<()>> {
        let (disk, path) = (self.disk.clone(), self.path.clone());
        let (id, generation, mode) = (self.id, self.generation, self.mode);
        let file = SimFile { disk, path, id, generation, mode };
        Box::pin(async move {
            let (snapshot, time) = file.begin_sync()?;
            take(time).await;
            file.end_sync(snapshot)
        })
    }
}

async fn take(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn to_index(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated file fits in memory")
}

fn io_error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{}: {kind}", path.display()))
}

fn not_found(path: &Path) -> io::Error {
    io_error(io::ErrorKind::NotFound, path)
}

fn exists(path: &Path) -> io::Error {
    io_error(io::ErrorKind::AlreadyExists, path)
}

fn dead_handle(path: &Path) -> io::Error {
    io::Error::other(format!("{}: the host crashed since this was opened", path.display()))
}

#[cfg(test)]
mod tests;
