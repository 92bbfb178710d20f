//! What a driver is asked to make: plain data, finished by the node agent, storable as JSON.
//!
//! Everything is decided before it comes here: environment expanded, volumes mounted on the host and given as
//! paths, quantities turned into kernel numbers. A driver honours each field or answers
//! `DriverError::Unsupported` with the field's name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A sandbox is named by its Pod's uid: one at a time per Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId(pub String);

/// A container: its Pod, its name in the Pod, and which start of it this is (0 is the first).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    pub sandbox: SandboxId,
    pub name: String,
    pub attempt: u32,
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `<pod uid>/<name>/<attempt>`.
impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.sandbox, self.name, self.attempt)
    }
}

/// The frame that a Pod's containers share: namespaces, a cgroup and limits for all of them together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub id: SandboxId,
    pub namespace: String,
    pub name: String,
    /// Of the UTS namespace; ignored with `NetworkMode::Host`, which shares the host's.
    pub hostname: String,
    pub network: NetworkMode,
    pub pid: PidMode,
    pub ipc: IpcMode,
    pub qos: QosClass,
    /// Limits of all containers together; absent numbers leave the Pod's cgroup unlimited.
    pub resources: Resources,
    /// Namespaced kernel settings (`net.ipv4.ip_unprivileged_port_start` …), set before any container starts.
    pub sysctls: BTreeMap<String, String>,
    /// Kept and given back by `list`; meant for the agent's own notes. At most 64 KiB in all.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// A network namespace of the Pod's own; the caller plumbs it before it creates containers.
    Pod,
    /// The host's (`hostNetwork`), with the host's UTS namespace.
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// One per container: its first process is pid 1.
    Container,
    /// One for the Pod (`shareProcessNamespace`): a pause process is pid 1 and reaps.
    Pod,
    /// The host's (`hostPID`).
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcMode {
    Pod,
    Host,
}

/// Picks the branch of the cgroup tree, as Kubernetes' QoS classes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

/// Kernel numbers. `None` means: not set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// 2 to 262144; from requests.cpu, 1024 per core.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU per `cpu_period_us`; from limits.cpu.
    pub cpu_quota_us: Option<i64>,
    /// Default 100000.
    pub cpu_period_us: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    pub pids_max: Option<i64>,
    /// -1000 to 1000; lowering it needs CAP_SYS_RESOURCE and is left out with a warning when refused.
    pub oom_score_adj: Option<i32>,
}

/// A container within a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: ContainerId,
    /// A reference or image id that is present on this machine.
    pub image: String,
    /// Replaces the image's entrypoint when not empty; then the image's cmd does not count either.
    pub command: Vec<String>,
    /// Replaces the image's cmd when not empty.
    pub args: Vec<String>,
    /// Absolute; `None` takes the image's, else `/`.
    pub working_dir: Option<String>,
    /// Added to the image's environment, later names win; `$(NAME)` is expanded already.
    pub env: Vec<(String, String)>,
    /// Mounted in the order given, which must put parents first.
    pub mounts: Vec<Mount>,
    pub resources: Resources,
    pub security: Security,
    pub stdin: Stdin,
    pub terminal: Terminal,
    /// Where the CRI-format log is written: an absolute path; its folder is made if missing.
    pub log_path: PathBuf,
    /// Bound of the file before it is rotated to `<log_path>.1` and so on.
    pub log_bytes_max: u64,
    /// How many rotated files are kept beside the one that grows.
    pub log_files_max: u32,
    /// `SIGTERM`, `TERM` or a number; `None` takes the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Kept and given back by `list`. At most 64 KiB in all.
    pub annotations: BTreeMap<String, String>,
}

/// Default bounds of a log, those of the kubelet.
pub const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
pub const LOG_FILES_MAX: u32 = 4;

impl ContainerSpec {
    /// A container that runs `image` as it is: no mounts, no limits, default security.
    pub fn new(id: ContainerId, image: impl Into<String>, log_path: impl Into<PathBuf>) -> Self {
        Self {
            id,
            image: image.into(),
            command: Vec::new(),
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            stdin: Stdin::Closed,
            terminal: Terminal::None,
            log_path: log_path.into(),
            log_bytes_max: LOG_BYTES_MAX,
            log_files_max: LOG_FILES_MAX,
            stop_signal: None,
            annotations: BTreeMap::new(),
        }
    }
}

impl SandboxSpec {
    /// A sandbox with namespaces of its own and no limits.
    pub fn new(
        uid: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        let name = name.into();
        Self {
            id: SandboxId(uid.into()),
            namespace: namespace.into(),
            hostname: name.clone(),
            name,
            network: NetworkMode::Pod,
            pid: PidMode::Container,
            ipc: IpcMode::Pod,
            qos: QosClass::BestEffort,
            resources: Resources::default(),
            sysctls: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// /dev/null.
    Closed,
    /// Kept open across attachments.
    Open,
    /// Closed when the first attachment that gave stdin ends (`stdinOnce`).
    Once,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Terminal {
    None,
    Tty,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    pub source: MountSource,
    /// Absolute path in the container; missing folders (or a file, for a file) are made.
    pub target: String,
    pub read_only: bool,
    pub propagation: Propagation,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountSource {
    /// An existing file or folder of the host, with everything mounted below it.
    Host(PathBuf),
    /// Memory, with an optional bound.
    Memory { bytes_max: Option<u64> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Private,
    HostToContainer,
    Bidirectional,
}

/// The merged securityContext of Pod and container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Security {
    /// All capabilities, all devices, nothing masked, no seccomp.
    pub privileged: bool,
    /// `None` takes the image's user.
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    /// Refuse to create the container if it would run as uid 0.
    pub run_as_non_root: bool,
    pub supplemental_groups: Vec<u32>,
    pub read_only_root: bool,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    pub capabilities: Capabilities,
    pub seccomp: Seccomp,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
}

/// Names without `CAP_`; `ALL` is understood in both lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Nothing was asked for.
    #[default]
    Unconfined,
    /// The driver's default profile.
    RuntimeDefault,
    /// A profile file of the host.
    Localhost(PathBuf),
}
