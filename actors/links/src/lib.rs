//! The actors' links to other hosts: frames of `kactor_runtime::remote` over the QUIC of `kactor_quic`.
//!
//! Whom this host links, at which address, and what each may send is the [`Directory`]'s word, which the cluster's records
//! fill; a certificate only proves which host speaks, by a key that its name is bound to. Lost hosts become `PeerDown`.

mod directory;
mod ground;
mod host_links;

pub use directory::{Directory, HostEntry};
pub use host_links::{HostLinks, LinkPems, LinkSetup, StartError};
pub use kactor_protocol::message::Lane;
pub use kactor_quic::LinkStatus;
