//! What the API tells about its decisions: one note per write or refusal for `kactor why`, one audit record per request.
//!
//! Both go to narrow sinks that must not block and bound what they keep; the runtime's recorder and the audit log
//! implement them. Invariant: no object body is ever in either, only names, revisions and reasons.

use kactor_protocol::ids::{Revision, TraceId};
use kactor_protocol::time::Timestamp;

use crate::request::{Caller, Resource};

/// Who did what to which object, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub at: Timestamp,
    pub trace: TraceId,
    pub user: String,
    pub manager: String,
    pub verb: &'static str,
    pub resource: Resource,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The write is committed.
    Written { revision: Revision },
    /// Answered without a write: a read, a review, a dry run.
    Answered,
    /// Refused with this status.
    Refused { code: u16, reason: String, message: String },
}

/// Takes notes of writes and refusals. Must not block; drops what it has no room for, and counts it.
pub trait NoteSink: Send + Sync {
    fn note(&self, note: Note);
}

/// A request as the audit log keeps it (metadata level).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    pub at: Timestamp,
    pub audit_id: String,
    pub user: String,
    pub groups: Vec<String>,
    pub impersonator: Option<String>,
    pub user_agent: String,
    pub verb: &'static str,
    pub resource: Resource,
    pub code: u16,
    /// Which binding allowed it, or why it was refused.
    pub authorization: String,
}

/// Takes audit records. Must not block; bounded like [`NoteSink`].
pub trait AuditSink: Send + Sync {
    fn record(&self, record: AuditRecord);
}

/// Keeps nothing: for tests, and for hosts without a recorder.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl NoteSink for Discard {
    fn note(&self, _: Note) {}
}

impl AuditSink for Discard {
    fn record(&self, _: AuditRecord) {}
}

impl Note {
    pub(crate) fn new(
        at: Timestamp,
        caller: &Caller,
        verb: &'static str,
        resource: &Resource,
        outcome: Outcome,
    ) -> Self {
        Self {
            at,
            trace: caller.trace,
            user: caller.user.name.clone(),
            manager: caller.manager(),
            verb,
            resource: resource.clone(),
            outcome,
        }
    }
}
