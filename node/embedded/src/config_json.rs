//! From a container's spec to the OCI runtime spec (`config.json`): pure, so that it is tested by its text.
//!
//! Defaults are those of Docker and containerd's CRI: capabilities, masked and read-only paths, mounts. Field
//! reference: OCI runtime-spec 1.2. What libcontainer would do to the shim itself (oom_score_adj, rlimits) is left
//! out here and done to the container's process by the shim.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kactor_drivers::{
    ContainerSpec, DriverError, IpcMode, MountSource, NetworkMode, PidMode, Propagation,
    SandboxSpec, Seccomp, Security, Terminal,
};
use serde_json::{Value, json};

use crate::user::Identity;

/// What the spec does not say: what was looked up and prepared for it.
#[derive(Debug, Clone)]
pub struct Prepared<'a> {
    pub sandbox: &'a SandboxSpec,
    pub container: &'a ContainerSpec,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub identity: Identity,
    pub rootfs: PathBuf,
    /// Absolute, in each tree.
    pub cgroup: String,
    /// Pinned namespaces: a file for each kind.
    pub namespace: &'a dyn NamespacePaths,
    /// Capabilities that this process may hand out at all, names with `CAP_`.
    pub bounding: BTreeSet<String>,
    /// The host's device nodes, for privileged containers.
    pub devices: Vec<Device>,
    pub shm: PathBuf,
}

/// Where a Pod's namespaces are pinned.
pub trait NamespacePaths: std::fmt::Debug + Sync {
    fn path(&self, kind: &str) -> PathBuf;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub path: PathBuf,
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
}

pub const DRIVER: &str = "embedded";

/// Docker's default set.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The whole document.
pub fn config_json(it: &Prepared<'_>) -> Result<Value, DriverError> {
    let security = &it.container.security;
    let capabilities = capabilities(security, &it.bounding)?;
    // Only for the moment between the filter and execve: not in the bounding set, so execve takes it away.
    let mut until_exec = capabilities.clone();
    if needs_admin_for_filter(security) {
        until_exec.insert("CAP_SYS_ADMIN".to_owned());
    }
    let unmasked = security.privileged || security.unmasked_proc;
    let paths = |list: &[&str]| if unmasked { json!([]) } else { json!(list) };
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": { "path": it.rootfs, "readonly": security.read_only_root },
        "process": {
            "terminal": it.container.terminal == Terminal::Tty,
            "user": {
                "uid": it.identity.uid,
                "gid": it.identity.gid,
                "additionalGids": it.identity.groups,
            },
            "args": it.args,
            "env": with_home(it),
            "cwd": it.working_dir,
            "noNewPrivileges": security.no_new_privileges,
            "capabilities": {
                "bounding": capabilities,
                "effective": until_exec,
                "permitted": until_exec,
                "inheritable": [],
                "ambient": [],
            },
        },
        "mounts": mounts(it)?,
        "linux": {
            "cgroupsPath": it.cgroup,
            "namespaces": namespaces(it),
            "resources": resources(it),
            "devices": devices(it),
            "maskedPaths": paths(MASKED),
            "readonlyPaths": paths(READ_ONLY),
            "rootfsPropagation": propagation_of_root(it),
        },
    }))
}

/// Without no_new_privs the kernel lets only an administrator install a filter.
fn needs_admin_for_filter(security: &Security) -> bool {
    has_default_filter(security) && !security.no_new_privileges
}

/// Whether the driver's own seccomp filter is installed.
pub fn has_default_filter(security: &Security) -> bool {
    security.seccomp == Seccomp::RuntimeDefault && !security.privileged
}

