//! The hollow driver: pods that pretend to run, for scale tests, demos and the simulator.
//!
//! It keeps states and makes no process: a started container runs until it is stopped, an init container (marked by
//! the agent with `COMPLETES`) succeeds at once, every image is present, every sandbox gets an address of the node's
//! pod CIDR. One line of log is written through `Env`'s disk, so `kubectl logs` has something true to show. What it
//! can't pretend (exec, attach) it refuses by name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kactor_runtime::env::{Env, OpenMode};

use crate::driver::Driver;
use crate::error::DriverError;
use crate::event::{DriverEvent, EventFeed, Events};
use crate::image::{Image, ImageConfig, RegistryAuth};
use crate::session::{AttachSpec, ExecSession, ExecSpec};
use crate::spec::{ContainerId, ContainerSpec, NetworkMode, SandboxId, SandboxSpec};
use crate::status::{
    ContainerState, ContainerStats, ContainerStatus, ExitReason, SandboxState, SandboxStatus,
};

/// Annotation of containers that end by themselves: init containers.
pub const COMPLETES: &str = "kactor.io/completes";

/// Exit code of a container that SIGTERM ended, as a shell shows it.
const TERMINATED: i32 = 143;

pub struct HollowDriver {
    env: Env,
    events: EventFeed,
    world: Mutex<World>,
}

#[derive(Default)]
struct World {
    sandboxes: BTreeMap<SandboxId, SandboxStatus>,
    range: Option<(Ipv4Addr, u32)>,
    next_address: u32,
}

/// Why a text is no pod CIDR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IPv4 CIDR such as 10.244.0.0/24")]
pub struct BadCidr(pub String);

impl HollowDriver {
    pub fn new(env: Env) -> Self {
        Self { env, events: EventFeed::default(), world: Mutex::default() }
    }

    /// From now on new sandboxes get addresses of this range.
    pub fn set_pod_cidr(&self, cidr: &str) -> Result<(), BadCidr> {
        let parsed = cidr.split_once('/').and_then(|(address, prefix)| {
            let prefix: u32 = prefix.parse().ok().filter(|it| *it <= 30)?;
            Some((address.parse::<Ipv4Addr>().ok()?, prefix))
        });
        let (address, prefix) = parsed.ok_or_else(|| BadCidr(cidr.to_owned()))?;
        self.world().range = Some((address, 1 << (32 - prefix)));
        Ok(())
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerStatus) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let mut world = self.world();
        let sandbox = world
            .sandboxes
            .get_mut(&id.sandbox)
            .ok_or_else(|| DriverError::NoSandbox(id.sandbox.clone()))?;
        let container = sandbox.containers.iter_mut().find(|it| it.id() == id);
        change(container.ok_or_else(|| DriverError::NoContainer(id.clone()))?)
    }

    /// The one line of log, in the CRI format.
    fn write_log(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        let at = self.env.wall().rfc3339_micro();
        let line = format!("{at} stdout F {} pretends to run {}\n", spec.id.name, spec.image);
        let doing = || format!("writing {}", spec.log_path.display());
        let failed = |it| DriverError::io(doing(), it);
        if let Some(folder) = spec.log_path.parent() {
            self.env.disk.create_dir_all(folder).map_err(failed)?;
        }
        let file = self.env.disk.open(&spec.log_path, OpenMode::ReadWriteCreate).map_err(failed)?;
        let end = file.len().map_err(failed)?;
        file.write_all_at(end, line.as_bytes()).map_err(failed)
    }
}

impl World {
    /// The next address that no sandbox has; the first of the range is the gateway's.
    fn address(&mut self) -> Option<IpAddr> {
        let (first, size) = self.range?;
        let usable = size.saturating_sub(2).max(1);
        for _ in 0..usable {
            self.next_address = self.next_address % usable + 1;
            let host = if self.next_address == 1 && usable > 1 { 2 } else { self.next_address };
            self.next_address = host;
            let address = IpAddr::from(Ipv4Addr::from_bits(first.to_bits().wrapping_add(host)));
            if !self.sandboxes.values().any(|it| it.addresses.contains(&address)) {
                return Some(address);
            }
        }
        None
    }
}

