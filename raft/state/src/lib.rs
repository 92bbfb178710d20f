//! The replicated MVCC state machine: pure, no async, no clock, no Kubernetes.
//!
//! `ClusterState::apply(index, Command) -> Applied` is total and deterministic: every replica that applied the same
//! commands is equal, and no command makes it panic. Snapshot formats and their migrations sit in `snapshot.rs`.

mod checksum;
mod command;
mod compaction;
mod object;
mod record;
mod snapshot;
mod state;
mod transaction;

pub use checksum::{Difference, ObjectSum, RangeSum, first_difference};
pub use command::{Applied, Change, Command, FEATURE_LEVEL_MAX, Outcome};
pub use compaction::{CompactionPolicy, EXPIRED_PER_PASS_MAX};
pub use object::{Stored, Version, counter_of};
pub use record::{MetaRecord, RecordError, VersionRecord};
pub use snapshot::{
    CHUNK_BYTES, SNAPSHOT_FORMAT, SnapshotError, SnapshotReader, SnapshotWriter, decode_snapshot,
};
pub use state::{ClusterState, Compacted, EPOCH_STEP, Page};
