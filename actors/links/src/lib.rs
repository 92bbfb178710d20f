//! The actors' links to other hosts: frames of `kactor_runtime::remote` over the QUIC of `kactor_quic`.
//!
//! Whom this host links, at which address, and what each may send is the [`Directory`]'s word, which the cluster's records
//! fill; a certificate only proves which host speaks, by a key that its name is bound to. Lost hosts become `PeerDown`.

mod certificates_actor;
mod directory;
mod ground;
mod host_links;
mod links_actor;
mod look;
mod renewal_actor;

pub use certificates_actor::{Authority, CERTIFICATES, CertificatesActor, Issued};
pub use directory::{Directory, HostEntry};
pub use host_links::{HostLinks, LinkPems, LinkSetup, StartError};
pub use kactor_protocol::message::Lane;
pub use kactor_quic::LinkStatus;
pub use links_actor::{LINKS, LinksActor};
pub use look::Whom;
pub use renewal_actor::{HOST_CERTIFICATE, Keep, RenewalActor, RenewalSetup};