fn image(reference: &str) -> Image {
    // An id that is stable for a reference and looks like one: FNV-1a, spread over 32 bytes.
    let mut id = String::from("sha256:");
    for part in 0_u64..4 {
        let hash = reference.bytes().fold(0xcbf2_9ce4_8422_2325 ^ part, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        id.push_str(&format!("{hash:016x}"));
    }
    Image {
        id,
        tags: vec![reference.to_owned()],
        digests: Vec::new(),
        size_bytes: 0,
        config: ImageConfig::default(),
    }
}

const NAME: &str = "hollow";

fn pretends(field: &'static str) -> DriverError {
    DriverError::Unsupported {
        driver: NAME,
        field,
        why: "its containers only pretend to run".to_owned(),
    }
}

#[async_trait]
impl Driver for HollowDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        concat!("hollow://", env!("CARGO_PKG_VERSION")).to_owned()
    }

    fn events(&self) -> Events {
        self.events.subscribe()
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, DriverError> {
        Ok(Some(image(reference)))
    }

    async fn pull_image(&self, reference: &str, _: &RegistryAuth) -> Result<Image, DriverError> {
        Ok(image(reference))
    }

    async fn import_images(&self, _: &Path) -> Result<Vec<Image>, DriverError> {
        Err(pretends("image import"))
    }

    async fn images(&self) -> Result<Vec<Image>, DriverError> {
        let world = self.world();
        let all = world.sandboxes.values().flat_map(|it| &it.containers);
        let references: std::collections::BTreeSet<&str> =
            all.map(|it| it.spec.image.as_str()).collect();
        Ok(references.into_iter().map(image).collect())
    }

    async fn remove_image(&self, _: &str) -> Result<(), DriverError> {
        Ok(())
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxStatus, DriverError> {
        let mut world = self.world();
        if world.sandboxes.contains_key(&spec.id) {
            return Err(DriverError::Exists { what: format!("sandbox {}", spec.id) });
        }
        let addresses = match spec.network {
            NetworkMode::Host => Vec::new(),
            NetworkMode::Pod => {
                let doing = || "giving the pod an address".to_owned();
                let none = || DriverError::Runtime {
                    doing: doing(),
                    why: "the node's pod CIDR is not known or used up".to_owned(),
                };
                vec![world.address().ok_or_else(none)?]
            }
        };
        let status = SandboxStatus {
            spec: spec.clone(),
            state: SandboxState::Ready,
            created: self.env.wall(),
            netns: None,
            addresses,
            containers: Vec::new(),
        };
        world.sandboxes.insert(spec.id.clone(), status.clone());
        Ok(status)
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), DriverError> {
        self.world().sandboxes.remove(id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<SandboxStatus>, DriverError> {
        Ok(self.world().sandboxes.values().cloned().collect())
    }

    async fn sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, DriverError> {
        self.world().sandboxes.get(id).cloned().ok_or_else(|| DriverError::NoSandbox(id.clone()))
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        let now = self.env.wall();
        let mut world = self.world();
        let sandbox = world.sandboxes.get_mut(&spec.id.sandbox);
        let sandbox = sandbox.ok_or_else(|| DriverError::NoSandbox(spec.id.sandbox.clone()))?;
        if sandbox.containers.iter().any(|it| it.spec.id == spec.id) {
            return Err(DriverError::Exists { what: format!("container {}", spec.id) });
        }
        let id = &spec.id;
        sandbox.containers.push(ContainerStatus {
            external_id: format!("{NAME}://{}-{}-{}", id.sandbox, id.name, id.attempt),
            image_id: image(&spec.image).id,
            created: now,
            state: ContainerState::Created,
            warnings: Vec::new(),
            spec: spec.clone(),
        });
        sandbox.containers.sort_by(|a, b| {
            (a.id().name.as_str(), a.id().attempt).cmp(&(b.id().name.as_str(), b.id().attempt))
        });
        Ok(())
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), DriverError> {
        let now = self.env.wall();
        let spec = self.update(id, |it| {
            if it.state != ContainerState::Created {
                return Err(DriverError::WrongState {
                    what: id.to_string(),
                    state: "started",
                    wanted: "created",
                });
            }
            it.state = if it.spec.annotations.contains_key(COMPLETES) {
                exited(now, now, 0)
            } else {
                ContainerState::Running { started: now, pid: 0 }
            };
            Ok(it.spec.clone())
        })?;
        self.write_log(&spec)?;
        self.events.publish(match spec.annotations.contains_key(COMPLETES) {
            true => DriverEvent::ContainerExited(id.clone()),
            false => DriverEvent::ContainerStarted(id.clone()),
        });
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, _: Duration) -> Result<(), DriverError> {
        let now = self.env.wall();
        let stopped = self.update(id, |it| {
            if let ContainerState::Running { started, .. } = it.state {
                it.state = exited(started, now, TERMINATED);
            }
            Ok(())
        });
        match stopped {
            Ok(()) => self.events.publish(DriverEvent::ContainerExited(id.clone())),
            Err(DriverError::NoContainer(_) | DriverError::NoSandbox(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), DriverError> {
        if let Some(sandbox) = self.world().sandboxes.get_mut(&id.sandbox) {
            sandbox.containers.retain(|it| it.id() != id);
        }
        Ok(())
    }

    async fn stats(&self, id: &ContainerId) -> Result<ContainerStats, DriverError> {
        self.update(id, |_| Ok(ContainerStats::default()))
    }

    async fn rotate_log(&self, id: &ContainerId) -> Result<(), DriverError> {
        self.update(id, |_| Ok(()))
    }

    async fn exec(&self, _: &ContainerId, _: &ExecSpec) -> Result<ExecSession, DriverError> {
        Err(pretends("exec"))
    }

    async fn attach(&self, _: &ContainerId, _: &AttachSpec) -> Result<ExecSession, DriverError> {
        Err(pretends("attach"))
    }

    async fn purge(&self) -> Result<(), DriverError> {
        self.world().sandboxes.clear();
        Ok(())
    }
}

fn exited(
    started: kactor_protocol::Timestamp,
    finished: kactor_protocol::Timestamp,
    exit_code: i32,
) -> ContainerState {
    ContainerState::Exited {
        started: Some(started),
        finished,
        exit_code,
        signal: None,
        reason: if exit_code == 0 { ExitReason::Completed } else { ExitReason::Error },
        message: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use kactor_runtime::env::Machine;

    use super::*;

    fn driver() -> (Machine, HollowDriver) {
        let machine = Machine::start();
        let driver = HollowDriver::new(machine.env().clone());
        driver.set_pod_cidr("10.1.2.0/29").unwrap();
        (machine, driver)
    }

    #[test]
    fn every_pod_gets_an_address_of_its_own_until_they_are_used_up() {
        let (_machine, driver) = driver();
        let mut seen = Vec::new();
        for n in 0..5 {
            let made = block_on(driver.create_sandbox(&SandboxSpec::new(n.to_string(), "d", "p")))
                .unwrap();
            seen.extend(made.addresses);
        }
        let text: Vec<String> = seen.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
        assert!(block_on(driver.create_sandbox(&SandboxSpec::new("x", "d", "p"))).is_err());
        block_on(driver.remove_sandbox(&SandboxId("2".to_owned()))).unwrap();
        let again = block_on(driver.create_sandbox(&SandboxSpec::new("x", "d", "p"))).unwrap();
        assert_eq!(again.addresses[0].to_string(), "10.1.2.4");
    }

    #[test]
    fn init_containers_complete_and_others_run_until_they_are_stopped() {
        let (_machine, driver) = driver();
        let temp = tempfile::tempdir().unwrap();
        block_on(driver.create_sandbox(&SandboxSpec::new("u", "d", "p"))).unwrap();
        for (name, completes) in [("init", true), ("web", false)] {
            let id = ContainerId {
                sandbox: SandboxId("u".to_owned()),
                name: name.to_owned(),
                attempt: 0,
            };
            let mut spec = ContainerSpec::new(id.clone(), "i", temp.path().join(name));
            if completes {
                spec.annotations.insert(COMPLETES.to_owned(), "true".to_owned());
            }
            block_on(driver.create_container(&spec)).unwrap();
            block_on(driver.start_container(&id)).unwrap();
        }
        let of = |name: &str| {
            let it = block_on(driver.sandbox(&SandboxId("u".to_owned()))).unwrap();
            it.containers.into_iter().find(|it| it.id().name == name).unwrap()
        };
        assert!(matches!(of("init").state, ContainerState::Exited { exit_code: 0, .. }));
        assert!(matches!(of("web").state, ContainerState::Running { .. }));
        block_on(driver.stop_container(of("web").id(), Duration::ZERO)).unwrap();
        assert!(matches!(of("web").state, ContainerState::Exited { exit_code: TERMINATED, .. }));
        let log = std::fs::read_to_string(temp.path().join("web")).unwrap();
        assert!(log.contains(" stdout F web pretends to run i\n"), "{log}");
    }

    #[test]
    fn what_cannot_be_pretended_is_refused_by_name() {
        let (_machine, driver) = driver();
        let id =
            ContainerId { sandbox: SandboxId("u".to_owned()), name: "a".to_owned(), attempt: 0 };
        let error = block_on(driver.attach(&id, &AttachSpec { stdin: crate::spec::Stdin::Closed }))
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "attach cannot be honoured by the hollow driver: its containers only pretend to run"
        );
        assert_eq!(driver.set_pod_cidr("x").unwrap_err(), BadCidr("x".to_owned()));
    }
}
