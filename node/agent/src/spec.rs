//! The pod as a node needs it: a projection of the Pod object that knows every field it honours.
//!
//! A field that is stored but cannot be honoured refuses the pod, by name (design section 9). So each struct
//! denies unknown fields, and what is other actors' business (scheduling, admission) is listed and ignored.
//! Field reference: Kubernetes API reference, core/v1 Pod.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The pod's identity and what its node must run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Pod {
    pub metadata: Metadata,
    pub spec: PodSpec,
}

/// The part of `metadata` that a node reads; the rest is not its business.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub deletion_timestamp: Option<String>,
    pub deletion_grace_period_seconds: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    #[serde(default)]
    pub init_containers: Vec<Container>,
    pub containers: Vec<Container>,
    #[serde(default)]
    pub volumes: Vec<Value>,
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    #[serde(default = "default_grace")]
    pub termination_grace_period_seconds: u64,
    pub active_deadline_seconds: Option<u64>,
    #[serde(default)]
    pub dns_policy: DnsPolicy,
    #[serde(default)]
    pub dns_config: DnsConfig,
    #[serde(default)]
    pub host_aliases: Vec<HostAlias>,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    #[serde(default, rename = "setHostnameAsFQDN")]
    pub set_hostname_as_fqdn: bool,
    pub node_name: Option<String>,
    #[serde(default, rename = "hostNetwork")]
    pub host_network: bool,
    #[serde(default, rename = "hostPID")]
    pub host_pid: bool,
    #[serde(default, rename = "hostIPC")]
    pub host_ipc: bool,
    #[serde(default)]
    pub share_process_namespace: bool,
    #[serde(default)]
    pub security_context: PodSecurityContext,
    #[serde(default)]
    pub image_pull_secrets: Vec<LocalReference>,
    pub service_account_name: Option<String>,
    #[serde(default = "yes")]
    pub enable_service_links: bool,

    // Other actors' business: the scheduler's, admission's, the garbage collector's.
    #[serde(default, rename = "serviceAccount")]
    _service_account: Ignored,
    #[serde(default, rename = "automountServiceAccountToken")]
    _automount: Ignored,
    #[serde(default, rename = "schedulerName")]
    _scheduler: Ignored,
    #[serde(default, rename = "priority")]
    _priority: Ignored,
    #[serde(default, rename = "priorityClassName")]
    _priority_class: Ignored,
    #[serde(default, rename = "preemptionPolicy")]
    _preemption: Ignored,
    #[serde(default, rename = "affinity")]
    _affinity: Ignored,
    #[serde(default, rename = "nodeSelector")]
    _node_selector: Ignored,
    #[serde(default, rename = "tolerations")]
    _tolerations: Ignored,
    #[serde(default, rename = "topologySpreadConstraints")]
    _spread: Ignored,
    #[serde(default, rename = "readinessGates")]
    pub readiness_gates: Vec<ReadinessGate>,
    #[serde(default, rename = "schedulingGates")]
    _gates: Ignored,
    #[serde(default, rename = "ephemeralContainers")]
    _ephemeral: Ignored, // Refused by the API until the node runs them; an empty list is stored by some clients.
    #[serde(default, rename = "os")]
    _os: Ignored, // The scheduler keeps pods of another system away.
}

/// A field that is honoured elsewhere. Equal to every other one, so that it never wakes a pod's actor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ignored;

impl PartialEq for Ignored {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Self)
    }
}

