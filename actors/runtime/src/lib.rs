//! The actor kit on actix: Env, mailboxes, ask, supervision, registry, inspection.
//!
//! An actor is one file named `*_actor.rs` that decides nothing: it takes letters, calls its pure core, and sends on.
//! README.md has the whole of an example; `prelude` is all that such a file needs.

mod actor_ref;
mod cell;
pub mod env;
mod inspect;
mod letter;
mod mailbox;
mod recorder;
mod remote;
mod supervise;
mod system;
pub mod window;

pub use actor_ref::{ActorRef, Asker, Recipient, TELL_WAIT_MAX, Undelivered};
pub use cell::Inspect;
pub use letter::{Ask, Letter, Origin, Reply, Tell, Trail, Wire, current_trace, remark};
pub use recorder::{DEAD_LETTERS_MAX, NOTES_MAX, NOTES_PER_KEY_MAX, Note, Notes};
pub use remote::Transport;
pub use supervise::{Child, Exhausted, Restart, StepPanicked, Stops};
pub use system::{
    ActorDown, ActorSystem, Delivery, DownReason, PeerDown, StartError, TooManyWatches, traced,
};

/// What a `*_actor.rs` imports.
pub mod prelude {
    pub use actix::fut::ActorFutureExt;
    pub use actix::{
        Actor, ActorContext, AsyncContext, Context, Handler, Running, SpawnHandle, WrapFuture,
    };
    pub use kactor_protocol::frame::Refusal;
    pub use kactor_protocol::message::Overload;

    pub use crate::{
        ActorRef, ActorSystem, Ask, Asker, Child, Inspect, Letter, Recipient, Reply, Restart,
        Stops, Tell, Trail, remark,
    };
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
