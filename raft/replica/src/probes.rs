//! Checksums at an exact entry: captured between that entry and the next, where nothing else changes the state.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kactor_protocol::raft::{OBJECT_SUMS_MAX, ObjectSums, RangeSums, StateSums};
use kactor_store::Table;
use tokio::sync::oneshot;

/// Questions that wait at a time.
const PROBES_MAX: usize = 64;
/// Bytes of keys in one answer.
const OBJECT_SUMS_BYTES_MAX: usize = 4 << 20;

#[derive(Default)]
pub(crate) struct Probes(Mutex<BTreeMap<u64, Vec<Probe>>>);

struct Probe {
    range: Option<String>,
    done: oneshot::Sender<StateSums>,
}

impl Probes {
    /// The sums of `range`'s objects, or of all ranges, right after entry `index`; dropped without an answer when too
    /// many wait.
    pub fn ask(
        &self,
        table: &Table,
        index: u64,
        range: Option<String>,
    ) -> oneshot::Receiver<StateSums> {
        let (done, answer) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock, which `applied` takes after each entry: none slips between.
        let applied = table.read().applied_index();
        if applied >= index {
            let _ = done.send(StateSums::Passed { applied });
            return answer;
        }
        for list in waiting.values_mut() {
            list.retain(|it| !it.done.is_closed());
        }
        waiting.retain(|_, list| !list.is_empty());
        if waiting.values().map(Vec::len).sum::<usize>() < PROBES_MAX {
            waiting.entry(index).or_default().push(Probe { range, done });
        }
        answer
    }

    /// Entry `index` was applied a moment ago, by the only one who applies.
    pub fn applied(&self, table: &Table, index: u64) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.first_key_value().is_none_or(|(first, _)| *first > index) {
            return;
        }
        let later = waiting.split_off(&(index + 1));
        let due = std::mem::replace(&mut *waiting, later);
        drop(waiting);
        for (at, probes) in due {
            for probe in probes {
                let sums = match at == index {
                    true => sums(table, probe.range.as_deref()),
                    false => StateSums::Passed { applied: index },
                };
                let _ = probe.done.send(sums);
            }
        }
    }
}

fn sums(table: &Table, range: Option<&str>) -> StateSums {
    let state = table.read();
    let Some(range) = range else {
        let row = |(range, sum): (&String, &kactor_state::RangeSum)| RangeSums {
            range: range.clone(),
            n_objects: sum.n_objects,
            sum: sum.sum,
        };
        return StateSums::Ranges(state.checksums().iter().map(row).collect());
    };
    let mut n_bytes = 0;
    let fits = |it: &kactor_state::ObjectSum| {
        n_bytes += it.key.as_str().len();
        n_bytes <= OBJECT_SUMS_BYTES_MAX
    };
    let row = |it: kactor_state::ObjectSum| ObjectSums {
        key: it.key,
        modified: it.modified,
        hash: it.hash,
    };
    let objects = state.object_sums(range).into_iter().take(OBJECT_SUMS_MAX).take_while(fits);
    StateSums::Objects(objects.map(row).collect())
}
