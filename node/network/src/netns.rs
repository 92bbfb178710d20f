//! Doing something inside another network namespace.
//!
//! A namespace belongs to a thread. Each call has a thread of its own that ends with it: a lane that entered and
//! could not come back would serve every later task from inside a pod. The only place of this crate with threads.
//! A socket stays in the namespace that it was made in, so the work is to open one; waiting happens outside.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("the network namespace {} cannot be opened", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the network namespace {} cannot be entered: that needs root", path.display())]
    Enter { path: PathBuf, source: io::Error },
    #[error("no thread could be started")]
    Thread { source: io::Error },
}

/// The namespace's file, for the kernel to move a link into.
pub fn open(path: &Path) -> Result<File, NetnsError> {
    File::open(path).map_err(|source| NetnsError::Open { path: path.to_owned(), source })
}

/// Runs `work` on a thread inside the namespace, and waits for it. `work` must not block for long.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let namespace = open(path)?;
    let enter = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|it| NetnsError::Enter { path: path.to_owned(), source: it.into() })?;
        Ok(work())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned());
        let thread =
            thread.spawn_scoped(scope, enter).map_err(|source| NetnsError::Thread { source })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
