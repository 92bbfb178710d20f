//! What stands in the log: commands, and what applying one says.
//!
//! `Command` is frozen: its encoding stands on disks, so variants are only ever added at the end and never change
//! (`tests/golden`). Every command carries the time its proposer chose; apply has no clock.

use std::sync::Arc;

use kactor_protocol::codec::{self, CodecError};
use kactor_protocol::ids::{Reign, ReplicaId, Revision};
use kactor_protocol::store::{Committed, Key, Propose, ProposeError};
use kactor_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::object::Stored;

/// The highest feature level that this binary applies.
pub const FEATURE_LEVEL_MAX: u32 = 1;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Transact {
        now: Timestamp,
        propose: Propose,
    },
    /// The first command of a new leader: counts its reign, which fences older ones.
    BeginReign {
        now: Timestamp,
        leader: ReplicaId,
    },
    /// Forget what is older than `revision`; reads and watches below it are refused everywhere alike.
    Compact {
        now: Timestamp,
        revision: Revision,
    },
    /// From here on every replica may write what level `level` knows.
    SetFeatureLevel {
        now: Timestamp,
        level: u32,
    },
    /// After a restore: revisions jump, all history is compacted, the reign advances.
    BeginEpoch {
        now: Timestamp,
    },
}

impl Command {
    pub fn now(&self) -> Timestamp {
        match self {
            Command::Transact { now, .. }
            | Command::BeginReign { now, .. }
            | Command::Compact { now, .. }
            | Command::SetFeatureLevel { now, .. }
            | Command::BeginEpoch { now } => *now,
        }
    }

    pub fn encode(&self) -> Result<bytes::Bytes, CodecError> {
        codec::encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }
}

/// One changed key. Readers derive ADDED, MODIFIED and DELETED for their selector from both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub key: Key,
    pub previous: Option<Stored>,
    pub current: Option<Stored>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub outcome: Outcome,
    /// In order of their revisions.
    pub changes: Vec<Arc<Change>>,
    /// Versions that compaction forgot: what a disk may forget too.
    pub forgotten: Vec<(Key, Revision)>,
}

/// What a command says to its proposer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Committed(Committed),
    /// Nothing changed, and why.
    Refused(ProposeError),
    ReignBegan(Reign),
    /// The floor now; a command below it changed nothing.
    Compacted(Revision),
    FeatureLevel(u32),
    EpochBegan {
        epoch: u64,
        revision: Revision,
    },
}

impl Applied {
    pub(crate) fn only(outcome: Outcome) -> Self {
        Self { outcome, changes: Vec::new(), forgotten: Vec::new() }
    }
}
