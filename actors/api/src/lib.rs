//! The one write pipeline, and reads and watches beside it: every request to the cluster's state goes through [`Api`].
//!
//! parse → convert → default → prune or strict check → mutate → validate → propose, for every kind alike: a kind is a
//! row of kactor-objects' registry. Who asks makes no difference (design section 6): HTTP, controllers,
//! the scheduler and nodes send the same [`Request`]. Deciding is synchronous, over the local state; doing is
//! `Store::propose`, and a lost race is decided again on newer state (`commit.rs`).

mod actions;
mod admission;
pub mod allocate;
pub mod api;
pub mod authorize;
mod body;
mod bootstrap;
mod commit;
mod continue_token;
mod delete;
mod disruption;
mod encrypt;
mod fields;
mod follow;
mod freshness;
pub mod notes;
mod perform;
mod read;
mod representation;
pub mod request;
mod reviews;
mod selection;
mod service_account;
mod service_range;
mod splice;
mod together;
mod token;
pub mod watch;
mod write;

pub use allocate::{INTERNAL_GROUP, allocation_key};
pub use api::{Api, ApiConfig, ApiError, Endpoint};
pub use authorize::attributes::{Attributes, Decision, Target};
pub use bootstrap::NAMESPACES;
pub use encrypt::EncryptionKey;
pub use kactor_objects::status::{Reason, Status};
pub use notes::{AuditRecord, AuditSink, Discard, Note, NoteSink, Outcome};
pub use request::{
    Body, Bookmarks, Caller, Conflicts, DryRun, FieldValidation, Form, IncludeObject,
    InitialEvents, Object, Operation, Options, PatchType, Preconditions, Propagation, Request,
    Resource, Response, User, VersionMatch, WatchRequest,
};
pub use service_account::VerifiedToken;
pub use service_range::{ServiceRange, ServiceRangeError};
pub use token::{TokenError, TokenKeys};
pub use watch::{EventType, ObjectWatch, WatchEvent};

#[cfg(test)]
mod tests;
