//! From specs to what dockerd is asked to create: pure, so that it is tested by its text.
//!
//! Every field of a spec is translated or refused by name. What Docker would add by itself (health checks of images,
//! restarts, a default network) is switched off: kactor does these.

use std::path::Path;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig,
    Mount as DockerMount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions,
    MountType, RestartPolicy, RestartPolicyNameEnum,
};
use kactor_drivers::cgroups::pod_path;
use kactor_drivers::{
    ContainerSpec, DriverError, Image, IpcMode, Mount, MountSource, NetworkMode, PidMode,
    Propagation, QosClass, SandboxId, SandboxSpec, Seccomp, Stdin, Terminal,
};

use crate::engine::CgroupDriver;
use crate::labels;

pub const DRIVER: &str = "docker";

/// A pod's cgroup as dockerd is told it, and its folder in each tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodCgroup {
    pub parent: String,
    pub path: String,
}

pub fn pod_cgroup(
    driver: CgroupDriver,
    instance: &str,
    qos: QosClass,
    id: &SandboxId,
) -> PodCgroup {
    match driver {
        CgroupDriver::Cgroupfs => {
            let path = pod_path(instance, qos, id);
            PodCgroup { parent: path.clone(), path }
        }
        CgroupDriver::Systemd => {
            // In a slice's name each dash is a level.
            let flat = |it: &str| it.replace('-', "_");
            let qos = format!("{qos:?}").to_lowercase();
            let levels = [flat(instance), qos, format!("pod{}", flat(&id.0))];
            let mut slice = "kactor".to_owned();
            let mut path = format!("/{slice}.slice");
            for level in levels {
                slice = format!("{slice}-{level}");
                path = format!("{path}/{slice}.slice");
            }
            PodCgroup { parent: format!("{slice}.slice"), path }
        }
    }
}

