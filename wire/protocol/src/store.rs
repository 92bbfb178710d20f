//! What is proposed to the log, and what comes back: one transaction, its outcome, its refusals.
//!
//! These structs stand in the log and in golden files: they are append-only, and a change is a new message.
//! `apply` (raft/state) is the only judge of a transaction; the checks here are about shape alone, made before
//! anything is appended.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::{Reign, ReplicaId, Revision, TraceId, Uid};
use crate::time::Timestamp;

/// Most writes of one transaction, and most guards.
pub const WRITES_PER_TRANSACTION_MAX: usize = 128;
/// Most bytes of keys and bodies in one transaction beside its largest body.
pub const TRANSACTION_BYTES_MAX: usize = 1 << 20;
/// Largest body of one object. The API refuses it with 413 before it comes here.
pub const OBJECT_BYTES_MAX: usize = 3 << 20;
/// Longest key: group, resource, namespace and name at their Kubernetes limits fit.
pub const KEY_BYTES_MAX: usize = 1024;

/// `/{group}/{resource}/{namespace}/{name}`. The core group is empty (`//pods/default/web`), and so is the
/// namespace of what has none (`//nodes//n1`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Key(Arc<str>);

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key has {len_bytes} bytes; at most {KEY_BYTES_MAX} are allowed")]
    TooLong { len_bytes: usize },
    #[error("{key:?} is not /group/resource/namespace/name")]
    Malformed { key: String },
}

impl Key {
    /// Refuses parts with a slash, and an empty resource or name.
    pub fn new(group: &str, resource: &str, namespace: &str, name: &str) -> Result<Self, KeyError> {
        Self::parse(&format!("/{group}/{resource}/{namespace}/{name}"))
    }

    pub fn parse(text: &str) -> Result<Self, KeyError> {
        check_key(text)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn group(&self) -> &str {
        self.part(1)
    }

    pub fn resource(&self) -> &str {
        self.part(2)
    }

    /// Empty for what has no namespace.
    pub fn namespace(&self) -> &str {
        self.part(3)
    }

    pub fn name(&self) -> &str {
        self.part(4)
    }

    fn part(&self, nth: usize) -> &str {
        self.0.split('/').nth(nth).expect("check_key counted the parts")
    }

    /// What all keys of a resource begin with: `/{group}/{resource}/`.
    pub fn resource_prefix(group: &str, resource: &str) -> String {
        format!("/{group}/{resource}/")
    }

    /// What all keys of a resource in a namespace begin with.
    pub fn namespace_prefix(group: &str, resource: &str, namespace: &str) -> String {
        format!("/{group}/{resource}/{namespace}/")
    }
}

fn check_key(text: &str) -> Result<(), KeyError> {
    if text.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong { len_bytes: text.len() });
    }
    let parts: [&str; 5] = match text.split('/').collect::<Vec<_>>().try_into() {
        Ok(parts) => parts,
        Err(_) => return Err(KeyError::Malformed { key: text.into() }),
    };
    let [before, _, resource, _, name] = parts;
    let well_formed = before.is_empty() && !resource.is_empty() && !name.is_empty();
    if well_formed && !text.contains(char::is_control) {
        Ok(())
    } else {
        Err(KeyError::Malformed { key: text.into() })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets a map of keys be searched by text (`map.get("//pods/default/web")`, prefix ranges).
impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = Arc::<str>::deserialize(input)?;
        check_key(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(text))
    }
}

/// What stands under a key. The store reads none of it but the uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// Which shape the body has; readers convert from it.
    pub storage_version: u16,
    /// Bits that belong to the writer (such as "encrypted"); the store keeps them.
    pub flags: u32,
    pub uid: Uid,
    /// Canonical JSON without `metadata.resourceVersion`, or ciphertext of it.
    pub body: Bytes,
}

/// What must hold of the very key that is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    None,
    /// Nothing stands there: a create.
    Absent,
    Revision(Revision),
    Uid(Uid),
    UidAndRevision(Uid, Revision),
}

