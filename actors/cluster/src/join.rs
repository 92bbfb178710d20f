//! What a new host and the door say to each other, as JSON over the API's port.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use kactor_protocol::HostId;
use kactor_protocol::ids::ReplicaId;
use serde::{Deserialize, Serialize};

use crate::host::{HostRole, KnownHost};

/// A host asks to join.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// `id.secret`
    pub token: String,
    pub node: HostId,
    /// The request to certify its key (PKCS #10, PEM).
    pub csr: String,
    /// Where others will reach it.
    pub listen: SocketAddr,
    pub version: String,
    /// The highest feature level that it knows.
    pub level: u32,
}

/// It may.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinReply {
    /// The id of the log that it belongs to now.
    pub cluster: String,
    pub role: HostRole,
    pub certificate: String,
    pub hosts: Vec<KnownHost>,
    pub pod_cidr: String,
    pub service_cidr: String,
    /// Of a control host alone.
    pub control: Option<ControlShare>,
}

/// What only a control host is given.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlShare {
    pub replica: ReplicaId,
    /// The cluster's keys: file names of `pki` and their bytes in base64.
    pub keys: BTreeMap<String, String>,
}

/// The keys must not reach a log.
impl std::fmt::Debug for JoinReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinReply").field("role", &self.role).finish_non_exhaustive()
    }
}
