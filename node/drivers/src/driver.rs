//! `Driver`: how the node agent asks for sandboxes, containers, images and sessions.
//!
//! The order of a Pod's life: `create_sandbox`, (the caller plumbs `SandboxStatus::netns`), then per container
//! `create_container`, `start_container`, …, `stop_container`, `remove_container`; at last `remove_sandbox`.
//! Each request is safe to repeat after a crash: creating what exists answers `Exists`, stopping and removing
//! what is gone succeeds. Drivers hold no truth in memory: `list` after a restart says what it said before.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::DriverError;
use crate::event::Events;
use crate::image::{Image, RegistryAuth};
use crate::session::{AttachSpec, EXEC_OUTPUT_BYTES_MAX, ExecOutput, ExecSession, ExecSpec};
use crate::spec::{ContainerId, ContainerSpec, SandboxId, SandboxSpec, Stdin, Terminal};
use crate::status::{ContainerStats, SandboxStatus};

/// A container runtime of this machine. Object safe: the agent holds `Arc<dyn Driver>`.
#[async_trait]
pub trait Driver: Send + Sync {
    /// `embedded`, `docker`, `hollow`: the scheme of `containerID`s and the name in messages.
    fn name(&self) -> &'static str;

    /// Name and version for `status.nodeInfo.containerRuntimeVersion`: `embedded://0.1.0`.
    fn version(&self) -> String;

    /// Exits and losses from now on. A hint to `list`, see `event`.
    fn events(&self) -> Events;

    // --- images

    /// The image behind a reference or id, if it is here.
    async fn image(&self, reference: &str) -> Result<Option<Image>, DriverError>;
    /// Fetches from its registry; succeeds at once for a digest that is here already.
    async fn pull_image(&self, reference: &str, auth: &RegistryAuth) -> Result<Image, DriverError>;
    /// Takes the images of a `docker save` or OCI layout tarball. All or none.
    async fn import_images(&self, tarball: &Path) -> Result<Vec<Image>, DriverError>;
    /// Sorted by id.
    async fn images(&self) -> Result<Vec<Image>, DriverError>;
    /// Untags a reference; the last one takes the content with it. `ImageInUse` while a container has it.
    async fn remove_image(&self, reference: &str) -> Result<(), DriverError>;

    // --- sandboxes

    /// Makes namespaces and cgroup. `Exists` if there is one for this Pod, `Lost` ones included.
    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxStatus, DriverError>;
    /// Kills what still runs and removes every trace but the logs. Absent is fine.
    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), DriverError>;
    /// Everything of this driver's instance that is on the machine, sorted by id.
    async fn list(&self) -> Result<Vec<SandboxStatus>, DriverError>;
    /// One sandbox with its containers; `NoSandbox` if absent.
    async fn sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, DriverError>;

    // --- containers

    /// Prepares the container; nothing of it runs yet.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), DriverError>;
    /// `Start` if the program cannot be executed: the container is then `Exited` with `StartFailed`.
    async fn start_container(&self, id: &ContainerId) -> Result<(), DriverError>;
    /// Sends the stop signal, waits up to `grace`, then kills; returns when the container has ended. Zero grace
    /// kills at once. Ended or absent is fine. A second call with a shorter grace shortens the first.
    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), DriverError>;
    /// Kills it if it runs; removes every trace but the log. Absent is fine.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), DriverError>;
    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, DriverError>;
    /// Starts a fresh log file now; the old ones move up by one number.
    async fn rotate_log(&self, id: &ContainerId) -> Result<(), DriverError>;

    // --- sessions

    /// Starts a process in a running container: its namespaces, user, environment and cgroup.
    /// `Start` if the program cannot be executed.
    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecSession, DriverError>;
    /// Joins the streams of the container's first process; output from now on.
    async fn attach(&self, id: &ContainerId, spec: &AttachSpec)
    -> Result<ExecSession, DriverError>;

    /// Kills and removes everything that this instance made on the machine, images' content included.
    async fn purge(&self) -> Result<(), DriverError>;
}

/// Runs a command to its end and collects what it said, each stream cut at `EXEC_OUTPUT_BYTES_MAX`: for exec
/// probes and hooks. The caller bounds the time; a process that is given up is not killed, as in Kubernetes.
pub async fn exec_to_end(
    driver: &dyn Driver,
    id: &ContainerId,
    command: Vec<String>,
) -> Result<ExecOutput, DriverError> {
    let spec = ExecSpec { command, stdin: Stdin::Closed, terminal: Terminal::None, size: None };
    let mut session = driver.exec(id, &spec).await?;
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let (stdout, stderr, exit) =
        futures::join!(read_bounded(stdout), read_bounded(stderr), session.exit);
    Ok(ExecOutput { stdout, stderr, code: exit?.code })
}

/// Reads to the end, keeps the beginning: the rest is read and dropped so that the process can go on.
async fn read_bounded(stream: Option<Box<dyn AsyncRead + Send + Unpin>>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut buffer = [0_u8; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return kept, // A terminal ends with EIO.
            Ok(n) => {
                let room = EXEC_OUTPUT_BYTES_MAX - kept.len();
                kept.extend_from_slice(&buffer[..n.min(room)]);
            }
        }
    }
}
