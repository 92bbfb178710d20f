//! What this replica found wrong with others: entries that one of them lost, objects in which one of them differs.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shown in `LogStatus.trouble` until the other replica is right again.
#[derive(Default)]
pub(crate) struct Findings(Mutex<Found>);

#[derive(Default)]
struct Found {
    /// By replica.
    lost: BTreeMap<u64, String>,
    differences: BTreeMap<u64, String>,
}

impl Findings {
    fn locked(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica has not what it once acknowledged to this leader.
    pub fn lost(&self, replica: u64, host: &str, entry: u64) {
        let text = format!(
            "replica {replica} on {host} lost entries that it had acknowledged (entry {entry} is missing): its disk was rolled \
             back or replaced; remove that host's data directory and let it join again"
        );
        if self.locked().lost.insert(replica, text.clone()).is_none() {
            tracing::error!(replica, host, entry, "{text}");
        }
    }

    /// What a comparison of states said of one replica.
    pub fn compared(&self, replica: u64, difference: Option<String>) {
        let mut found = self.locked();
        match difference {
            Some(text) => {
                tracing::error!(replica, "{text}");
                found.differences.insert(replica, text);
            }
            None => {
                found.differences.remove(&replica);
            }
        }
    }

    /// Replicas that no longer belong are nobody's trouble.
    pub fn keep(&self, is_member: impl Fn(u64) -> bool) {
        let mut found = self.locked();
        found.lost.retain(|id, _| is_member(*id));
        found.differences.retain(|id, _| is_member(*id));
    }

    pub fn trouble(&self) -> Option<String> {
        let found = self.locked();
        found.differences.values().chain(found.lost.values()).next().cloned()
    }
}
