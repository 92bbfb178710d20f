//! Pods that wait for a node: ready to be tried, backing off, or refused until something changes that may help.
//!
//! A refused Pod remembers which plugins refused it and wakes by their hints only, and after five minutes in any case.
//! A woken Pod still serves its back-off: 1 s, doubled with each attempt up to 10 s (kubernetes scheduling queue).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kactor_protocol::store::Key;

use crate::framework::{Hint, Seeker};

const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// Longest that a Pod stays refused without being tried again.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Active,
    BackingOff,
    Unschedulable {
        plugins: BTreeSet<&'static str>,
    },
    /// Being tried, or being bound.
    InFlight,
}

#[derive(Debug)]
struct Waiting {
    seeker: Seeker,
    state: State,
    attempts: u32,
    tried_at: Duration,
}

#[derive(Debug, Default)]
pub struct Queue {
    pods: BTreeMap<Key, Waiting>,
}

impl Queue {
    /// A Pod that wants a node, new or changed. A changed spec is tried at once; else its place is kept.
    pub fn put(&mut self, seeker: Seeker) {
        match self.pods.get_mut(&seeker.key) {
            Some(known) if known.seeker.uid == seeker.uid => {
                let is_same =
                    known.seeker.spec == seeker.spec && known.seeker.labels == seeker.labels;
                known.seeker = seeker;
                if !is_same && matches!(known.state, State::Unschedulable { .. }) {
                    known.state = State::BackingOff;
                }
            }
            _ => {
                let (state, tried_at) = (State::Active, Duration::ZERO);
                let key = seeker.key.clone();
                self.pods.insert(key, Waiting { seeker, state, attempts: 0, tried_at });
            }
        }
    }

    pub fn remove(&mut self, key: &Key) -> Option<Seeker> {
        self.pods.remove(key).map(|it| it.seeker)
    }

    pub fn get(&self, key: &Key) -> Option<&Seeker> {
        self.pods.get(key).map(|it| &it.seeker)
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// How many are active, backing off, refused and in flight.
    pub fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for waiting in self.pods.values() {
            counts[match waiting.state {
                State::Active => 0,
                State::BackingOff => 1,
                State::Unschedulable { .. } => 2,
                State::InFlight => 3,
            }] += 1;
        }
        counts
    }

    /// Takes up to `max` Pods to be tried now, in the order of `compare`.
    pub fn take(
        &mut self,
        now: Duration,
        max: usize,
        compare: impl Fn(&Seeker, &Seeker) -> std::cmp::Ordering,
    ) -> Vec<Seeker> {
        self.ripen(now);
        let mut ready: Vec<&Seeker> = self
            .pods
            .values()
            .filter(|it| it.state == State::Active)
            .map(|it| &it.seeker)
            .collect();
        ready.sort_by(|a, b| compare(a, b));
        ready.truncate(max);
        let taken: Vec<Seeker> = ready.into_iter().cloned().collect();
        for seeker in &taken {
            let waiting = self.pods.get_mut(&seeker.key).expect("it was just found");
            waiting.state = State::InFlight;
            waiting.attempts += 1;
            waiting.tried_at = now;
        }
        taken
    }

    /// No node would do.
    pub fn refused(&mut self, key: &Key, plugins: BTreeSet<&'static str>) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.state = State::Unschedulable { plugins };
        }
    }

    /// It was to be bound and was not: tried again after its back-off.
    pub fn put_back(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.state = State::BackingOff;
        }
    }

    /// Something happened: wakes those whose refusals it may undo. `hints_of` names a plugin's hints.
    pub fn hint(&mut self, hint: Hint, hints_of: impl Fn(&str) -> &'static [Hint]) {
        for waiting in self.pods.values_mut() {
            if let State::Unschedulable { plugins } = &waiting.state {
                // Without a plugin there was no node at all: only a new one helps.
                let helps = match plugins.is_empty() {
                    true => hint == Hint::NodeAdded,
                    false => plugins.iter().any(|it| hints_of(it).contains(&hint)),
                };
                if helps {
                    waiting.state = State::BackingOff;
                }
            }
        }
    }

    /// When a Pod next becomes ready by time alone.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.pods.values().filter_map(Waiting::ripe_at).min()
    }

    fn ripen(&mut self, now: Duration) {
        for waiting in self.pods.values_mut() {
            if waiting.ripe_at().is_some_and(|it| it <= now) {
                waiting.state = State::Active;
            }
        }
    }
}

impl Waiting {
    fn ripe_at(&self) -> Option<Duration> {
        match self.state {
            State::Active => Some(Duration::ZERO),
            State::BackingOff => Some(self.tried_at + back_off(self.attempts)),
            State::Unschedulable { .. } => Some(self.tried_at + UNSCHEDULABLE_MAX),
            State::InFlight => None,
        }
    }
}

fn back_off(attempts: u32) -> Duration {
    if attempts == 0 {
        return Duration::ZERO;
    }
    (BACK_OFF_MIN * 2_u32.pow((attempts - 1).min(10))).min(BACK_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;
    use kactor_view::fixture;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn queue(pods: &str) -> (Queue, Profile) {
        let mut queue = Queue::default();
        for pod in fixture::parse(pods).view().pods().iter() {
            queue.put(Seeker::new(pod, Vec::new()));
        }
        (queue, Profile::default_scheduler())
    }

    fn take(queue: &mut Queue, profile: &Profile, now: Duration) -> Vec<String> {
        let taken = queue.take(now, 9, |a, b| profile.compare(a, b));
        taken.into_iter().map(|it| it.key.name().to_owned()).collect()
    }

    #[test]
    fn priority_first_then_who_waits_longest() {
        let (mut queue, profile) =
            queue("pod/a created=5\npod/b created=3\npod/c created=9 .spec.priority=10");
        assert_eq!(take(&mut queue, &profile, s(0)), ["c", "b", "a"]);
    }

    #[test]
    fn a_refused_pod_wakes_by_its_plugins_hints_and_serves_its_back_off() {
        let (mut queue, profile) = queue("pod/a");
        let hints: fn(&str) -> &'static [Hint] = |_| &[Hint::PodLeft];
        let key = fixture::key_of("pod/a");
        take(&mut queue, &profile, s(10));
        queue.refused(&key, ["NodeResourcesFit"].into());
        queue.hint(Hint::NodeChanged, hints);
        assert!(take(&mut queue, &profile, s(20)).is_empty());
        assert_eq!(queue.next_deadline(), Some(s(310)));
        queue.hint(Hint::PodLeft, hints);
        assert_eq!(queue.next_deadline(), Some(s(11)));
        assert!(take(&mut queue, &profile, Duration::from_millis(10_999)).is_empty());
        assert_eq!(take(&mut queue, &profile, s(11)), ["a"]);
        queue.put_back(&key);
        assert_eq!(queue.next_deadline(), Some(s(13)), "twice as long the second time");
    }

    #[test]
    fn without_any_node_only_a_new_one_helps() {
        let (mut queue, profile) = queue("pod/a");
        take(&mut queue, &profile, s(0));
        queue.refused(&fixture::key_of("pod/a"), BTreeSet::new());
        queue.hint(Hint::PodLeft, |_| &[]);
        assert!(take(&mut queue, &profile, s(5)).is_empty());
        queue.hint(Hint::NodeAdded, |_| &[]);
        assert_eq!(take(&mut queue, &profile, s(5)), ["a"]);
    }
}
