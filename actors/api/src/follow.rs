//! Follows a part of the store from inside a synchronous function: whatever was applied is taken in before the answer.
//!
//! Policy and the node graph must be as new as the store they judge for, and a task that copies changes would
//! always lag a little. So the one who asks drains the watch first, without waiting. A watch that fell behind
//! is replaced by a new list, so the mirror is right after every `drain`, however long nobody asked.

use futures::FutureExt;
use kactor_protocol::store::Key;
use kactor_store::{Store, Stored, Watch, WatchItem};

/// Objects taken from the store per call when a mirror is filled anew.
const PAGE_LEN: usize = 1000;

pub(crate) struct Follower {
    prefix: String,
    watch: Option<Watch>,
}

/// One change of what is followed.
pub(crate) enum Step<'a> {
    /// Forget everything: what stands follows as `Put`.
    Reset,
    Put(&'a Stored),
    Gone(&'a Key),
}

impl Follower {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), watch: None }
    }

    /// Hands all changes since the last call to `take`.
    pub fn drain(&mut self, store: &Store, mut take: impl FnMut(Step<'_>)) {
        if self.watch.is_none() {
            self.refill(store, &mut take);
        }
        while let Some(watch) = &mut self.watch {
            match watch.next().now_or_never() {
                None => return,
                Some(Ok(WatchItem::Change(change))) => match &change.current {
                    Some(current) => take(Step::Put(current)),
                    None => take(Step::Gone(&change.key)),
                },
                Some(Ok(WatchItem::Progress(_))) => {}
                Some(Err(_)) => {
                    self.watch = None;
                    self.refill(store, &mut take);
                }
            }
        }
    }

    fn refill(&mut self, store: &Store, take: &mut impl FnMut(Step<'_>)) {
        let at = store.revision();
        take(Step::Reset);
        let mut after: Option<Key> = None;
        // Pages are of one revision; a compaction past it in between is the only refusal, and the next call repairs it.
        while let Ok(page) = store.range(&self.prefix, after.as_ref(), PAGE_LEN, Some(at)) {
            page.items.iter().for_each(|it| take(Step::Put(it)));
            after = page.items.last().map(|it| it.key.clone());
            if page.remaining == 0 {
                self.watch = store.watch(&self.prefix, at).ok();
                return;
            }
        }
    }
}
