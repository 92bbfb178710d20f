//! Why a driver refused or failed, and what the caller may do about it.

use std::io;

use kactor_protocol::store::Retry;

use crate::spec::{ContainerId, SandboxId};

#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("no sandbox {0} on this machine")]
    NoSandbox(SandboxId),
    #[error("no container {0} on this machine")]
    NoContainer(ContainerId),
    #[error("{what} exists already")]
    Exists { what: String },
    /// The container or sandbox is not in the state that the request needs.
    #[error("{what} is {state}, {wanted} is needed")]
    WrongState { what: String, state: &'static str, wanted: &'static str },
    #[error("image {reference} is not on this machine: pull or import it first")]
    NoImage { reference: String },
    #[error("pulling {reference}: {why}")]
    Pull { reference: String, why: String, retry: PullRetry },
    #[error("image {reference} is in use by {n_users} containers")]
    ImageInUse { reference: String, n_users: usize },
    #[error("{reference:?} is no image reference: {why}")]
    BadReference { reference: String, why: String },
    #[error("image {reference} is refused: {why}")]
    BadImage { reference: String, why: String },
    /// This driver cannot honour a field; the Pod is refused with the field's name.
    #[error("{field} cannot be honoured by the {driver} driver: {why}")]
    Unsupported { driver: &'static str, field: &'static str, why: String },
    /// The spec contradicts itself or the image.
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: String },
    /// The program could not be executed: not found, not executable, wrong folder.
    #[error("starting {what}: {why}")]
    Start { what: String, why: String },
    #[error("{doing} took longer than {limit_ms} ms")]
    Timeout { doing: String, limit_ms: u64 },
    #[error("the disk is full: {doing}")]
    DiskFull { doing: String },
    /// The process that runs the containers (shim, dockerd) does not answer.
    #[error("{whom} does not answer: {why}")]
    Unreachable { whom: String, why: String },
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("{doing}: {why}")]
    Runtime { doing: String, why: String },
}

/// Whether a pull that failed may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullRetry {
    /// Network, rate limit, registry down.
    Later,
    /// Denied or absent: Kubernetes backs off and tries again all the same.
    Refused,
}

impl DriverError {
    /// Turns an I/O error into the variant that says most.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        if source.kind() == io::ErrorKind::StorageFull {
            return DriverError::DiskFull { doing };
        }
        DriverError::Io { doing, source }
    }

    pub fn retry(&self) -> Retry {
        use DriverError::*;
        match self {
            NoSandbox(_) | NoContainer(_) | Exists { .. } | WrongState { .. } => Retry::Replan,
            NoImage { .. } => Retry::Replan,
            Pull { retry: PullRetry::Later, .. } => Retry::After { ms: 2_000 },
            Pull { retry: PullRetry::Refused, .. } => Retry::After { ms: 10_000 },
            ImageInUse { .. } | Timeout { .. } => Retry::After { ms: 1_000 },
            DiskFull { .. } => Retry::After { ms: 10_000 },
            Unreachable { .. } | Io { .. } | Runtime { .. } => Retry::After { ms: 1_000 },
            Start { .. } => Retry::Replan, // A new attempt, under the Pod's restart policy.
            BadReference { .. } | BadImage { .. } | Unsupported { .. } | Invalid { .. } => {
                Retry::Never
            }
        }
    }
}
