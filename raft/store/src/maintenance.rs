//! What the leader proposes by itself: deleting what expired, and compacting the past. The plans are pure
//! (`kactor_state::compaction`); this shell decides when. A follower's turn does nothing, an idle leader's neither.

use std::time::Duration;

use kactor_protocol::time::Deadline;
use kactor_state::{Command, CompactionPolicy};

use crate::store::Store;

/// Between two looks, unless something expires earlier.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const EXPIRY_PAUSE_MIN: Duration = Duration::from_millis(500);
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until it is aborted.
pub async fn maintain(store: Store, policy: CompactionPolicy) {
    loop {
        let now = store.env().wall();
        let until_expiry = store.table().read().next_expiry().map(|at| at.since(now));
        let pause = until_expiry.unwrap_or(LOOK_EVERY).clamp(EXPIRY_PAUSE_MIN, LOOK_EVERY);
        store.env().sleep(pause).await;
        if store.leadership().current().ours.is_some() {
            look(&store, &policy).await;
        }
    }
}

/// One turn of the leader. A refusal is no trouble: the next turn plans anew.
async fn look(store: &Store, policy: &CompactionPolicy) {
    let now = store.env().wall();
    let deadline = Deadline::after(store.env().monotonic(), PROPOSE_TIMEOUT);
    let expired = store.table().read().plan_expiry(now);
    let deletions = expired.into_iter().map(|it| store.propose(it, deadline));
    futures::future::join_all(deletions).await;
    let floor = store.table().read().plan_compaction(policy, now);
    if let Some(revision) = floor {
        let _ = store.submit(Command::Compact { now, revision }, deadline).await;
    }
}
