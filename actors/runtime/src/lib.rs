//! The actor kit on actix: Env, mailboxes, ask, supervision, registry, inspection.

pub mod env;