/// The pause container of a pod.
pub fn sandbox(
    instance: &str,
    spec: &SandboxSpec,
    image: &str,
    cgroup_parent: &str,
) -> Result<ContainerCreateBody, DriverError> {
    let own_network = spec.network == NetworkMode::Pod;
    Ok(ContainerCreateBody {
        hostname: own_network.then(|| spec.hostname.clone()),
        image: Some(image.to_owned()),
        labels: Some(labels::of_sandbox(instance, spec)?.into_iter().collect()),
        healthcheck: Some(no_health_check()),
        host_config: Some(HostConfig {
            network_mode: Some(if own_network { "none" } else { "host" }.to_owned()),
            uts_mode: (!own_network).then(|| "host".to_owned()),
            ipc_mode: Some(match spec.ipc {
                IpcMode::Pod => "shareable".to_owned(),
                IpcMode::Host => "host".to_owned(),
            }),
            cgroup_parent: Some(cgroup_parent.to_owned()),
            sysctls: Some(spec.sysctls.clone().into_iter().collect()),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            restart_policy: Some(never_restart()),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

/// What a container is made with beside its spec.
pub struct Surroundings<'a> {
    pub instance: &'a str,
    pub pod: &'a SandboxSpec,
    /// Docker's id of the pause container.
    pub pause: &'a str,
    pub image: &'a Image,
    pub cgroup_parent: &'a str,
    /// The content of a seccomp profile of the host.
    pub seccomp_profile: Option<String>,
    pub left_out: &'a LeftOut,
}

/// What this machine does not let dockerd do: found out when a start fails by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    oom_score: bool,
    /// Privileged is put together of what can be had: these capabilities and devices.
    privileged: Option<Privileges>,
    /// In sentences, for the container's status.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// With `CAP_`.
    pub capabilities: Vec<String>,
    /// Paths of device nodes.
    pub devices: Vec<String>,
}

impl LeftOut {
    /// What more to leave out after runc has said why a start failed; `None` if that is another reason.
    pub fn after(
        &self,
        spec: &ContainerSpec,
        said: &str,
        have: impl FnOnce() -> Privileges,
    ) -> Option<Self> {
        let mut more = self.clone();
        match spec.resources.oom_score_adj {
            Some(score) if said.contains("oom_score_adj") && !self.oom_score => {
                more.oom_score = true;
                let warning = format!("oom_score_adj {score}: this machine refuses to lower it");
                more.warnings.push(warning);
                return Some(more);
            }
            _ => {}
        }
        let is_refused = said.contains("apply caps") || said.contains("bounding set");
        if spec.security.privileged && is_refused && self.privileged.is_none() {
            more.privileged = Some(have());
            more.warnings.push(
                "privileged: without the capabilities that this machine withholds from Docker, and with /sys read-only".to_owned(),
            );
            return Some(more);
        }
        None
    }
}

pub fn container(
    spec: &ContainerSpec,
    around: &Surroundings<'_>,
) -> Result<ContainerCreateBody, DriverError> {
    let labels =
        labels::of_container(around.instance, around.pod, spec, &around.left_out.warnings)?;
    let image = &around.image.config;
    if spec.command.is_empty()
        && image.entrypoint.is_empty()
        && spec.args.is_empty()
        && image.cmd.is_empty()
    {
        let why = "neither the container nor its image names a program".to_owned();
        return Err(DriverError::Invalid { field: "containers[].command", why });
    }
    let some = |it: &[String]| (!it.is_empty()).then(|| it.to_vec());
    Ok(ContainerCreateBody {
        image: Some(around.image.id.clone()),
        entrypoint: some(&spec.command),
        cmd: some(&spec.args),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: working_dir(spec)?,
        user: user(spec, &image.user)?,
        open_stdin: Some(spec.stdin != Stdin::Closed),
        stdin_once: Some(spec.stdin == Stdin::Once),
        tty: Some(spec.terminal == Terminal::Tty),
        stop_signal: spec.stop_signal.clone().filter(|it| !it.is_empty()),
        labels: Some(labels.into_iter().collect()),
        healthcheck: Some(no_health_check()),
        host_config: Some(host_config(spec, around)?),
        ..ContainerCreateBody::default()
    })
}

fn no_health_check() -> HealthConfig {
    HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }
}

fn never_restart() -> RestartPolicy {
    RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }
}

fn working_dir(spec: &ContainerSpec) -> Result<Option<String>, DriverError> {
    match spec.working_dir.as_deref().filter(|it| !it.is_empty()) {
        Some(dir) if !dir.starts_with('/') => Err(DriverError::Invalid {
            field: "containers[].workingDir",
            why: format!("{dir:?} is not absolute"),
        }),
        dir => Ok(dir.map(str::to_owned)),
    }
}

/// `uid[:gid]`; `None` leaves the image's. As in Kubernetes, a user known by name only cannot be shown not to be root.
fn user(spec: &ContainerSpec, image: &str) -> Result<Option<String>, DriverError> {
    let security = &spec.security;
    let (image_user, image_group) = match image.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image, None),
    };
    let user = match security.run_as_user {
        Some(uid) => uid.to_string(),
        None if image_user.is_empty() => "0".to_owned(),
        None => image_user.to_owned(),
    };
    if security.run_as_non_root {
        let why = match user.parse::<u32>() {
            Ok(0) => Some("the container would run as root".to_owned()),
            Ok(_) => None,
            Err(_) => Some(format!(
                "the image's user {user:?} is a name, so it cannot be shown not to be root; set runAsUser"
            )),
        };
        if let Some(why) = why {
            return Err(DriverError::Invalid { field: "securityContext.runAsNonRoot", why });
        }
    }
    let group = match (security.run_as_group, security.run_as_user) {
        (Some(gid), _) => Some(gid.to_string()),
        (None, None) => image_group.map(str::to_owned),
        (None, Some(_)) => None,
    };
    Ok(Some(match group {
        Some(group) => format!("{user}:{group}"),
        None => user,
    }))
}

fn host_config(spec: &ContainerSpec, around: &Surroundings<'_>) -> Result<HostConfig, DriverError> {
    let (limits, security) = (&spec.resources, &spec.security);
    let joined = || format!("container:{}", around.pause);
    let host = || "host".to_owned();
    let host_network = around.pod.network == NetworkMode::Host;
    let unmasked = security.unmasked_proc && !security.privileged;
    let mut config = HostConfig {
        network_mode: Some(if host_network { host() } else { joined() }),
        uts_mode: host_network.then(host),
        ipc_mode: Some(match around.pod.ipc {
            IpcMode::Pod => joined(),
            IpcMode::Host => host(),
        }),
        pid_mode: match around.pod.pid {
            PidMode::Container => None,
            PidMode::Pod => Some(joined()),
            PidMode::Host => Some(host()),
        },
        cgroup_parent: Some(around.cgroup_parent.to_owned()),
        mounts: Some(spec.mounts.iter().map(mount).collect::<Result<_, _>>()?),
        log_config: Some(log_config(spec)),
        restart_policy: Some(never_restart()),
        privileged: Some(security.privileged),
        readonly_rootfs: Some(security.read_only_root),
        cap_add: Some(security.capabilities.add.clone()),
        cap_drop: Some(security.capabilities.drop.clone()),
        group_add: Some(security.supplemental_groups.iter().map(ToString::to_string).collect()),
        security_opt: Some(security_options(spec, around)),
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
        oom_score_adj: limits.oom_score_adj.map(i64::from),
        pids_limit: limits.pids_max,
        ..HostConfig::default()
    };
    config.cpu_shares =
        limits.cpu_shares.map(|it| i64::try_from(it.clamp(2, 262_144)).unwrap_or(262_144));
    config.cpu_quota = limits.cpu_quota_us;
    let period = limits.cpu_period_us.unwrap_or(100_000);
    config.cpu_period = limits.cpu_quota_us.map(|_| i64::try_from(period).unwrap_or(100_000));
    config.memory = limits.memory_limit_bytes;
    // Equal: no swap, as Kubernetes without swap support.
    config.memory_swap = limits.memory_limit_bytes;
    if around.left_out.oom_score {
        config.oom_score_adj = None;
    }
    if let Some(have) = &around.left_out.privileged {
        put_together(&mut config, have);
    }
    Ok(config)
}

