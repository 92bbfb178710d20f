//! Finds what a stream is for — a container's process, its log, a port of its pod — and opens it at the driver.
//!
//! Shared by the session's streams and the kubelet's own API: who carries the bytes on is theirs.

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures::future::BoxFuture;
use kactor_drivers::session::{AttachSpec, ExecSession, ExecSpec};
use kactor_drivers::spec::{ContainerId, Stdin, Terminal};
use kactor_drivers::status::{ContainerState, ContainerStatus, SandboxStatus};
use kactor_protocol::node::{Channels, LogOptions, OpenStream, OpenStreamError, StreamPurpose};

use crate::log_reader::LogReader;
use crate::perform::Host;
use crate::pod_logs::PodLogs;
use crate::ports::{Duplex, PodDialer};
use crate::spec::Metadata;

/// What a stream talks to, once it is open.
pub enum Source {
    Session(ExecSession),
    Connection(Box<dyn Duplex>),
    Log(Box<OpenLog>),
}

/// A log that is read.
pub struct OpenLog {
    reader: LogReader,
    /// The run that writes it; `None` when nothing of its pod is left but the log.
    writer: Option<ContainerId>,
}

impl OpenLog {
    /// The next bytes; `None` at the end, which a followed log has when its run is over.
    pub async fn next(&mut self, host: &Host) -> io::Result<Option<Bytes>> {
        let (driver, writer) = (host.driver.clone(), self.writer.clone());
        let is_over = move || -> BoxFuture<'static, bool> {
            let (driver, writer) = (driver.clone(), writer.clone());
            Box::pin(async move {
                let Some(writer) = writer else { return true };
                let Ok(sandbox) = driver.sandbox(&writer.sandbox).await else { return true };
                !sandbox.containers.iter().any(|it| *it.id() == writer && goes_on(&it.state))
            })
        };
        self.reader.next(&is_over).await
    }
}

fn goes_on(state: &ContainerState) -> bool {
    matches!(state, ContainerState::Running { .. } | ContainerState::Created)
}

/// Opens what `request` names. `Kubelet` is none of a pod's streams and is refused here.
pub async fn open(
    host: &Host,
    dialer: &dyn PodDialer,
    request: &OpenStream,
) -> Result<Source, OpenStreamError> {
    let sandbox = match (find(host, request).await, &request.purpose) {
        (Err(OpenStreamError::NoPod { .. }), StreamPurpose::Logs { container, options })
            if request.uid.is_some() =>
        {
            return logs_left_behind(host, request, container, options);
        }
        (found, _) => found?,
    };
    match &request.purpose {
        StreamPurpose::Exec { container, command, channels } => {
            let id = running(&sandbox, container)?.id().clone();
            let session = host.driver.exec(&id, &exec_spec(command, *channels)).await;
            session.map(Source::Session).map_err(|it| OpenStreamError::Failed(it.to_string()))
        }
        StreamPurpose::Attach { container, channels } => {
            let id = running(&sandbox, container)?.id().clone();
            let stdin = if channels.stdin { Stdin::Open } else { Stdin::Closed };
            let session = host.driver.attach(&id, &AttachSpec { stdin }).await;
            session.map(Source::Session).map_err(|it| OpenStreamError::Failed(it.to_string()))
        }
        StreamPurpose::Connect { port } => {
            let connection = dialer.connect(sandbox.netns.as_deref(), *port).await;
            connection.map(Source::Connection).map_err(OpenStreamError::Failed)
        }
        StreamPurpose::Logs { container, options } => {
            logs(host, &sandbox, request, (container, options))
        }
        StreamPurpose::Kubelet => {
            Err(OpenStreamError::Failed("the kubelet's API belongs to no pod".to_owned()))
        }
    }
}

fn exec_spec(command: &[String], channels: Channels) -> ExecSpec {
    ExecSpec {
        command: command.to_vec(),
        stdin: if channels.stdin { Stdin::Once } else { Stdin::Closed },
        terminal: if channels.tty { Terminal::Tty } else { Terminal::None },
        size: None,
    }
}

