//! What stands in the journal: frozen mirrors of what openraft keeps, with golden bytes in `tests/golden`.
//!
//! openraft's own types are never serialised: its next version may lay them out otherwise. Terms identify leaders
//! (standard one-leader-per-term ids), so a log id is a term and an index.

use std::collections::{BTreeMap, BTreeSet};

use kactor_state::Command;
use serde::{Deserialize, Serialize};

/// One record of the journal. Append-only: variants are added at the end and never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The first record of every segment: what older segments said and may be gone.
    Head {
        vote: Option<VoteRecord>,
        purged: Option<LogIdRecord>,
    },
    Entry(EntryRecord),
    Vote(VoteRecord),
    /// Entries from this index on were replaced by another leader's.
    Truncate {
        from: u64,
    },
    /// Entries up to this one are in the applied state.
    Purge(LogIdRecord),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogIdRecord {
    pub term: u64,
    pub index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRecord {
    pub term: u64,
    pub voted_for: u64,
    pub committed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRecord {
    pub id: LogIdRecord,
    pub payload: PayloadRecord,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadRecord {
    Blank,
    Command(Command),
    Membership(MembershipRecord),
}

/// Voters (two sets while they change) and the addresses of all members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MembershipRecord {
    pub voters: Vec<BTreeSet<u64>>,
    pub addresses: BTreeMap<u64, String>,
}
