//! A small disk of a host's own: a file system in a file, that can be filled, and frozen as a disk that hangs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::process;

pub struct Disk {
    at: PathBuf,
    is_frozen: bool,
}

impl Disk {
    /// Makes and mounts it on the folder, which must be there.
    ///
    /// # Panics
    /// When a tool of the machine (`mkfs.ext4`, `mount`) is missing or fails.
    #[track_caller]
    pub fn mount(image: &Path, at: &Path, mib: u64) -> Self {
        let file = File::create(image).expect("the image can be made");
        file.set_len(mib << 20).expect("a sparse file takes no space");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image));
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at));
        Self { at: at.to_owned(), is_frozen: false }
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Somebody else writes until nothing is free.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("the disk is mounted");
        let block = vec![0; 1 << 20];
        for size in [block.len(), 4096] {
            while file.write_all(&block[..size]).is_ok() {}
        }
        let _ = file.sync_all(); // A full disk may say so again here.
    }

    /// What filled it is gone.
    pub fn relieve(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
    }

    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// No write goes on, none fails.
    #[track_caller]
    pub fn freeze(&mut self) {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.at));
        self.is_frozen = true;
    }

    #[track_caller]
    pub fn thaw(&mut self) {
        run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.at));
        self.is_frozen = false;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_frozen {
            let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.at).status();
        }
        // Lazily: what still ends holds it for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let answer = process::run(command, "");
    assert!(answer.is_ok(), "{command:?}: {}", answer.both());
}
