//! When each node was last heard of by message, by this host's clock: liveness is not state.
//!
//! Sessions write it, node lifecycle and the keeper of Leases read it on the leader, which hears from the other control
//! hosts (`pulses_actor`). Nothing of it is stored: a host that begins anew remembers nobody, so a new leader waits a
//! grace period of its own before it says that a node is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kactor_protocol::Timestamp;
use tokio::sync::Notify;

/// A clone is the same record.
#[derive(Debug, Clone, Default)]
pub struct Pulses(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<BTreeMap<String, Pulse>>,
    newcomer: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Pulse {
    at: Timestamp,
    /// Heard since its Lease was renewed last.
    is_fresh: bool,
    /// Heard here, by a session of this host, since the leader was told last.
    is_untold: bool,
}

/// A node that was silent for so long is forgotten: nobody waits longer for one, and names must not pile up.
const REMEMBERED: Duration = Duration::from_secs(3600);

impl Pulses {
    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Pulse>> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node spoke to this host, at `now` of its clock.
    pub fn beat(&self, node: &str, now: Timestamp) {
        self.note(node, Pulse { at: now, is_fresh: true, is_untold: true });
    }

    /// The node spoke to another control host; `at` is by this host's clock.
    pub fn heard_elsewhere(&self, node: &str, at: Timestamp) {
        self.note(node, Pulse { at, is_fresh: true, is_untold: false });
    }

    fn note(&self, node: &str, pulse: Pulse) {
        let mut heard = self.heard();
        match heard.get_mut(node) {
            // Word that comes late takes nothing back.
            Some(known) if known.at >= pulse.at => {}
            Some(known) => {
                let is_untold = known.is_untold || pulse.is_untold;
                *known = Pulse { is_untold, ..pulse };
            }
            None => {
                heard.insert(node.to_owned(), pulse);
                self.0.newcomer.notify_one();
            }
        }
    }

    pub fn last_heard(&self, node: &str) -> Option<Timestamp> {
        self.heard().get(node).map(|it| it.at)
    }

    /// Nodes that were heard of since they were taken last.
    pub fn take_fresh(&self, now: Timestamp) -> Vec<String> {
        let mut heard = self.heard();
        heard.retain(|_, it| now.since(it.at) < REMEMBERED);
        let fresh = heard
            .iter_mut()
            .filter_map(|(node, it)| std::mem::take(&mut it.is_fresh).then(|| node.clone()));
        fresh.collect()
    }

    /// At most `limit` nodes that the leader was not told of since they were heard here, and when that was.
    pub fn take_untold(&self, limit: usize) -> Vec<(String, Timestamp)> {
        let mut heard = self.heard();
        let untold = heard.iter_mut().filter(|(_, it)| it.is_untold).take(limit);
        untold
            .map(|(node, it)| {
                it.is_untold = false;
                (node.clone(), it.at)
            })
            .collect()
    }

    /// The leader did not hear of these: they are told again.
    pub fn give_back<'a>(&self, nodes: impl IntoIterator<Item = &'a str>) {
        let mut heard = self.heard();
        for node in nodes {
            if let Some(pulse) = heard.get_mut(node) {
                pulse.is_untold = true;
            }
        }
    }

    /// Completes when a node was heard of for the first time.
    pub async fn newcomer(&self) {
        self.0.newcomer.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn a_node_is_fresh_once_per_beat_and_remembered_for_an_hour() {
        let pulses = Pulses::default();
        pulses.beat("b", at(1));
        pulses.beat("a", at(2));
        assert_eq!(pulses.take_fresh(at(2)), ["a", "b"]);
        assert!(pulses.take_fresh(at(3)).is_empty(), "a silent node's Lease is not renewed for it");
        pulses.beat("b", at(9));
        assert_eq!(pulses.take_fresh(at(9)), ["b"]);
        assert_eq!((pulses.last_heard("a"), pulses.last_heard("b")), (Some(at(2)), Some(at(9))));
        assert!(pulses.take_fresh(at(3605)).is_empty());
        assert_eq!((pulses.last_heard("a"), pulses.last_heard("b")), (None, Some(at(9))));
    }

    #[test]
    fn only_what_was_heard_here_is_told_and_again_when_it_was_not_heard() {
        let pulses = Pulses::default();
        pulses.beat("a", at(1));
        pulses.heard_elsewhere("b", at(2));
        assert_eq!(pulses.take_untold(9), [("a".to_owned(), at(1))]);
        assert!(pulses.take_untold(9).is_empty());
        pulses.give_back(["a", "gone"]);
        pulses.heard_elsewhere("a", at(5));
        assert_eq!(pulses.take_untold(9), [("a".to_owned(), at(5))]);
    }

    #[test]
    fn late_word_takes_nothing_back() {
        let pulses = Pulses::default();
        pulses.beat("a", at(9));
        assert_eq!(pulses.take_fresh(at(9)), ["a"]);
        pulses.heard_elsewhere("a", at(4));
        assert_eq!(pulses.last_heard("a"), Some(at(9)));
        assert!(pulses.take_fresh(at(9)).is_empty(), "nothing newer was said");
    }
}
