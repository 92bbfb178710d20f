//! The machine's file system behind `Disk`: pread, pwrite, fdatasync, and directories that are synced too.
//!
//! `allocate` writes zeroes instead of stopping at fallocate: blocks that were only reserved are "unwritten", and
//! the first write into each changes metadata, which makes the next fdatasync a journal commit of the file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::{BoxFuture, Disk, DiskFile, OpenMode};

static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

pub(crate) struct MachineDisk;

struct MachineFile(Arc<File>);

impl DiskFile for MachineFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(out, offset)
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut at = self.len()?;
        if at >= len {
            return Ok(());
        }
        let signed = |it: u64| i64::try_from(it).map_err(io::Error::other);
        // Reserved in one piece first, so that a full disk is met before anything is written.
        match fallocate(&*self.0, FallocateFlags::empty(), signed(at)?, signed(len - at)?) {
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        while at < len {
            let n = usize::try_from(len - at).unwrap_or(ZEROES.len()).min(ZEROES.len());
            self.0.write_all_at(&ZEROES[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> BoxFuture<io::Result<()>> {
        let file = self.0.clone();
        Box::pin(async move { file.sync_data() })
    }
}

impl Disk for MachineDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::ReadWriteCreate => options.write(true).create(true).truncate(false),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        let file = options.open(path).map_err(|error| at_path(path, error))?;
        Ok(Arc::new(MachineFile(Arc::new(file))))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path).map_err(|error| at_path(path, error))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(path).map_err(|error| at_path(path, error))?;
        let mut names = entries
            .map(|it| Ok(it?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to).map_err(|error| at_path(from, error))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path).map_err(|error| at_path(path, error))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path).map_err(|error| at_path(path, error))
    }

    fn sync_dir(&self, path: &Path) -> BoxFuture<io::Result<()>> {
        let path = path.to_owned();
        Box::pin(async move {
            File::open(&path)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| at_path(&path, error))
        })
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(path).map_err(|error| at_path(path, error.into()))?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }
}

/// The kind stays, so that callers can tell `NotFound`; the text says which path.
fn at_path(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
