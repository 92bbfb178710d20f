//! Looking inside a running host: what an operator may ask, and what comes back.
//!
//! Plain data: the REPL and the CLI get it as JSON over HTTP, other hosts as a message. Nothing here holds an object's
//! body: states and notes are written by actors that redact them (design section 10). Every question that can have a
//! long answer carries a limit, which the answer's side bounds again by `ROWS_MAX`.

use serde::{Deserialize, Serialize};

use crate::address::{ActorAddress, ActorName};
use crate::ids::{LetterId, TraceId};
use crate::time::Timestamp;

/// Most rows of one answer, whatever was asked for.
pub const ROWS_MAX: u32 = 1000;

/// A question about one host. New questions are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Insight {
    /// Actors whose name begins with `prefix`, by name.
    Actors {
        prefix: String,
        limit: u32,
    },
    /// One actor with its state.
    Inspect {
        actor: ActorName,
    },
    /// What waits in an actor's mailbox, oldest first.
    Mailbox {
        actor: ActorName,
        limit: u32,
    },
    /// What an actor took after the record `after` (0: all that is kept). Asked again and again this is a tap; its
    /// limit is the asker's to count down.
    Tap {
        actor: ActorName,
        after: u64,
        limit: u32,
    },
    /// All that is kept of one trace, over all actors, by time.
    Trace {
        trace: TraceId,
        limit: u32,
    },
    /// All traces that touched an object.
    TraceOf {
        key: String,
        limit: u32,
    },
    /// The notes on an object: decisions, waits and refusals, newest last.
    Why {
        key: String,
        limit: u32,
    },
    /// The last messages that could not be delivered.
    Dead {
        limit: u32,
    },
    Top {
        by: TopBy,
        limit: u32,
    },
}

/// An operator's question that a control host passes on to another host. It has authorized the operator.
///
/// From: `control`. To: `links` of the host. Overload: shed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookInside {
    pub question: Insight,
}

/// What the greatest actors are the greatest in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopBy {
    Busy,
    Handled,
    Mailbox,
    OldestWait,
    Restarts,
}

/// The answer to each question, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InsightReply {
    Actors {
        actors: Vec<ActorRow>,
    },
    Inspect {
        report: Box<ActorReport>,
    },
    Mailbox {
        letters: Vec<WaitingRow>,
    },
    /// Ask again with `after: next`.
    Tap {
        records: Vec<RecordRow>,
        next: u64,
    },
    Trace {
        records: Vec<RecordRow>,
        notes: Vec<NoteRow>,
    },
    TraceOf {
        records: Vec<RecordRow>,
        notes: Vec<NoteRow>,
    },
    Why {
        notes: Vec<NoteRow>,
    },
    /// `total` counts also those that are no longer kept.
    Dead {
        letters: Vec<DeadRow>,
        total: u64,
    },
    Top {
        actors: Vec<ActorRow>,
    },
    /// What was asked about is not here.
    NotFound {
        what: String,
    },
}

/// Where an actor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActorStatus {
    Starting,
    Running,
    /// It panicked and will be started again.
    BackingOff,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorRow {
    pub address: ActorAddress,
    pub kind: String,
    pub lane: String,
    pub status: ActorStatus,
    pub parent: Option<ActorName>,
    pub mailbox_len: u32,
    pub mailbox_len_max: u32,
    pub oldest_wait_ms: u64,
    pub handled: u64,
    pub busy_us: u64,
    pub restarts: u32,
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorReport {
    pub row: ActorRow,
    /// JSON, written and redacted by the actor. `None`: it did not answer in time; `handling` may say why.
    pub state: Option<String>,
    pub handling: Option<HandlingRow>,
    /// Newest last.
    pub last_inputs: Vec<RecordRow>,
    pub children: Vec<ActorName>,
}

/// What an actor is at work on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlingRow {
    pub message: String,
    pub trace: TraceId,
    pub for_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingRow {
    pub message: String,
    pub from: String,
    pub trace: TraceId,
    pub cause: LetterId,
    pub letter: LetterId,
    pub waits_ms: u64,
}

/// One message that an actor took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    /// Counts an actor's records; grows by one.
    pub sequence: u64,
    pub at: Timestamp,
    pub actor: ActorName,
    pub from: String,
    pub message: String,
    pub letter: LetterId,
    pub trace: TraceId,
    pub cause: LetterId,
    /// Short, redacted by whoever wrote the message type.
    pub note: String,
}

/// A decision, a wait or a refusal, tied to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRow {
    pub at: Timestamp,
    pub actor: String,
    /// The object's key as the store has it: `//pods/default/web`.
    pub key: String,
    pub trace: TraceId,
    pub cause: LetterId,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadRow {
    pub at: Timestamp,
    pub to: String,
    pub from: String,
    pub message: String,
    pub trace: TraceId,
    pub reason: String,
}
