//! `Env`: every source of chance that an actor may touch — time, randomness, disk, network, processes, spawning.
//!
//! Production gives it the machine (`env/machine.rs`), the simulator gives it a seeded world. Nothing above
//! this file names a clock, a generator, a socket, a thread or a file. Invariant: two runs over equal `Env`s
//! with equal inputs do equal things.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::time::Timestamp;

mod disk;
mod machine;
mod processes;
mod tasks;

pub use machine::Machine;
pub use tasks::{TaskSink, TooManyTasks};

/// A future that may be sent to another thread.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;
/// A future that stays on the lane it was made on.
pub type LocalFuture = Pin<Box<dyn Future<Output = ()> + 'static>>;

/// Where a task runs. On a machine each lane is a thread with its own event loop; in a simulation all share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Controllers, scheduler, sessions: the actors of the control plane.
    Control,
    /// Raft and its timers: nothing that may block runs here.
    Raft,
    /// The log's writer: it may block in fdatasync.
    Journal,
    /// Links to other hosts: QUIC's packets, its ciphers and its timers.
    Links,
    /// HTTP connections; the index picks one of `Env::gateway_lanes`.
    Gateway(u8),
    /// The node agent and its pods' actors.
    Node,
    /// Blocking work of a node (mounts, unpacking): it may block.
    Blocking,
}

/// Wall time for what people read, monotonic time for what must not jump.
pub trait Clock: Send + Sync {
    fn wall(&self) -> Timestamp;
    /// Since this `Env` was made. Never goes back, unaffected by changes of the wall clock.
    fn monotonic(&self) -> Duration;
    /// Completes when `monotonic() >= at`.
    fn sleep_until(&self, at: Duration) -> BoxFuture<()>;
}

/// Random bytes: from the operating system, or from the seed.
pub trait Entropy: Send + Sync {
    fn fill(&self, out: &mut [u8]);
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    Read,
    /// Must exist.
    ReadWrite,
    /// Made if it does not exist.
    ReadWriteCreate,
    /// Must not exist yet.
    CreateNew,
}

/// A file. Writes reach the operating system; only `sync` makes them durable.
pub trait DiskFile: Send + Sync {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;
    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Sets the length and reserves the space with zeroes, so that later writes change no metadata.
    fn allocate(&self, len: u64) -> io::Result<()>;
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// fdatasync. Poll it only on a lane that may block (`Journal`, `Blocking`): on a machine it blocks in the poll.
    /// After an error nothing may be assumed of earlier writes; it is never retried.
    fn sync_data(&self) -> BoxFuture<io::Result<()>>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The file system, as far as durable state needs it.
pub trait Disk: Send + Sync {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in the folder, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    fn exists(&self, path: &Path) -> bool;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes names in this folder (creations, renames, removals) durable.
    fn sync_dir(&self, path: &Path) -> BoxFuture<io::Result<()>>;
    /// Free bytes on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// A child process: the shim is started through this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub dir: Option<PathBuf>,
}

/// Starting processes and naming our own.
pub trait Processes: Send + Sync {
    /// This process's id.
    fn id(&self) -> u32;
    /// Starts a process that outlives us and is not our child to reap; its std streams are /dev/null.
    fn spawn_detached(&self, command: &Command) -> io::Result<u32>;
}

/// Running futures. Panics in a task are caught by the runtime's supervision, never here.
pub trait Spawner: Send + Sync {
    /// Runs the future that `make` builds on `lane`. `make` itself runs on that lane.
    fn spawn_on(&self, lane: Lane, make: Box<dyn FnOnce() -> LocalFuture + Send>) -> TaskHandle;
}

/// Aborts its task on request; dropping it leaves the task running.
#[derive(Clone)]
pub struct TaskHandle {
    abort: Arc<dyn Fn() + Send + Sync>,
}

impl TaskHandle {
    pub fn new(abort: impl Fn() + Send + Sync + 'static) -> Self {
        Self { abort: Arc::new(abort) }
    }

    /// Drops the task's future at its present await point.
    pub fn abort(&self) {
        (self.abort)();
    }
}

/// Everything outside the program, as one cloneable value.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub disk: Arc<dyn Disk>,
    pub processes: Arc<dyn Processes>,
    pub spawner: Arc<dyn Spawner>,
    /// How many `Lane::Gateway` lanes there are; at least 1.
    pub gateway_lanes: u8,
}

impl Env {
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    pub fn sleep(&self, time: Duration) -> BoxFuture<()> {
        self.clock.sleep_until(self.clock.monotonic() + time)
    }

    /// Runs `future` on `lane`.
    pub fn spawn<F>(&self, lane: Lane, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawner.spawn_on(lane, Box::new(move || Box::pin(future)))
    }

    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A version 4 UUID (RFC 9562), lower case: `metadata.uid`.
    pub fn random_uuid(&self) -> String {
        let mut b = [0_u8; 16];
        self.entropy.fill(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let hex: String = b.iter().map(|it| format!("{it:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}
