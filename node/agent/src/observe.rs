//! Turns what the driver says into what the machine decides on.
//!
//! Pure, and the only way in which container states reach `Observed`: an agent that just started and one that has
//! watched all along see the same picture. Restart counts are the driver's attempt numbers; the length of the
//! present row of failures travels in the container's annotations, so that a restart of kactor forgets no back-off.

use kactor_drivers::spec::ContainerId;
use kactor_drivers::status::{
    ContainerState, ContainerStatus, ExitReason, SandboxState, SandboxStatus,
};
use kactor_protocol::time::Timestamp;

use crate::machine::{BACKOFF_FORGOTTEN_AFTER, ContainerSeen, Ended, Observed, Run, Sandbox};
use crate::spec::{Pod, TerminationMessagePolicy};

/// Annotation of a container: how many of its runs failed in a row before this one.
pub const FAILURES: &str = "kactor.io/failures";

/// Longest `state.terminated.message` (kubelet: 4096 bytes, 12 KiB per pod).
pub const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;

/// Brings `seen` up to date with the driver's sandbox; `None` when the driver has none for this pod.
pub fn merge(pod: &Pod, seen: &mut Observed, sandbox: Option<&SandboxStatus>) {
    let Some(sandbox) = sandbox else {
        if matches!(seen.sandbox, Sandbox::Ready { .. } | Sandbox::Dead { .. }) {
            seen.sandbox = Sandbox::Absent;
        }
        for state in seen.containers.values_mut() {
            lose_run(state);
        }
        return;
    };
    merge_sandbox(seen, sandbox);
    seen.started.get_or_insert(sandbox.created);
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        let runs: Vec<&ContainerStatus> =
            sandbox.containers.iter().filter(|it| it.id().name == container.name).collect();
        let state = seen.containers.entry(container.name.clone()).or_default();
        let Some((newest, older)) = runs.split_last() else {
            lose_run(state);
            continue;
        };
        // Read when it ended: the driver's status has none.
        let last_words = match (&state.run, &state.last) {
            (Run::Ended(end), _) | (_, Some(end)) => Some((end.id.clone(), end.message.clone())),
            _ => None,
        };
        merge_container(state, newest);
        if let Some(mut end) = older.last().and_then(|it| ended(it)) {
            if end.message.is_empty() {
                end.message =
                    last_words.filter(|(id, _)| *id == end.id).map(|it| it.1).unwrap_or_default();
            }
            state.last = Some(end);
        }
        if container.startup_probe.is_none() {
            state.startup_passed = true;
        }
        if container.readiness_probe.is_none() {
            state.ready = true;
        }
    }
}

fn merge_sandbox(seen: &mut Observed, sandbox: &SandboxStatus) {
    let id = sandbox.spec.id.0.clone();
    match (sandbox.state, &mut seen.sandbox) {
        (SandboxState::Lost, it) => *it = Sandbox::Dead { id },
        (SandboxState::Ready, Sandbox::Ready { .. }) => {}
        (SandboxState::Ready, it) => {
            // Found after a restart: the plumbing's addresses are filled in by the shell.
            let addresses = sandbox.addresses.iter().map(ToString::to_string).collect();
            *it = Sandbox::Ready { id, addresses };
        }
    }
}

/// A run that the driver no longer knows ended unseen.
fn lose_run(state: &mut ContainerSeen) {
    if let Run::Running { id, started } = &state.run {
        state.run = Run::Ended(Ended {
            id: id.clone(),
            exit_code: 137,
            signal: None,
            reason: ExitReason::Unknown.as_str().to_owned(),
            message: "The container could not be located when the pod was looked at".to_owned(),
            started: *started,
            finished: *started,
        });
    }
}

