//! Who leads, as leader actors and status watch it.

use kactor_protocol::ids::{Reign, ReplicaId};
use tokio::sync::watch;

/// Leadership at one moment, as this replica knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeadershipState {
    pub leader: Option<ReplicaId>,
    /// Set while this replica leads: its `BeginReign` is applied here and a quorum answered lately. Leader actors run
    /// while it is set, and propose with it.
    pub ours: Option<Reign>,
}

/// A view of leadership that can be waited on.
#[derive(Debug, Clone)]
pub struct Leadership {
    seen: watch::Receiver<LeadershipState>,
}

impl Leadership {
    pub(crate) fn new(seen: watch::Receiver<LeadershipState>) -> Self {
        Self { seen }
    }

    pub fn current(&self) -> LeadershipState {
        *self.seen.borrow()
    }

    /// The next state that differs from the one returned last; `None` once the store is gone.
    pub async fn changed(&mut self) -> Option<LeadershipState> {
        self.seen.changed().await.ok()?;
        Some(*self.seen.borrow_and_update())
    }
}
