//! One replica: openraft glue, journal, sled, snapshots.
//!
//! The only home of openraft and sled. Acknowledgements come from the journal (`journal.rs`, through `Env`'s disk); the
//! applied state lies in sled (`applied.rs`), written off that path; the shared `Table` of kactor-store is what entries are
//! applied to. Above it everything sees a `kactor_store::Store`.

pub mod applied;
mod compare;
pub mod data_dir;
mod findings;
mod forward;
pub mod journal;
mod letters;
mod log_store;
mod members;
mod message_transport;
mod network;
mod probes;
mod quorum;
pub mod raft_actor;
mod raft_log;
mod raft_types;
mod receiving;
pub mod record;
mod replica;
mod report;
pub mod snapshot_file;
mod snapshot_intake;
mod space;
mod state_machine;
pub mod store_actor;
mod writer;

pub use compare::{CompareError, Comparison};
pub use message_transport::MessageTransport;
pub use network::{Chunks, NoPeers, Peer, RaftTransport};
pub use raft_types::{Types, Vote};
pub use replica::{Replica, ReplicaConfig, Start, StartError};
pub use report::{kinds, report};
pub use state_machine::{CHECKPOINT_BYTES, SnapshotBody, SnapshotMeta};
