//! One file's bytes as a crash sees them: what is durable, what the cache holds, sector by sector.

use std::collections::BTreeSet;

use crate::chance::Chance;

/// What a disk writes as a whole.
pub const SECTOR_BYTES: usize = 512;

/// Whether a crash may leave half a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torn {
    /// Any subset of unsynced sectors is written, each as a whole.
    BetweenSectors,
    /// A sector may also be cut: new bytes up to some point, old ones behind.
    InsideSectors,
}

/// What a sync will make durable once it completes.
pub(crate) struct Snapshot {
    sectors: Vec<(usize, Vec<u8>)>,
    len: usize,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Sectors {
    /// What reads see.
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ, or may differ, from the durable ones.
    dirty: BTreeSet<usize>,
}

impl Sectors {
    pub(crate) fn len(&self) -> usize {
        self.cached.len()
    }

    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) -> usize {
        let rest = self.cached.get(offset..).unwrap_or_default();
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        n
    }

    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if end > self.cached.len() {
            self.set_len(end);
        }
        self.cached[offset..end].copy_from_slice(data);
        self.touch(offset, end);
    }

    pub(crate) fn set_len(&mut self, len: usize) {
        let before = self.cached.len();
        self.cached.resize(len, 0);
        self.touch(before.min(len), before.max(len));
    }

    fn touch(&mut self, from: usize, to: usize) {
        if from < to {
            self.dirty.extend(from / SECTOR_BYTES..=(to - 1) / SECTOR_BYTES);
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let sectors = self.dirty.iter().map(|it| (*it, sector(&self.cached, *it).to_vec()));
        Snapshot { sectors: sectors.collect(), len: self.cached.len() }
    }

    /// A sync that began at `snapshot` completes. What was written since stays unsynced.
    pub(crate) fn synced(&mut self, snapshot: Snapshot) {
        self.durable.resize(snapshot.len, 0);
        for (nth, bytes) in snapshot.sectors {
            let at = nth * SECTOR_BYTES;
            if at + bytes.len() <= self.durable.len() {
                self.durable[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            if sector(&self.cached, nth) == bytes {
                self.dirty.remove(&nth);
            }
        }
    }

    /// A sync failed: the cache forgets that these sectors are unsynced (as Linux does), some were written, some not.
    pub(crate) fn sync_failed(&mut self, chance: &Chance) {
        for nth in std::mem::take(&mut self.dirty) {
            if chance.happens(50) {
                self.persist(nth, SECTOR_BYTES);
            }
        }
    }

    /// The power goes. Durable bytes stay; each unsynced sector is there or not, and so is the new length.
    pub(crate) fn crash(&mut self, chance: &Chance, torn: Torn) {
        let len_before = self.durable.len();
        for nth in std::mem::take(&mut self.dirty) {
            match chance.below(3) {
                0 => {}
                1 if torn == Torn::InsideSectors => {
                    let n_bytes = chance.below(SECTOR_BYTES as u64) as usize;
                    self.persist(nth, n_bytes);
                }
                _ => self.persist(nth, SECTOR_BYTES),
            }
        }
        let cached_len = self.cached.len();
        if chance.happens(50) && cached_len != len_before {
            // The new length, with zeroes where nothing was written; or, after a truncation, the cut.
            self.durable.resize(cached_len, 0);
        }
        self.cached = self.durable.clone();
    }

    /// The first `n_bytes` of a cached sector reach the disk; the length grows as far as that needs.
    fn persist(&mut self, nth: usize, n_bytes: usize) {
        let bytes = sector(&self.cached, nth);
        let (at, n) = (nth * SECTOR_BYTES, bytes.len().min(n_bytes));
        if n == 0 {
            return;
        }
        if self.durable.len() < at + n {
            self.durable.resize(at + n, 0);
        }
        self.durable[at..at + n].copy_from_slice(&self.cached[at..at + n]);
    }

    /// Damages the medium: the durable byte and the cached one.
    pub(crate) fn flip(&mut self, offset: usize, bit: u32) {
        for bytes in [&mut self.cached, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}

fn sector(bytes: &[u8], nth: usize) -> &[u8] {
    let at = (nth * SECTOR_BYTES).min(bytes.len());
    &bytes[at..bytes.len().min(at + SECTOR_BYTES)]
}
