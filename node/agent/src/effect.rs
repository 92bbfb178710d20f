//! What an action's end does to the picture of the pod. Pure.
//!
//! The shell performs, this file remembers: which failures wait how long, and what is said about them.

use std::fmt;
use std::time::Duration;

use kactor_protocol::time::Timestamp;

use crate::machine::{Observed, Progress, Run, Sandbox, Subject};

/// First and longest wait after a failed volume or sandbox.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(120);
/// First and longest wait after a failed image pull (kubelet image back-off).
const PULL_RETRY_FIRST: Duration = Duration::from_secs(10);
const PULL_RETRY_MAX: Duration = Duration::from_secs(300);

/// How one action ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    VolumesReady,
    VolumesFailed {
        message: String,
    },
    VolumesGone,
    SandboxReady {
        id: String,
        addresses: Vec<String>,
    },
    SandboxFailed {
        message: String,
    },
    SandboxGone,
    ImageReady {
        container: String,
    },
    ImageFailed {
        container: String,
        /// What no waiting changes; else the status says that it is tried again.
        reason: Option<&'static str>,
        message: String,
    },
    /// The driver's status shows the rest.
    ContainerStarted {
        container: String,
    },
    ContainerRefused {
        container: String,
        reason: &'static str,
        message: String,
    },
    ContainerStopped {
        container: String,
    },
    /// Stopping failed; the subject is free again and the machine asks for it anew.
    ContainerStuck {
        container: String,
        message: String,
    },
    ObjectGivenUp,
    ObjectKept {
        message: String,
    },
}

/// As `why` and `trace` tell it.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VolumesReady => f.write_str("volumes are mounted"),
            Self::VolumesGone => f.write_str("volumes are unmounted"),
            Self::SandboxReady { addresses, .. } if addresses.is_empty() => {
                f.write_str("sandbox is ready")
            }
            Self::SandboxReady { addresses, .. } => {
                write!(f, "sandbox is ready at {}", addresses.join(", "))
            }
            Self::SandboxGone => f.write_str("sandbox is removed"),
            Self::ImageReady { container } => write!(f, "image of {container} is present"),
            Self::ContainerStarted { container } => write!(f, "container {container} started"),
            Self::ContainerStopped { container } => write!(f, "container {container} stopped"),
            Self::ObjectGivenUp => {
                f.write_str("nothing of the pod is left here, and the API knows")
            }
            Self::VolumesFailed { message }
            | Self::SandboxFailed { message }
            | Self::ImageFailed { message, .. }
            | Self::ContainerRefused { message, .. }
            | Self::ContainerStuck { message, .. }
            | Self::ObjectKept { message } => f.write_str(message),
        }
    }
}

impl Effect {
    pub fn subject(&self) -> Subject {
        match self {
            Self::VolumesReady | Self::VolumesFailed { .. } | Self::VolumesGone => Subject::Volumes,
            Self::SandboxReady { .. } | Self::SandboxFailed { .. } | Self::SandboxGone => {
                Subject::Sandbox
            }
            Self::ImageReady { container }
            | Self::ImageFailed { container, .. }
            | Self::ContainerStarted { container }
            | Self::ContainerRefused { container, .. }
            | Self::ContainerStopped { container }
            | Self::ContainerStuck { container, .. } => Subject::Container(container.clone()),
            Self::ObjectGivenUp | Self::ObjectKept { .. } => Subject::Object,
        }
    }
}

/// Doubles with each attempt, within bounds.
fn wait(attempts: u32, first: Duration, most: Duration) -> Duration {
    first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(most)
}

