//! The one view of a control host, kept warm from the store's watch feed, and who is told of its changes.
//!
//! Every object goes into it, on leaders and followers alike; leadership only switches proposing on. A subscriber's
//! changes are kept for it up to a bound; beyond that it is told to look at everything, which is always right, because
//! deciders are level-triggered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kactor_protocol::Revision;
use kactor_protocol::store::Key;
use kactor_store::{Store, Stored, WatchClosed, WatchItem};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::view::{Changed, ClusterView, Current};

/// Changes kept for one subscriber that does not ask.
const PENDING_MAX: usize = 8192;
/// Objects of one page while everything is read.
const PAGE_LEN: usize = 512;

/// How a stored value becomes JSON: the composition root knows the keys of what is encrypted. `None`: unreadable.
pub type Open = Arc<dyn Fn(&Stored) -> Option<Value> + Send + Sync>;

/// Plain JSON alone.
pub fn open_plain() -> Open {
    Arc::new(|stored| serde_json::from_slice(&stored.value.body).ok())
}

/// What a subscriber missed since it last asked.
#[derive(Debug)]
pub enum Batch {
    Changes(Vec<Changed>),
    /// Too much, or everything was read anew: look at all.
    Everything,
}

/// A clone is the same view.
#[derive(Clone)]
pub struct SharedView {
    shared: Arc<Shared>,
}

struct Shared {
    view: Mutex<Arc<ClusterView>>,
    reached: watch::Sender<Revision>,
    inboxes: Mutex<Vec<Arc<Inbox>>>,
}

#[derive(Default)]
struct Inbox {
    pending: Mutex<Pending>,
    ready: Notify,
}

#[derive(Default)]
struct Pending {
    changes: Vec<Changed>,
    missed: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for SharedView {
    fn default() -> Self {
        let shared = Shared {
            view: Mutex::default(),
            reached: watch::Sender::new(Revision::ZERO),
            inboxes: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl SharedView {
    /// The view as it is. Holding it makes the next change copy pointers: do not hold it across waits.
    pub fn snapshot(&self) -> Arc<ClusterView> {
        locked(&self.shared.view).clone()
    }

    /// Completes when the view is at `revision` or later.
    pub async fn reached(&self, revision: Revision) {
        let mut reached = self.shared.reached.subscribe();
        // The sender lives in `self`, so it cannot be gone.
        let _ = reached.wait_for(|it| *it >= revision).await;
    }

    /// From now on; the first batch is everything.
    pub fn subscribe(&self) -> Subscription {
        let inbox = Arc::new(Inbox::default());
        locked(&inbox.pending).missed = true;
        inbox.ready.notify_one();
        locked(&self.shared.inboxes).push(inbox.clone());
        Subscription { shared: self.shared.clone(), inbox }
    }

    /// Follows the store until it stops. The only writer of the view.
    pub async fn follow(self, store: Store, open: Open) {
        loop {
            let Some(revision) = self.read_everything(&store, &open) else {
                continue; // it was compacted while it was read
            };
            let Ok(mut watch) = store.watch("/", revision) else { continue };
            let closed = loop {
                match watch.next().await {
                    Ok(WatchItem::Change(change)) => {
                        self.apply(change.revision, &change.key, change.current.as_ref(), &open);
                    }
                    Ok(WatchItem::Progress(revision)) => self.advance(revision),
                    Err(closed) => break closed,
                }
            };
            if closed == WatchClosed::Stopped {
                return;
            }
        }
    }

    fn read_everything(&self, store: &Store, open: &Open) -> Option<Revision> {
        let revision = store.revision();
        let mut view = ClusterView::default();
        let mut after: Option<Key> = None;
        loop {
            let page = store.range("/", after.as_ref(), PAGE_LEN, Some(revision)).ok()?;
            for stored in &page.items {
                take(&mut view, revision, &stored.key, Some(stored), open);
            }
            match page.items.last() {
                Some(last) if page.remaining > 0 => after = Some(last.key.clone()),
                _ => break,
            }
        }
        view.advance(revision);
        *locked(&self.shared.view) = Arc::new(view);
        for inbox in locked(&self.shared.inboxes).iter() {
            let mut pending = locked(&inbox.pending);
            pending.changes.clear();
            pending.missed = true;
            inbox.ready.notify_one();
        }
        self.shared.reached.send_replace(revision);
        Some(revision)
    }

    fn apply(&self, revision: Revision, key: &Key, current: Option<&Stored>, open: &Open) {
        let changed = {
            let mut view = locked(&self.shared.view);
            take(Arc::make_mut(&mut view), revision, key, current, open)
        };
        for inbox in locked(&self.shared.inboxes).iter() {
            let mut pending = locked(&inbox.pending);
            if pending.changes.len() == PENDING_MAX {
                pending.changes.clear();
                pending.missed = true;
            }
            if !pending.missed {
                pending.changes.push(changed.clone());
            }
            inbox.ready.notify_one();
        }
        self.shared.reached.send_replace(revision);
    }

    fn advance(&self, revision: Revision) {
        Arc::make_mut(&mut locked(&self.shared.view)).advance(revision);
        self.shared.reached.send_replace(revision);
    }
}

fn take(
    view: &mut ClusterView,
    revision: Revision,
    key: &Key,
    current: Option<&Stored>,
    open: &Open,
) -> Changed {
    // What cannot be read is still there, with its revision and without any field.
    let body = current.map(|it| open(it).unwrap_or(Value::Null));
    let current = current.zip(body.as_ref()).map(|(stored, body)| Current {
        uid: &stored.value.uid,
        modified: stored.modified,
        body,
    });
    view.apply(revision, key, current)
}

/// One subscriber's place in the feed; dropping it ends it.
pub struct Subscription {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
}

impl Subscription {
    /// What changed since the last call; waits until something did. Cancel-safe.
    pub async fn next(&self) -> Batch {
        loop {
            {
                let mut pending = locked(&self.inbox.pending);
                if std::mem::take(&mut pending.missed) {
                    pending.changes.clear();
                    return Batch::Everything;
                }
                if !pending.changes.is_empty() {
                    return Batch::Changes(std::mem::take(&mut pending.changes));
                }
            }
            self.inbox.ready.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        locked(&self.shared.inboxes).retain(|it| !Arc::ptr_eq(it, &self.inbox));
    }
}
