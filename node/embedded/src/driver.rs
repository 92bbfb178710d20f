//! The driver in the node agent: prepares what a pod's shim runs, asks the shim, and reads what it wrote down.
//!
//! It holds no truth: `list` reads folders, so a new agent finds what an old one left. Work that blocks (unpacking,
//! mounting, removing) goes to `Lane::Blocking`; talk with shims is asynchronous.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use kactor_drivers::checks;
use kactor_drivers::{
    AttachSpec, ContainerId, ContainerSpec, ContainerState, ContainerStats, Driver, DriverError,
    DriverEvent, EventFeed, Events, ExecSession, ExecSpec, Image, RegistryAuth, SandboxId,
    SandboxSpec, SandboxState, SandboxStatus, Stdin, Terminal,
};
use kactor_images::{ImageStore, Reference, archive, registry};
use kactor_runtime::env::{Command, Env, Lane};

use crate::cgroups::{Hierarchy, pod_path};
use crate::config_json::DRIVER;
use crate::layout::{Layout, container_dir_name};
use crate::protocol::{KillScope, RefusedKind, Reply, Request};
use crate::sealed::SealedProgram;

mod connection;
mod images;
mod prepare;
mod remove;
mod sessions;
mod status;

use connection::Connection;
pub use remove::purge_instance;

/// What a shim is started as: this program again, with these arguments before its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimProgram {
    pub program: PathBuf,
    pub args: Vec<String>,
}

impl ShimProgram {
    /// `kactor shim …`.
    pub fn this_program() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), args: vec!["shim".to_owned()] }
    }
}

pub struct EmbeddedConfig {
    /// In the name of everything that is made outside of the two folders.
    pub instance: String,
    /// On disk: pods' records and what their containers write.
    pub state_dir: PathBuf,
    /// On tmpfs, short: sockets and namespaces.
    pub run_dir: PathBuf,
    pub images: Arc<ImageStore>,
    pub shim: ShimProgram,
}

/// How long a shim may take to come up, and to answer.
const SHIM_START_TRIES: u32 = 1000;
const SHIM_START_PAUSE: Duration = Duration::from_millis(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
/// Before a shim that hung up on its watcher is watched again.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct EmbeddedDriver {
    inner: Arc<Inner>,
}

struct Inner {
    instance: String,
    layout: Layout,
    images: Arc<ImageStore>,
    hierarchy: Hierarchy,
    shim: ShimProgram,
    sealed: SealedProgram,
    /// Capabilities that we may hand out.
    bounding: BTreeSet<String>,
    env: Env,
    events: EventFeed,
}