fn merge_container(state: &mut ContainerSeen, it: &ContainerStatus) {
    let failures_before =
        it.spec.annotations.get(FAILURES).and_then(|it| it.parse().ok()).unwrap_or(0);
    state.restarts = it.id().attempt;
    state.image_id = it.image_id.clone();
    match &it.state {
        ContainerState::Created => {}
        ContainerState::Running { started, .. } => {
            let run = Run::Running { id: short_id(it), started: *started };
            if state.run != run {
                state.run = run;
                state.must_restart = None;
                state.ready = false;
                state.startup_passed = false;
            }
            state.failures = failures_before;
        }
        ContainerState::Exited { .. } => {
            if let Some(mut end) = ended(it) {
                if let Run::Ended(before) = &state.run
                    && before.id == end.id
                    && end.message.is_empty()
                {
                    end.message = before.message.clone(); // Read from the container's file, once.
                }
                let lasted = end.finished.since(end.started);
                let in_a_row = if lasted >= BACKOFF_FORGOTTEN_AFTER { 0 } else { failures_before };
                state.failures = in_a_row + 1;
                state.must_restart = None;
                state.ready = false;
                state.run = Run::Ended(end);
            }
        }
    }
}

fn ended(it: &ContainerStatus) -> Option<Ended> {
    let ContainerState::Exited { started, finished, exit_code, signal, reason, message } =
        &it.state
    else {
        return None;
    };
    Some(Ended {
        id: short_id(it),
        exit_code: *exit_code,
        signal: *signal,
        reason: reason.as_str().to_owned(),
        message: message.clone(),
        started: started.unwrap_or(Timestamp::EPOCH),
        finished: *finished,
    })
}

/// `containerID` without its scheme; `status` puts the scheme before it.
pub fn short_id(it: &ContainerStatus) -> String {
    it.external_id.split_once("://").map_or(it.external_id.as_str(), |(_, id)| id).to_owned()
}

/// The driver's name of the run that is there now.
pub fn current(sandbox: &SandboxStatus, container: &str) -> Option<ContainerId> {
    sandbox
        .containers
        .iter()
        .rev()
        .map(ContainerStatus::id)
        .find(|it| it.name == container)
        .cloned()
}

/// Runs that are no longer needed: all but the newest and the one before it, which `logs --previous` reads.
pub fn surplus(sandbox: &SandboxStatus) -> Vec<ContainerId> {
    let newest = |name: &str| current(sandbox, name).map_or(0, |it| it.attempt);
    let is_old = |it: &&ContainerId| it.attempt + 1 < newest(&it.name);
    sandbox.containers.iter().map(ContainerStatus::id).filter(is_old).cloned().collect()
}

/// Whether the end of a container's log stands for its last words: it failed and wrote none.
pub fn falls_back_to_log(policy: TerminationMessagePolicy, exit_code: i32, file: &[u8]) -> bool {
    policy == TerminationMessagePolicy::FallbackToLogsOnError && exit_code != 0 && file.is_empty()
}

