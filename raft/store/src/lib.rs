//! The Store handle: propose, read, watch; and a model log that stands in for openraft.
//!
//! One `Table` holds the state; a `Log` decides what is applied to it and in which order. Readers take a short read
//! lock and share bytes; watchers get changes routed by key, so that a change wakes those it concerns and no others.
//! The log is openraft (kactor-replica) or `ModelLog` here; the apply code is the same.

mod hub;
mod leadership;
mod log;
mod maintenance;
mod members;
mod model_log;
mod store;
mod table;
mod waiters;
mod watch;

pub use hub::{LabelOf, WATCH_BUFFER_LEN_MAX};
pub use kactor_state::{
    Change, Command, Compacted, CompactionPolicy, Outcome, Page, Stored, counter_of,
};
pub use leadership::{Leadership, LeadershipState};
pub use log::{CheckpointStatus, Log, LogStatus, ReadError, StoppedAt, SyncLatency, WriteState};
pub use maintenance::maintain;
pub use members::{MemberProgress, Members, MembersError, MembersState};
pub use model_log::ModelLog;
pub use store::Store;
pub use table::Table;
pub use watch::{Watch, WatchClosed, WatchItem};
