//! Keys that wait for a pass: each at most once, oldest first, with back-off per key after a failure.
//!
//! Pure: it is told the time. A key that is woken while its plan is in flight runs again after it. Fair: a key that
//! is woken again goes behind those that wait already. Back-off follows client-go's rate limiter: 5 ms doubling to
//! 1000 s, forgotten after a success.

use std::collections::BTreeMap;
use std::time::Duration;

use kactor_protocol::store::Key;

const BACK_OFF_MIN: Duration = Duration::from_millis(5);
const BACK_OFF_MAX: Duration = Duration::from_secs(1000);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: Duration,
    turn: u64,
}

#[derive(Debug, Default)]
struct Entry {
    place: Option<Place>,
    is_running: bool,
    /// Woken while running: runs again then.
    again_at: Option<Duration>,
    failures: u32,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Look again at this time.
    Again(Duration),
    Failed,
}

#[derive(Debug, Default)]
pub struct WorkQueue {
    waiting: BTreeMap<Place, Key>,
    entries: BTreeMap<Key, Entry>,
    turn: u64,
}

impl WorkQueue {
    /// The key runs at `at`, or earlier if it waits for an earlier time already.
    pub fn wake(&mut self, key: Key, at: Duration) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.is_running {
            entry.again_at = Some(entry.again_at.map_or(at, |it| it.min(at)));
            return;
        }
        match entry.place {
            Some(place) if place.at <= at => return,
            Some(place) => {
                self.waiting.remove(&place);
            }
            None => {}
        }
        self.turn += 1;
        let place = Place { at, turn: self.turn };
        entry.place = Some(place);
        self.waiting.insert(place, key);
    }

    /// The longest due keys, at most `max`; they run until `ended`.
    pub fn take_due(&mut self, now: Duration, max: usize) -> Vec<Key> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some(first) = self.waiting.first_entry().filter(|it| it.key().at <= now) else {
                break;
            };
            let key = first.remove();
            let entry = self.entries.get_mut(&key).expect("what waits has an entry");
            entry.place = None;
            entry.is_running = true;
            taken.push(key);
        }
        taken
    }

    /// A pass of the key is over, with all its effects.
    ///
    /// # Panics
    /// If the key was not running: two plans of one key were in flight.
    pub fn ended(&mut self, key: &Key, now: Duration, how: Ended) {
        let entry = self.entries.get_mut(key).expect("what ends was taken");
        assert!(entry.is_running, "a pass ends once");
        entry.is_running = false;
        let woken = entry.again_at.take();
        let at = match how {
            Ended::Done => {
                entry.failures = 0;
                woken
            }
            Ended::Again(at) => {
                entry.failures = 0;
                Some(woken.map_or(at, |it| it.min(at)))
            }
            Ended::Failed => {
                entry.failures = entry.failures.saturating_add(1);
                let pause = back_off(entry.failures);
                Some(now + pause) // a wake-up does not undercut the back-off
            }
        };
        match at {
            Some(at) => self.wake(key.clone(), at),
            None => {
                self.entries.remove(key);
            }
        }
    }

    /// When the next key is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|(place, _)| place.at)
    }

    /// Keys that wait for their time.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Keys whose plan is in flight.
    pub fn n_running(&self) -> usize {
        self.entries.values().filter(|it| it.is_running).count()
    }

    /// Failures of the key in a row.
    pub fn failures(&self, key: &Key) -> u32 {
        self.entries.get(key).map_or(0, |it| it.failures)
    }
}

fn back_off(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    (BACK_OFF_MIN * 2_u32.pow(doublings)).min(BACK_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kactor_view::fixture::key_of;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_key_waits_once_and_at_its_earliest_time() {
        let mut queue = WorkQueue::default();
        queue.wake(key_of("pod/a"), ms(30));
        queue.wake(key_of("pod/a"), ms(10));
        queue.wake(key_of("pod/a"), ms(20));
        assert_eq!(queue.next_deadline(), Some(ms(10)));
        assert_eq!(queue.take_due(ms(30), 9), [key_of("pod/a")]);
        assert_eq!(queue.n_waiting(), 0);
    }

    #[test]
    fn a_running_key_is_not_taken_again_until_it_ended() {
        let mut queue = WorkQueue::default();
        queue.wake(key_of("pod/a"), ms(0));
        queue.take_due(ms(0), 9);
        queue.wake(key_of("pod/a"), ms(1));
        assert!(queue.take_due(ms(5), 9).is_empty());
        queue.ended(&key_of("pod/a"), ms(5), Ended::Done);
        assert_eq!(queue.take_due(ms(5), 9), [key_of("pod/a")]);
    }

    #[test]
    fn those_who_wait_longer_go_first() {
        let mut queue = WorkQueue::default();
        for name in ["pod/c", "pod/a", "pod/b"] {
            queue.wake(key_of(name), ms(0));
        }
        assert_eq!(queue.take_due(ms(0), 2), [key_of("pod/c"), key_of("pod/a")]);
        queue.ended(&key_of("pod/c"), ms(0), Ended::Again(ms(0)));
        assert_eq!(queue.take_due(ms(0), 9), [key_of("pod/b"), key_of("pod/c")]);
    }

    #[test]
    fn failures_back_off_for_that_key_alone_and_a_success_forgets_them() {
        let mut queue = WorkQueue::default();
        let key = key_of("pod/a");
        queue.wake(key.clone(), ms(0));
        for (failures, pause) in [(1, 5), (2, 10), (3, 20)] {
            let now = queue.next_deadline().unwrap();
            queue.take_due(now, 1);
            queue.wake(key.clone(), now);
            queue.ended(&key, now, Ended::Failed);
            assert_eq!(queue.failures(&key), failures);
            assert_eq!(queue.next_deadline(), Some(now + ms(pause)));
        }
        queue.wake(key_of("pod/b"), ms(0));
        assert_eq!(queue.take_due(ms(0), 9), [key_of("pod/b")]);
        let now = queue.next_deadline().unwrap();
        queue.take_due(now, 9);
        queue.ended(&key, now, Ended::Done);
        assert_eq!((queue.failures(&key), queue.next_deadline()), (0, None));
        assert_eq!(back_off(60), BACK_OFF_MAX);
    }

    proptest::proptest! {
        #[test]
        fn no_key_is_lost_or_doubled(steps in proptest::collection::vec((0..4_u8, 0..5_u8), 0..80)) {
            let mut queue = WorkQueue::default();
            let mut running: Vec<Key> = Vec::new();
            let mut woken = std::collections::BTreeSet::new();
            for (now, (name, what)) in steps.into_iter().enumerate() {
                let (now, key) = (ms(now as u64 * 2000), key_of(&format!("pod/p{name}")));
                match what {
                    0 | 1 => {
                        queue.wake(key.clone(), now);
                        woken.insert(key);
                    }
                    2 => {
                        for key in queue.take_due(now, 2) {
                            proptest::prop_assert!(!running.contains(&key));
                            woken.remove(&key);
                            running.push(key);
                        }
                    }
                    _ => if let Some(key) = running.pop() {
                        queue.ended(&key, now, if what == 3 { Ended::Done } else { Ended::Failed });
                    },
                }
                proptest::prop_assert_eq!(queue.n_running(), running.len());
            }
            for key in running {
                queue.ended(&key, ms(0), Ended::Done);
            }
            let left = queue.take_due(Duration::MAX, usize::MAX);
            for key in woken {
                proptest::prop_assert!(left.contains(&key), "{key} was woken and never ran");
            }
        }
    }
}