/// Privileged by its parts.
fn put_together(config: &mut HostConfig, have: &Privileges) {
    config.privileged = Some(false);
    // Docker 20.10 refuses names that came with Linux 5.8 and 5.9; what they allow, SYS_ADMIN allows too.
    let is_new = |it: &str| matches!(it, "CAP_PERFMON" | "CAP_BPF" | "CAP_CHECKPOINT_RESTORE");
    let known = have.capabilities.iter().filter(|it| !is_new(it)).cloned();
    config.cap_add = Some(known.collect());
    config.cap_drop = None;
    config.masked_paths = Some(Vec::new());
    config.readonly_paths = Some(Vec::new());
    let unconfined = ["seccomp=unconfined", "apparmor=unconfined", "label=disable"];
    config.security_opt = Some(unconfined.map(str::to_owned).to_vec());
    config.device_cgroup_rules = Some(vec!["a *:* rwm".to_owned()]);
    let device = |path: &String| DeviceMapping {
        path_on_host: Some(path.clone()),
        path_in_container: Some(path.clone()),
        cgroup_permissions: Some("rwm".to_owned()),
    };
    config.devices = Some(have.devices.iter().map(device).collect());
}

/// dockerd keeps at least what Kubernetes would, so that a kactor that was away finds it.
fn log_config(spec: &ContainerSpec) -> HostConfigLogConfig {
    let bytes_max = spec.log_bytes_max.max(1 << 20);
    let options = [
        ("max-size", format!("{bytes_max}")),
        ("max-file", format!("{}", spec.log_files_max.saturating_add(2))),
    ];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(options.into_iter().map(|(name, it)| (name.to_owned(), it)).collect()),
    }
}

fn security_options(spec: &ContainerSpec, around: &Surroundings<'_>) -> Vec<String> {
    let mut options = Vec::new();
    if spec.security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match (&spec.security.seccomp, &around.seccomp_profile) {
        (Seccomp::Unconfined, _) => options.push("seccomp=unconfined".to_owned()),
        (Seccomp::RuntimeDefault, _) => {} // Docker's own.
        (Seccomp::Localhost(_), profile) => {
            options.push(format!("seccomp={}", profile.as_deref().unwrap_or_default()));
        }
    }
    options
}

fn mount(asked: &Mount) -> Result<DockerMount, DriverError> {
    let target = Path::new(&asked.target);
    if !target.is_absolute() || target.components().any(|it| it.as_os_str() == "..") {
        let why = format!("{:?} is no absolute path without ..", asked.target);
        return Err(DriverError::Invalid { field: "volumeMounts[].mountPath", why });
    }
    let mut mount = DockerMount {
        target: Some(asked.target.clone()),
        read_only: Some(asked.read_only),
        ..DockerMount::default()
    };
    match &asked.source {
        MountSource::Host(path) => {
            mount.typ = Some(MountType::BIND);
            mount.source = Some(path.display().to_string());
            mount.bind_options = Some(MountBindOptions {
                propagation: Some(match asked.propagation {
                    Propagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
                    Propagation::HostToContainer => MountBindOptionsPropagationEnum::RSLAVE,
                    Propagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
                }),
                ..MountBindOptions::default()
            });
        }
        MountSource::Memory { bytes_max } => {
            const EVERYBODYS: i64 = 0o1777;
            mount.typ = Some(MountType::TMPFS);
            mount.tmpfs_options = Some(MountTmpfsOptions {
                size_bytes: bytes_max.map(|it| i64::try_from(it).unwrap_or(i64::MAX)),
                mode: Some(EVERYBODYS),
                options: None,
            });
        }
    }
    Ok(mount)
}

#[cfg(test)]
mod tests;