impl EmbeddedDriver {
    /// Needs root and mounted cgroups; says in one sentence what is missing. Listens to the shims that are there.
    pub fn start(config: EmbeddedConfig, env: Env) -> Result<Self, DriverError> {
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            let why =
                "the embedded driver needs root: start kactor as root, or with --runtime hollow";
            return Err(DriverError::Runtime { doing: "starting".to_owned(), why: why.to_owned() });
        }
        let io = |doing: &str, it| DriverError::io(doing.to_owned(), it);
        let hierarchy = Hierarchy::detect().map_err(|it| io("looking for cgroups", it))?;
        let hierarchy = hierarchy.ok_or_else(|| DriverError::Runtime {
            doing: "starting".to_owned(),
            why: "no cgroups are mounted at /sys/fs/cgroup: mount cgroup2 there".to_owned(),
        })?;
        let layout = Layout { state: config.state_dir, run: config.run_dir };
        for dir in [layout.pods(), layout.run.join("pods")] {
            std::fs::create_dir_all(&dir)
                .map_err(|it| io(&format!("making {}", dir.display()), it))?;
        }
        let sealed = SealedProgram::copy(&config.shim.program)
            .map_err(|it| io("copying the shim's program", it))?;
        let bounding = kactor_drivers::capabilities::bounding()
            .map_err(|it| io("reading our capabilities", it))?;
        let driver = Self {
            inner: Arc::new(Inner {
                instance: config.instance,
                layout,
                images: config.images,
                hierarchy,
                shim: config.shim,
                sealed,
                bounding,
                env,
                events: EventFeed::default(),
            }),
        };
        for status in driver.inner.list()? {
            if status.state == SandboxState::Ready {
                driver.watch(status.spec.id);
            }
        }
        Ok(driver)
    }

    /// Tells of a pod's exits until its shim is gone.
    fn watch(&self, id: SandboxId) {
        let inner = self.inner.clone();
        self.inner.env.clone().spawn(Lane::Node, async move { inner.watch(id).await });
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let inner = self.inner.clone();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.inner.env.spawn(Lane::Blocking, async move {
            let _ = sender.send(work(&inner)); // Nobody waits any more: the work is done all the same.
        });
        receiver.await.unwrap_or_else(|_| {
            let why = "the lane for blocking work has stopped".to_owned();
            Err(DriverError::Runtime { doing: "working".to_owned(), why })
        })
    }

    async fn start_shim(&self, id: &SandboxId) -> Result<(), DriverError> {
        let pod = self.inner.layout.pod(id);
        let mut args = self.inner.shim.args.clone();
        args.extend(["--pod".to_owned(), pod.state.display().to_string()]);
        let program = self.inner.sealed.path();
        self.blocking(move |inner| {
            let command = Command { program, args, env: Vec::new(), dir: None };
            let started = inner.env.processes.spawn_detached(&command);
            started.map_err(|it| DriverError::io("starting the pod's shim", it)).map(|_| ())
        })
        .await?;
        for _ in 0..SHIM_START_TRIES {
            if let Ok(mut connection) = Connection::open(&pod, id) {
                return match connection.ask(&Request::Hello, &self.inner.env).await? {
                    Reply::Hello { .. } => Ok(()),
                    other => Err(connection.unexpected(&other)),
                };
            }
            if let Ok(why) = std::fs::read_to_string(pod.shim_error()) {
                return Err(DriverError::Runtime {
                    doing: "starting the pod's shim".to_owned(),
                    why,
                });
            }
            self.inner.env.sleep(SHIM_START_PAUSE).await;
        }
        let limit_ms = (SHIM_START_PAUSE * SHIM_START_TRIES).as_millis() as u64;
        Err(DriverError::Timeout { doing: "starting the pod's shim".to_owned(), limit_ms })
    }

    fn connect(&self, id: &SandboxId) -> Result<Connection, DriverError> {
        Connection::open(&self.inner.layout.pod(id), id)
    }

    /// One request that is answered with `Done`.
    async fn ask(&self, id: &ContainerId, request: Request) -> Result<(), DriverError> {
        let mut connection = self.connect(&id.sandbox)?;
        match connection.ask(&request, &self.inner.env).await? {
            Reply::Done => Ok(()),
            Reply::Refused { kind, why } => Err(refused(id, kind, why)),
            other => Err(connection.unexpected(&other)),
        }
    }

    /// `true` if the container has ended within the time.
    async fn wait(&self, id: &ContainerId, at_most: Duration) -> Result<bool, DriverError> {
        let mut connection = self.connect(&id.sandbox)?;
        connection.send(&Request::Wait { container: container_dir_name(id) }).await?;
        let mut sleep = self.inner.env.sleep(at_most).fuse();
        let reply = {
            let mut reply = std::pin::pin!(connection.receive().fuse());
            futures::select_biased! {
                reply = reply => reply?,
                () = sleep => return Ok(false),
            }
        };
        match reply {
            Reply::Exited { .. } => Ok(true),
            Reply::Refused { kind, why } => Err(refused(id, kind, why)),
            other => Err(connection.unexpected(&other)),
        }
    }

    /// Takes away what lost its name to a newer image and has no container, and what a failed pull left.
    async fn prune_images(&self) {
        let pruned = self.blocking(|inner| {
            // Who uses it cannot be known: then somebody does.
            let count = |id: &str| match inner.image_users() {
                Ok(users) => users.iter().filter(|it| *it == id).count(),
                Err(_) => 1,
            };
            inner.images.prune(&count).map_err(|it| images::error("unused images", it))
        });
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "unused images could not be removed; tried again after the next pull");
        }
    }

    async fn state(&self, id: &ContainerId) -> Result<Option<ContainerState>, DriverError> {
        let id = id.clone();
        self.blocking(move |inner| Ok(inner.container(&id)?.map(|it| it.state))).await
    }
}

