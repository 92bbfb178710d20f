//! What a driver reports: sandboxes with their containers, as found on the machine now.
//!
//! The same after a restart of kactor as before it: start times, exit codes and reasons come from what the
//! driver wrote down, never from the memory of a process.

use std::net::IpAddr;
use std::path::PathBuf;

use kactor_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::{ContainerId, ContainerSpec, SandboxSpec};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxStatus {
    pub spec: SandboxSpec,
    pub state: SandboxState,
    pub created: Timestamp,
    /// The namespace to plumb: a path that can be entered for as long as the sandbox stands. `None` with the
    /// host's network and for pods that pretend.
    pub netns: Option<PathBuf>,
    /// Only drivers that give addresses themselves (hollow) fill this; else it is empty.
    pub addresses: Vec<IpAddr>,
    /// Sorted by name, then attempt.
    pub containers: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    /// Its shim, pause process or namespaces are gone (a reboot, a kill): remove it and make it anew.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub spec: ContainerSpec,
    /// `containerID` as Kubernetes shows it: `<driver>://<id>`.
    pub external_id: String,
    /// Digest of the image that it was made from: `sha256:…`.
    pub image_id: String,
    pub created: Timestamp,
    pub state: ContainerState,
    /// What was asked for and left out on this machine, in sentences (a refused oom_score_adj).
    pub warnings: Vec<String>,
}

impl ContainerStatus {
    pub fn id(&self) -> &ContainerId {
        &self.spec.id
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running {
        started: Timestamp,
        pid: u32,
    },
    Exited {
        /// `None` if it never ran.
        started: Option<Timestamp>,
        finished: Timestamp,
        /// 128 + signal when a signal ended it; 255 when nobody saw its end.
        exit_code: i32,
        /// `None` also where the driver is told of exit codes only (docker).
        signal: Option<i32>,
        reason: ExitReason,
        /// Why it did not start, for `StartFailed`; else empty.
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Any other exit code.
    Error,
    OomKilled,
    /// The program could not be executed.
    StartFailed,
    /// Nobody saw it end: the machine or the shim went down under it.
    Unknown,
}

impl ExitReason {
    /// The word in `state.terminated.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            ExitReason::Completed => "Completed",
            ExitReason::Error => "Error",
            ExitReason::OomKilled => "OOMKilled",
            ExitReason::StartFailed => "StartError",
            ExitReason::Unknown => "ContainerStatusUnknown",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    pub cpu_usage_ns: u64,
    pub memory_usage_bytes: u64,
    /// Usage less what the kernel may drop (inactive file pages): what eviction looks at.
    pub memory_working_set_bytes: u64,
    pub n_processes: u64,
}
