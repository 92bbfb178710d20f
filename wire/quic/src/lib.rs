//! Links between hosts: QUIC connections that carry frames, both ends authenticated by the cluster's CA.
//!
//! Two connections per pair of hosts, one per [`Lane`], so that a snapshot delays no heartbeat; on each one long-lived
//! stream per direction, whose writes are coalesced. What is promised: frames of one sender to one receiver on one lane
//! arrive in order and at most once; a frame that was refused before it was sent is told apart from one whose fate is
//! unknown; queues are bounded; a lost host is told once. Who may send what is decided above (`kactor_runtime::remote`):
//! a certificate says which host speaks, and permits nothing.

mod connection;
mod dial;
mod ground;
mod hello;
mod identity;
mod lane;
mod links;
mod peer;
mod settings;
mod turn;

pub use ground::{Ground, runtime};
pub use identity::{Credentials, CredentialsError, Identity, IdentityError};
pub use kactor_protocol::message::Lane;
pub use links::{Host, LinkError, Links, LinksConfig, LinksError};
pub use peer::LinkStatus;