fn with_home(it: &Prepared<'_>) -> Vec<String> {
    let mut env = it.env.clone();
    if !env.iter().any(|line| line.starts_with("HOME=")) {
        env.push(format!("HOME={}", it.identity.home));
    }
    if it.container.terminal == Terminal::Tty && !env.iter().any(|line| line.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    env
}

/// Names with `CAP_`, sorted. What this machine does not have for us cannot be handed out: asked for by name it is
/// an error, as part of `ALL` it is left out.
fn capabilities(
    security: &Security,
    bounding: &BTreeSet<String>,
) -> Result<BTreeSet<String>, DriverError> {
    if security.privileged {
        return Ok(bounding.clone());
    }
    let full = |name: &str| {
        let name = name.to_ascii_uppercase();
        if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
    };
    let is_all = |list: &[String]| list.iter().any(|it| it.eq_ignore_ascii_case("ALL"));
    let mut set: BTreeSet<String> =
        match (is_all(&security.capabilities.add), is_all(&security.capabilities.drop)) {
            (true, false) => bounding.clone(),
            (false, true) => BTreeSet::new(),
            (true, true) => BTreeSet::new(), // Dropping wins, as in containerd.
            (false, false) => DEFAULT_CAPABILITIES.iter().map(|it| full(it)).collect(),
        };
    for name in security.capabilities.add.iter().filter(|it| !it.eq_ignore_ascii_case("ALL")) {
        let name = full(name);
        if !bounding.contains(&name) {
            let why = format!("this machine does not let kactor hand out {name}");
            return Err(DriverError::Unsupported {
                driver: DRIVER,
                field: "securityContext.capabilities.add",
                why,
            });
        }
        set.insert(name);
    }
    for name in &security.capabilities.drop {
        set.remove(&full(name));
    }
    set.retain(|it| bounding.contains(it));
    Ok(set)
}

fn namespaces(it: &Prepared<'_>) -> Vec<Value> {
    let mut list = vec![json!({ "type": "mount" })];
    let pinned = |kind: &str| json!({ "type": oci_name(kind), "path": it.namespace.path(kind) });
    if it.sandbox.network == NetworkMode::Pod {
        list.push(pinned("net"));
        list.push(pinned("uts"));
    }
    if it.sandbox.ipc == IpcMode::Pod {
        list.push(pinned("ipc"));
    }
    match it.sandbox.pid {
        PidMode::Container => list.push(json!({ "type": "pid" })),
        PidMode::Pod => list.push(pinned("pid")),
        PidMode::Host => {}
    }
    list
}

fn oci_name(kind: &str) -> &str {
    match kind {
        "net" => "network",
        other => other,
    }
}

fn resources(it: &Prepared<'_>) -> Value {
    let limits = &it.container.resources;
    let mut out = json!({
        "devices": [{ "allow": it.container.security.privileged, "access": "rwm" }],
    });
    let mut cpu = serde_json::Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            cpu.insert(name.to_owned(), value);
        }
    };
    set("shares", limits.cpu_shares.map(|it| json!(it.clamp(2, 262_144))));
    set("quota", limits.cpu_quota_us.map(|it| json!(it)));
    let period = limits.cpu_quota_us.map(|_| json!(limits.cpu_period_us.unwrap_or(100_000)));
    set("period", period);
    if !cpu.is_empty() {
        out["cpu"] = Value::Object(cpu);
    }
    if let Some(limit) = limits.memory_limit_bytes {
        out["memory"] = json!({ "limit": limit });
    }
    if let Some(limit) = limits.pids_max {
        out["pids"] = json!({ "limit": limit });
    }
    out
}

fn devices(it: &Prepared<'_>) -> Vec<Value> {
    if !it.container.security.privileged {
        return Vec::new(); // libcontainer makes null, zero, full, random, urandom and tty.
    }
    let list = it.devices.iter().map(|it| {
        json!({
            "path": it.path, "type": it.kind.to_string(), "major": it.major, "minor": it.minor,
            "fileMode": it.mode, "uid": 0, "gid": 0,
        })
    });
    list.collect()
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": kind, "source": source, "options": options })
}

fn mounts(it: &Prepared<'_>) -> Result<Vec<Value>, DriverError> {
    let privileged = it.container.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let common = ["nosuid", "noexec", "nodev"];
    let with = |more: &[&'static str]| -> Vec<&'static str> {
        common.iter().chain(more).copied().collect()
    };
    let mut list = vec![
        mount("/proc", "proc", "proc", &common),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &common),
    ];
    // A new sysfs shows the network namespace's devices; the host's own one cannot be mounted anew everywhere.
    list.push(mount(
        "/sys",
        "sysfs",
        "sysfs",
        &if privileged { with(&["rw"]) } else { with(&["ro"]) },
    ));
    list.push(json!({
        "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", access],
    }));
    let asked = |target: &str| {
        it.container.mounts.iter().any(|it| it.target.trim_end_matches('/') == target)
    };
    list.retain(|it| !asked(it["destination"].as_str().unwrap_or_default()));
    if !asked("/dev/shm") {
        let shm = it.shm.display().to_string();
        list.push(mount("/dev/shm", "bind", &shm, &["rbind", "rw", "nosuid", "nodev", "noexec"]));
    }
    for asked in &it.container.mounts {
        list.push(one_mount(asked)?);
    }
    Ok(list)
}

fn one_mount(asked: &kactor_drivers::Mount) -> Result<Value, DriverError> {
    if !asked.target.starts_with('/')
        || Path::new(&asked.target).components().any(|it| it.as_os_str() == "..")
    {
        let why = format!("{:?} is no absolute path without ..", asked.target);
        return Err(DriverError::Invalid { field: "volumeMounts[].mountPath", why });
    }
    let access = if asked.read_only { "ro" } else { "rw" };
    let propagation = match asked.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    Ok(match &asked.source {
        MountSource::Host(path) => {
            let source = path.display().to_string();
            mount(&asked.target, "bind", &source, &["rbind", propagation, access])
        }
        MountSource::Memory { bytes_max } => {
            let size = bytes_max.map(|it| format!("size={it}"));
            let mut options = vec!["nosuid", "nodev", access, "mode=1777"];
            options.extend(size.as_deref());
            mount(&asked.target, "tmpfs", "tmpfs", &options)
        }
    })
}

/// A mount that is to be seen on both sides needs a root that lets it through.
fn propagation_of_root(it: &Prepared<'_>) -> &'static str {
    let wanted = it.container.mounts.iter().map(|it| it.propagation);
    let strongest = wanted.max_by_key(|it| match it {
        Propagation::Private => 0,
        Propagation::HostToContainer => 1,
        Propagation::Bidirectional => 2,
    });
    match strongest {
        Some(Propagation::Bidirectional) => "shared",
        Some(Propagation::HostToContainer) => "slave",
        _ => "private",
    }
}

#[cfg(test)]
mod tests;