/// What the container left as its last words: its termination file, else the log's end if that counts.
pub fn termination_message(file: &[u8], log_tail: &[u8]) -> String {
    let bytes = if file.is_empty() { log_tail } else { file };
    let from = bytes.len().saturating_sub(TERMINATION_MESSAGE_BYTES_MAX);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kactor_drivers::spec::{ContainerSpec, SandboxId, SandboxSpec};

    use super::*;

    fn pod() -> Pod {
        crate::spec::parse(
            br#"{"metadata":{"name":"web","uid":"u"},"spec":{"containers":[{"name":"a"}]}}"#,
        )
        .unwrap()
    }

    fn run(attempt: u32, failures: u32, state: ContainerState) -> ContainerStatus {
        let id = ContainerId { sandbox: SandboxId("u".to_owned()), name: "a".to_owned(), attempt };
        let mut spec = ContainerSpec::new(id, "i", "/l");
        spec.annotations.insert(FAILURES.to_owned(), failures.to_string());
        ContainerStatus {
            spec,
            external_id: format!("embedded://c{attempt}"),
            image_id: "sha256:1".to_owned(),
            created: Timestamp(1),
            state,
            warnings: vec![],
        }
    }

    fn running(at: u64) -> ContainerState {
        ContainerState::Running { started: Timestamp(at), pid: 1 }
    }

    fn exited(code: i32, lasted: Duration) -> ContainerState {
        ContainerState::Exited {
            started: Some(Timestamp(1000)),
            finished: Timestamp(1000).plus(lasted),
            exit_code: code,
            signal: None,
            reason: ExitReason::Error,
            message: String::new(),
        }
    }

    fn sandbox(containers: Vec<ContainerStatus>) -> SandboxStatus {
        SandboxStatus {
            spec: SandboxSpec::new("u", "default", "web"),
            state: SandboxState::Ready,
            created: Timestamp(500),
            netns: None,
            addresses: vec![],
            containers,
        }
    }

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn a_new_agent_finds_what_runs_with_its_start_time_and_restarts() {
        let mut seen = Observed::default();
        merge(
            &pod(),
            &mut seen,
            Some(&sandbox(vec![run(2, 1, exited(1, SHORT)), run(3, 2, running(9000))])),
        );
        let it = &seen.containers["a"];
        assert_eq!(it.run, Run::Running { id: "c3".to_owned(), started: Timestamp(9000) });
        assert_eq!((it.restarts, it.failures, it.ready), (3, 2, true));
        assert_eq!(it.last.as_ref().unwrap().exit_code, 1);
        assert_eq!(seen.started, Some(Timestamp(500)));
        assert!(matches!(seen.sandbox, Sandbox::Ready { .. }));
    }

    #[test]
    fn failures_count_in_a_row_and_are_forgotten_after_a_long_run() {
        for (lasted, before, expected) in
            [(SHORT, 0, 1), (SHORT, 4, 5), (BACKOFF_FORGOTTEN_AFTER, 4, 1)]
        {
            let mut seen = Observed::default();
            merge(&pod(), &mut seen, Some(&sandbox(vec![run(0, before, exited(1, lasted))])));
            assert_eq!(seen.containers["a"].failures, expected);
        }
    }

    #[test]
    fn a_run_that_vanished_counts_as_ended() {
        let mut seen = Observed::default();
        merge(&pod(), &mut seen, Some(&sandbox(vec![run(0, 0, running(9000))])));
        merge(&pod(), &mut seen, Some(&sandbox(vec![])));
        let Run::Ended(end) = &seen.containers["a"].run else { panic!("still running") };
        assert_eq!((end.exit_code, end.reason.as_str()), (137, "ContainerStatusUnknown"));
        merge(&pod(), &mut seen, None);
        assert_eq!(seen.sandbox, Sandbox::Absent);
    }

    #[test]
    fn readiness_of_a_probed_container_survives_a_second_look_but_not_a_new_run() {
        let pod = crate::spec::parse(
            br#"{"metadata":{"uid":"u"},"spec":{"containers":[{"name":"a","readinessProbe":{"exec":{}}}]}}"#,
        )
        .unwrap();
        let mut seen = Observed::default();
        merge(&pod, &mut seen, Some(&sandbox(vec![run(0, 0, running(9000))])));
        assert!(!seen.containers["a"].ready);
        seen.containers.get_mut("a").unwrap().ready = true;
        merge(&pod, &mut seen, Some(&sandbox(vec![run(0, 0, running(9000))])));
        assert!(seen.containers["a"].ready);
        merge(
            &pod,
            &mut seen,
            Some(&sandbox(vec![run(0, 0, exited(1, SHORT)), run(1, 1, running(9500))])),
        );
        assert!(!seen.containers["a"].ready);
    }

    #[test]
    fn only_the_run_before_is_kept_for_its_log() {
        let box_ = sandbox(vec![
            run(0, 0, exited(1, SHORT)),
            run(1, 0, exited(1, SHORT)),
            run(2, 0, running(1)),
        ]);
        let names: Vec<u32> = surplus(&box_).iter().map(|it| it.attempt).collect();
        assert_eq!(names, [0]);
        assert_eq!(current(&box_, "a").unwrap().attempt, 2);
    }

    #[test]
    fn last_words_come_from_the_file_or_from_the_log_of_a_failure() {
        use TerminationMessagePolicy::{FallbackToLogsOnError, File};
        assert!(falls_back_to_log(FallbackToLogsOnError, 1, b""));
        assert!(!falls_back_to_log(FallbackToLogsOnError, 0, b""));
        assert!(!falls_back_to_log(FallbackToLogsOnError, 1, b"bye"));
        assert!(!falls_back_to_log(File, 1, b""));
        assert_eq!(termination_message(b"bye", b"log"), "bye");
        assert_eq!(termination_message(b"", b"log"), "log");
        assert_eq!(termination_message(&[b'x'; 9000], b"").len(), TERMINATION_MESSAGE_BYTES_MAX);
    }
}
