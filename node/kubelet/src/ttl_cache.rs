//! A bounded map whose entries are forgotten after a while.
//!
//! When it is full the entry that would be forgotten first makes room, so a flood of new keys costs questions to
//! the control plane, never memory.

use std::collections::BTreeMap;
use std::time::Duration;

/// Times are of `Env`'s monotonic clock.
pub struct TtlCache<K, V> {
    entries: BTreeMap<K, (Duration, V)>,
    len_max: usize,
}

impl<K: Ord + Clone, V: Clone> TtlCache<K, V> {
    pub fn new(len_max: usize) -> Self {
        assert!(len_max > 0, "a cache that holds nothing is none");
        Self { entries: BTreeMap::new(), len_max }
    }

    pub fn get(&self, key: &K, now: Duration) -> Option<V> {
        self.entries.get(key).filter(|(until, _)| now < *until).map(|(_, value)| value.clone())
    }

    pub fn put(&mut self, key: K, value: V, until: Duration) {
        if self.entries.len() >= self.len_max && !self.entries.contains_key(&key) {
            let first = self.entries.iter().min_by_key(|(_, (until, _))| *until);
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                self.entries.remove(&first);
            }
        }
        self.entries.insert(key, (until, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn entries_end_and_the_first_to_end_makes_room() {
        let mut cache = TtlCache::new(2);
        cache.put("a", 1, at(10));
        cache.put("b", 2, at(5));
        assert_eq!(cache.get(&"a", at(9)), Some(1));
        assert_eq!(cache.get(&"a", at(10)), None);
        cache.put("c", 3, at(20));
        assert_eq!(cache.get(&"b", at(1)), None, "b would have ended first");
        assert_eq!((cache.get(&"a", at(1)), cache.get(&"c", at(1))), (Some(1), Some(3)));
        cache.put("c", 4, at(30));
        assert_eq!(cache.get(&"a", at(1)), Some(1), "an entry that is there needs no room");
    }
}
