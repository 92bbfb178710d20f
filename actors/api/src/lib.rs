//! The one write pipeline, and reads and watches beside it: every request to the cluster's state goes through [`Api`].
//!
//! parse → convert → default → prune or strict check → mutate → validate → propose, for every kind alike: a kind is a
//! row of kactor-objects' registry. Who asks makes no difference (design section 6): HTTP, controllers,
//! the scheduler and nodes send the same [`Request`]. Deciding is synchronous, over the local state; doing is
//! `Store::propose`, and a lost race is decided again on newer state (`commit.rs`).

pub mod api;
pub mod authorize;
pub mod body;
pub mod continue_token;
pub mod encrypt;
mod follow;
pub mod notes;
pub mod request;
pub mod service_range;
pub mod splice;
pub mod token;
pub mod watch;

pub use api::{Api, ApiConfig, ApiError, Endpoint};
pub use authorize::attributes::{Attributes, Decision, Target};
pub use encrypt::EncryptionKey;
pub use kactor_objects::status::{Reason, Status};
pub use notes::{AuditRecord, AuditSink, Discard, Note, NoteSink, Outcome};
pub use request::{
    Body, Bookmarks, Caller, Conflicts, DryRun, FieldValidation, Form, IncludeObject, InitialEvents, Object,
    Operation, Options, PatchType, Preconditions, Propagation, Request, Resource, Response, User, VersionMatch,
    WatchRequest,
};
pub use service_range::ServiceRange;
pub use token::TokenKeys;
pub use watch::{EventType, ObjectWatch, WatchEvent};
