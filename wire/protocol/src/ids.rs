//! The ids of the cluster, one newtype each, so that a revision can't be passed where a reign is meant.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The store's one counter: every changed object takes the next one, and it is that object's `resourceVersion`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first change.
    pub const ZERO: Revision = Revision(0);

    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

/// Counts leaderships in the log; what a leader actor proposes is refused once a later reign began.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Reign(pub u64);

/// A member of the raft group. It belongs to a data directory, not to an address; never used again once removed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ReplicaId(pub u64);

/// Ties together all messages that one request, timer or event led to. 0 means "not traced".
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct TraceId(pub u64);

impl TraceId {
    pub const NONE: TraceId = TraceId(0);
}

/// Printed as 16 hexadecimal digits, which is also what `kactor trace` takes.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for TraceId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(TraceId)
    }
}

/// A message type's stable number (`message.rs` holds the table). Never used again once given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub u16);

/// Names one message on the host that sent it, so that what it leads to can say its cause. 0 means "none".
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LetterId(pub u64);

impl LetterId {
    pub const NONE: LetterId = LetterId(0);
}

/// `metadata.uid`: names one life of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub Arc<str>);

impl Uid {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

macro_rules! display_inner {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

display_inner!(Revision, Reign, ReplicaId, MessageId, LetterId, Uid);
