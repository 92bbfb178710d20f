//! What hosts say of themselves and hear of each other.

use serde::{Deserialize, Serialize};

use crate::address::HostId;
use crate::time::Timestamp;

/// Most hosts that one answer names.
pub const PEERS_MAX: usize = 10_000;

/// A worker tells where it is reached and what it runs, and hears of the control hosts.
///
/// From: a worker, of itself. To: `hosts` on any control host. Overload: refused at once; said again every few seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceHost {
    pub host: HostId,
    /// `IP:PORT`, TCP and UDP.
    pub address: String,
    pub version: String,
    /// The highest feature level that it knows.
    pub level: u32,
    pub started_at: Timestamp,
}

/// The control hosts, as the one that answers knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsKnown {
    pub peers: Vec<KnownPeer>,
}

/// Another host of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    pub host: HostId,
    pub kind: HostKind,
    /// `IP:PORT`, TCP and UDP.
    pub address: String,
    /// SHA-256 of its public key.
    pub key_hash: [u8; 32],
}

/// What a host was let in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostKind {
    Control,
    Worker,
}

/// Why what a host said was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AnnounceError {
    #[error("the host left the cluster, or was taken out of it")]
    Left,
    #[error("{reason}")]
    Refused { reason: String },
    #[error("the cluster can't be told now: {reason}")]
    Unavailable { reason: String },
}
