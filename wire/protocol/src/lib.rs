//! What crosses a boundary: ids, addresses, envelopes, frames, the message table and the codec.
//!
//! This crate owns what is said between actors and into the log; it decides nothing. Shipped structs are
//! append-only (README.md, "A new message"): bincode cannot skip what it does not know, so a changed struct
//! is a new message. Only `codec.rs` names bincode.

pub mod address;
pub mod certificates;
pub mod cluster;
pub mod codec;
pub mod frame;
pub mod fuzz;
pub mod ids;
pub mod insight;
pub mod message;
pub mod node;
pub mod raft;
pub mod store;
pub mod table;
pub mod time;

pub use address::{ActorAddress, ActorName, HostId, Incarnation};
pub use ids::{LetterId, MessageId, Reign, ReplicaId, Revision, TraceId, Uid};
pub use message::Message;
pub use time::{Deadline, Timestamp};
