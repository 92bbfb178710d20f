//! What stands under a key: an object, its versions since the last compaction, and a counter's body.
//!
//! Keys, uids and bodies are shared (`Arc`, `Bytes`): a version, the watch feed and every reader hold the same
//! bytes. A key with one version costs no allocation beyond the map's own.

use bytes::Bytes;
use kactor_protocol::ids::{Revision, Uid};
use kactor_protocol::store::{Key, Value};
use kactor_protocol::time::Timestamp;

/// An object as it stands, or stood, under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub key: Key,
    pub value: Value,
    /// The revision at which this life of the object began.
    pub created: Revision,
    /// The revision of this version: its `resourceVersion`.
    pub modified: Revision,
    /// After this the leader proposes its deletion.
    pub expires_at: Option<Timestamp>,
}

/// One step of a key; `object` is `None` where it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub revision: Revision,
    pub object: Option<Stored>,
}

/// All retained versions of a key, oldest first in `older`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    pub newest: Version,
    pub older: Vec<Version>,
}

impl History {
    pub fn new(newest: Version) -> Self {
        Self { newest, older: Vec::new() }
    }

    pub fn push(&mut self, version: Version) {
        assert!(version.revision > self.newest.revision, "revisions of a key only grow");
        self.older.push(std::mem::replace(&mut self.newest, version));
    }

    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &Version> {
        self.older.iter().chain(std::iter::once(&self.newest))
    }

    /// The object at `at`: the newest version that is not after it.
    pub fn at(&self, at: Revision) -> Option<&Stored> {
        self.versions().rev().find(|it| it.revision <= at).and_then(|it| it.object.as_ref())
    }

    /// The version before the one of `revision`, if it is still retained.
    pub fn before(&self, revision: Revision) -> Option<&Version> {
        self.versions().rev().find(|it| it.revision < revision)
    }
}

/// What a counter holds: its value as decimal text, and no uid, which no object lacks.
pub(crate) fn counter_value(count: i64) -> Value {
    Value {
        storage_version: 0,
        flags: 0,
        uid: Uid::from(""),
        body: Bytes::from(count.to_string().into_bytes()),
    }
}

/// The count under a value, or `None` when it holds an object.
pub fn counter_of(value: &Value) -> Option<i64> {
    if !value.uid.as_str().is_empty() {
        return None;
    }
    std::str::from_utf8(&value.body).ok()?.parse().ok()
}
