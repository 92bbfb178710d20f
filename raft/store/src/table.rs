//! The state that is read and watched, and the one place where commands are applied to it.
//!
//! Lock order: state, then hub. Both are held for as long as a change is applied or a page is read, never across an
//! await. Watchers are woken after both are released. A change is in every watcher's buffer when `apply` returns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::task::Waker;

use kactor_protocol::ids::Revision;
use kactor_state::{Applied, ClusterState, Command, Outcome};
use tokio::sync::watch;

use crate::hub::{Hub, Interest, Mailbox};
use crate::leadership::{Leadership, LeadershipState};
use crate::log::ReadError;
use crate::waiters::Waiters;
use crate::watch::WatchClosed;

/// The replicated state in this process. One log applies to it; everybody reads.
pub struct Table {
    state: RwLock<ClusterState>,
    hub: Mutex<Hub>,
    waiters: Mutex<Progress>,
    leadership: watch::Sender<LeadershipState>,
}

#[derive(Default)]
struct Progress {
    stopped: bool,
    by_revision: Waiters,
    by_index: Waiters,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    Revision(Revision),
    Index(u64),
}

impl Table {
    pub fn new(state: ClusterState) -> Arc<Self> {
        let hub = Hub::new(state.revision());
        Arc::new(Self {
            state: RwLock::new(state),
            hub: Mutex::new(hub),
            waiters: Mutex::default(),
            leadership: watch::Sender::new(LeadershipState::default()),
        })
    }

    /// Applies the log's entry `index`, feeds the watchers, and wakes who waited for it.
    pub fn apply(&self, index: u64, command: Command) -> Applied {
        let mut wakers = Vec::new();
        let (applied, revision) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let applied = state.apply(index, command);
            let mut hub = self.hub();
            for change in &applied.changes {
                hub.offer(change, &mut wakers);
            }
            hub.offered = state.revision();
            if matches!(applied.outcome, Outcome::EpochBegan { .. }) {
                hub.close_all(WatchClosed::Restored, &mut wakers);
            }
            (applied, state.revision())
        };
        self.wake(index, revision, wakers);
        applied
    }

    /// An entry that holds no command.
    pub fn skip(&self, index: u64) {
        let revision = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.skip(index);
            state.revision()
        };
        self.wake(index, revision, Vec::new());
    }

    /// Puts a snapshot in the state's place. Watchers go on where it holds what they have not seen; else they are
    /// closed: `Restored` in another epoch, `Compacted` when the changes between are gone.
    pub fn install(&self, new: ClusterState) {
        let mut wakers = Vec::new();
        let (index, revision) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let mut hub = self.hub();
            if new.epoch() != state.epoch() || new.revision() < hub.offered {
                hub.close_all(WatchClosed::Restored, &mut wakers);
            } else {
                match new.changes_after(hub.offered, usize::MAX) {
                    Ok(changes) => {
                        for change in changes {
                            hub.offer(&Arc::new(change), &mut wakers);
                        }
                    }
                    Err(_) => hub.close_all(WatchClosed::Compacted, &mut wakers),
                }
            }
            hub.offered = new.revision();
            *state = new;
            (state.applied_index(), state.revision())
        };
        self.wake(index, revision, wakers);
    }

    /// Nothing is applied any more: watches end, and waiting readers fail.
    pub fn stop(&self) {
        let mut wakers = Vec::new();
        self.hub().close_all(WatchClosed::Stopped, &mut wakers);
        {
            let mut progress = self.progress();
            progress.stopped = true;
            wakers.extend(progress.by_revision.take_all());
            wakers.extend(progress.by_index.take_all());
        }
        self.set_leadership(LeadershipState::default());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Told by the log; observers wake only when it differs.
    pub fn set_leadership(&self, state: LeadershipState) {
        self.leadership.send_if_modified(|current| {
            let differs = *current != state;
            *current = state;
            differs
        });
    }

    pub fn leadership(&self) -> Leadership {
        Leadership::new(self.leadership.subscribe())
    }

    /// A short look at the state; nothing is applied meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn n_watchers(&self) -> usize {
        self.hub().n_watchers()
    }

    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.progress().stopped
    }

    fn wake(&self, index: u64, revision: Revision, mut wakers: Vec<Waker>) {
        {
            let mut progress = self.progress();
            wakers.extend(progress.by_revision.take(revision.0));
            wakers.extend(progress.by_index.take(index));
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Starts to feed `mailbox`, if the watcher has seen everything that was offered before.
    pub(crate) fn join(
        &self,
        seen: Revision,
        interest: &Interest,
        mailbox: &Arc<Mailbox>,
    ) -> Option<u64> {
        let mut hub = self.hub();
        (seen >= hub.offered).then(|| hub.add(interest.clone(), mailbox.clone()))
    }

    /// Waits until `revision` is applied.
    pub async fn until_applied(self: &Arc<Self>, revision: Revision) -> Result<(), ReadError> {
        self.reach(Reached::Revision(revision)).await
    }

    /// Waits until the log's entry `index` is applied.
    pub async fn until_index(self: &Arc<Self>, index: u64) -> Result<(), ReadError> {
        self.reach(Reached::Index(index)).await
    }

    pub(crate) async fn reach(self: &Arc<Self>, goal: Reached) -> Result<(), ReadError> {
        let mut waiting = Waiting { table: self, goal, id: None };
        std::future::poll_fn(|context| waiting.poll(context.waker())).await
    }

    fn has_reached(&self, goal: Reached) -> bool {
        let state = self.read();
        match goal {
            Reached::Revision(revision) => state.revision() >= revision,
            Reached::Index(index) => state.applied_index() >= index,
        }
    }
}

struct Waiting<'a> {
    table: &'a Table,
    goal: Reached,
    id: Option<u64>,
}

impl Waiting<'_> {
    fn poll(&mut self, waker: &Waker) -> std::task::Poll<Result<(), ReadError>> {
        use std::task::Poll;
        if self.table.has_reached(self.goal) {
            return Poll::Ready(Ok(()));
        }
        {
            let mut progress = self.table.progress();
            if progress.stopped {
                return Poll::Ready(Err(ReadError::Stopped));
            }
            let (waiters, number) = progress.of(self.goal);
            self.id = Some(waiters.wait(number, self.id, waker.clone()));
        }
        // It may have been reached between the look and the registration.
        if self.table.has_reached(self.goal) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut progress = self.table.progress();
            let (waiters, number) = progress.of(self.goal);
            waiters.forget(number, id);
        }
    }
}

impl Progress {
    fn of(&mut self, goal: Reached) -> (&mut Waiters, u64) {
        match goal {
            Reached::Revision(revision) => (&mut self.by_revision, revision.0),
            Reached::Index(index) => (&mut self.by_index, index),
        }
    }
}
