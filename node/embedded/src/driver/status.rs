//! What is on the machine, read from folders: the agent's own records beside the shim's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use kactor_drivers::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, DriverError, ExitReason,
    NetworkMode, SandboxId, SandboxSpec, SandboxState, SandboxStatus,
};
use kactor_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use super::Inner;
use crate::config_json::DRIVER;
use crate::layout::{ContainerLayout, PodLayout, read_json};
use crate::protocol::Record;

/// `sandbox.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub spec: SandboxSpec,
    pub created: Timestamp,
}

/// `container.json`: written last, so a folder without it is the leftover of a crash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub spec: ContainerSpec,
    pub image_id: String,
    pub created: Timestamp,
    pub stop_signal: i32,
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Inner {
    pub(super) fn list(&self) -> Result<Vec<SandboxStatus>, DriverError> {
        let mut found = Vec::new();
        for name in names(&self.layout.pods())? {
            found.extend(self.sandbox(&SandboxId(name))?);
        }
        Ok(found)
    }

    pub(super) fn sandbox(&self, id: &SandboxId) -> Result<Option<SandboxStatus>, DriverError> {
        let pod = self.layout.pod(id);
        let Some(record) = read_json::<SandboxRecord>(&pod.sandbox_json()) else {
            return Ok(None);
        };
        let is_alive = is_alive(&pod);
        let mut containers = BTreeMap::new();
        for name in names(&pod.containers())? {
            let layout = ContainerLayout::new(pod.containers().join(name));
            if let Some(status) = container_status(&layout, is_alive) {
                containers.insert(status.spec.id.clone(), status);
            }
        }
        let own_network = record.spec.network == NetworkMode::Pod;
        Ok(Some(SandboxStatus {
            netns: own_network.then(|| pod.namespace("net")),
            spec: record.spec,
            state: if is_alive { SandboxState::Ready } else { SandboxState::Lost },
            created: record.created,
            addresses: Vec::new(),
            containers: containers.into_values().collect(),
        }))
    }

    pub(super) fn container(
        &self,
        id: &ContainerId,
    ) -> Result<Option<ContainerStatus>, DriverError> {
        let pod = self.layout.pod(&id.sandbox);
        Ok(container_status(&pod.container(id), is_alive(&pod)))
    }

    pub(super) fn stop_signal(&self, id: &ContainerId) -> Result<i32, DriverError> {
        let layout = self.layout.pod(&id.sandbox).container(id);
        let record: Option<ContainerRecord> = read_json(&layout.container_json());
        record.map(|it| it.stop_signal).ok_or_else(|| DriverError::NoContainer(id.clone()))
    }
}

/// Sorted; an absent folder has none.
fn names(dir: &Path) -> Result<Vec<String>, DriverError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DriverError::io(format!("listing {}", dir.display()), error)),
    };
    let names = entries.flatten().filter_map(|it| it.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// The shim holds its lock for as long as it lives; the kernel lets go of it when it does not.
pub fn is_alive(pod: &PodLayout) -> bool {
    let Ok(lock) = File::open(pod.lock()) else {
        return false;
    };
    // SAFETY: the descriptor is open; the lock, if we get it, goes with it.
    unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) != 0 }
}

fn container_status(layout: &ContainerLayout, is_alive: bool) -> Option<ContainerStatus> {
    let record: ContainerRecord = read_json(&layout.container_json())?;
    let shim: Option<Record> = read_json(&layout.state_json());
    let mut warnings = record.warnings;
    warnings.extend(shim.iter().flat_map(|it| it.warnings.clone()));
    let id = &record.spec.id;
    Some(ContainerStatus {
        external_id: format!("{DRIVER}://{}-{}-{}", id.sandbox, id.name, id.attempt),
        image_id: record.image_id,
        created: record.created,
        state: state(shim.as_ref(), is_alive),
        warnings,
        spec: record.spec,
    })
}

/// What the shim wrote, and whether it still lives, decide.
fn state(shim: Option<&Record>, is_alive: bool) -> ContainerState {
    let Some(shim) = shim else {
        return ContainerState::Created;
    };
    let started = shim.started_ms.map(Timestamp);
    if let Some(exit) = &shim.exit {
        let reason = match (&shim.failed, exit.oom_killed, exit.code) {
            (Some(_), _, _) => ExitReason::StartFailed,
            (None, true, _) => ExitReason::OomKilled,
            (None, false, 0) => ExitReason::Completed,
            (None, false, _) => ExitReason::Error,
        };
        return ContainerState::Exited {
            started,
            finished: Timestamp(exit.finished_ms),
            exit_code: exit.code,
            signal: exit.signal,
            reason,
            message: shim.failed.clone().unwrap_or_default(),
        };
    }
    match (started, shim.pid) {
        (Some(started), Some(pid)) if is_alive => ContainerState::Running { started, pid },
        _ => ContainerState::Exited {
            started,
            finished: started.unwrap_or(Timestamp::EPOCH),
            exit_code: 255,
            signal: None,
            reason: ExitReason::Unknown,
            message: "nobody saw it end: the machine or the pod's shim went down".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Exit;

    fn ran(exit: Option<Exit>) -> Record {
        Record { started_ms: Some(5), pid: Some(7), exit, ..Record::default() }
    }

    fn exit(code: i32, oom_killed: bool) -> Option<Exit> {
        Some(Exit { finished_ms: 9, code, oom_killed, ..Exit::default() })
    }

    fn reason(record: &Record, is_alive: bool) -> ExitReason {
        match state(Some(record), is_alive) {
            ContainerState::Exited { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_container_is_what_its_shim_wrote_of_it() {
        assert_eq!(state(None, true), ContainerState::Created);
        let running = ContainerState::Running { started: Timestamp(5), pid: 7 };
        assert_eq!(state(Some(&ran(None)), true), running);
        assert_eq!(reason(&ran(exit(0, false)), true), ExitReason::Completed);
        assert_eq!(reason(&ran(exit(3, false)), true), ExitReason::Error);
        assert_eq!(reason(&ran(exit(137, true)), false), ExitReason::OomKilled);
        let failed =
            Record { failed: Some("no".to_owned()), exit: exit(128, false), ..Record::default() };
        assert_eq!(reason(&failed, true), ExitReason::StartFailed);
    }

    #[test]
    fn an_end_that_nobody_saw_is_unknown_never_running() {
        assert_eq!(reason(&ran(None), false), ExitReason::Unknown);
        assert_eq!(reason(&Record::default(), true), ExitReason::Unknown);
        // An end that was written down counts also without the shim.
        assert_eq!(reason(&ran(exit(0, false)), false), ExitReason::Completed);
    }
}
