//! The driver in the node agent. It holds no truth: everything is asked of dockerd, every time.
//!
//! A sandbox is a pause container: network `none`, plumbed by the agent through `/proc/PID/ns/net`. When it dies the
//! sandbox is `Lost`; the agent makes it anew and plumbs again, as kubelet and cri-dockerd do.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::{
    CreateContainerOptions, EventsOptions, KillContainerOptions, StartContainerOptions,
    StatsOptions, WaitContainerOptions,
};
use futures::StreamExt;
use kactor_drivers::cgroups::Hierarchy;
use kactor_drivers::{
    AttachSpec, ContainerId, ContainerSpec, ContainerState, ContainerStats, Driver, DriverError,
    DriverEvent, EventFeed, Events, ExecSession, ExecSpec, Image, QosClass, RegistryAuth,
    SandboxId, SandboxSpec, SandboxStatus, Seccomp, capabilities, checks,
};
use kactor_runtime::env::{Env, Lane};
use tokio::sync::Mutex;

use crate::config::{self, DRIVER, LeftOut, Privileges, Surroundings, pod_cgroup};
use crate::engine::{CgroupDriver, Engine, code, message};
use crate::labels::{self, Whose};
use crate::logs::Copiers;
use crate::remove::remove_container;
use crate::status::Found;

pub(crate) const CLASSES: [QosClass; 3] =
    [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
/// Between attempts to hear of dockerd's events again.
const EVENTS_PAUSE: Duration = Duration::from_secs(1);
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// What the pause container runs: this program, copied into an image, with these arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseProgram {
    pub program: PathBuf,
    pub args: Vec<String>,
}

impl PauseProgram {
    /// `kactor pause`.
    pub fn this_program() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), args: vec!["pause".to_owned()] }
    }
}

pub struct DockerConfig {
    /// In the name and labels of everything that is made.
    pub instance: String,
    /// Our own notes: locks of logs, images on their way. It says that this instance uses Docker.
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub pause: PauseProgram,
}

#[derive(Clone)]
pub struct DockerDriver {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub instance: String,
    pub state_dir: PathBuf,
    pub pause: PauseProgram,
    pub engine: Arc<Engine>,
    pub copiers: Copiers,
    pub env: Env,
    pub making_pause_image: Mutex<()>,
    hierarchy: Hierarchy,
    events: EventFeed,
}

impl DockerDriver {
    /// Needs root and a dockerd that answers; says in one sentence what is missing. Goes on with what is there.
    pub async fn start(config: DockerConfig, env: Env) -> Result<Self, DriverError> {
        let starting =
            |why: &str| DriverError::Runtime { doing: "starting".to_owned(), why: why.to_owned() };
        if !nix::unistd::geteuid().is_root() {
            return Err(starting(
                "the docker driver needs root: start kactor as root, or with --runtime hollow",
            ));
        }
        let hierarchy =
            Hierarchy::detect().map_err(|it| DriverError::io("looking for cgroups", it))?;
        let hierarchy = hierarchy.ok_or_else(|| {
            starting("no cgroups are mounted at /sys/fs/cgroup: mount cgroup2 there")
        })?;
        let engine = Arc::new(Engine::connect(&config.socket).await?);
        let locks = config.state_dir.join("logs");
        clear_leftovers(&config.state_dir);
        std::fs::create_dir_all(&locks)
            .map_err(|it| DriverError::io(format!("making {}", locks.display()), it))?;
        let inner = Arc::new(Inner {
            instance: config.instance,
            state_dir: config.state_dir,
            pause: config.pause,
            copiers: Copiers::new(engine.clone(), env.clone(), locks),
            engine,
            env: env.clone(),
            making_pause_image: Mutex::new(()),
            hierarchy,
            events: EventFeed::default(),
        });
        inner.recover().await?;
        let listening = inner.clone();
        env.spawn(Lane::Node, async move {
            loop {
                listening.listen().await;
                listening.events.publish(DriverEvent::Resync);
                listening.env.sleep(EVENTS_PAUSE).await;
            }
        });
        Ok(Self { inner })
    }
}

/// Images that a kactor before this one was loading.
fn clear_leftovers(state_dir: &Path) {
    for entry in std::fs::read_dir(state_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("load-") {
            let _ = std::fs::remove_dir_all(entry.path()); // It costs space only.
        }
    }
}

