//! From a Pod to what the driver is asked for: sandbox and container specs. Pure.
//!
//! Upstream: kubelet kuberuntime (`generateContainerConfig`, `MilliCPUToShares`, `GetContainerOOMScoreAdjust`,
//! security context merging).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kactor_drivers::hollow::COMPLETES;
use kactor_drivers::spec::{
    Capabilities, ContainerId, ContainerSpec, IpcMode, Mount, MountSource, NetworkMode, PidMode,
    Propagation, QosClass, Resources, SandboxId, SandboxSpec, Seccomp, Security, Stdin, Terminal,
};
use kactor_objects::quantity::Quantity;
use serde_json::Value;

use crate::environment::expand;
use crate::observe::FAILURES;
use crate::spec::{Container, Pod, SeccompProfile, VolumeMount};
use crate::status::qos_class;

/// Microseconds of one CPU period (cfs_period_us), Kubernetes' default.
const CPU_PERIOD_US: u64 = 100_000;
const CPU_QUOTA_US_MIN: i64 = 1000;
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;

/// A field whose value cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SpecError {
    pub field: String,
    pub problem: String,
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> SpecError {
    SpecError { field: field.into(), problem: problem.into() }
}

/// The pod's frame.
pub fn sandbox_spec(pod: &Pod, domain: &str) -> SandboxSpec {
    let spec = &pod.spec;
    let mut out = SandboxSpec::new(&pod.metadata.uid, &pod.metadata.namespace, &pod.metadata.name);
    out.hostname = hostname(pod, domain);
    if spec.host_network {
        out.network = NetworkMode::Host;
    }
    out.pid = match (spec.host_pid, spec.share_process_namespace) {
        (true, _) => PidMode::Host,
        (false, true) => PidMode::Pod,
        (false, false) => PidMode::Container,
    };
    if spec.host_ipc {
        out.ipc = IpcMode::Host;
    }
    out.qos = match qos_class(pod) {
        "Guaranteed" => QosClass::Guaranteed,
        "Burstable" => QosClass::Burstable,
        _ => QosClass::BestEffort,
    };
    let sysctls = spec.security_context.sysctls.iter();
    out.sysctls = sysctls.map(|it| (it.name.clone(), it.value.clone())).collect();
    out
}

/// The name that the pod's kernel namespace has: `spec.hostname`, else the pod's name, at most 63 bytes.
pub fn hostname(pod: &Pod, domain: &str) -> String {
    let name = pod.spec.hostname.as_ref().unwrap_or(&pod.metadata.name);
    let short = name.get(..63).unwrap_or(name).trim_end_matches(['-', '.']);
    match (&pod.spec.subdomain, pod.spec.set_hostname_as_fqdn) {
        (Some(subdomain), true) => {
            format!("{short}.{subdomain}.{}.svc.{domain}", pod.metadata.namespace)
        }
        _ => short.to_owned(),
    }
}

/// Everything about a container's run that was found out before it is made.
#[derive(Debug, Clone)]
pub struct RunInputs<'a> {
    pub attempt: u32,
    pub failures: u32,
    pub env: Vec<(String, String)>,
    /// Host folders of the pod's volumes, by volume name.
    pub volumes: &'a BTreeMap<String, PathBuf>,
    /// Files that the agent wrote for this container: `/etc/hosts`, `/etc/resolv.conf`, the termination log.
    pub files: Vec<(PathBuf, String)>,
    pub log_path: PathBuf,
    /// Memory of the node, for the score by which the kernel picks what to kill.
    pub node_memory_bytes: u64,
}

/// One run of one container.
pub fn container_spec(
    pod: &Pod,
    container: &Container,
    inputs: RunInputs<'_>,
) -> Result<ContainerSpec, SpecError> {
    let id = ContainerId {
        sandbox: SandboxId(pod.metadata.uid.clone()),
        name: container.name.clone(),
        attempt: inputs.attempt,
    };
    let lookup =
        |name: &str| inputs.env.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone());
    let mut out = ContainerSpec::new(id, &container.image, &inputs.log_path);
    out.command = container.command.iter().map(|it| expand(it, lookup)).collect();
    out.args = container.args.iter().map(|it| expand(it, lookup)).collect();
    out.working_dir = container.working_dir.clone().filter(|it| !it.is_empty());
    out.mounts = mounts(container, &inputs, lookup)?;
    out.resources = resources(pod, container, inputs.node_memory_bytes)?;
    out.security = security(pod, container);
    out.stdin = match (container.stdin, container.stdin_once) {
        (false, _) => Stdin::Closed,
        (true, false) => Stdin::Open,
        (true, true) => Stdin::Once,
    };
    out.terminal = if container.tty { Terminal::Tty } else { Terminal::None };
    out.annotations.insert(FAILURES.to_owned(), inputs.failures.to_string());
    let is_init = pod.spec.init_containers.iter().any(|it| it.name == container.name);
    if is_init && !container.is_sidecar() {
        out.annotations.insert(COMPLETES.to_owned(), "true".to_owned());
    }
    out.env = inputs.env;
    Ok(out)
}

