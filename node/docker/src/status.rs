//! What is on the machine, as dockerd says: containers with their labels become sandboxes with their containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerInspectResponse, ContainerState as DockerState, ContainerStateStatusEnum,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use futures::{StreamExt, TryStreamExt, stream};
use kactor_drivers::{
    ContainerId, ContainerState, ContainerStatus, DriverError, ExitReason, NetworkMode, SandboxId,
    SandboxState, SandboxStatus,
};
use kactor_protocol::Timestamp;

use crate::config::DRIVER;
use crate::driver::Inner;
use crate::engine::code;
use crate::labels::{self, Whose};

/// Questions to dockerd at one time.
const INSPECTS_AT_ONCE: usize = 8;

/// One container of ours.
pub struct Found {
    pub docker_id: String,
    pub whose: Whose,
    pub response: ContainerInspectResponse,
}

impl Found {
    fn new(response: ContainerInspectResponse) -> Option<Self> {
        let labels = response.config.as_ref()?.labels.as_ref()?;
        let whose = labels::whose(|it| labels.get(it))?;
        Some(Self { docker_id: response.id.clone()?, whose, response })
    }

    fn label<T: for<'a> serde::Deserialize<'a>>(&self, name: &str) -> Option<T> {
        let text = self.response.config.as_ref()?.labels.as_ref()?.get(name)?;
        serde_json::from_str(text).ok()
    }

    pub fn state(&self) -> DockerState {
        self.response.state.clone().unwrap_or_default()
    }

    pub fn is_running(&self) -> bool {
        self.state().running == Some(true)
    }

    pub fn container(&self) -> Option<ContainerStatus> {
        Some(ContainerStatus {
            spec: self.label(labels::SPEC)?,
            external_id: format!("{DRIVER}://{}", self.docker_id),
            image_id: self.response.image.clone().unwrap_or_default(),
            created: self.created(),
            state: state(&self.state(), self.created()),
            warnings: self.label(labels::WARNINGS).unwrap_or_default(),
        })
    }

    fn created(&self) -> Timestamp {
        self.response.created.as_deref().and_then(time).unwrap_or(Timestamp::EPOCH)
    }

    /// The pause container as a sandbox, its containers still missing.
    fn sandbox(&self) -> Option<SandboxStatus> {
        let spec: kactor_drivers::SandboxSpec = self.label(labels::SPEC)?;
        let pid = self.state().pid.filter(|it| *it > 0);
        let own_network = spec.network == NetworkMode::Pod;
        let netns = pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
        Some(SandboxStatus {
            spec,
            state: if self.is_running() { SandboxState::Ready } else { SandboxState::Lost },
            created: self.created(),
            netns: netns.filter(|_| own_network),
            addresses: Vec::new(),
            containers: Vec::new(),
        })
    }
}

/// dockerd's times; the year 1 is its word for never.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|it| *it != Timestamp::EPOCH)
}

fn state(it: &DockerState, created: Timestamp) -> ContainerState {
    let started = it.started_at.as_deref().and_then(time);
    let exit_code = it.exit_code.and_then(|it| i32::try_from(it).ok()).unwrap_or(255);
    let error = it.error.clone().unwrap_or_default();
    if it.running == Some(true) {
        return ContainerState::Running {
            started: started.unwrap_or(created),
            pid: it.pid.and_then(|it| u32::try_from(it).ok()).unwrap_or_default(),
        };
    }
    let failed = started.is_none() && !error.is_empty();
    if it.status == Some(ContainerStateStatusEnum::CREATED) && !failed {
        return ContainerState::Created;
    }
    // Of a start that failed dockerd keeps no time. A quick end it may note before the start that it followed.
    let finished = it.finished_at.as_deref().and_then(time).max(started).unwrap_or(created);
    ContainerState::Exited {
        started,
        finished,
        exit_code,
        signal: None, // dockerd does not tell a signal from an exit code above 128.
        reason: match (failed, it.oom_killed == Some(true), exit_code) {
            (true, _, _) => ExitReason::StartFailed,
            (false, true, _) => ExitReason::OomKilled,
            (false, false, 0) => ExitReason::Completed,
            (false, false, _) => ExitReason::Error,
        },
        message: error,
    }
}

impl Inner {
    /// Our containers, those of one pod or all.
    pub async fn found(&self, pod: Option<&SandboxId>) -> Result<Vec<Found>, DriverError> {
        let doing = "listing containers";
        let mut wanted = vec![format!("{}={}", labels::INSTANCE, self.instance)];
        wanted.extend(pod.map(|it| format!("{}={it}", labels::POD)));
        let filters = [("label".to_owned(), wanted)].into_iter().collect();
        let options =
            ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let listed = self.engine.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(|it| self.engine.error(doing, it))?;
        let inspected = stream::iter(listed.into_iter().filter_map(|it| it.id))
            .map(|id| async move { self.inspect(&id).await })
            .buffered(INSPECTS_AT_ONCE);
        inspected.try_filter_map(|it| async { Ok(it) }).try_collect().await
    }

