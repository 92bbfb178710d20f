//! When each node was last heard of by message, by this host's clock: liveness is not state.
//!
//! Sessions write it, node lifecycle and the keeper of Leases read it; nothing of it is stored. A host that begins
//! anew remembers nobody, so a new leader waits a grace period of its own before it says that a node is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

impl Pulses {
    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Pulse>> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node spoke at `now` of this host's clock.
    pub fn beat(&self, node: &str, now: Timestamp) {
        let pulse = Pulse { at: now, is_fresh: true };
        if self.heard().insert(node.to_owned(), pulse).is_none() {
            self.0.newcomer.notify_one();
        }
    }

    /// The node's session is over: whoever has the next one speaks for it.
    pub fn forget(&self, node: &str) {
        self.heard().remove(node);
    }

    pub fn last_heard(&self, node: &str) -> Option<Timestamp> {
        self.heard().get(node).map(|it| it.at)
    }

    /// Nodes that were heard of since they were taken last.
    pub fn take_fresh(&self) -> Vec<String> {
        let mut heard = self.heard();
        let fresh = heard
            .iter_mut()
            .filter_map(|(node, it)| std::mem::take(&mut it.is_fresh).then(|| node.clone()));
        fresh.collect()
    }

    /// Completes when a node was heard of for the first time.
    pub async fn newcomer(&self) {
        self.0.newcomer.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_fresh_once_per_beat_and_remembered_until_forgotten() {
        let pulses = Pulses::default();
        let at = Timestamp::from_seconds;
        pulses.beat("b", at(1));
        pulses.beat("a", at(2));
        assert_eq!(pulses.take_fresh(), ["a", "b"]);
        assert!(pulses.take_fresh().is_empty(), "a silent node's Lease is not renewed for it");
        pulses.beat("b", at(9));
        assert_eq!(pulses.take_fresh(), ["b"]);
        assert_eq!((pulses.last_heard("a"), pulses.last_heard("b")), (Some(at(2)), Some(at(9))));
        pulses.forget("b");
        assert_eq!(pulses.last_heard("b"), None);
    }
}