fn mounts(
    container: &Container,
    inputs: &RunInputs<'_>,
    lookup: impl Fn(&str) -> Option<String> + Copy,
) -> Result<Vec<Mount>, SpecError> {
    let mut out = Vec::new();
    for it in &container.volume_mounts {
        let folder = inputs.volumes.get(&it.name).ok_or_else(|| {
            wrong(
                format!("volumeMounts[{}]", it.mount_path),
                format!("the pod has no volume {:?}", it.name),
            )
        })?;
        out.push(Mount {
            source: MountSource::Host(below(folder, it, lookup)?),
            target: it.mount_path.clone(),
            read_only: it.read_only,
            propagation: match it.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    for (file, target) in &inputs.files {
        // A volume that is mounted there wins over the agent's own file, as in the kubelet.
        if !out.iter().any(|it: &Mount| it.target == *target) {
            let source = MountSource::Host(file.clone());
            out.push(Mount {
                source,
                target: target.clone(),
                read_only: false,
                propagation: Propagation::Private,
            });
        }
    }
    // Parents before children.
    out.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(out)
}

/// `subPath` and `subPathExpr`, which must stay inside the volume.
fn below(
    folder: &Path,
    mount: &VolumeMount,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<PathBuf, SpecError> {
    let sub = match (mount.sub_path.is_empty(), mount.sub_path_expr.is_empty()) {
        (true, true) => return Ok(folder.to_owned()),
        (false, _) => mount.sub_path.clone(),
        (true, false) => expand(&mount.sub_path_expr, lookup),
    };
    let inside = !sub.starts_with('/') && sub.split('/').all(|it| it != "..");
    if !inside {
        let field = format!("volumeMounts[{}].subPath", mount.mount_path);
        return Err(wrong(field, format!("{sub:?} leaves the volume")));
    }
    Ok(folder.join(sub))
}

/// A resource's amount in its base unit times 1000 for cpu, bytes for the rest.
fn amount(
    container: &Container,
    map: &BTreeMap<String, Value>,
    name: &str,
) -> Result<Option<Quantity>, SpecError> {
    let Some(value) = map.get(name) else { return Ok(None) };
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let field = || format!("container {} resources.{name}", container.name);
    text.parse().map(Some).map_err(|_| wrong(field(), format!("{text:?} is no quantity")))
}

fn resources(
    pod: &Pod,
    container: &Container,
    node_memory_bytes: u64,
) -> Result<Resources, SpecError> {
    let (limits, requests) = (&container.resources.limits, &container.resources.requests);
    let cpu_limit = amount(container, limits, "cpu")?.map(|it| it.milli_value());
    let memory_limit = amount(container, limits, "memory")?.map(|it| it.value());
    let cpu_request = amount(container, requests, "cpu")?.map(|it| it.milli_value()).or(cpu_limit);
    let memory_request =
        amount(container, requests, "memory")?.map(|it| it.value()).or(memory_limit);
    Ok(Resources {
        cpu_shares: Some(cpu_shares(cpu_request.unwrap_or(0))),
        cpu_quota_us: cpu_limit.filter(|it| *it > 0).map(cpu_quota_us),
        cpu_period_us: Some(CPU_PERIOD_US),
        memory_limit_bytes: memory_limit.filter(|it| *it > 0),
        pids_max: None,
        oom_score_adj: Some(oom_score_adj(
            qos_class(pod),
            memory_request.unwrap_or(0),
            node_memory_bytes,
        )),
    })
}

fn cpu_shares(milli: i64) -> u64 {
    (milli.max(0) as u64 * 1024 / 1000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

fn cpu_quota_us(milli: i64) -> i64 {
    (milli.saturating_mul(CPU_PERIOD_US as i64) / 1000).max(CPU_QUOTA_US_MIN)
}

/// kubelet qos.GetContainerOOMScoreAdjust: who asked for little of the node's memory goes first.
fn oom_score_adj(qos: &str, memory_request: i64, node_memory_bytes: u64) -> i32 {
    match qos {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let node = i64::try_from(node_memory_bytes).unwrap_or(i64::MAX).max(1);
            let share = i128::from(memory_request) * 1000 / i128::from(node);
            (1000 - share).clamp(3, 999) as i32
        }
    }
}

fn security(pod: &Pod, container: &Container) -> Security {
    let (own, shared) = (&container.security_context, &pod.spec.security_context);
    let privileged = own.privileged.unwrap_or(false);
    let mut groups = shared.supplemental_groups.clone();
    groups.extend(shared.fs_group);
    Security {
        privileged,
        run_as_user: own.run_as_user.or(shared.run_as_user),
        run_as_group: own.run_as_group.or(shared.run_as_group),
        run_as_non_root: own.run_as_non_root.or(shared.run_as_non_root).unwrap_or(false),
        supplemental_groups: groups,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        capabilities: Capabilities {
            add: own.capabilities.add.clone(),
            drop: own.capabilities.drop.clone(),
        },
        seccomp: seccomp(own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref())),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    }
}

fn seccomp(profile: Option<&SeccompProfile>) -> Seccomp {
    match profile.map(|it| (it.kind.as_str(), &it.localhost_profile)) {
        Some(("RuntimeDefault", _)) => Seccomp::RuntimeDefault,
        Some(("Localhost", Some(path))) => {
            Seccomp::Localhost(Path::new("/var/lib/kubelet/seccomp").join(path))
        }
        _ => Seccomp::Unconfined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let json = format!(
            r#"{{"metadata":{{"name":"web","namespace":"default","uid":"u"}},"spec":{{{spec}}}}}"#
        );
        crate::spec::parse(json.as_bytes()).unwrap()
    }

    fn spec_of(container: &str) -> Result<ContainerSpec, SpecError> {
        let pod = pod(&format!(r#""containers":[{{"name":"a","image":"i",{container}}}]"#));
        let volumes = BTreeMap::from([("v".to_owned(), PathBuf::from("/vol"))]);
        let inputs = RunInputs {
            attempt: 2,
            failures: 1,
            env: vec![("A".to_owned(), "1".to_owned())],
            volumes: &volumes,
            files: vec![(PathBuf::from("/h"), "/etc/hosts".to_owned())],
            log_path: PathBuf::from("/log"),
            node_memory_bytes: 1000,
        };
        container_spec(&pod, &pod.spec.containers[0], inputs)
    }

    #[test]
    fn commands_see_the_environment_and_mounts_are_in_order() {
        let spec = spec_of(
            r#""command":["sh","-c","echo $(A) $(B)"],"volumeMounts":[{"name":"v","mountPath":"/z","subPathExpr":"s/$(A)"},
            {"name":"v","mountPath":"/a","readOnly":true}]"#,
        )
        .unwrap();
        assert_eq!(spec.command[2], "echo 1 $(B)");
        let targets: Vec<&str> = spec.mounts.iter().map(|it| it.target.as_str()).collect();
        assert_eq!(targets, ["/a", "/etc/hosts", "/z"]);
        assert_eq!(spec.mounts[2].source, MountSource::Host(PathBuf::from("/vol/s/1")));
        assert_eq!(spec.annotations[FAILURES], "1");
    }

    #[test]
    fn sub_paths_stay_inside_the_volume_and_volumes_must_exist() {
        for mount in [
            r#"{"name":"v","mountPath":"/z","subPath":"../x"}"#,
            r#"{"name":"v","mountPath":"/z","subPath":"/etc"}"#,
            r#"{"name":"w","mountPath":"/z"}"#,
        ] {
            let error = spec_of(&format!(r#""volumeMounts":[{mount}]"#)).unwrap_err();
            assert!(error.field.starts_with("volumeMounts[/z]"), "{error}");
        }
    }

    #[test]
    fn a_mount_over_a_file_of_the_agent_wins() {
        let spec = spec_of(r#""volumeMounts":[{"name":"v","mountPath":"/etc/hosts"}]"#).unwrap();
        assert_eq!(spec.mounts.len(), 1);
        assert_eq!(spec.mounts[0].source, MountSource::Host(PathBuf::from("/vol")));
    }

    #[test]
    fn resources_become_the_kernels_numbers() {
        let spec = spec_of(
            r#""resources":{"limits":{"cpu":"500m","memory":"1Ki"},"requests":{"cpu":"250m","memory":"100"}}"#,
        )
        .unwrap();
        let got = spec.resources;
        assert_eq!((got.cpu_shares, got.cpu_quota_us), (Some(256), Some(50_000)));
        assert_eq!((got.memory_limit_bytes, got.oom_score_adj), (Some(1024), Some(900)));
        let none = spec_of(r#""args":[]"#).unwrap().resources;
        assert_eq!(
            (none.cpu_shares, none.cpu_quota_us, none.memory_limit_bytes),
            (Some(2), None, None)
        );
        assert_eq!(none.oom_score_adj, Some(1000));
    }

    #[test]
    fn a_containers_security_goes_before_the_pods() {
        let pod = pod(
            r#""containers":[{"name":"a","securityContext":{"runAsUser":7,"allowPrivilegeEscalation":false}}],
            "securityContext":{"runAsUser":5,"runAsGroup":6,"fsGroup":9,"supplementalGroups":[8]}"#,
        );
        let got = security(&pod, &pod.spec.containers[0]);
        assert_eq!((got.run_as_user, got.run_as_group), (Some(7), Some(6)));
        assert_eq!(got.supplemental_groups, [8, 9]);
        assert!(got.no_new_privileges);
    }

    #[test]
    fn host_names_are_the_pods() {
        assert_eq!(hostname(&pod(r#""containers":[]"#), "cluster.local"), "web");
        let named =
            pod(r#""containers":[],"hostname":"h","subdomain":"s","setHostnameAsFQDN":true"#);
        assert_eq!(hostname(&named, "cluster.local"), "h.s.default.svc.cluster.local");
    }
}