/// Takes an effect into the picture. Frees its subject.
pub fn apply(seen: &mut Observed, effect: &Effect, now: Timestamp) {
    seen.busy.remove(&effect.subject());
    match effect {
        Effect::VolumesReady => seen.volumes = Progress::Ready,
        Effect::VolumesGone => seen.volumes = Progress::Absent,
        Effect::VolumesFailed { message } => {
            let attempts = 1 + attempts(&seen.volumes);
            let retry_at = now.plus(wait(attempts, RETRY_FIRST, RETRY_MAX));
            seen.volumes = Progress::Failed { message: message.clone(), retry_at, attempts };
        }
        Effect::SandboxReady { id, addresses } => {
            seen.started.get_or_insert(now);
            seen.sandbox = Sandbox::Ready { id: id.clone(), addresses: addresses.clone() };
        }
        Effect::SandboxGone => seen.sandbox = Sandbox::Absent,
        Effect::SandboxFailed { message } => {
            let attempts = match &seen.sandbox {
                Sandbox::Failed { attempts, .. } => attempts + 1,
                _ => 1,
            };
            let retry_at = now.plus(wait(attempts, RETRY_FIRST, RETRY_MAX));
            seen.sandbox = Sandbox::Failed { message: message.clone(), retry_at, attempts };
        }
        Effect::ImageReady { container } => {
            seen.containers.entry(container.clone()).or_default().image = Progress::Ready;
        }
        Effect::ImageFailed { container, reason, message } => {
            let state = seen.containers.entry(container.clone()).or_default();
            state.image_reason = *reason;
            let attempts = 1 + attempts(&state.image);
            let retry_at = now.plus(wait(attempts, PULL_RETRY_FIRST, PULL_RETRY_MAX));
            state.image = Progress::Failed { message: message.clone(), retry_at, attempts };
        }
        Effect::ContainerRefused { container, reason, message } => {
            let state = seen.containers.entry(container.clone()).or_default();
            state.failures += 1;
            let retry_at = now.plus(wait(state.failures, RETRY_FIRST, RETRY_MAX));
            // An ended run stays visible as the last one.
            if let Run::Ended(end) = &state.run {
                state.last = Some(end.clone());
            }
            state.run = Run::Refused { reason, message: message.clone(), retry_at };
        }
        Effect::ContainerStarted { .. }
        | Effect::ContainerStopped { .. }
        | Effect::ContainerStuck { .. }
        | Effect::ObjectGivenUp
        | Effect::ObjectKept { .. } => {}
    }
}

fn attempts(progress: &Progress) -> u32 {
    match progress {
        Progress::Failed { attempts, .. } => *attempts,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_wait_longer_each_time_within_bounds() {
        let mut seen = Observed::default();
        let failed = Effect::VolumesFailed { message: "no".to_owned() };
        for expected in [1, 2, 4, 8, 16, 32, 64, 120, 120] {
            apply(&mut seen, &failed, Timestamp(0));
            let Progress::Failed { retry_at, .. } = seen.volumes else { panic!("not failed") };
            assert_eq!(retry_at, Timestamp(expected * 1000));
        }
        apply(&mut seen, &Effect::VolumesReady, Timestamp(0));
        assert_eq!(seen.volumes, Progress::Ready);
    }

    #[test]
    fn an_effect_frees_its_subject_and_only_it() {
        let mut seen = Observed::default();
        let subjects = [
            Subject::Sandbox,
            Subject::Container("a".to_owned()),
            Subject::Container("b".to_owned()),
        ];
        seen.busy.extend(subjects);
        apply(&mut seen, &Effect::ImageReady { container: "a".to_owned() }, Timestamp(0));
        let left: Vec<_> = seen.busy.iter().cloned().collect();
        assert_eq!(left, [Subject::Sandbox, Subject::Container("b".to_owned())]);
        assert_eq!(seen.containers["a"].image, Progress::Ready);
    }

    #[test]
    fn a_refused_container_keeps_the_run_before() {
        let mut seen = Observed::default();
        let end = crate::machine::Ended {
            id: "c".to_owned(),
            exit_code: 1,
            signal: None,
            reason: "Error".to_owned(),
            message: String::new(),
            started: Timestamp(1),
            finished: Timestamp(2),
        };
        seen.containers.entry("a".to_owned()).or_default().run = Run::Ended(end.clone());
        let refused = Effect::ContainerRefused {
            container: "a".to_owned(),
            reason: "CreateContainerConfigError",
            message: "configmap \"x\" not found".to_owned(),
        };
        apply(&mut seen, &refused, Timestamp(0));
        assert_eq!(seen.containers["a"].last, Some(end));
        assert!(matches!(seen.containers["a"].run, Run::Refused { .. }));
    }
}
