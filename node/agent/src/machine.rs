//! What to do next for one pod: a pure function of what is wanted, what is there, and the time.
//!
//! Level-triggered: the same picture gives the same actions, however it came about, so start-up, a restart of
//! the agent and the ordinary day are one path. Order: volumes → sandbox → init containers one by one (sidecars
//! stay) → containers; backwards for an end. Upstream: kubelet `computePodActions`, KEP-753 for sidecars.
//!
//! Invariants: one action per subject in flight (`busy`); a container is never started in a pod that ends; a
//! pod's object is given up only after its sandbox is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use kactor_protocol::time::Timestamp;

use crate::spec::{Container, Pod, RestartPolicy};

/// First wait of a container that keeps failing; doubles up to `BACKOFF_MAX` (kubelet MaxContainerBackOff).
pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long begins again with the first wait.
pub const BACKOFF_FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What is there, as the pod's actor last saw it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    pub volumes: Progress,
    pub sandbox: Sandbox,
    /// By container name, init containers among them.
    pub containers: BTreeMap<String, ContainerSeen>,
    /// Subjects of actions that were begun and have not answered.
    pub busy: BTreeSet<Subject>,
    /// Set when this pod must end without its object being deleted (eviction, deadline, refusal).
    pub doomed: Option<Doom>,
    /// When the first container was about to be started; the active deadline counts from it.
    pub started: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Progress {
    #[default]
    Absent,
    Ready,
    /// Try again at `retry_at`.
    Failed {
        message: String,
        retry_at: Timestamp,
        attempts: u32,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sandbox {
    #[default]
    Absent,
    Ready {
        id: String,
        addresses: Vec<String>,
    },
    /// Its namespaces died under its containers: all end and begin anew.
    Dead {
        id: String,
    },
    Failed {
        message: String,
        retry_at: Timestamp,
        attempts: u32,
    },
}

/// One container of the pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerSeen {
    pub image: Progress,
    /// Why `image` failed, if that is something that no waiting changes.
    pub image_reason: Option<&'static str>,
    /// The digest it runs from, once known.
    pub image_id: String,
    pub run: Run,
    /// The run before this one.
    pub last: Option<Ended>,
    pub restarts: u32,
    /// Failed starts and ends in a row, for the back-off.
    pub failures: u32,
    pub ready: bool,
    /// Its startup probe, if any, has passed.
    pub startup_passed: bool,
    /// A probe asked for its end; it is started again if its policy says so.
    pub must_restart: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub enum Run {
    #[default]
    NotStarted,
    /// Making or starting it failed; try again at `retry_at`.
    Refused {
        reason: &'static str,
        message: String,
        retry_at: Timestamp,
    },
    Running {
        id: String,
        started: Timestamp,
    },
    Ended(Ended),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub id: String,
    pub exit_code: i32,
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerStatusUnknown`.
    pub reason: String,
    pub message: String,
    pub started: Timestamp,
    pub finished: Timestamp,
}

/// Why a pod ends although its object stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doom {
    /// `Evicted`, `DeadlineExceeded`, `UnexpectedAdmissionError`, …
    pub reason: String,
    pub message: String,
}

/// What an action works on; at most one action a subject at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Volumes,
    Sandbox,
    Container(String),
    Object,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    MountVolumes,
    UnmountVolumes,
    CreateSandbox,
    /// Ends the sandbox and everything left in it.
    RemoveSandbox,
    /// Makes the image present as the pull policy says.
    EnsureImage {
        container: String,
    },
    /// Makes and starts the container's run number `attempt`.
    Start {
        container: String,
        attempt: u32,
    },
    /// Asks it to end (hook, then signal) and kills it after `grace`.
    Stop {
        container: String,
        grace: Duration,
        why: String,
    },
    /// Tells the API that nothing of the pod is left here.
    GiveUpObject,
}

/// As `why` and `trace` tell it.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MountVolumes => f.write_str("mount volumes"),
            Self::UnmountVolumes => f.write_str("unmount volumes"),
            Self::CreateSandbox => f.write_str("create the sandbox"),
            Self::RemoveSandbox => f.write_str("remove the sandbox"),
            Self::EnsureImage { container } => write!(f, "have the image of {container}"),
            Self::Start { container, attempt: 0 } => write!(f, "start container {container}"),
            Self::Start { container, attempt } => {
                write!(f, "start container {container} again (restart {attempt})")
            }
            Self::Stop { container, grace, why } => {
                write!(f, "stop container {container} within {} s: {why}", grace.as_secs())
            }
            Self::GiveUpObject => f.write_str("tell the API that nothing of the pod is left here"),
        }
    }
}

impl Action {
    pub fn subject(&self) -> Subject {
        match self {
            Self::MountVolumes | Self::UnmountVolumes => Subject::Volumes,
            Self::CreateSandbox | Self::RemoveSandbox => Subject::Sandbox,
            Self::EnsureImage { container }
            | Self::Start { container, .. }
            | Self::Stop { container, .. } => Subject::Container(container.clone()),
            Self::GiveUpObject => Subject::Object,
        }
    }
}

/// What to begin now, and when to look again if nothing happens before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Next {
    pub actions: Vec<Action>,
    pub look_again: Option<Timestamp>,
}

/// Where the pod stands; `status.phase` follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Being brought up or running.
    Alive,
    /// All containers ended for good.
    Done { succeeded: bool },
    /// Its object is being deleted, or it is doomed.
    Ending,
}

/// Decides the pod's course from what is wanted and seen.
pub fn course(pod: &Pod, seen: &Observed) -> Course {
    if pod.metadata.deletion_timestamp.is_some() || seen.doomed.is_some() {
        return Course::Ending;
    }
    let policy = pod.spec.restart_policy;
    let ended = |container: &Container| match seen.containers.get(&container.name).map(|it| &it.run)
    {
        Some(Run::Ended(end)) if !restarts(policy, end.exit_code) => Some(end.exit_code == 0),
        _ => None,
    };
    let failed_init = pod
        .spec
        .init_containers
        .iter()
        .filter(|it| !it.is_sidecar())
        .any(|it| ended(it) == Some(false));
    if failed_init && policy == RestartPolicy::Never {
        return Course::Done { succeeded: false };
    }
    let ends: Option<Vec<bool>> = pod.spec.containers.iter().map(ended).collect();
    match ends {
        Some(ends) if !ends.is_empty() => Course::Done { succeeded: ends.iter().all(|it| *it) },
        _ => Course::Alive,
    }
}

fn restarts(policy: RestartPolicy, exit_code: i32) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

/// What to do now.
pub fn next(pod: &Pod, seen: &Observed, now: Timestamp) -> Next {
    let mut next = Next::default();
    match course(pod, seen) {
        Course::Alive => advance(pod, seen, now, &mut next),
        Course::Done { .. } => wind_down(pod, seen, now, &mut next),
        Course::Ending => {
            wind_down(pod, seen, now, &mut next);
            let gone = next.actions.is_empty() && seen.busy.is_empty();
            if gone && pod.metadata.deletion_timestamp.is_some() {
                next.actions.push(Action::GiveUpObject);
            }
        }
    }
    next.actions.retain(|it| !seen.busy.contains(&it.subject()));
    if let (Some(limit), Some(started)) = (pod.spec.active_deadline_seconds, seen.started) {
        next.again(Timestamp(started.0.saturating_add(limit.saturating_mul(1000))), now);
    }
    next
}

impl Next {
    /// Asks to be looked at again at `at`, if that is still to come.
    fn again(&mut self, at: Timestamp, now: Timestamp) {
        if at > now {
            self.look_again = Some(self.look_again.map_or(at, |it| it.min(at)));
        }
    }
}

/// True once the pod has been active for longer than it may.
pub fn is_past_deadline(pod: &Pod, seen: &Observed, now: Timestamp) -> bool {
    match (pod.spec.active_deadline_seconds, seen.started) {
        (Some(limit), Some(started)) => {
            now.0 >= started.0.saturating_add(limit.saturating_mul(1000))
        }
        _ => false,
    }
}

fn advance(pod: &Pod, seen: &Observed, now: Timestamp, next: &mut Next) {
    match &seen.volumes {
        Progress::Ready => {}
        Progress::Absent => return next.actions.push(Action::MountVolumes),
        Progress::Failed { retry_at, .. } => {
            return retry(Action::MountVolumes, *retry_at, now, next);
        }
    }
    match &seen.sandbox {
        Sandbox::Ready { .. } => {}
        Sandbox::Absent => return next.actions.push(Action::CreateSandbox),
        Sandbox::Failed { retry_at, .. } => {
            return retry(Action::CreateSandbox, *retry_at, now, next);
        }
        Sandbox::Dead { .. } => return restart_sandbox(pod, seen, next),
    }
    if advance_init(pod, seen, now, next) {
        for container in &pod.spec.containers {
            advance_container(pod, container, seen, now, next);
        }
    }
}

fn retry(action: Action, at: Timestamp, now: Timestamp, next: &mut Next) {
    if at <= now {
        next.actions.push(action);
    } else {
        next.again(at, now);
    }
}

/// Ends what still runs in a dead sandbox, then the sandbox; with it gone the ordinary path begins anew.
fn restart_sandbox(pod: &Pod, seen: &Observed, next: &mut Next) {
    let running = running(seen);
    if running.is_empty() {
        next.actions.push(Action::RemoveSandbox);
    }
    for container in running {
        let grace = Duration::from_secs(pod.spec.termination_grace_period_seconds);
        next.actions.push(Action::Stop { container, grace, why: "its sandbox died".to_owned() });
    }
}

/// Init containers in order; a sidecar lets the next begin once it has started. True when all are through.
fn advance_init(pod: &Pod, seen: &Observed, now: Timestamp, next: &mut Next) -> bool {
    for container in &pod.spec.init_containers {
        let state = seen.containers.get(&container.name);
        let through = match state.map(|it| &it.run) {
            Some(Run::Ended(end)) => !container.is_sidecar() && end.exit_code == 0,
            Some(Run::Running { .. }) => {
                container.is_sidecar() && state.is_some_and(|it| it.startup_passed)
            }
            _ => false,
        };
        if !through || container.is_sidecar() {
            advance_container(pod, container, seen, now, next);
        }
        if !through {
            return false;
        }
    }
    true
}

fn advance_container(
    pod: &Pod,
    container: &Container,
    seen: &Observed,
    now: Timestamp,
    next: &mut Next,
) {
    let name = &container.name;
    let absent = ContainerSeen::default();
    let state = seen.containers.get(name).unwrap_or(&absent);
    match &state.run {
        Run::Running { .. } => {
            if let Some(why) = &state.must_restart {
                let grace = Duration::from_secs(pod.spec.termination_grace_period_seconds);
                next.actions.push(Action::Stop {
                    container: name.clone(),
                    grace,
                    why: why.clone(),
                });
            }
        }
        Run::NotStarted => start(container, state, now, next),
        Run::Refused { retry_at, .. } if *retry_at > now => next.again(*retry_at, now),
        Run::Refused { .. } => start(container, state, now, next),
        Run::Ended(end) => {
            let policy = container.restart_policy.unwrap_or(match pod.spec.restart_policy {
                // An init container of an Always pod is run again only when it failed.
                RestartPolicy::Always if is_plain_init(pod, container) => RestartPolicy::OnFailure,
                other => other,
            });
            if !restarts(policy, end.exit_code) {
                return;
            }
            let at = end.finished.plus(backoff(state.failures));
            if at <= now {
                start(container, state, now, next);
            } else {
                next.again(at, now);
            }
        }
    }
}

fn is_plain_init(pod: &Pod, container: &Container) -> bool {
    !container.is_sidecar() && pod.spec.init_containers.iter().any(|it| it.name == container.name)
}

fn start(container: &Container, state: &ContainerSeen, now: Timestamp, next: &mut Next) {
    let name = container.name.clone();
    match &state.image {
        Progress::Ready => {
            let attempt = match state.run {
                Run::Ended(_) => state.restarts + 1,
                _ => state.restarts,
            };
            next.actions.push(Action::Start { container: name, attempt });
        }
        Progress::Absent => next.actions.push(Action::EnsureImage { container: name }),
        Progress::Failed { retry_at, .. } => {
            retry(Action::EnsureImage { container: name }, *retry_at, now, next)
        }
    }
}

/// How long a container waits after its `failures`-th end in a row; the first restart comes at once.
pub fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => BACKOFF_FIRST.saturating_mul(1 << (n - 2).min(10)).min(BACKOFF_MAX),
    }
}

/// Ends containers, then the sandbox, then the volumes. Sidecars end after the others, last first.
fn wind_down(pod: &Pod, seen: &Observed, now: Timestamp, next: &mut Next) {
    let grace = grace_left(pod, seen, now);
    let why = match &seen.doomed {
        Some(doom) => doom.message.clone(),
        None if pod.metadata.deletion_timestamp.is_some() => "the pod was deleted".to_owned(),
        None => "the pod is complete".to_owned(),
    };
    let sidecar = |name: &String| {
        pod.spec.init_containers.iter().any(|it| it.is_sidecar() && it.name == *name)
    };
    let (sidecars, others): (Vec<String>, Vec<String>) =
        running(seen).into_iter().partition(sidecar);
    let to_stop: Vec<String> = if others.is_empty() {
        let order = pod.spec.init_containers.iter().rev().map(|it| it.name.clone());
        order.filter(|it| sidecars.contains(it)).take(1).collect()
    } else {
        others
    };
    if !to_stop.is_empty() {
        let stops = to_stop.into_iter().map(|container| Action::Stop {
            container,
            grace,
            why: why.clone(),
        });
        next.actions.extend(stops);
    } else if seen.busy.iter().any(|it| matches!(it, Subject::Container(_))) {
        // A start or pull is under way; its answer decides.
    } else if seen.sandbox != Sandbox::Absent {
        next.actions.push(Action::RemoveSandbox);
    } else if seen.volumes != Progress::Absent {
        next.actions.push(Action::UnmountVolumes);
    }
}

fn running(seen: &Observed) -> Vec<String> {
    let is_running = |it: &ContainerSeen| matches!(it.run, Run::Running { .. });
    seen.containers.iter().filter(|(_, it)| is_running(it)).map(|(name, _)| name.clone()).collect()
}

/// The deletion timestamp is when the grace ends, so an agent that was away gives only what is left.
fn grace_left(pod: &Pod, seen: &Observed, now: Timestamp) -> Duration {
    let full = match pod.metadata.deletion_grace_period_seconds {
        Some(seconds) => Duration::from_secs(seconds),
        None if seen.doomed.is_some() => {
            Duration::from_secs(pod.spec.termination_grace_period_seconds.min(30))
        }
        None => Duration::from_secs(pod.spec.termination_grace_period_seconds),
    };
    let end =
        pod.metadata.deletion_timestamp.as_deref().and_then(|it| it.parse::<Timestamp>().ok());
    match end {
        Some(end) => {
            full.min(Duration::from_millis(end.0.saturating_sub(now.0)).max(Duration::from_secs(1)))
        }
        None => full,
    }
}

#[cfg(test)]
mod tests;
