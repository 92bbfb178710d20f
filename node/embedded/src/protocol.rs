//! What agent and shim say to each other: frozen at v1, because a shim outlives many agents.
//!
//! A shim that was started by today's kactor is spoken to by every later one. So: fields are only ever added, with
//! defaults; an unknown field is skipped; an unknown request is answered `Refused { kind: Unsupported }`, never with
//! silence. A frame is a 4-byte big-endian length and that many bytes of JSON, at most `FRAME_BYTES_MAX`; file
//! descriptors travel as SCM_RIGHTS with a frame's first byte. `tests` holds one golden example of each message.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod wire;

pub const VERSION: u32 = 1;
/// A command line may be long; nothing else comes near.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// stdin, stdout, stderr.
pub const DESCRIPTORS_MAX: usize = 3;

/// `shim.json`: what a shim is started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodLaunch {
    pub version: u32,
    /// Where sockets and namespaces are pinned.
    pub run: PathBuf,
    pub hostname: String,
    pub network: Scope,
    pub ipc: Scope,
    pub pid: PidScope,
    pub sysctls: BTreeMap<String, String>,
    /// cgroup folders that the shim itself joins.
    pub cgroups: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Pod,
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidScope {
    Container,
    Pod,
    Host,
}

/// `launch.json`: how the shim runs one container; the rest stands in `bundle/config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerLaunch {
    pub version: u32,
    pub log_path: PathBuf,
    pub log_bytes_max: u64,
    pub log_files_max: u32,
    pub terminal: bool,
    pub stdin: StdinMode,
    /// Its cgroup in every hierarchy: killed and removed with it.
    pub cgroups: Vec<PathBuf>,
    /// Holds a line `oom_kill N`.
    pub oom_file: Option<PathBuf>,
    /// Others live in its pid namespace: what it leaves behind must be killed.
    pub kills_leftovers: bool,
    pub seccomp: SeccompMode,
    pub oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinMode {
    Closed,
    Open,
    Once,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompMode {
    Unconfined,
    Default,
}

/// `state.json`: what became of a container. Written by the shim alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub version: u32,
    pub started_ms: Option<u64>,
    pub pid: Option<u32>,
    pub exit: Option<Exit>,
    /// Why it could not be started.
    pub failed: Option<String>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    pub finished_ms: u64,
    /// 128 + signal when a signal ended it.
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
}

/// One request per connection; `Exec`, `Attach`, `Wait` and `Watch` are answered more than once. A container is
/// named by its folder, `<name>.<attempt>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Answer: `Hello`.
    Hello,
    /// Answer: `Done` once the program runs, or `Refused` with the reason of the failure.
    Start { container: String },
    /// Answer: `Done`; an ended container is fine.
    Kill {
        container: String,
        signal: i32,
        #[serde(default)]
        scope: KillScope,
    },
    /// Answer: `Exited`, at once if it has ended.
    Wait { container: String },
    /// Answers: `Exited` for each container from now on, until the connection ends.
    Watch,
    /// Answers: `Streams` with the descriptors, then `Exited`.
    Exec {
        container: String,
        args: Vec<String>,
        #[serde(default)]
        stdin: bool,
        #[serde(default)]
        terminal: bool,
        #[serde(default)]
        columns: u16,
        #[serde(default)]
        rows: u16,
    },
    /// Answers: `Streams` with the descriptors, then `Exited` when the container ends.
    Attach {
        container: String,
        #[serde(default)]
        stdin: bool,
    },
    /// A fresh log file. Answer: `Done`.
    RotateLog { container: String },
    /// Forgets an ended container. Answer: `Done`.
    Forget { container: String },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillScope {
    #[default]
    First,
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Hello {
        version: u32,
        pid: u32,
    },
    Done,
    /// The descriptors that come with it, in this order.
    Streams {
        stdin: bool,
        stdout: bool,
        stderr: bool,
        terminal: bool,
    },
    Exited {
        container: String,
        exit: Exit,
    },
    Refused {
        kind: RefusedKind,
        why: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedKind {
    Unsupported,
    NoContainer,
    NotRunning,
    AlreadyStarted,
    /// The program could not be executed.
    Start,
    Failed,
    #[serde(other)]
    Other,
}

impl Request {
    pub fn decode(bytes: &[u8]) -> Result<Self, Reply> {
        serde_json::from_slice(bytes).map_err(|error| Reply::Refused {
            kind: RefusedKind::Unsupported,
            why: format!("this shim speaks v{VERSION}: {error}"),
        })
    }
}

#[cfg(test)]
mod tests;
