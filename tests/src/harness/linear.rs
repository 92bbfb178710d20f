//! Whether a history of reads and writes of one register could have happened one after the other.
//!
//! Wing and Gong's search with Lowe's cache of (what was taken, the value then), over a list of calls and returns;
//! it knows nothing of revisions, so the store's own order is not believed. A write whose outcome nobody knows may
//! take effect at any later time, or never: it returns at the end of time. Written values must differ, so that a
//! read names its write. References: Wing, Gong 1993; Lowe 2017; the shape is porcupine's.

use std::collections::BTreeSet;
use std::time::Duration;

/// Values are numbers that a test gives out once each; `None` is "not there yet".
pub type Value = Option<u64>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Write(u64),
    Read(Value),
}

/// One call of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub op: Op,
    pub from: Duration,
    /// `None`: the client never learned what became of it. A read of which nothing was learned is not in a history.
    pub until: Option<Duration>,
}

/// Steps of the search, after which the history is too entangled to be judged.
const STEPS_MAX: usize = 20_000_000;

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order explains it; the first call that none could place, as far as the search came.
    Broken {
        at: Call,
    },
    /// Nothing was found in bounded time.
    TooLarge,
}

/// Judges the history of one register that begins as `None`.
pub fn check(history: &[Call]) -> Verdict {
    let mut search = Search::new(history);
    let mut entry = search.next[HEAD];
    let mut furthest = 0;
    for _ in 0..STEPS_MAX {
        if search.next[HEAD] == END || search.open_returns == 0 {
            return Verdict::Linearizable; // What is left nobody saw the end of.
        }
        let call = search.events[entry - 1].call;
        if search.events[entry - 1].is_call {
            match search.take(call, entry) {
                true => entry = search.next[HEAD],
                false => entry = search.next[entry],
            }
            continue;
        }
        // A call returned before all that could come before it was placed: back.
        if search.events[entry - 1].rank > search.events[furthest].rank {
            furthest = entry - 1;
        }
        match search.back() {
            Some(taken) => entry = search.next[taken],
            None => {
                let at = history[search.events[furthest].call].clone();
                return Verdict::Broken { at };
            }
        }
    }
    Verdict::TooLarge
}

const HEAD: usize = 0;
const END: usize = usize::MAX;

struct Event {
    call: usize,
    is_call: bool,
    rank: usize,
}

/// The list of events that are not placed yet: entry `i + 1` is event `i`, entry 0 the head.
struct Search<'a> {
    history: &'a [Call],
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The entry of each call's return; `END` if it has none.
    returns: Vec<usize>,
    /// Returns that are still in the list.
    open_returns: usize,
    value: Value,
    placed: Vec<u64>,
    seen: BTreeSet<(Vec<u64>, Value)>,
    stack: Vec<(usize, Value)>,
}

impl<'a> Search<'a> {
    fn new(history: &'a [Call]) -> Self {
        // At one moment calls come before returns: what touches is concurrent.
        let mut times = Vec::new();
        for (call, it) in history.iter().enumerate() {
            times.push((it.from, false, call));
            times.extend(it.until.map(|until| (until, true, call)));
        }
        times.sort();
        let events: Vec<Event> = times
            .iter()
            .enumerate()
            .map(|(rank, it)| Event { call: it.2, is_call: !it.1, rank })
            .collect();
        let n = events.len();
        let mut next: Vec<usize> = (1..=n).collect();
        next.push(END);
        let previous = (0..=n).map(|it: usize| it.saturating_sub(1)).collect();
        let mut returns = vec![END; history.len()];
        for (at, event) in events.iter().enumerate().filter(|it| !it.1.is_call) {
            returns[event.call] = at + 1;
        }
        Self {
            history,
            open_returns: returns.iter().filter(|it| **it != END).count(),
            events,
            next,
            previous,
            returns,
            value: None,
            placed: vec![0; history.len().div_ceil(64)],
            seen: BTreeSet::new(),
            stack: Vec::new(),
        }
    }

    /// Places the call next, if the value allows it and this was not tried before.
    fn take(&mut self, call: usize, entry: usize) -> bool {
        let after = match self.history[call].op {
            Op::Write(value) => Some(value),
            Op::Read(value) if value == self.value => value,
            Op::Read(_) => return false,
        };
        let bit = 1 << (call % 64);
        self.placed[call / 64] |= bit;
        if !self.seen.insert((self.placed.clone(), after)) {
            self.placed[call / 64] &= !bit;
            return false;
        }
        self.stack.push((entry, self.value));
        self.value = after;
        self.unlink(entry);
        if self.returns[call] != END {
            self.unlink(self.returns[call]);
            self.open_returns -= 1;
        }
        true
    }

    /// Undoes the last placing; its entry, behind which the search goes on.
    fn back(&mut self) -> Option<usize> {
        let (entry, value) = self.stack.pop()?;
        let call = self.events[entry - 1].call;
        self.value = value;
        self.placed[call / 64] &= !(1 << (call % 64));
        if self.returns[call] != END {
            self.relink(self.returns[call]);
            self.open_returns += 1;
        }
        self.relink(entry);
        Some(entry)
    }

    fn unlink(&mut self, entry: usize) {
        let (before, after) = (self.previous[entry], self.next[entry]);
        self.next[before] = after;
        if after != END {
            self.previous[after] = before;
        }
    }

    /// In the reverse order of `unlink`, so its neighbours are what they were.
    fn relink(&mut self, entry: usize) {
        let (before, after) = (self.previous[entry], self.next[entry]);
        self.next[before] = entry;
        if after != END {
            self.previous[after] = entry;
        }
    }
}

#[cfg(test)]
mod tests;