impl Inner {
    /// Copies logs on, and removes containers whose pause container is gone: nothing else would find them.
    async fn recover(&self) -> Result<(), DriverError> {
        let found = self.found(None).await?;
        let has_pause = |id: &SandboxId| {
            found.iter().any(|it| matches!(&it.whose, Whose::Sandbox(pod) if pod == id))
        };
        for it in &found {
            let Whose::Container(id) = &it.whose else { continue };
            if !has_pause(&id.sandbox) {
                remove_container(&self.engine, &self.env, &it.docker_id).await?;
                continue;
            }
            match it.container() {
                Some(status) if status.state != ContainerState::Created => {
                    self.copiers.start(&it.docker_id, &status.spec);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Until dockerd stops telling.
    async fn listen(&self) {
        let owned = |it: &str| it.to_owned();
        let filters = [
            (owned("type"), vec![owned("container")]),
            (owned("event"), vec![owned("die"), owned("destroy")]),
            (owned("label"), vec![format!("{}={}", labels::INSTANCE, self.instance)]),
        ];
        let filters = Some(filters.into_iter().collect());
        let options = EventsOptions { filters, ..Default::default() };
        let mut events = self.engine.docker.events(Some(options));
        while let Some(Ok(event)) = events.next().await {
            let Some(attributes) = event.actor.and_then(|it| it.attributes) else { continue };
            match labels::whose(|it| attributes.get(it)) {
                Some(Whose::Container(id)) => {
                    self.events.publish(DriverEvent::ContainerExited(id));
                }
                // One that was asked for is listed no more; then this is a hint for nothing.
                Some(Whose::Sandbox(id)) => self.events.publish(DriverEvent::SandboxLost(id)),
                None => {}
            }
        }
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxStatus, DriverError> {
        checks::sandbox(DRIVER, spec)?;
        let exists = || DriverError::Exists { what: format!("sandbox {}", spec.id) };
        if self.find_pause(&spec.id).await?.is_some() {
            return Err(exists());
        }
        self.remove_pod(&spec.id).await?; // Containers that lost their pause container.
        let image = self.need_pause_image().await?;
        let group = pod_cgroup(self.engine.cgroups, &self.instance, spec.qos, &spec.id);
        if self.engine.cgroups == CgroupDriver::Cgroupfs {
            let made = self.hierarchy.create(&group.path, &spec.resources);
            made.map_err(|it| DriverError::io("making the Pod's cgroup", it))?;
        }
        let body = config::sandbox(&self.instance, spec, &image, &group.parent)?;
        let options = CreateContainerOptions {
            name: Some(labels::sandbox_name(&self.instance, &spec.id)),
            ..Default::default()
        };
        let docker_id = match self.engine.docker.create_container(Some(options), body).await {
            Ok(it) => it.id,
            Err(error) if code(&error) == Some(409) => return Err(exists()),
            Err(error) => {
                return Err(self.engine.error(format!("making sandbox {}", spec.id), error));
            }
        };
        let started = self.start_pause(&docker_id, spec, &group.path).await;
        if let Err(error) = started {
            // The first error is the one to tell; what is left is listed as lost.
            let _ = self.remove_pod(&spec.id).await;
            return Err(error);
        }
        self.one_sandbox(&spec.id).await
    }

    async fn start_pause(
        &self,
        docker_id: &str,
        spec: &SandboxSpec,
        group: &str,
    ) -> Result<(), DriverError> {
        let started =
            self.engine.docker.start_container(docker_id, None::<StartContainerOptions>).await;
        started.map_err(|it| self.engine.error(format!("starting sandbox {}", spec.id), it))?;
        if self.engine.cgroups == CgroupDriver::Systemd {
            // The slice is systemd's and is there only now.
            for (file, text) in self.hierarchy.settings(group, &spec.resources) {
                std::fs::write(&file, text)
                    .map_err(|it| DriverError::io(format!("setting {}", file.display()), it))?;
            }
        }
        Ok(())
    }

    async fn one_sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, DriverError> {
        let found = self.sandboxes(Some(id)).await?;
        found.into_iter().next().ok_or_else(|| DriverError::NoSandbox(id.clone()))
    }

    async fn create_container(
        &self,
        spec: &ContainerSpec,
        left_out: &LeftOut,
    ) -> Result<(), DriverError> {
        checks::container(spec)?;
        let pod = &spec.id.sandbox;
        let pause = self.find_pause(pod).await?;
        let pause = pause.ok_or_else(|| DriverError::NoSandbox(pod.clone()))?;
        if !pause.is_running() {
            let what = format!("sandbox {pod}");
            return Err(DriverError::WrongState { what, state: "lost", wanted: "ready" });
        }
        let sandbox = self.one_sandbox(pod).await?.spec;
        let no_image = || DriverError::NoImage { reference: spec.image.clone() };
        let image = self.image(&spec.image).await?.ok_or_else(no_image)?;
        let group = pod_cgroup(self.engine.cgroups, &self.instance, sandbox.qos, pod);
        let around = Surroundings {
            instance: &self.instance,
            pod: &sandbox,
            pause: &pause.docker_id,
            image: &image,
            cgroup_parent: &group.parent,
            seccomp_profile: seccomp_profile(&spec.security.seccomp)?,
            left_out,
        };
        let body = config::container(spec, &around)?;
        let options = CreateContainerOptions {
            name: Some(labels::container_name(&self.instance, &spec.id)),
            ..Default::default()
        };
        match self.engine.docker.create_container(Some(options), body).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(409) => {
                Err(DriverError::Exists { what: format!("container {}", spec.id) })
            }
            Err(error) if code(&error) == Some(404) => Err(no_image()),
            Err(error) if code(&error) == Some(400) => Err(DriverError::Invalid {
                field: "containers[]",
                why: format!("{}: {}", spec.id, message(&error)),
            }),
            Err(error) => Err(self.engine.error(format!("making {}", spec.id), error)),
        }
    }

    /// What this machine refuses is left out and said; the container is then made again.
    async fn start_container(&self, id: &ContainerId) -> Result<(), DriverError> {
        let mut left_out = LeftOut::default();
        loop {
            let (docker_id, spec) = self.need_created(id).await?;
            let started =
                self.engine.docker.start_container(&docker_id, None::<StartContainerOptions>);
            let error = match started.await {
                Ok(()) => {
                    self.copiers.start(&docker_id, &spec);
                    self.events.publish(DriverEvent::ContainerStarted(id.clone()));
                    return Ok(());
                }
                Err(error) if code(&error).is_none() => {
                    return Err(self.engine.error(format!("starting {id}"), error));
                }
                Err(error) => message(&error),
            };
            left_out = match left_out.after(&spec, &error, privileges) {
                Some(more) => more,
                None => return Err(DriverError::Start { what: id.to_string(), why: error }),
            };
            remove_container(&self.engine, &self.env, &docker_id).await?;
            self.create_container(&spec, &left_out).await?;
        }
    }

    async fn need_created(&self, id: &ContainerId) -> Result<(String, ContainerSpec), DriverError> {
        let found = self.need(id).await?;
        let wrong =
            |state| DriverError::WrongState { what: id.to_string(), state, wanted: "created" };
        match found.container() {
            Some(it) if it.state == ContainerState::Created => Ok((found.docker_id, it.spec)),
            Some(it) if matches!(it.state, ContainerState::Running { .. }) => {
                Err(wrong("started already"))
            }
            _ => Err(wrong("ended")),
        }
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), DriverError> {
        let Some(found) = self.find(id).await?.filter(Found::is_running) else {
            return Ok(());
        };
        if !grace.is_zero() {
            let config = found.response.config.as_ref();
            let signal = config.and_then(|it| it.stop_signal.clone()).filter(|it| !it.is_empty());
            self.kill(&found.docker_id, signal.as_deref().unwrap_or("SIGTERM")).await?;
            if self.wait(&found.docker_id, grace).await? {
                return Ok(());
            }
        }
        self.end(&found.docker_id).await
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn end(&self, docker_id: &str) -> Result<(), DriverError> {
        self.kill(docker_id, "SIGKILL").await?;
        match self.wait(docker_id, KILL_TIMEOUT).await? {
            true => Ok(()),
            false => Err(DriverError::Timeout {
                doing: format!("killing container {docker_id}"),
                limit_ms: KILL_TIMEOUT.as_millis() as u64,
            }),
        }
    }

    /// One that has ended or gone is fine.
    async fn kill(&self, docker_id: &str, signal: &str) -> Result<(), DriverError> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.engine.docker.kill_container(docker_id, Some(options)).await {
            Err(error) if !matches!(code(&error), Some(404 | 409)) => {
                Err(self.engine.error(format!("sending {signal} to container {docker_id}"), error))
            }
            _ => Ok(()),
        }
    }

    /// `true` if it has ended within the time.
    async fn wait(&self, docker_id: &str, at_most: Duration) -> Result<bool, DriverError> {
        let options = WaitContainerOptions { condition: "not-running".to_owned() };
        let mut waiting = self.engine.docker.wait_container(docker_id, Some(options));
        let said = tokio::select! {
            biased;
            said = waiting.next() => said,
            () = self.env.sleep(at_most) => return Ok(false),
        };
        match said {
            Some(Err(bollard::errors::Error::DockerContainerWaitError { .. }) | Ok(_)) => Ok(true),
            Some(Err(error)) if code(&error) == Some(404) => Ok(true),
            Some(Err(error)) => Err(self.engine.error("waiting for a container", error)),
            None => Err(self.engine.unreachable("it stopped telling of a container")),
        }
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, DriverError> {
        let found = self.need(id).await?;
        let options = StatsOptions { stream: false, one_shot: true };
        let mut stats = self.engine.docker.stats(&found.docker_id, Some(options));
        let it = match stats.next().await {
            Some(it) => it.map_err(|it| self.engine.error(format!("measuring {id}"), it))?,
            None => return Ok(ContainerStats::default()),
        };
        let memory = it.memory_stats.unwrap_or_default();
        let usage = memory.usage.unwrap_or_default();
        let detail = memory.stats.unwrap_or_default();
        // v1's name, then v2's.
        let inactive = detail.get("total_inactive_file").or(detail.get("inactive_file"));
        let cpu = it.cpu_stats.and_then(|it| it.cpu_usage).and_then(|it| it.total_usage);
        Ok(ContainerStats {
            cpu_usage_ns: cpu.unwrap_or_default(),
            memory_usage_bytes: usage,
            memory_working_set_bytes: usage.saturating_sub(inactive.copied().unwrap_or_default()),
            n_processes: it.pids_stats.and_then(|it| it.current).unwrap_or_default(),
        })
    }
}

/// What a privileged container can be given here.
fn privileges() -> Privileges {
    // Docker makes these itself.
    const OWN: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let nodes = entries.filter(|it| {
        it.file_type().is_ok_and(|it| it.is_char_device() || it.is_block_device())
            && !OWN.iter().any(|own| it.file_name() == *own)
    });
    let mut devices: Vec<String> = nodes.map(|it| it.path().display().to_string()).collect();
    devices.sort();
    // Unreadable means none: then the container starts without, and says so.
    let capabilities = capabilities::bounding().unwrap_or_default().into_iter().collect();
    Privileges { capabilities, devices }
}

/// dockerd wants the profile itself.
fn seccomp_profile(seccomp: &Seccomp) -> Result<Option<String>, DriverError> {
    let Seccomp::Localhost(path) = seccomp else {
        return Ok(None);
    };
    let doing = || format!("reading the seccomp profile {}", path.display());
    let about = std::fs::metadata(path).map_err(|it| DriverError::io(doing(), it))?;
    if about.len() > PROFILE_BYTES_MAX {
        return Err(DriverError::Invalid {
            field: "securityContext.seccompProfile.localhostProfile",
            why: format!("{} is larger than {PROFILE_BYTES_MAX} bytes", path.display()),
        });
    }
    std::fs::read_to_string(path).map(Some).map_err(|it| DriverError::io(doing(), it))
}

#[async_trait]
impl Driver for DockerDriver {
    fn name(&self) -> &'static str {
        DRIVER
    }

    fn version(&self) -> String {
        format!("{DRIVER}://{}", self.inner.engine.version)
    }

    fn events(&self) -> Events {
        self.inner.events.subscribe()
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, DriverError> {
        self.inner.image(reference).await
    }

    async fn pull_image(&self, reference: &str, auth: &RegistryAuth) -> Result<Image, DriverError> {
        self.inner.pull(reference, auth).await
    }

    async fn import_images(&self, tarball: &Path) -> Result<Vec<Image>, DriverError> {
        self.inner.import(tarball).await
    }

    async fn images(&self) -> Result<Vec<Image>, DriverError> {
        self.inner.images().await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), DriverError> {
        self.inner.remove(reference).await
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxStatus, DriverError> {
        self.inner.create_sandbox(spec).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), DriverError> {
        checks::names(id, None)?;
        self.inner.remove_pod(id).await
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, DriverError> {
        self.inner.sandboxes(None).await
    }

    async fn sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, DriverError> {
        checks::names(id, None)?;
        self.inner.one_sandbox(id).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        self.inner.create_container(spec, &LeftOut::default()).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        self.inner.start_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        self.inner.stop(id, grace).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        let Some(found) = self.inner.find(id).await? else {
            return Ok(());
        };
        self.inner.stop(id, Duration::ZERO).await?;
        self.inner.copiers.settle(&found.docker_id).await; // Its log stays, whole.
        remove_container(&self.inner.engine, &self.inner.env, &found.docker_id).await?;
        self.inner.copiers.forget(&found.docker_id);
        Ok(())
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        self.inner.stats(id).await
    }

    async fn rotate_log(&self, id: &ContainerId) -> Result<(), DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        let found = self.inner.need(id).await?;
        let spec = found.container().map(|it| it.spec);
        let spec = spec.ok_or_else(|| DriverError::NoContainer(id.clone()))?;
        self.inner.copiers.rotate(&found.docker_id, &spec).await
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecSession, DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        self.inner.exec(id, spec).await
    }

    async fn attach(
        &self,
        id: &ContainerId,
        spec: &AttachSpec,
    ) -> Result<ExecSession, DriverError> {
        checks::names(&id.sandbox, Some(id))?;
        self.inner.attach(id, spec).await
    }

    async fn purge(&self) -> Result<(), DriverError> {
        self.inner.purge().await
    }
}
