//! `Env` on a real machine: lanes are threads, time is the kernel's, the disk is the file system.
//!
//! Each lane is one thread with a current-thread tokio runtime and a `LocalSet` (what actix calls an arbiter), so an
//! actor's context never leaves the thread it was made on. Threads start when a lane is first used: a test that needs
//! one lane pays for one. `Lane::Blocking` is a few threads, because unpacking an image must not hold up a mount.

#![expect(
    clippy::disallowed_methods,
    reason = "this is Env's home: the one place that names clock and threads"
)]

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::{AbortHandle, Abortable};
use kactor_protocol::time::Timestamp;
use tokio::sync::Notify;

use super::disk::MachineDisk;
use super::processes::MachineProcesses;
use super::{BoxFuture, Clock, Entropy, Env, Lane, LocalFuture, Spawner, TaskHandle};

/// Threads behind `Lane::Blocking`.
const BLOCKING_LANES: usize = 4;
/// Gateway lanes when `Machine::start` chooses: more gains nothing on the hosts that were measured.
const GATEWAY_LANES_MAX: usize = 4;

/// A started machine. Dropping it stops the lanes: their tasks are dropped where they are, and the threads joined.
pub struct Machine {
    env: Env,
    lanes: Arc<Lanes>,
}

impl Machine {
    /// As many gateway lanes as there are cores, within 1 to 4.
    pub fn start() -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, |it| it.get());
        let lanes = cores.clamp(1, GATEWAY_LANES_MAX);
        Self::with_gateway_lanes(u8::try_from(lanes).expect("clamped to 4"))
    }

    pub fn with_gateway_lanes(gateway_lanes: u8) -> Machine {
        assert!(gateway_lanes > 0, "Env promises at least one gateway lane");
        let lanes = Arc::new(Lanes::default());
        let env = Env {
            clock: Arc::new(MachineClock { start: Instant::now() }),
            entropy: Arc::new(MachineEntropy),
            disk: Arc::new(MachineDisk),
            processes: Arc::new(MachineProcesses),
            spawner: lanes.clone(),
            gateway_lanes,
        };
        Machine { env, lanes }
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Runs `root` on the calling thread until it is done, on an event loop of its own; lanes run beside it.
    pub fn block_on<F: Future>(&self, root: F) -> io::Result<F::Output> {
        let runtime = event_loop()?;
        Ok(tokio::task::LocalSet::new().block_on(&runtime, root))
    }

    /// Ends all tasks and joins all lanes.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.lanes.stop();
    }
}

impl Env {
    /// This machine, with lanes that run until the process ends. `main` uses `Machine::start`, which can stop them.
    pub fn machine() -> Env {
        let machine = Machine::start();
        let env = machine.env.clone();
        std::mem::forget(machine);
        env
    }
}

fn event_loop() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

struct MachineClock {
    start: Instant,
}

impl Clock for MachineClock {
    fn wall(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<()> {
        let start = self.start;
        // Made inside the future: a timer belongs to the event loop that polls it.
        Box::pin(async move {
            match start.checked_add(at) {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        })
    }
}

struct MachineEntropy;

impl Entropy for MachineEntropy {
    fn fill(&self, out: &mut [u8]) {
        let mut filled = 0;
        while filled < out.len() {
            let rest = &mut out[filled..];
            // SAFETY: the pointer and the length are those of `rest`, which lives through the call.
            let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
            match usize::try_from(n) {
                Ok(n) => filled += n,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    assert_eq!(error.kind(), io::ErrorKind::Interrupted, "getrandom: {error}");
                }
            }
        }
    }
}

/// A lane's thread: `Lane::Blocking` has several.
type LaneKey = (Lane, usize);
type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Lanes {
    started: Mutex<Started>,
    next_blocking: AtomicUsize,
}

#[derive(Default)]
struct Started {
    stopped: bool,
    threads: BTreeMap<LaneKey, (Arc<Queue>, JoinHandle<()>)>,
}

/// Tasks that wait for the lane's next turn. Unbounded as tokio's own run queue is: what is in it are tasks, and
/// tasks are bounded by those who spawn them.
#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    arrived: Notify,
    stop: AtomicBool,
}

impl Lanes {
    fn locked(&self) -> MutexGuard<'_, Started> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane's queue; `None` once the machine stopped.
    fn queue(&self, lane: Lane) -> Option<Arc<Queue>> {
        let nth = match lane {
            Lane::Blocking => self.next_blocking.fetch_add(1, Ordering::Relaxed) % BLOCKING_LANES,
            _ => 0,
        };
        let mut started = self.locked();
        if started.stopped {
            return None;
        }
        let (queue, _) = started.threads.entry((lane, nth)).or_insert_with(|| {
            let queue = Arc::new(Queue::default());
            let name = format!("{lane:?}-{nth}").to_lowercase();
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn({
                    let queue = queue.clone();
                    move || run_lane(&queue)
                })
                .expect("a host that can't start a thread can't run kactor");
            (queue, thread)
        });
        Some(queue.clone())
    }

    fn stop(&self) {
        let threads = {
            let mut started = self.locked();
            started.stopped = true;
            std::mem::take(&mut started.threads)
        };
        for (queue, _) in threads.values() {
            queue.stop.store(true, Ordering::Release);
            queue.arrived.notify_one();
        }
        for (_, thread) in threads.into_values() {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join(); // A lane's panic was printed when it happened.
            }
        }
    }
}

fn run_lane(queue: &Queue) {
    let runtime = event_loop().expect("a host without an event loop can't run kactor");
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        while !queue.stop.load(Ordering::Acquire) {
            let jobs =
                std::mem::take(&mut *queue.jobs.lock().unwrap_or_else(PoisonError::into_inner));
            if jobs.is_empty() {
                queue.arrived.notified().await;
            }
            jobs.into_iter().for_each(|job| job());
        }
    });
    drop(tasks); // Drops all tasks here, on their own thread.
}

impl Spawner for Lanes {
    fn spawn_on(&self, lane: Lane, make: Box<dyn FnOnce() -> LocalFuture + Send>) -> TaskHandle {
        let (abort, registration) = AbortHandle::new_pair();
        let handle = TaskHandle::new({
            let abort = abort.clone();
            move || abort.abort()
        });
        let Some(queue) = self.queue(lane) else {
            return handle;
        };
        let job: Job = Box::new(move || {
            if !abort.is_aborted() {
                // In the task, so that a panic in `make` ends the task and not the lane.
                tokio::task::spawn_local(Abortable::new(async move { make().await }, registration));
            }
        });
        queue.jobs.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        queue.arrived.notify_one();
        handle
    }
}

#[cfg(test)]
mod tests;
