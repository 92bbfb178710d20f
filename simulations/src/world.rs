//! A seeded world: one thread, a virtual clock, hosts with an `Env` each that can be crashed at any await point.
//!
//! tokio's paused clock moves only when nothing can run; its own randomness (select, wake order) is seeded too, which
//! needs `tokio_unstable`. All lanes share the one thread, so a run has one order of events.

#![expect(clippy::disallowed_methods, reason = "the simulated Env is Env's other home")]

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{AbortHandle, Abortable};
use kactor_protocol::Timestamp;
use kactor_runtime::env::{
    BoxFuture, Clock, Command, Env, Lane, LocalFuture, Processes, Spawner, TaskHandle,
};
use tokio::runtime::RngSeed;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::disk::FaultyDisk;
use crate::trace::Trace;

/// What the wall clock says when a world begins: 2026-01-01T00:00:00Z.
pub const WALL_START: Timestamp = Timestamp(1_767_225_600_000);

/// A world in which a future runs. Made anew for each run.
pub struct World {
    seed: u64,
    start: Instant,
    trace: Trace,
    panics: Arc<Mutex<Vec<String>>>,
    hosts: RefCell<Vec<Rc<SimHost>>>,
}

impl World {
    /// Runs `scenario` in the world of `seed` until it is done, then drops everything that still runs.
    ///
    /// # Panics
    /// When a task panicked that no supervision caught.
    pub fn run<T, F>(seed: u64, scenario: impl FnOnce(Rc<World>) -> F) -> T
    where
        F: Future<Output = T>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .build()
            .expect("a runtime of timers alone needs nothing of the machine");
        let tasks = LocalSet::new();
        let (world, result) = tasks.block_on(&runtime, async {
            let world = Rc::new(World {
                seed,
                start: Instant::now(),
                trace: Trace::default(),
                panics: Arc::default(),
                hosts: RefCell::default(),
            });
            let result = scenario(world.clone()).await;
            for host in world.hosts.borrow().iter() {
                host.tasks.abort_all();
            }
            tokio::task::yield_now().await; // Aborted tasks are dropped at their next turn.
            (world, result)
        });
        drop(tasks);
        let panics = world.panics.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(panics.is_empty(), "seed {seed}: tasks panicked: {panics:?}");
        result
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Since the world began.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Writes a line of the run's trace.
    pub fn note(&self, event: impl std::fmt::Display) {
        self.trace.write(self.now(), event);
    }

    /// A stream of chance for the scenario's own decisions.
    pub fn chance(&self, name: &str) -> Chance {
        Chance::new(self.seed, name)
    }

    pub async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// A new host with an empty disk.
    pub fn host(&self, name: &str) -> Rc<SimHost> {
        let clock = Arc::new(SimClock { start: self.start, wall_ms: AtomicU64::new(WALL_START.0) });
        let disk = FaultyDisk::new(self.chance(&format!("disk {name}")), {
            let (trace, start, name) = (self.trace.clone(), self.start, name.to_owned());
            move |event| trace.write(start.elapsed(), format_args!("{name} disk {event}"))
        });
        let tasks = Arc::new(Tasks {
            host: name.to_owned(),
            start: self.start,
            trace: self.trace.clone(),
            panics: self.panics.clone(),
            running: Mutex::default(),
        });
        let nth = self.hosts.borrow().len();
        let host = Rc::new(SimHost {
            name: name.to_owned(),
            env: Env {
                clock: clock.clone(),
                entropy: Arc::new(self.chance(&format!("entropy {name}"))),
                disk: Arc::new(disk.clone()),
                processes: Arc::new(SimProcesses { id: 1000 + nth as u32 }),
                spawner: tasks.clone(),
                gateway_lanes: 1,
            },
            disk,
            clock,
            tasks,
        });
        self.hosts.borrow_mut().push(host.clone());
        host
    }
}

/// One simulated host. It outlives its crashes: the disk stays, the tasks do not.
pub struct SimHost {
    name: String,
    env: Env,
    disk: FaultyDisk,
    clock: Arc<SimClock>,
    tasks: Arc<Tasks>,
}

impl SimHost {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    pub fn disk(&self) -> &FaultyDisk {
        &self.disk
    }

    /// The power goes: every task of the host is dropped where it waits, and the disk keeps what chance lets it keep
    /// of what was not synced. Start the host's programs again on the same `env`.
    pub async fn crash(&self) {
        let now = self.clock.start.elapsed();
        self.tasks.trace.write(now, format_args!("{} crashes", self.name));
        self.tasks.abort_all();
        tokio::task::yield_now().await; // Aborted tasks are dropped at their next turn.
        self.disk.crash();
    }

    /// Sets the wall clock forwards or back; monotonic time goes on as it did.
    pub fn set_wall(&self, wall: Timestamp) {
        let elapsed = u64::try_from(self.clock.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // May be "before the world began" in wrapping arithmetic; `wall` adds it up again.
        self.clock.wall_ms.store(wall.0.wrapping_sub(elapsed), Ordering::Relaxed);
    }
}

struct SimClock {
    start: Instant,
    /// The wall clock at the world's beginning, as this host has it.
    wall_ms: AtomicU64,
}

impl Clock for SimClock {
    fn wall(&self) -> Timestamp {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.wall_ms.load(Ordering::Relaxed).wrapping_add(elapsed))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<()> {
        let at = self.start.checked_add(at);
        Box::pin(async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        })
    }
}

struct SimProcesses {
    id: u32,
}

impl Processes for SimProcesses {
    fn id(&self) -> u32 {
        self.id
    }

    /// Pods of a simulation run in the `hollow` driver, which starts no process.
    fn spawn_detached(&self, command: &Command) -> io::Result<u32> {
        let program = command.program.display();
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{program}: a simulated host starts no real process"),
        ))
    }
}

/// The tasks of one host, in the order of their start.
struct Tasks {
    host: String,
    start: Instant,
    trace: Trace,
    panics: Arc<Mutex<Vec<String>>>,
    running: Mutex<Vec<AbortHandle>>,
}

impl Tasks {
    fn abort_all(&self) {
        let running =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.iter().for_each(AbortHandle::abort);
    }
}

impl Spawner for Tasks {
    fn spawn_on(&self, lane: Lane, make: Box<dyn FnOnce() -> LocalFuture + Send>) -> TaskHandle {
        let (abort, registration) = AbortHandle::new_pair();
        self.trace.write(self.start.elapsed(), format_args!("{} spawns on {lane:?}", self.host));
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|it| !it.is_aborted());
            running.push(abort.clone());
        }
        let (panics, host) = (self.panics.clone(), self.host.clone());
        let task = async move {
            let Err(panic) = AssertUnwindSafe(async move { make().await }).catch_unwind().await
            else {
                return;
            };
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            let text = text.unwrap_or_else(|| "a panic without a text".into());
            panics.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{host}: {text}"));
        };
        tokio::task::spawn_local(Abortable::new(task, registration));
        TaskHandle::new(move || abort.abort())
    }
}
