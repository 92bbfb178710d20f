//! A plan: requests to the API, each with its own precondition and outcome, when to look again, and why.
//!
//! A plan leaves no choices: it names every object, generated suffixes included. Its `Display` is what table
//! tests compare, what the recorder keeps and what `kactor why` prints.

use std::fmt;

use kactor_protocol::store::Key;
use kactor_protocol::{Revision, Timestamp, Uid};
use kactor_view::Meta;
pub use kactor_view::events::{Note, Severity};
use serde_json::{Value, json};

/// How an owner's deletion treats what it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Propagation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// What must hold of the object that a deletion means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletePrecondition {
    pub uid: Uid,
    pub revision: Option<Revision>,
}

/// One API request.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Reads the object live: a fact for the next pass.
    Get,
    /// Refused when the name is taken.
    Create { body: Value },
    /// A JSON merge patch; `metadata.uid` and `metadata.resourceVersion` in it are preconditions.
    Patch { subresource: Option<&'static str>, patch: Value },
    /// Replaces the subresource; the body's `resourceVersion` is the precondition.
    Update { subresource: &'static str, body: Value },
    Delete {
        precondition: DeletePrecondition,
        propagation: Option<Propagation>,
        grace_seconds: Option<u64>,
    },
}

impl Request {
    pub fn verb(&self) -> Verb {
        match self {
            Self::Get => Verb::Get,
            Self::Create { .. } => Verb::Create,
            Self::Patch { subresource: Some("status"), .. } => Verb::PatchStatus,
            Self::Patch { .. } => Verb::Patch,
            Self::Update { .. } => Verb::Update,
            Self::Delete { .. } => Verb::Delete,
        }
    }
}

/// Which request an outcome belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Get,
    Create,
    Patch,
    PatchStatus,
    Update,
    Delete,
}

/// One request and what to say of its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    pub key: Key,
    pub request: Request,
    /// Said when it succeeded.
    pub done: Option<Note>,
    /// Said when it was refused; the refusal's message is appended.
    pub refused: Option<Note>,
}

/// How the effects are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    #[default]
    InOrder,
    /// Creates go in batches of 1, 2, 4, …; a refusal ends them, so that a quota costs few refusals. Deletions go
    /// abreast, then the rest in order.
    Abreast,
}

/// What one pass decided.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    pub effects: Vec<Effect>,
    pub notes: Vec<Note>,
    pub pace: Pace,
    /// Look again at this time even if nothing changes.
    pub again_at: Option<Timestamp>,
}

impl Plan {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.again_at.is_none()
    }

    /// Adds a request; the effect may be given notes.
    pub fn add(&mut self, key: Key, request: Request) -> &mut Effect {
        self.effects.push(Effect { key, request, done: None, refused: None });
        self.effects.last_mut().expect("it was just pushed")
    }

    /// A new object; its name must be free.
    pub fn create(&mut self, key: Key, body: Value) -> &mut Effect {
        self.add(key, Request::Create { body })
    }

    /// A merge patch that holds for this life of the object, whatever its revision.
    pub fn patch(&mut self, meta: &Meta, patch: Value) -> &mut Effect {
        let patch = with_metadata(patch, json!({"uid": meta.uid.as_str()}));
        self.add(meta.key.clone(), Request::Patch { subresource: None, patch })
    }

    /// A merge patch that holds for this very revision: for lists, which a merge patch replaces whole.
    pub fn patch_exactly(&mut self, meta: &Meta, patch: Value) -> &mut Effect {
        let patch = with_metadata(patch, exactly(meta));
        self.add(meta.key.clone(), Request::Patch { subresource: None, patch })
    }

    /// Merges into `status`, of which this controller is the only writer.
    pub fn patch_status(&mut self, meta: &Meta, status: Value) -> &mut Effect {
        let patch = json!({"metadata": {"uid": meta.uid.as_str()}, "status": status});
        self.add(meta.key.clone(), Request::Patch { subresource: Some("status"), patch })
    }

    /// Merges into `status` of this very revision, where others write too.
    pub fn patch_status_exactly(&mut self, meta: &Meta, status: Value) -> &mut Effect {
        let patch = json!({"metadata": exactly(meta), "status": status});
        self.add(meta.key.clone(), Request::Patch { subresource: Some("status"), patch })
    }

    /// Deletes this life of the object.
    pub fn delete(&mut self, meta: &Meta) -> &mut Effect {
        self.delete_with(meta, None, None)
    }

    pub fn delete_with(
        &mut self,
        meta: &Meta,
        propagation: Option<Propagation>,
        grace_seconds: Option<u64>,
    ) -> &mut Effect {
        let precondition = DeletePrecondition { uid: meta.uid.clone(), revision: None };
        let request = Request::Delete { precondition, propagation, grace_seconds };
        self.add(meta.key.clone(), request)
    }

    pub fn trace(&mut self, about: &Key, reason: &'static str, message: impl Into<String>) {
        self.note(about, Severity::Trace, reason, message);
    }

    pub fn note(
        &mut self,
        about: &Key,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.notes.push(Note::new(about, severity, reason, message));
    }

    /// Looks again at `at`, or earlier if something asked for that.
    pub fn again_at(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |it| it.min(at)));
    }
}

