//! Which resource a kind is, for the kinds that controllers act on: owner references name kinds, requests name resources.
//!
//! What the table lacks (custom resources) the view learns from the objects that it has seen.

/// One served kind, in its preferred version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindRow {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub resource: &'static str,
    pub namespaced: bool,
}

const fn row(
    group: &'static str,
    kind: &'static str,
    resource: &'static str,
    namespaced: bool,
) -> KindRow {
    KindRow { group, version: "v1", kind, resource, namespaced }
}

pub const KINDS: &[KindRow] = &[
    row("", "Namespace", "namespaces", false),
    row("", "Node", "nodes", false),
    row("", "PersistentVolume", "persistentvolumes", false),
    row("", "Pod", "pods", true),
    row("", "Service", "services", true),
    row("", "Endpoints", "endpoints", true),
    row("", "ConfigMap", "configmaps", true),
    row("", "Secret", "secrets", true),
    row("", "ServiceAccount", "serviceaccounts", true),
    row("", "Event", "events", true),
    row("", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    row("", "ReplicationController", "replicationcontrollers", true),
    row("", "LimitRange", "limitranges", true),
    row("", "ResourceQuota", "resourcequotas", true),
    row("", "PodTemplate", "podtemplates", true),
    row("apps", "Deployment", "deployments", true),
    row("apps", "ReplicaSet", "replicasets", true),
    row("apps", "StatefulSet", "statefulsets", true),
    row("apps", "DaemonSet", "daemonsets", true),
    row("apps", "ControllerRevision", "controllerrevisions", true),
    row("batch", "Job", "jobs", true),
    row("batch", "CronJob", "cronjobs", true),
    row("discovery.k8s.io", "EndpointSlice", "endpointslices", true),
    row("coordination.k8s.io", "Lease", "leases", true),
    row("rbac.authorization.k8s.io", "Role", "roles", true),
    row("rbac.authorization.k8s.io", "RoleBinding", "rolebindings", true),
    row("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", false),
    row("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", false),
    row("policy", "PodDisruptionBudget", "poddisruptionbudgets", true),
    row("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    row("networking.k8s.io", "Ingress", "ingresses", true),
    row("networking.k8s.io", "NetworkPolicy", "networkpolicies", true),
    row("scheduling.k8s.io", "PriorityClass", "priorityclasses", false),
];

/// The group of an `apiVersion`: `apps/v1` → `apps`, `v1` → ``.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The version of an `apiVersion`: `apps/v1` → `v1`.
pub fn version_of(api_version: &str) -> &str {
    api_version.rsplit('/').next().unwrap_or_default()
}

pub fn by_kind(group: &str, kind: &str) -> Option<&'static KindRow> {
    KINDS.iter().find(|it| it.group == group && it.kind == kind)
}

pub fn by_resource(group: &str, resource: &str) -> Option<&'static KindRow> {
    KINDS.iter().find(|it| it.group == group && it.resource == resource)
}
