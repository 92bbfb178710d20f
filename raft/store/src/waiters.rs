//! Readers that wait until the table has come far enough. Woken in order of what they wait for, and only when it is there.

use std::collections::BTreeMap;
use std::task::Waker;

/// Tasks by the number they wait for.
#[derive(Default)]
pub(crate) struct Waiters {
    next_id: u64,
    waiting: BTreeMap<(u64, u64), Waker>,
}

impl Waiters {
    /// Registers or renews; the id identifies the waiter from then on.
    pub fn wait(&mut self, number: u64, id: Option<u64>, waker: Waker) -> u64 {
        let id = id.unwrap_or_else(|| {
            self.next_id += 1;
            self.next_id
        });
        self.waiting.insert((number, id), waker);
        id
    }

    pub fn forget(&mut self, number: u64, id: u64) {
        self.waiting.remove(&(number, id));
    }

    /// Takes those that wait for `reached` or less.
    pub fn take(&mut self, reached: u64) -> Vec<Waker> {
        let later = self.waiting.split_off(&(reached.saturating_add(1), 0));
        std::mem::replace(&mut self.waiting, later).into_values().collect()
    }

    pub fn take_all(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}