fn refused(id: &ContainerId, kind: RefusedKind, why: String) -> DriverError {
    let what = id.to_string();
    match kind {
        RefusedKind::NoContainer => DriverError::NoContainer(id.clone()),
        RefusedKind::NotRunning => {
            DriverError::WrongState { what, state: "ended", wanted: "running" }
        }
        RefusedKind::AlreadyStarted => {
            DriverError::WrongState { what, state: "started already", wanted: "created" }
        }
        RefusedKind::Start => DriverError::Start { what, why },
        RefusedKind::Unsupported | RefusedKind::Failed | RefusedKind::Other => {
            DriverError::Runtime { doing: what, why }
        }
    }
}

impl Inner {
    async fn watch(&self, id: SandboxId) {
        loop {
            self.watch_once(&id).await;
            self.env.sleep(SHIM_START_PAUSE).await; // One that ends closes its socket before its lock.
            // A shim that lives on has hung up on us: exits must go on being told.
            if !status::is_alive(&self.layout.pod(&id)) {
                break;
            }
            self.events.publish(DriverEvent::Resync);
            self.env.sleep(WATCH_AGAIN).await;
        }
        // A removed pod is no lost one.
        if self.layout.pod(&id).sandbox_json().exists() {
            self.events.publish(DriverEvent::SandboxLost(id));
        }
    }

    async fn watch_once(&self, id: &SandboxId) {
        if let Ok(mut connection) = Connection::open(&self.layout.pod(id), id)
            && connection.send(&Request::Watch).await.is_ok()
        {
            while let Ok(reply) = connection.receive().await {
                if let Reply::Exited { container, .. } = reply
                    && let Some((name, attempt)) = container.rsplit_once('.')
                    && let Ok(attempt) = attempt.parse()
                {
                    let (sandbox, name) = (id.clone(), name.to_owned());
                    let id = ContainerId { sandbox, name, attempt };
                    self.events.publish(DriverEvent::ContainerExited(id));
                }
            }
        }
    }

    fn cgroup(&self, sandbox: &SandboxSpec) -> String {
        pod_path(&self.instance, sandbox.qos, &sandbox.id)
    }
}