    /// By docker's id or name; `None` if it is not there or none of ours.
    pub async fn inspect(&self, name: &str) -> Result<Option<Found>, DriverError> {
        let inspected = self.engine.docker.inspect_container(name, None::<InspectContainerOptions>);
        match inspected.await {
            Ok(response) => Ok(Found::new(response)),
            Err(error) if code(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.engine.error(format!("looking at container {name}"), error)),
        }
    }

    pub async fn find(&self, id: &ContainerId) -> Result<Option<Found>, DriverError> {
        self.inspect(&labels::container_name(&self.instance, id)).await
    }

    pub async fn need(&self, id: &ContainerId) -> Result<Found, DriverError> {
        self.find(id).await?.ok_or_else(|| DriverError::NoContainer(id.clone()))
    }

    pub async fn find_pause(&self, id: &SandboxId) -> Result<Option<Found>, DriverError> {
        self.inspect(&labels::sandbox_name(&self.instance, id)).await
    }

    /// Sorted by id; a container without its pause container is a leftover and belongs to none.
    pub async fn sandboxes(
        &self,
        pod: Option<&SandboxId>,
    ) -> Result<Vec<SandboxStatus>, DriverError> {
        let found = self.found(pod).await?;
        let mut sandboxes: BTreeMap<SandboxId, SandboxStatus> = BTreeMap::new();
        for it in &found {
            if let (Whose::Sandbox(id), Some(sandbox)) = (&it.whose, it.sandbox()) {
                sandboxes.insert(id.clone(), sandbox);
            }
        }
        let mut ended = Vec::new();
        for it in &found {
            let Whose::Container(id) = &it.whose else { continue };
            let Some(status) = it.container() else { continue };
            if matches!(status.state, ContainerState::Exited { started: Some(_), .. }) {
                ended.push(self.copiers.settle(&it.docker_id));
            }
            if let Some(sandbox) = sandboxes.get_mut(&id.sandbox) {
                sandbox.containers.push(status);
            }
        }
        futures::future::join_all(ended).await;
        let mut sandboxes: Vec<SandboxStatus> = sandboxes.into_values().collect();
        for it in &mut sandboxes {
            it.containers.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
        }
        Ok(sandboxes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &str = "0001-01-01T00:00:00Z";
    const CREATED: Timestamp = Timestamp(1_000);

    fn docker(status: ContainerStateStatusEnum, code: i64, error: &str) -> DockerState {
        let ran = status != ContainerStateStatusEnum::CREATED;
        let time = |it: &str| Some(if ran { it } else { NEVER }.to_owned());
        DockerState {
            running: Some(status == ContainerStateStatusEnum::RUNNING),
            pid: Some(7),
            status: Some(status),
            exit_code: Some(code),
            error: Some(error.to_owned()),
            started_at: time("1970-01-01T00:00:02.5Z"),
            finished_at: time("1970-01-01T00:00:03Z"),
            ..DockerState::default()
        }
    }

    fn reason(it: &DockerState) -> ExitReason {
        match state(it, CREATED) {
            ContainerState::Exited { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_container_is_what_dockerd_says_of_it() {
        use ContainerStateStatusEnum::*;
        assert_eq!(state(&docker(CREATED, 0, ""), Timestamp(0)), ContainerState::Created);
        let running = ContainerState::Running { started: Timestamp(2_500), pid: 7 };
        assert_eq!(state(&docker(RUNNING, 0, ""), Timestamp(0)), running);
        assert_eq!(reason(&docker(EXITED, 0, "")), ExitReason::Completed);
        assert_eq!(reason(&docker(EXITED, 3, "")), ExitReason::Error);
        let oom = DockerState { oom_killed: Some(true), ..docker(EXITED, 137, "") };
        assert_eq!(reason(&oom), ExitReason::OomKilled);
    }

    #[test]
    fn an_end_is_never_before_its_start() {
        let mut quick = docker(ContainerStateStatusEnum::EXITED, 0, "");
        quick.finished_at = Some("1970-01-01T00:00:02.499Z".to_owned());
        match state(&quick, CREATED) {
            ContainerState::Exited { started, finished, .. } => {
                assert_eq!((started, finished), (Some(Timestamp(2_500)), Timestamp(2_500)));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_start_that_failed_is_an_end_not_a_container_that_waits() {
        let failed = docker(ContainerStateStatusEnum::CREATED, 127, "no such file");
        let wanted = ContainerState::Exited {
            started: None,
            finished: CREATED,
            exit_code: 127,
            signal: None,
            reason: ExitReason::StartFailed,
            message: "no such file".to_owned(),
        };
        assert_eq!(state(&failed, CREATED), wanted);
    }
}
