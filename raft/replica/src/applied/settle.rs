//! What of the rows on disk belongs to a checkpoint.
//!
//! sled's atomic batches are not used (they take a lock of the whole process), so a crash leaves rows beside a checkpoint that
//! are none of it: versions of the checkpoint that was being written, all above its revision, and versions that its
//! compaction forgot but nobody removed yet. Both follow from the two revisions alone. The second rule is that of
//! `ClusterState`'s compaction, and needs this order: of one key, older versions are removed first, and never before
//! the checkpoint that forgot them is durable; and a deletion is written even if it is forgotten by then. So what is
//! left of a key's garbage ends with its newest version, which says whether the key lives.

use kactor_protocol::ids::Revision;
use kactor_protocol::store::Key;
use kactor_state::{MetaRecord, VersionRecord};

/// Rows sorted by what they are, each in the order of the disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub kept: Vec<VersionRecord>,
    /// Of a later checkpoint, which was cut short.
    pub unborn: Vec<(Key, Revision)>,
    /// Forgotten, and not removed yet.
    pub forgotten: Vec<(Key, Revision)>,
}

/// Takes rows by key, oldest first.
pub(super) struct Settling {
    floor: Revision,
    newest: Revision,
    settled: Settled,
    /// The newest version at or below the floor of the key that is being read.
    at_floor: Option<VersionRecord>,
}

impl Settling {
    pub fn new(meta: &MetaRecord) -> Self {
        Self {
            floor: meta.compacted,
            newest: meta.revision,
            settled: Settled::default(),
            at_floor: None,
        }
    }

    pub fn take(&mut self, row: VersionRecord) {
        if self.at_floor.as_ref().is_some_and(|it| it.key != row.key) {
            self.settle_floor();
        }
        if row.revision > self.newest {
            self.settled.unborn.push((row.key, row.revision));
        } else if row.revision > self.floor {
            self.settle_floor();
            self.settled.kept.push(row);
        } else if let Some(older) = self.at_floor.replace(row) {
            self.settled.forgotten.push((older.key, older.revision));
        }
    }

    pub fn finish(mut self) -> Settled {
        self.settle_floor();
        self.settled
    }

    /// A deletion at the floor is the same as nothing.
    fn settle_floor(&mut self) {
        match self.at_floor.take() {
            Some(row) if row.object.is_some() => self.settled.kept.push(row),
            Some(row) => self.settled.forgotten.push((row.key, row.revision)),
            None => {}
        }
    }
}
