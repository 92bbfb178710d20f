//! The seam between the store and what orders its commands.
//!
//! A log answers `submit` only after the command is durable on a quorum and applied to the table it was made with.

use std::time::Duration;

use async_trait::async_trait;
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::store::ProposeError;
use kactor_protocol::time::Deadline;
use kactor_state::{Command, Outcome};

/// Why a read could not be confirmed to be current.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no leader is known; quorum may be lost")]
    NoLeader { leader: Option<ReplicaId> },
    #[error("the deadline passed before this replica had caught up")]
    Timeout,
    #[error("the store stopped")]
    Stopped,
}

/// Whether writes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteState {
    Open,
    /// The disk is almost full: reads go on, writes are refused until there is space.
    Full {
        free_bytes: u64,
        reserve_bytes: u64,
    },
    Stopped,
}

/// The applied state on disk: what a restart begins with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckpointStatus {
    /// Everything up to this entry is in it; `None` before the first one.
    pub index: Option<u64>,
    /// Since it was written; `None` when this process wrote none yet.
    pub age: Option<Duration>,
    /// Changes since then that only the journal holds.
    pub pending_bytes: u64,
    pub disk_bytes: u64,
}

/// How long the last syncs took. All zero before the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncLatency {
    /// How many of the last syncs the percentiles are of.
    pub n_recent: u64,
    pub us_p50: u64,
    pub us_p99: u64,
}

/// An entry that could not be applied: the replica stays before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedAt {
    pub index: u64,
    pub cause: String,
}

/// What `kactor status` and inspection show of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStatus {
    pub replica: ReplicaId,
    pub term: u64,
    pub leader: Option<ReplicaId>,
    pub last_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub checkpoint: CheckpointStatus,
    pub journal_bytes: u64,
    pub journal_segments: u64,
    pub n_syncs: u64,
    pub sync_us_last: u64,
    pub sync_us_max: u64,
    pub sync_latency: SyncLatency,
    pub stopped: Option<StoppedAt>,
    pub writes: WriteState,
    /// What is wrong, in a sentence.
    pub trouble: Option<String>,
}

/// Orders commands, makes them durable, and applies them.
#[async_trait]
pub trait Log: Send + Sync {
    /// Appends one command. The caller has checked its shape; the log may give up at `deadline` (`Timeout`).
    async fn submit(&self, command: Command, deadline: Deadline) -> Result<Outcome, ProposeError>;

    /// The index that a read which begins now must have applied to be linearizable.
    async fn read_index(&self, deadline: Deadline) -> Result<u64, ReadError>;

    fn status(&self) -> LogStatus;
}
