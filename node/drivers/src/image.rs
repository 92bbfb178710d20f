//! Images as a driver reports them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An image that is present on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its config: `sha256:…`.
    pub id: String,
    /// Full names: `docker.io/library/busybox:latest`.
    pub tags: Vec<String>,
    /// `docker.io/library/busybox@sha256:…`, for images that were pulled.
    pub digests: Vec<String>,
    pub size_bytes: u64,
    pub config: ImageConfig,
}

/// What an image says about how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `uid`, `uid:gid`, `name` or `name:group`; empty is root.
    pub user: String,
    pub working_dir: String,
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// How to log in to a registry. `Debug` never prints it.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    Anonymous,
    Basic { username: String, password: String },
    Bearer { token: String },
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RegistryAuth::Anonymous => "Anonymous",
            RegistryAuth::Basic { .. } => "Basic(…)",
            RegistryAuth::Bearer { .. } => "Bearer(…)",
        })
    }
}