async fn find(host: &Host, request: &OpenStream) -> Result<SandboxStatus, OpenStreamError> {
    let no_pod = || OpenStreamError::NoPod {
        namespace: request.namespace.clone(),
        pod: request.pod.clone(),
    };
    let all = host.driver.list().await.map_err(|it| OpenStreamError::Failed(it.to_string()))?;
    let is_it = |it: &SandboxStatus| {
        let named = it.spec.namespace == request.namespace && it.spec.name == request.pod;
        named && request.uid.as_ref().is_none_or(|uid| uid.as_str() == it.spec.id.0)
    };
    all.into_iter().rev().find(is_it).ok_or_else(no_pod)
}

/// The runs of a container, oldest first.
fn runs<'a>(sandbox: &'a SandboxStatus, container: &str) -> Vec<&'a ContainerStatus> {
    sandbox.containers.iter().filter(|it| it.id().name == container).collect()
}

fn running<'a>(
    sandbox: &'a SandboxStatus,
    container: &str,
) -> Result<&'a ContainerStatus, OpenStreamError> {
    let newest = runs(sandbox, container).pop();
    match newest.map(|it| (&it.state, it)) {
        Some((ContainerState::Running { .. }, it)) => Ok(it),
        Some((ContainerState::Exited { exit_code, .. }, _)) => {
            Err(OpenStreamError::Failed(format!(
                "cannot exec in a stopped container: {container} of {} ended with exit code {exit_code}",
                sandbox.spec.name
            )))
        }
        _ => Err(not_started(sandbox, container)),
    }
}

fn not_started(sandbox: &SandboxStatus, container: &str) -> OpenStreamError {
    OpenStreamError::NotStarted {
        pod: sandbox.spec.name.clone(),
        container: container.to_owned(),
        reason: "ContainerCreating".to_owned(),
    }
}

fn logs(
    host: &Host,
    sandbox: &SandboxStatus,
    request: &OpenStream,
    wanted: (&str, &LogOptions),
) -> Result<Source, OpenStreamError> {
    let (container, options) = wanted;
    let mut all = runs(sandbox, container);
    let Some(newest) = all.pop() else {
        if request.uid.is_none() {
            return Err(not_started(sandbox, container));
        }
        // Not begun yet, or already being taken away.
        return logs_left_behind(host, request, container, options);
    };
    let wanted = if options.previous {
        let (pod, container) = (sandbox.spec.name.clone(), container.to_owned());
        all.pop().ok_or(OpenStreamError::NoPrevious { pod, container })?
    } else {
        newest
    };
    read_log(host, &wanted.spec.log_path, options, Some(wanted.id().clone()))
}

/// Of a pod that ended, which only its uid names then: its sandbox went with its last container, its logs go with its object.
fn logs_left_behind(
    host: &Host,
    request: &OpenStream,
    container: &str,
    options: &LogOptions,
) -> Result<Source, OpenStreamError> {
    let logs = PodLogs::of(host);
    let pod = Metadata {
        namespace: request.namespace.clone(),
        name: request.pod.clone(),
        uid: request.uid.as_ref().map(|it| it.as_str().to_owned()).unwrap_or_default(),
        ..Metadata::default()
    };
    let mut attempts = logs.attempts(&pod, container);
    let newest = attempts.pop().ok_or_else(|| OpenStreamError::NotStarted {
        pod: request.pod.clone(),
        container: container.to_owned(),
        reason: "PodInitializing".to_owned(),
    })?;
    let wanted = if options.previous {
        let (pod, container) = (request.pod.clone(), container.to_owned());
        attempts.pop().ok_or(OpenStreamError::NoPrevious { pod, container })?
    } else {
        newest
    };
    read_log(host, &logs.file(&pod, container, wanted), options, None)
}

fn read_log(
    host: &Host,
    path: &Path,
    options: &LogOptions,
    writer: Option<ContainerId>,
) -> Result<Source, OpenStreamError> {
    let reader = LogReader::new(host.env.clone(), path, options)
        .map_err(|it| OpenStreamError::Failed(format!("reading {}: {it}", path.display())))?;
    Ok(Source::Log(Box::new(OpenLog { reader, writer })))
}