impl Effect {
    pub fn on_done(&mut self, note: Note) -> &mut Self {
        self.done = Some(note);
        self
    }

    pub fn on_refused(&mut self, note: Note) -> &mut Self {
        self.refused = Some(note);
        self
    }
}

fn exactly(meta: &Meta) -> Value {
    json!({"uid": meta.uid.as_str(), "resourceVersion": meta.revision.to_string()})
}

fn with_metadata(mut patch: Value, preconditions: Value) -> Value {
    let Value::Object(fields) = preconditions else {
        unreachable!("preconditions are made as maps above");
    };
    for (field, value) in fields {
        patch["metadata"][field] = value;
    }
    patch
}

/// Why the API refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    /// `status.reason`, such as `NotFound`.
    pub reason: String,
    pub message: String,
}

/// What became of one effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub key: Key,
    pub verb: Verb,
    /// The uid of the object that the API answered with, where it answered with one.
    pub result: Result<Option<Uid>, Refusal>,
}

/// What is known beside the view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of this key's last plan, in its order. Effects that were not sent any more have none.
    pub outcomes: Vec<Outcome>,
    /// When this key's node was last heard of by message, if the key is a node and it was.
    pub last_heard: Option<Timestamp>,
}

impl Facts {
    pub fn refused(&self, verb: Verb) -> Option<&Refusal> {
        self.outcomes.iter().filter(|it| it.verb == verb).find_map(|it| it.result.as_ref().err())
    }

    /// What a live read of `key` gave.
    pub fn read(&self, key: &Key) -> Option<&Result<Option<Uid>, Refusal>> {
        self.outcomes.iter().find(|it| it.verb == Verb::Get && it.key == *key).map(|it| &it.result)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for effect in &self.effects {
            writeln!(f, "{effect}")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        match self.again_at {
            Some(at) => writeln!(f, "again at {}s", at.seconds()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = kactor_view::fixture::short(&self.key);
        match &self.request {
            Request::Get => write!(f, "get {key}"),
            Request::Create { .. } => write!(f, "create {key}"),
            Request::Patch { subresource: Some("status"), patch } => {
                write!(f, "status {key} {}", patch["status"])
            }
            Request::Patch { patch, .. } => {
                write!(f, "patch {key} {}", without_preconditions(patch))
            }
            Request::Update { subresource, .. } => write!(f, "{subresource} {key}"),
            Request::Delete { propagation, grace_seconds, .. } => {
                write!(f, "delete {key}")?;
                if let Some(propagation) = propagation {
                    write!(f, " {}", propagation.as_str())?;
                }
                match grace_seconds {
                    Some(seconds) => write!(f, " grace={seconds}"),
                    None => Ok(()),
                }
            }
        }
    }
}

fn without_preconditions(patch: &Value) -> Value {
    let mut patch = patch.clone();
    if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("uid");
        metadata.remove("resourceVersion");
        if metadata.is_empty() {
            patch.as_object_mut().expect("it has metadata").remove("metadata");
        }
    }
    patch
}
