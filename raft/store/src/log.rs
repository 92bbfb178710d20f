//! The seam between the store and what orders its commands.
//!
//! A log answers `submit` only after the command is durable on a quorum and applied to the table it was made with.

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

/// What `kactor status` and inspection show of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStatus {
    pub replica: ReplicaId,
    pub term: u64,
    pub leader: Option<ReplicaId>,
    pub last_index: u64,
    pub applied_index: u64,
    pub journal_bytes: u64,
    pub n_syncs: u64,
    pub sync_us_last: u64,
    pub sync_us_max: u64,
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
