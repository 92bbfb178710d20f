//! Probe bookkeeping: when a probe is due and when its outcomes change a container's result.
//!
//! Pure. Semantics: kubelet prober worker — `successThreshold`/`failureThreshold` count consecutive outcomes; a
//! startup probe holds the others back until it has succeeded once; readiness begins as failed, liveness as
//! succeeded.

use std::fmt;
use std::time::Duration;

use crate::spec::{Container, Probe};

/// What a probe is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// As it stands in events: `Liveness probe failed: …`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// One run of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    Success,
    /// With what the operator should read.
    Failure(String),
}

/// One probe of one run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counter {
    passing: bool,
    run: u32,
    last_was_success: bool,
    due: Duration,
}

/// The probes of one run of a container; made anew at each start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probes {
    counters: [Option<Counter>; 3],
    pub startup_passed: bool,
}

/// What an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeChange {
    None,
    BecameReady,
    BecameUnready,
    Started,
    /// The container must be restarted: its liveness or startup probe failed often enough.
    MustRestart,
}

/// As `why` and `trace` tell it.
impl fmt::Display for ProbeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no change",
            Self::BecameReady => "ready now",
            Self::BecameUnready => "not ready any more",
            Self::Started => "started up",
            Self::MustRestart => "failed often enough, the container is restarted",
        })
    }
}

impl Probes {
    /// At `now`, on the monotonic clock, for a container that runs for `age`.
    pub fn new(container: &Container, now: Duration, age: Duration) -> Self {
        let counters = ProbeKind::ALL.map(|kind| {
            kind.of(container).map(|probe| Counter {
                passing: kind == ProbeKind::Liveness,
                run: 0,
                last_was_success: false,
                due: now + Duration::from_secs(probe.initial_delay_seconds).saturating_sub(age),
            })
        });
        Self { counters, startup_passed: container.startup_probe.is_none() }
    }

    /// Goes on where an earlier life of the agent stood, as the pod's status says: a restart of kactor takes no
    /// pod out of its services, and a startup probe that has passed is not asked again.
    pub fn resume(&mut self, ready: bool, started: bool) {
        self.startup_passed |= started;
        if let Some(counter) = self.counter_mut(ProbeKind::Readiness) {
            counter.passing |= ready;
        }
    }

    /// True if a running container counts as ready as far as its probe goes.
    pub fn is_ready(&self) -> bool {
        self.startup_passed && self.counter(ProbeKind::Readiness).is_none_or(|it| it.passing)
    }

    /// Probes to run now; each is due again one period later, whether or not it has answered by then.
    pub fn take_due(&mut self, container: &Container, now: Duration) -> Vec<ProbeKind> {
        let mut due = Vec::new();
        for kind in ProbeKind::ALL {
            if !self.is_active(kind) {
                continue;
            }
            let Some(probe) = kind.of(container) else { continue };
            let period = Duration::from_secs(probe.period_seconds.max(1));
            if let Some(counter) = self.counter_mut(kind).filter(|it| it.due <= now) {
                counter.due = now + period;
                due.push(kind);
            }
        }
        due
    }

    /// When `take_due` next has something.
    pub fn next_due(&self) -> Option<Duration> {
        let active = ProbeKind::ALL.into_iter().filter(|it| self.is_active(*it));
        active.filter_map(|it| self.counter(it)).map(|it| it.due).min()
    }

    pub fn record(
        &mut self,
        container: &Container,
        kind: ProbeKind,
        outcome: &ProbeOutcome,
    ) -> ProbeChange {
        let Some(probe) = kind.of(container) else { return ProbeChange::None };
        if !self.is_active(kind) {
            return ProbeChange::None; // An answer that came after the container's state had moved on.
        }
        let success = *outcome == ProbeOutcome::Success;
        let Some(counter) = self.counter_mut(kind) else { return ProbeChange::None };
        counter.run =
            if counter.last_was_success == success { counter.run.saturating_add(1) } else { 1 };
        counter.last_was_success = success;
        let threshold = if success { probe.success_threshold } else { probe.failure_threshold };
        if counter.run < threshold.max(1) {
            return ProbeChange::None;
        }
        let was = std::mem::replace(&mut counter.passing, success);
        match (kind, was, success) {
            (ProbeKind::Startup, _, true) => {
                self.startup_passed = true;
                ProbeChange::Started
            }
            (ProbeKind::Startup | ProbeKind::Liveness, _, false) => ProbeChange::MustRestart,
            (ProbeKind::Readiness, false, true) => ProbeChange::BecameReady,
            (ProbeKind::Readiness, true, false) => ProbeChange::BecameUnready,
            _ => ProbeChange::None,
        }
    }

