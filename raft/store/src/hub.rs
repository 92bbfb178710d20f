//! Routes each change to the watchers that it concerns.
//!
//! A watcher stands under its prefix; a key has four prefixes that watchers use (all, resource, namespace, the key
//! itself), so a change costs four lookups whatever the number of watchers. Watchers of a label (the pods of a node)
//! stand under (prefix, label); the label of both sides of a change is computed once. Buffers are bounded: who does
//! not read is closed `Slow` and resumes by its revision.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use kactor_protocol::ids::Revision;
use kactor_state::{Change, Stored};

use crate::watch::WatchClosed;

/// Changes that wait for a watcher before it is closed as too slow.
pub const WATCH_BUFFER_LEN_MAX: usize = 4096;

/// The label of an object under an indexed prefix, such as a pod's node.
pub type LabelOf = Arc<dyn Fn(&Stored) -> Option<Arc<str>> + Send + Sync>;

/// What a watcher wants to see.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interest {
    pub prefix: Arc<str>,
    pub label: Option<Arc<str>>,
}

/// A watcher's buffer; the hub fills it, the watch drains it.
#[derive(Default)]
pub(crate) struct Mailbox {
    inner: Mutex<MailboxInner>,
}

#[derive(Default)]
pub(crate) struct MailboxInner {
    pub queue: VecDeque<Arc<Change>>,
    pub closed: Option<WatchClosed>,
    pub waker: Option<Waker>,
}

impl Mailbox {
    pub fn lock(&self) -> MutexGuard<'_, MailboxInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self, change: &Arc<Change>, wakers: &mut Vec<Waker>) {
        let mut inner = self.lock();
        if inner.closed.is_some() {
            return;
        }
        if inner.queue.len() >= WATCH_BUFFER_LEN_MAX {
            inner.queue = VecDeque::new();
            inner.closed = Some(WatchClosed::Slow);
        } else {
            inner.queue.push_back(change.clone());
        }
        wakers.extend(inner.waker.take());
    }

    fn close(&self, why: WatchClosed, wakers: &mut Vec<Waker>) {
        let mut inner = self.lock();
        inner.closed.get_or_insert(why);
        wakers.extend(inner.waker.take());
    }
}

/// All live watchers.
#[derive(Default)]
pub(crate) struct Hub {
    next_id: u64,
    by_interest: BTreeMap<Interest, BTreeMap<u64, Arc<Mailbox>>>,
    /// Watchers whose prefix ends inside a part of the key: looked at one by one.
    n_odd: usize,
    labels: BTreeMap<Arc<str>, LabelOf>,
    /// Everything up to here was offered.
    pub offered: Revision,
}

impl Hub {
    pub fn new(offered: Revision) -> Self {
        Self { offered, ..Self::default() }
    }

    pub fn set_label(&mut self, prefix: &str, label_of: LabelOf) {
        self.labels.insert(prefix.into(), label_of);
    }

    pub fn label_of(&self, prefix: &str) -> Option<LabelOf> {
        self.labels.get(prefix).cloned()
    }

    pub fn add(&mut self, interest: Interest, mailbox: Arc<Mailbox>) -> u64 {
        self.next_id += 1;
        self.n_odd += usize::from(is_odd(&interest.prefix));
        self.by_interest.entry(interest).or_default().insert(self.next_id, mailbox);
        self.next_id
    }

    pub fn remove(&mut self, interest: &Interest, id: u64) {
        let Some(watchers) = self.by_interest.get_mut(interest) else { return };
        if watchers.remove(&id).is_some() {
            self.n_odd -= usize::from(is_odd(&interest.prefix));
        }
        if watchers.is_empty() {
            self.by_interest.remove(interest);
        }
    }

    pub fn n_watchers(&self) -> usize {
        self.by_interest.values().map(BTreeMap::len).sum()
    }

    pub fn offer(&mut self, change: &Arc<Change>, wakers: &mut Vec<Waker>) {
        self.offered = change.revision;
        if self.by_interest.is_empty() {
            return;
        }
        let key = change.key.as_str();
        for prefix in boundaries(key) {
            self.offer_under(prefix.into(), None, change, wakers);
            if let Some(label_of) = self.labels.get(prefix) {
                let label = |side: &Option<Stored>| side.as_ref().and_then(|it| label_of(it));
                let (before, after) = (label(&change.previous), label(&change.current));
                if before != after {
                    self.offer_label(prefix, before, change, wakers);
                }
                self.offer_label(prefix, after, change, wakers);
            }
        }
        if self.n_odd > 0 {
            let odd = self.by_interest.iter().filter(|(interest, _)| {
                interest.label.is_none()
                    && is_odd(&interest.prefix)
                    && key.starts_with(&*interest.prefix)
                    && *interest.prefix != *key
            });
            for (_, watchers) in odd {
                watchers.values().for_each(|it| it.offer(change, wakers));
            }
        }
    }

    fn offer_label(
        &self,
        prefix: &str,
        label: Option<Arc<str>>,
        change: &Arc<Change>,
        wakers: &mut Vec<Waker>,
    ) {
        if label.is_some() {
            self.offer_under(prefix.into(), label, change, wakers);
        }
    }

    fn offer_under(
        &self,
        prefix: Arc<str>,
        label: Option<Arc<str>>,
        change: &Arc<Change>,
        wakers: &mut Vec<Waker>,
    ) {
        if let Some(watchers) = self.by_interest.get(&Interest { prefix, label }) {
            watchers.values().for_each(|it| it.offer(change, wakers));
        }
    }

    /// Ends every watch.
    pub fn close_all(&mut self, why: WatchClosed, wakers: &mut Vec<Waker>) {
        for watchers in std::mem::take(&mut self.by_interest).into_values() {
            watchers.values().for_each(|it| it.close(why, wakers));
        }
        self.n_odd = 0;
    }
}

/// The prefixes of a key at which watchers stand: all, resource, namespace, key.
fn boundaries(key: &str) -> impl Iterator<Item = &str> {
    let at = |nth: usize| key.match_indices('/').nth(nth).map_or(key.len(), |(at, _)| at + 1);
    [0, at(2), at(3), key.len()].into_iter().map(|end| &key[..end])
}

/// Whether a prefix is none of `boundaries` of any key but itself.
fn is_odd(prefix: &str) -> bool {
    let n_slashes = prefix.matches('/').count();
    let at_boundary = prefix.is_empty() || (prefix.ends_with('/') && matches!(n_slashes, 3 | 4));
    !at_boundary
}

/// Whether a watcher with this interest sees the change.
pub(crate) fn concerns(interest: &Interest, label_of: Option<&LabelOf>, change: &Change) -> bool {
    if !change.key.as_str().starts_with(&*interest.prefix) {
        return false;
    }
    let (Some(label), Some(label_of)) = (&interest.label, label_of) else {
        return interest.label.is_none();
    };
    let has =
        |side: &Option<Stored>| side.as_ref().and_then(|it| label_of(it)).as_ref() == Some(label);
    has(&change.previous) || has(&change.current)
}
