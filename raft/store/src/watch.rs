//! One watcher: first the changes since its revision, page by page, then what the hub routes to it.
//!
//! Invariant: every change above the start that concerns it comes exactly once, in order of revisions; or the watch is
//! closed and says why. `Progress(r)` means that nothing at or below `r` is still to come. It is not sent by itself
//! while nothing concerns the watcher: it is what `next` finds when asked with nothing else to give.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use kactor_protocol::ids::Revision;
use kactor_state::Change;

use crate::hub::{Interest, LabelOf, Mailbox, concerns};
use crate::table::Table;

/// Changes looked at per read lock while catching up.
const CATCH_UP_LEN: usize = 1024;

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    Change(Arc<Change>),
    /// Everything up to here was delivered.
    Progress(Revision),
}

/// Why a watch ended. The client resumes at its last revision, except after `Compacted` and `Restored`: it lists anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchClosed {
    #[error("the watcher read too slowly; resume at the last revision")]
    Slow,
    #[error("the changes after the watcher's revision are compacted; list again")]
    Compacted,
    #[error("the store stopped")]
    Stopped,
    #[error("the state was restored; list again")]
    Restored,
}

/// A stream of changes under a prefix.
pub struct Watch {
    table: Arc<Table>,
    interest: Interest,
    label_of: Option<LabelOf>,
    mailbox: Arc<Mailbox>,
    /// Set once the hub feeds the mailbox.
    live: Option<u64>,
    backlog: VecDeque<Arc<Change>>,
    /// Looked through up to here, while catching up.
    looked: Revision,
    epoch: u64,
    /// Told the watcher up to here.
    told: Revision,
}

impl Watch {
    pub(crate) fn new(
        table: Arc<Table>,
        interest: Interest,
        label_of: Option<LabelOf>,
        after: Revision,
    ) -> Self {
        let epoch = table.read().epoch();
        Self {
            table,
            interest,
            label_of,
            mailbox: Arc::default(),
            live: None,
            backlog: VecDeque::new(),
            looked: after,
            epoch,
            told: after,
        }
    }

    /// The next item. Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<WatchItem, WatchClosed> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchItem, WatchClosed>> {
        if let Some(change) = self.backlog.pop_front() {
            return Poll::Ready(Ok(self.tell(change)));
        }
        if self.live.is_none() {
            self.catch_up()?;
            if let Some(change) = self.backlog.pop_front() {
                return Poll::Ready(Ok(self.tell(change)));
            }
        }
        // Before the mailbox is looked at: what is offered later is not covered by it.
        let offered = self.table.hub().offered;
        let mailbox = self.mailbox.clone();
        let mut inner = mailbox.lock();
        while let Some(change) = inner.queue.pop_front() {
            // A watch from a revision that was still to come skips what comes below it.
            if change.revision > self.told {
                return Poll::Ready(Ok(self.tell(change)));
            }
        }
        if let Some(why) = inner.closed {
            return Poll::Ready(Err(why));
        }
        if offered > self.told {
            self.told = offered;
            return Poll::Ready(Ok(WatchItem::Progress(offered)));
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn tell(&mut self, change: Arc<Change>) -> WatchItem {
        assert!(change.revision > self.told, "a watch never goes back");
        self.told = change.revision;
        WatchItem::Change(change)
    }

    /// Looks through the retained changes until one concerns us or the hub takes over.
    fn catch_up(&mut self) -> Result<(), WatchClosed> {
        if self.table.is_stopped() {
            return Err(WatchClosed::Stopped);
        }
        while self.backlog.is_empty() && self.live.is_none() {
            let table = self.table.clone();
            // Held while joining the hub: nothing can be applied between the last page and the first offer.
            let state = table.read();
            if state.epoch() != self.epoch {
                return Err(WatchClosed::Restored);
            }
            let page = state
                .changes_after(self.looked, CATCH_UP_LEN)
                .map_err(|_| WatchClosed::Compacted)?;
            match page.last() {
                Some(last) => self.looked = last.revision,
                None => {
                    let seen = self.looked.max(state.revision());
                    self.live = table.join(seen, &self.interest, &self.mailbox);
                }
            }
            let ours =
                page.into_iter().filter(|it| concerns(&self.interest, self.label_of.as_ref(), it));
            self.backlog.extend(ours.map(Arc::new));
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(id) = self.live {
            self.table.hub().remove(&self.interest, id);
        }
    }
}