    fn is_active(&self, kind: ProbeKind) -> bool {
        (kind == ProbeKind::Startup) != self.startup_passed
    }

    fn counter(&self, kind: ProbeKind) -> Option<&Counter> {
        self.counters[kind as usize].as_ref()
    }

    fn counter_mut(&mut self, kind: ProbeKind) -> Option<&mut Counter> {
        self.counters[kind as usize].as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(probes: &str) -> Container {
        serde_json::from_str(&format!(r#"{{"name":"a"{probes}}}"#)).unwrap()
    }

    fn failed() -> ProbeOutcome {
        ProbeOutcome::Failure("HTTP probe failed with statuscode: 500".to_owned())
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_container_without_probes_is_ready_at_once() {
        let probes = Probes::new(&container(""), S, Duration::ZERO);
        assert!(probes.is_ready());
        assert_eq!(probes.next_due(), None);
    }

    #[test]
    fn readiness_turns_only_after_its_thresholds() {
        let it =
            container(r#","readinessProbe":{"exec":{},"successThreshold":2,"failureThreshold":3}"#);
        let mut probes = Probes::new(&it, S, Duration::ZERO);
        let mut record = |outcome: &ProbeOutcome| probes.record(&it, ProbeKind::Readiness, outcome);
        assert_eq!(record(&ProbeOutcome::Success), ProbeChange::None);
        assert_eq!(record(&ProbeOutcome::Success), ProbeChange::BecameReady);
        assert_eq!(record(&failed()), ProbeChange::None);
        assert_eq!(record(&ProbeOutcome::Success), ProbeChange::None);
        assert_eq!(record(&failed()), ProbeChange::None);
        assert_eq!(record(&failed()), ProbeChange::None);
        assert_eq!(record(&failed()), ProbeChange::BecameUnready);
    }

    #[test]
    fn a_startup_probe_holds_the_others_back() {
        let it = container(
            r#","startupProbe":{"exec":{},"failureThreshold":2},"livenessProbe":{"exec":{},"failureThreshold":1}"#,
        );
        let mut probes = Probes::new(&it, S, Duration::ZERO);
        assert_eq!(probes.take_due(&it, S), [ProbeKind::Startup]);
        assert_eq!(probes.take_due(&it, S), []);
        assert!(!probes.is_ready());
        assert_eq!(probes.record(&it, ProbeKind::Liveness, &failed()), ProbeChange::None);
        assert_eq!(
            probes.record(&it, ProbeKind::Startup, &ProbeOutcome::Success),
            ProbeChange::Started
        );
        assert!(probes.is_ready());
        assert_eq!(probes.take_due(&it, S * 2), [ProbeKind::Liveness]);
        assert_eq!(probes.record(&it, ProbeKind::Liveness, &failed()), ProbeChange::MustRestart);
    }

    #[test]
    fn a_startup_probe_that_keeps_failing_restarts_the_container() {
        let it = container(r#","startupProbe":{"exec":{},"failureThreshold":2}"#);
        let mut probes = Probes::new(&it, S, Duration::ZERO);
        assert_eq!(probes.record(&it, ProbeKind::Startup, &failed()), ProbeChange::None);
        assert_eq!(probes.record(&it, ProbeKind::Startup, &failed()), ProbeChange::MustRestart);
    }

    #[test]
    fn probes_wait_for_their_delay_and_then_run_once_a_period() {
        let it =
            container(r#","livenessProbe":{"exec":{},"initialDelaySeconds":5,"periodSeconds":2}"#);
        let mut probes = Probes::new(&it, S, Duration::ZERO);
        assert_eq!(probes.next_due(), Some(S * 6));
        assert_eq!(probes.take_due(&it, S * 5), []);
        assert_eq!(probes.take_due(&it, S * 6), [ProbeKind::Liveness]);
        assert_eq!(probes.next_due(), Some(S * 8));
    }

    #[test]
    fn an_agent_that_comes_back_goes_on_where_the_status_stands() {
        let it = container(
            r#","startupProbe":{"exec":{}},"readinessProbe":{"exec":{},"initialDelaySeconds":30,"failureThreshold":2}"#,
        );
        let mut probes = Probes::new(&it, S, S * 20);
        probes.resume(true, true);
        assert!(probes.is_ready(), "no pod leaves its services because kactor was started again");
        assert_eq!(probes.next_due(), Some(S * 11), "the delay counts from the container's start");
        assert_eq!(probes.record(&it, ProbeKind::Readiness, &failed()), ProbeChange::None);
        let change = probes.record(&it, ProbeKind::Readiness, &failed());
        assert_eq!(change, ProbeChange::BecameUnready);
    }
}