/// What must hold of another key that the decision relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    Revision {
        key: Key,
        revision: Revision,
    },
    Absent {
        key: Key,
    },
    Present {
        key: Key,
    },
    /// The counter under `key` is at most `value`; an absent counter is 0.
    AtMost {
        key: Key,
        value: i64,
    },
}

impl Guard {
    pub fn key(&self) -> &Key {
        match self {
            Guard::Revision { key, .. }
            | Guard::Absent { key }
            | Guard::Present { key }
            | Guard::AtMost { key, .. } => key,
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Equal bytes write nothing and answer `Unchanged`. After `expires_at` the leader proposes its deletion.
    Put {
        key: Key,
        precondition: Precondition,
        value: Value,
        expires_at: Option<Timestamp>,
    },
    Delete {
        key: Key,
        precondition: Precondition,
    },
    /// Takes a new revision with the same body, so that guards on this key's revision fail.
    Touch {
        key: Key,
    },
    /// Adds to the counter under `key`; refused when the sum would be above `at_most`.
    Add {
        key: Key,
        delta: i64,
        at_most: Option<i64>,
    },
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Write::Put { key, .. }
            | Write::Delete { key, .. }
            | Write::Touch { key }
            | Write::Add { key, .. } => key,
        }
    }
}

/// Commit one transaction: all its writes if every precondition and guard holds, else none.
///
/// From: control hosts. To: the store's leader (a follower answers `NotLeader`). Limits: `check` names them.
/// Overload: the sender waits. A retry is recognised by uid and revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propose {
    /// Set by leader actors only: refused once a later reign began.
    pub reign: Option<Reign>,
    pub guards: Vec<Guard>,
    /// 1..=WRITES_PER_TRANSACTION_MAX, each key at most once.
    pub writes: Vec<Write>,
    pub trace: TraceId,
}

impl Propose {
    /// One write without guards.
    pub fn one(write: Write) -> Self {
        Self { reign: None, guards: Vec::new(), writes: vec![write], trace: TraceId::NONE }
    }

    /// The limits of a transaction's shape; made before it is appended to the log.
    pub fn check(&self) -> Result<(), ProposeError> {
        let too_many = |what: &str, size: usize| ProposeError::TooLarge {
            what: what.into(),
            size: size as u64,
            max: WRITES_PER_TRANSACTION_MAX as u64,
        };
        if self.writes.is_empty() {
            return Err(ProposeError::Invalid { reason: "a transaction needs a write".into() });
        }
        if self.writes.len() > WRITES_PER_TRANSACTION_MAX {
            return Err(too_many("writes of one transaction", self.writes.len()));
        }
        if self.guards.len() > WRITES_PER_TRANSACTION_MAX {
            return Err(too_many("guards of one transaction", self.guards.len()));
        }
        self.check_bytes()?;
        let mut keys: Vec<&Key> = self.writes.iter().map(Write::key).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(ProposeError::Invalid { reason: format!("{} is written twice", pair[0]) })
            }
            None => Ok(()),
        }
    }

    fn check_bytes(&self) -> Result<(), ProposeError> {
        let bodies = self.writes.iter().map(|it| match it {
            Write::Put { value, .. } => value.body.len(),
            _ => 0,
        });
        let largest = bodies.clone().max().unwrap_or(0);
        if largest > OBJECT_BYTES_MAX {
            return Err(ProposeError::TooLarge {
                what: "bytes of one object".into(),
                size: largest as u64,
                max: OBJECT_BYTES_MAX as u64,
            });
        }
        let keys = self.writes.iter().map(Write::key).chain(self.guards.iter().map(Guard::key));
        let total = bodies.sum::<usize>() + keys.map(|it| it.as_str().len()).sum::<usize>();
        if total - largest > TRANSACTION_BYTES_MAX {
            return Err(ProposeError::TooLarge {
                what: "bytes of one transaction beside its largest object".into(),
                size: (total - largest) as u64,
                max: TRANSACTION_BYTES_MAX as u64,
            });
        }
        Ok(())
    }
}

