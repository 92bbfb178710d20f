//! Checksums of the live state, one per resource, kept up to date by every change.
//!
//! A sum of mixed per-object hashes does not depend on order, so it is updated by subtracting the old object and
//! adding the new one. Replicas compare `RangeSum`s; where one differs they compare `ObjectSum`s and can name the
//! object. This finds bugs and bit flips, not adversaries.

use std::collections::BTreeMap;

use kactor_protocol::ids::Revision;
use kactor_protocol::store::Key;

use crate::object::Stored;
use crate::state::bytes_of;

/// The sum over all live objects of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RangeSum {
    pub n_objects: u64,
    pub sum: u64,
}

/// One object's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSum {
    pub key: Key,
    pub modified: Revision,
    pub hash: u64,
}

/// The first object in which two replicas differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub key: Key,
    pub ours: Option<(Revision, u64)>,
    pub theirs: Option<(Revision, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checksums {
    ranges: BTreeMap<String, RangeSum>,
    /// Bytes of keys and bodies, for who asks what takes the space: no sum that replicas compare.
    sizes: BTreeMap<String, u64>,
}

impl Checksums {
    pub fn replace(&mut self, previous: Option<&Stored>, current: Option<&Stored>) {
        let Some(key) = previous.or(current).map(|it| &it.key) else { return };
        let range = resource_of(key.as_str());
        if !self.ranges.contains_key(range) {
            self.ranges.insert(range.to_owned(), RangeSum::default());
            self.sizes.insert(range.to_owned(), 0);
        }
        let sum = self.ranges.get_mut(range).expect("inserted above");
        let size = self.sizes.get_mut(range).expect("inserted above");
        if let Some(object) = previous {
            sum.n_objects -= 1;
            *size -= bytes_of(object);
            sum.sum = sum.sum.wrapping_sub(hash_of(object));
        }
        if let Some(object) = current {
            sum.n_objects += 1;
            *size += bytes_of(object);
            sum.sum = sum.sum.wrapping_add(hash_of(object));
        }
        if sum.n_objects == 0 {
            assert!(sum.sum == 0, "what was added to an empty range was taken out again");
            self.ranges.remove(range);
            self.sizes.remove(range);
        }
    }

    pub fn size_of(&self, range: &str) -> u64 {
        self.sizes.get(range).copied().unwrap_or(0)
    }

    pub fn ranges(&self) -> &BTreeMap<String, RangeSum> {
        &self.ranges
    }
}

/// `/{group}/{resource}/` of a key.
pub(crate) fn resource_of(key: &str) -> &str {
    let end = key.match_indices('/').nth(2).map_or(key.len(), |(at, _)| at + 1);
    &key[..end]
}

pub(crate) fn hash_of(object: &Stored) -> u64 {
    let value = &object.value;
    let mut head = crc32c::crc32c(object.key.as_str().as_bytes());
    head = crc32c::crc32c_append(head, value.uid.as_str().as_bytes());
    let body = crc32c::crc32c(&value.body);
    let mut hash = mix(u64::from(head) << 32 | u64::from(body));
    for part in [
        object.modified.0,
        object.created.0,
        object.expires_at.map_or(u64::MAX, |it| it.0),
        u64::from(value.storage_version) << 32 | u64::from(value.flags),
        value.body.len() as u64,
    ] {
        hash = mix(hash ^ part);
    }
    hash
}

/// splitmix64's finalizer.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The first object, by key, in which two sorted lists differ.
pub fn first_difference(ours: &[ObjectSum], theirs: &[ObjectSum]) -> Option<Difference> {
    let sums = |list: &[ObjectSum]| -> BTreeMap<Key, (Revision, u64)> {
        list.iter().map(|it| (it.key.clone(), (it.modified, it.hash))).collect()
    };
    let (ours, theirs) = (sums(ours), sums(theirs));
    let key = ours
        .keys()
        .chain(theirs.keys())
        .filter(|key| ours.get(*key) != theirs.get(*key))
        .min()?
        .clone();
    Some(Difference { ours: ours.get(&key).copied(), theirs: theirs.get(&key).copied(), key })
}