fn default_grace() -> u64 {
    30
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum DnsPolicy {
    #[default]
    ClusterFirst,
    ClusterFirstWithHostNet,
    Default,
    None,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DnsConfig {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<DnsOption>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsOption {
    pub name: String,
    pub value: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostAlias {
    pub ip: String,
    #[serde(default)]
    pub hostnames: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LocalReference {
    #[serde(default)]
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessGate {
    pub condition_type: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodSecurityContext {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub fs_group: Option<u32>,
    pub fs_group_change_policy: Option<String>,
    pub supplemental_groups: Vec<u32>,
    pub seccomp_profile: Option<SeccompProfile>,
    pub sysctls: Vec<Sysctl>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sysctl {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeccompProfile {
    #[serde(rename = "type")]
    pub kind: String,
    pub localhost_profile: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    pub name: String,
    #[serde(default)]
    pub image: String,
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
    #[serde(default)]
    pub env: Vec<EnvVar>,
    #[serde(default)]
    pub env_from: Vec<EnvFrom>,
    #[serde(default)]
    pub resources: Resources,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
    pub liveness_probe: Option<Probe>,
    pub readiness_probe: Option<Probe>,
    pub startup_probe: Option<Probe>,
    pub lifecycle: Option<Lifecycle>,
    #[serde(default = "termination_path")]
    pub termination_message_path: String,
    #[serde(default)]
    pub termination_message_policy: TerminationMessagePolicy,
    #[serde(default)]
    pub security_context: SecurityContext,
    #[serde(default)]
    pub stdin: bool,
    #[serde(default)]
    pub stdin_once: bool,
    #[serde(default)]
    pub tty: bool,
    /// `Always` on an init container makes it a sidecar (KEP-753).
    pub restart_policy: Option<RestartPolicy>,
}

impl Container {
    /// An init container that keeps running beside the others.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy == Some(RestartPolicy::Always)
    }
}

fn termination_path() -> String {
    "/dev/termination-log".to_owned()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum ImagePullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum TerminationMessagePolicy {
    #[default]
    File,
    FallbackToLogsOnError,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerPort {
    pub name: Option<String>,
    pub container_port: u16,
    pub host_port: Option<u16>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    #[serde(default = "tcp")]
    pub protocol: String,
}

fn tcp() -> String {
    "TCP".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    pub name: String,
    pub value: Option<String>,
    pub value_from: Option<EnvSource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvSource {
    pub field_ref: Option<FieldRef>,
    pub resource_field_ref: Option<ResourceFieldRef>,
    pub config_map_key_ref: Option<KeyRef>,
    pub secret_key_ref: Option<KeyRef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    pub api_version: Option<String>,
    pub field_path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceFieldRef {
    pub container_name: Option<String>,
    pub resource: String,
    pub divisor: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRef {
    #[serde(default)]
    pub name: String,
    pub key: String,
    #[serde(default)]
    pub optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvFrom {
    #[serde(default)]
    pub prefix: String,
    pub config_map_ref: Option<ObjectRef>,
    pub secret_ref: Option<ObjectRef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub optional: bool,
}

/// Quantities as written; canonical after admission.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    pub limits: BTreeMap<String, Value>,
    pub requests: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    pub name: String,
    pub mount_path: String,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub sub_path: String,
    #[serde(default)]
    pub sub_path_expr: String,
    pub mount_propagation: Option<String>,
    pub recursive_read_only: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    pub exec: Option<ExecAction>,
    pub http_get: Option<HttpGetAction>,
    pub tcp_socket: Option<TcpAction>,
    #[serde(default)]
    pub initial_delay_seconds: u64,
    #[serde(default = "ten")]
    pub period_seconds: u64,
    #[serde(default = "one")]
    pub timeout_seconds: u64,
    #[serde(default = "one_count")]
    pub success_threshold: u32,
    #[serde(default = "three")]
    pub failure_threshold: u32,
    pub termination_grace_period_seconds: Option<u64>,
}

fn ten() -> u64 {
    10
}

fn one() -> u64 {
    1
}

fn one_count() -> u32 {
    1
}

fn three() -> u32 {
    3
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecAction {
    #[serde(default)]
    pub command: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGetAction {
    #[serde(default)]
    pub path: String,
    pub port: PortRef,
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub scheme: Scheme,
    #[serde(default)]
    pub http_headers: Vec<HttpHeader>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Scheme {
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "HTTPS")]
    Https,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HttpHeader {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpAction {
    pub port: PortRef,
    #[serde(default)]
    pub host: String,
}

/// A port by number or by the name of one of the container's ports.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    Number(u16),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lifecycle {
    pub post_start: Option<HookAction>,
    pub pre_stop: Option<HookAction>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookAction {
    pub exec: Option<ExecAction>,
    pub http_get: Option<HttpGetAction>,
    pub tcp_socket: Option<TcpAction>,
    pub sleep: Option<SleepAction>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SleepAction {
    pub seconds: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SecurityContext {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub read_only_root_filesystem: Option<bool>,
    pub privileged: Option<bool>,
    pub allow_privilege_escalation: Option<bool>,
    pub capabilities: Capabilities,
    pub seccomp_profile: Option<SeccompProfile>,
    pub proc_mount: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

/// Why this node cannot run a pod as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Unsupported {
    /// The field's path, as in `spec.containers[0].ports`.
    pub field: String,
    pub problem: String,
}

/// Reads a pod from its JSON.
///
/// # Errors
/// Names the first field that this node does not honour, or whose value it does not understand.
pub fn parse(json: &[u8]) -> Result<Pod, Unsupported> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| Unsupported {
        field: error.path().to_string(),
        problem: format!("this node does not honour it: {}", error.inner()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str) -> Result<Pod, Unsupported> {
        parse(
            format!(
                r#"{{"metadata":{{"name":"web","namespace":"default","uid":"u"}},"spec":{spec}}}"#
            )
            .as_bytes(),
        )
    }

    #[test]
    fn a_pod_as_the_api_stores_it_is_read() {
        let pod = read(
            r#"{"containers":[{"name":"a","image":"i","resources":{},"terminationMessagePath":"/dev/termination-log",
            "terminationMessagePolicy":"File","imagePullPolicy":"Always","ports":[{"containerPort":80,"protocol":"TCP"}],
            "readinessProbe":{"httpGet":{"path":"/","port":"http","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,
            "successThreshold":1,"failureThreshold":3}}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,
            "dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler","tolerations":[],
            "priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority","nodeName":"n1",
            "serviceAccountName":"default","serviceAccount":"default"}"#,
        )
        .unwrap();
        assert_eq!(pod.spec.containers[0].image_pull_policy, ImagePullPolicy::Always);
        let probe = pod.spec.containers[0].readiness_probe.clone().unwrap();
        assert_eq!(probe.http_get.unwrap().port, PortRef::Name("http".to_owned()));
    }

    #[test]
    fn a_field_that_is_not_honoured_refuses_the_pod_by_name() {
        let error = read(r#"{"containers":[{"name":"a","volumeDevices":[]}]}"#).unwrap_err();
        assert!(error.to_string().starts_with("spec.containers[0]"), "{error}");
        assert!(error.to_string().contains("volumeDevices"), "{error}");
        let error = read(r#"{"containers":[],"runtimeClassName":"kata"}"#).unwrap_err();
        assert!(error.to_string().contains("runtimeClassName"), "{error}");
    }

    #[test]
    fn what_other_actors_decide_on_never_wakes_the_pod() {
        let a = read(r#"{"containers":[{"name":"a"}],"tolerations":[]}"#).unwrap();
        let b = read(r#"{"containers":[{"name":"a"}],"tolerations":[{"key":"x"}],"affinity":{}}"#)
            .unwrap();
        assert_eq!(a, b);
    }
}