/// A transaction that is on a quorum of disks and applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The store's revision after it.
    pub revision: Revision,
    /// One for each write, in order.
    pub outcomes: Vec<WriteOutcome>,
}

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOutcome {
    /// The key's revision now; of a deletion the one it took.
    pub revision: Revision,
    pub changed: Changed,
}

/// Whether a write changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    Yes,
    /// The same bytes stood there already (also: a retry of what was committed).
    Unchanged,
}

/// Which part of a guard did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardFailure {
    /// `None`: the key is gone.
    Revision {
        assumed: Revision,
        current: Option<Revision>,
    },
    Present,
    Absent,
    AboveBound {
        current: i64,
        at_most: i64,
    },
}

impl fmt::Display for GuardFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuardFailure::Revision { assumed, current: Some(current) } => {
                write!(f, "it is at revision {current}, {assumed} was assumed")
            }
            GuardFailure::Revision { assumed, current: None } => {
                write!(f, "it is gone, revision {assumed} was assumed")
            }
            GuardFailure::Present => f.write_str("it exists"),
            GuardFailure::Absent => f.write_str("it does not exist"),
            GuardFailure::AboveBound { current, at_most } => {
                write!(f, "it is {current}, above {at_most}")
            }
        }
    }
}

/// Why a transaction was not committed; only after `Timeout` and `Stopped` it may have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ProposeError {
    #[error("this replica is not the leader")]
    NotLeader { leader: Option<ReplicaId> },
    /// Somebody else won. Read again and decide again; repeating this write would undo theirs.
    #[error("{key} is at revision {current}, the write assumed {assumed}")]
    Conflict { key: Key, assumed: Revision, current: Revision },
    #[error("{key} exists")]
    Exists { key: Key },
    #[error("{key} does not exist")]
    NotFound { key: Key },
    #[error("{key} has the uid {current}, the write assumed {assumed}")]
    UidMismatch { key: Key, assumed: Uid, current: Uid },
    #[error("a guard on {key} failed: {failure}")]
    GuardFailed { key: Key, failure: GuardFailure },
    #[error("the counter {key} would become {value}, above {at_most}")]
    AboveLimit { key: Key, value: i64, at_most: i64 },
    #[error("{key} holds an object, not a counter")]
    NotCounter { key: Key },
    #[error("reign {reign} ended; it is reign {current} now")]
    Deposed { reign: Reign, current: Reign },
    #[error("{what}: {size}, at most {max} are allowed")]
    TooLarge { what: String, size: u64, max: u64 },
    #[error("the transaction is malformed: {reason}")]
    Invalid { reason: String },
    #[error("the disk is almost full: writes are refused until there is space")]
    Full,
    #[error("too many proposals wait already")]
    Overloaded,
    #[error("no quorum of replicas answers")]
    NoQuorum,
    #[error("the deadline passed; the transaction may still be committed")]
    Timeout,
    #[error("the store stopped; the transaction may have been committed")]
    Stopped,
}

/// What the sender of a refused request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request at once (perhaps elsewhere).
    Now,
    /// The same request after a pause.
    After { ms: u64 },
    /// Read first, then decide anew.
    Replan,
    /// It will be refused again.
    Never,
}

impl ProposeError {
    pub fn retry(&self) -> Retry {
        use ProposeError::*;
        match self {
            NotLeader { leader: Some(_) } => Retry::Now,
            NotLeader { leader: None } | Overloaded | NoQuorum => Retry::After { ms: 100 },
            Full => Retry::After { ms: 5_000 },
            Conflict { .. } | Exists { .. } | NotFound { .. } | UidMismatch { .. } => Retry::Replan,
            GuardFailed { .. } | AboveLimit { .. } | Timeout | Stopped => Retry::Replan,
            NotCounter { .. } | Deposed { .. } | TooLarge { .. } | Invalid { .. } => Retry::Never,
        }
    }

    /// Whether the transaction may have been committed all the same.
    pub fn outcome_is_unknown(&self) -> bool {
        matches!(self, ProposeError::Timeout | ProposeError::Stopped)
    }
}

#[cfg(test)]
mod tests;