#[async_trait]
impl Driver for EmbeddedDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn version(&self) -> String {
        format!("{DRIVER}://{}", env!("CARGO_PKG_VERSION"))
    }

    fn events(&self) -> Events {
        self.inner.events.subscribe()
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, DriverError> {
        let reference = reference.to_owned();
        self.blocking(move |inner| {
            inner.images.image(&reference).map_err(|it| images::error(&reference, it))
        })
        .await
    }

    async fn pull_image(&self, reference: &str, auth: &RegistryAuth) -> Result<Image, DriverError> {
        let failed = |it| images::error(reference, it);
        let parsed: Reference = reference.parse().map_err(failed)?;
        if parsed.digest.is_some()
            && let Some(image) = self.image(reference).await?
        {
            return Ok(image);
        }
        let hold = self.blocking(|inner| Ok(inner.images.hold())).await?;
        let pulled = registry::pull(&self.inner.images, &parsed, auth).await.map_err(failed);
        drop(hold);
        self.prune_images().await;
        pulled
    }

    async fn import_images(&self, tarball: &Path) -> Result<Vec<Image>, DriverError> {
        let tarball = tarball.to_owned();
        let imported = self.blocking(move |inner| {
            let _hold = inner.images.hold();
            let imported = archive::import(&inner.images, &tarball);
            imported.map_err(|it| images::error(&tarball.display().to_string(), it))
        });
        let imported = imported.await;
        self.prune_images().await;
        imported
    }

    async fn images(&self) -> Result<Vec<Image>, DriverError> {
        self.blocking(|inner| inner.images.images().map_err(|it| images::error("all", it))).await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), DriverError> {
        let reference = reference.to_owned();
        self.blocking(move |inner| {
            let users = inner.image_users()?;
            let count = |id: &str| users.iter().filter(|it| *it == id).count();
            let removed = inner.images.remove(&reference, &count);
            removed.map_err(|it| images::error(&reference, it))
        })
        .await
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxStatus, DriverError> {
        checks::names(&spec.id, None)?;
        let id = spec.id.clone();
        let spec = spec.clone();
        self.blocking(move |inner| inner.prepare_sandbox(&spec)).await?;
        if let Err(error) = self.start_shim(&id).await {
            // The first error is the one to tell; what is left is found by the next `list`.
            let _ = self.remove_sandbox(&id).await;
            return Err(error);
        }
        self.watch(id.clone());
        self.sandbox(&id).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), DriverError> {
        checks::names(id, None)?;
        let id = id.clone();
        self.blocking(move |inner| inner.remove_sandbox(&id)).await
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, DriverError> {
        self.blocking(|inner| inner.list()).await
    }

    async fn sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, DriverError> {
        checks::names(id, None)?;
        let id = id.clone();
        self.blocking(move |inner| {
            inner.sandbox(&id)?.ok_or_else(|| DriverError::NoSandbox(id.clone()))
        })
        .await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        checks::names(&spec.id.sandbox, Some(&spec.id))?;
        let spec = spec.clone();
        self.blocking(move |inner| inner.prepare_container(&spec)).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        match self.state(id).await? {
            None => return Err(DriverError::NoContainer(id.clone())),
            Some(ContainerState::Created) => {}
            Some(ContainerState::Running { .. }) => {
                return Err(refused(id, RefusedKind::AlreadyStarted, String::new()));
            }
            Some(ContainerState::Exited { .. }) => {
                return Err(refused(id, RefusedKind::NotRunning, String::new()));
            }
        }
        self.ask(id, Request::Start { container: container_dir_name(id) }).await?;
        self.inner.events.publish(DriverEvent::ContainerStarted(id.clone()));
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        if !matches!(self.state(id).await?, Some(ContainerState::Running { .. })) {
            return Ok(());
        }
        let container = container_dir_name(id);
        if !grace.is_zero() {
            let wanted = id.clone();
            let signal = self.blocking(move |inner| inner.stop_signal(&wanted)).await?;
            let kill =
                Request::Kill { container: container.clone(), signal, scope: KillScope::First };
            self.ask(id, kill).await?;
            if self.wait(id, grace).await? {
                return Ok(());
            }
        }
        for scope in [KillScope::First, KillScope::All] {
            let signal = libc::SIGKILL;
            self.ask(id, Request::Kill { container: container.clone(), signal, scope }).await?;
        }
        match self.wait(id, KILL_TIMEOUT).await? {
            true => Ok(()),
            false => Err(DriverError::Timeout {
                doing: format!("killing {id}"),
                limit_ms: KILL_TIMEOUT.as_millis() as u64,
            }),
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        self.stop_container(id, Duration::ZERO).await?;
        let forget = Request::Forget { container: container_dir_name(id) };
        match self.ask(id, forget).await {
            // No shim: there is nobody who would have to forget.
            Ok(()) | Err(DriverError::Unreachable { .. }) => {}
            Err(error) => return Err(error),
        }
        let id = id.clone();
        self.blocking(move |inner| inner.remove_container(&id)).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        let id = id.clone();
        self.blocking(move |inner| {
            let status = inner.sandbox(&id.sandbox)?;
            let status = status.ok_or_else(|| DriverError::NoSandbox(id.sandbox.clone()))?;
            if !status.containers.iter().any(|it| *it.id() == id) {
                return Err(DriverError::NoContainer(id.clone()));
            }
            let path = format!("{}/{}", inner.cgroup(&status.spec), container_dir_name(&id));
            Ok(inner.hierarchy.stats(&path))
        })
        .await
    }

    async fn rotate_log(&self, id: &ContainerId) -> Result<(), DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        self.ask(id, Request::RotateLog { container: container_dir_name(id) }).await
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecSession, DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        if spec.command.is_empty() {
            let why = "it names no program".to_owned();
            return Err(DriverError::Invalid { field: "command", why });
        }
        let size = spec.size.unwrap_or(kactor_drivers::WindowSize { columns: 0, rows: 0 });
        let request = Request::Exec {
            container: container_dir_name(id),
            args: spec.command.clone(),
            stdin: spec.stdin != Stdin::Closed,
            terminal: spec.terminal == Terminal::Tty,
            columns: size.columns,
            rows: size.rows,
        };
        self.session(id, request, spec.stdin).await
    }

    async fn attach(
        &self,
        id: &ContainerId,
        spec: &AttachSpec,
    ) -> Result<ExecSession, DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        let stdin = spec.stdin != Stdin::Closed;
        let request = Request::Attach { container: container_dir_name(id), stdin };
        self.session(id, request, spec.stdin).await
    }

    async fn purge(&self) -> Result<(), DriverError> {
        self.blocking(|inner| {
            remove::purge(&inner.layout, &inner.hierarchy, &inner.instance)?;
            inner.images.clear().map_err(|it| images::error("all", it))
        })
        .await
    }
}
