//! The node authorizer: a node's agent may read what its own pods need, and nothing of others.
//!
//! `NodeGraph` is fed the pods and knows, for each node, which Secrets, ConfigMaps, claims and service accounts its pods
//! name. Rights that need no pod are the rules of the role `system:node`, which has no binding. Reference:
//! Kubernetes plugin/pkg/auth/authorizer/node. Invariant: secrets and configmaps are answered by the graph alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::attributes::{Attributes, Decision};
use super::policy::{Policy, RoleRef};
use crate::request::Resource;

/// Which pods are on which node, and what they name.
#[derive(Debug, Clone, Default)]
pub struct NodeGraph {
    /// Pod (namespace, name) → node.
    placed: BTreeMap<(String, String), String>,
    /// Node → pod (namespace, name) → what it names.
    nodes: BTreeMap<String, BTreeMap<(String, String), BTreeSet<Named>>>,
}

/// Something that a pod names in its own namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Named {
    Secret(String),
    ConfigMap(String),
    Claim(String),
    ServiceAccount(String),
}

impl NodeGraph {
    /// Takes in a pod; `None` is its deletion.
    pub fn set(&mut self, namespace: &str, name: &str, pod: Option<&Value>) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(node) = self.placed.remove(&key)
            && let Some(pods) = self.nodes.get_mut(&node)
        {
            pods.remove(&key);
            if pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
        let node = pod
            .and_then(|it| it.pointer("/spec/nodeName"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (Some(pod), false) = (pod, node.is_empty()) else {
            return;
        };
        self.placed.insert(key.clone(), node.to_owned());
        self.nodes.entry(node.to_owned()).or_default().insert(key, named_by(pod));
    }

    /// Whether the pod is on the node.
    pub fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.placed.get(&(namespace.to_owned(), name.to_owned())).is_some_and(|it| it == node)
    }

    /// A refusal without a reason leaves the question to the role; one with a reason is final.
    pub fn decide(&self, node: &str, attributes: &Attributes) -> Decision {
        let Some(it) = attributes.resource() else {
            return Decision::Refuse { reason: String::new() };
        };
        let namespace = it.namespace.as_deref().unwrap_or_default();
        let name = it.name.as_deref().unwrap_or_default();
        let reads = matches!(attributes.verb.as_str(), "get" | "list" | "watch");
        match (it.group.as_str(), it.resource.as_str(), it.subresource.as_deref()) {
            ("", "secrets", None) => {
                self.decide_named(node, namespace, Named::Secret(name.to_owned()), reads)
            }
            ("", "configmaps", None) => {
                self.decide_named(node, namespace, Named::ConfigMap(name.to_owned()), reads)
            }
            ("", "persistentvolumeclaims", None) => self.decide_named(
                node,
                namespace,
                Named::Claim(name.to_owned()),
                attributes.verb == "get",
            ),
            ("", "serviceaccounts", Some("token")) => {
                let wanted = Named::ServiceAccount(name.to_owned());
                self.decide_named(node, namespace, wanted, attributes.verb == "create")
            }
            ("", "serviceaccounts", None) => self.decide_named(
                node,
                namespace,
                Named::ServiceAccount(name.to_owned()),
                attributes.verb == "get",
            ),
            ("", "pods", _) if reads => self.decide_pods(node, attributes, namespace, name),
            ("", "nodes", _) => decide_node(node, attributes, name),
            ("coordination.k8s.io", "leases", None) => decide_lease(node, &attributes.verb, it),
            _ => Decision::Refuse { reason: String::new() },
        }
    }

    fn decide_named(
        &self,
        node: &str,
        namespace: &str,
        wanted: Named,
        verb_fits: bool,
    ) -> Decision {
        let pods = self.nodes.get(node).into_iter().flatten();
        let found =
            pods.filter(|((ns, _), _)| ns == namespace).any(|(_, names)| names.contains(&wanted));
        if verb_fits && found {
            return Decision::Allow { reason: String::new() };
        }
        let reason = if verb_fits {
            format!("no relationship found between node '{node}' and this object")
        } else {
            "node agents may only read this by its name".to_owned()
        };
        Decision::Refuse { reason }
    }

    fn decide_pods(
        &self,
        node: &str,
        attributes: &Attributes,
        namespace: &str,
        name: &str,
    ) -> Decision {
        let own = if name.is_empty() {
            attributes.required("spec.nodeName") == Some(node)
        } else {
            self.has_pod(node, namespace, name)
                || attributes.required("spec.nodeName") == Some(node)
        };
        if own {
            return Decision::Allow { reason: String::new() };
        }
        let reason = if name.is_empty() {
            "can only list/watch pods with spec.nodeName field selector".to_owned()
        } else {
            format!("no relationship found between node '{node}' and this object")
        };
        Decision::Refuse { reason }
    }
}

fn decide_node(node: &str, attributes: &Attributes, name: &str) -> Decision {
    let refuse = |reason: &str| Decision::Refuse { reason: reason.to_owned() };
    match attributes.verb.as_str() {
        // A create has no name yet in the question; admission compares it.
        "create" if name.is_empty() || name == node => Decision::Allow { reason: String::new() },
        "get" | "update" | "patch" | "list" | "watch" if name == node => {
            Decision::Allow { reason: String::new() }
        }
        "get" | "list" | "watch" => refuse("node agents may only read their own Node object"),
        _ => refuse("node agents may only change their own Node object"),
    }
}

fn decide_lease(node: &str, verb: &str, lease: &Resource) -> Decision {
    let own_namespace = lease.namespace.as_deref() == Some("kube-node-lease");
    let own_name = lease.name.as_deref().unwrap_or_default() == node;
    let allowed = match verb {
        "create" => own_namespace,
        "get" | "update" | "patch" | "delete" => own_namespace && own_name,
        _ => false,
    };
    if allowed {
        return Decision::Allow { reason: String::new() };
    }
    Decision::Refuse {
        reason: "can only access the node lease of the same name in kube-node-lease".to_owned(),
    }
}

/// What the role `system:node` grants, minus what the graph answers.
pub(crate) fn decide_by_role(policy: &Policy, attributes: &Attributes) -> Decision {
    let refuse = Decision::Refuse { reason: String::new() };
    let Some(it) = attributes.resource() else {
        return refuse;
    };
    let sub = it.subresource.as_deref();
    let by_graph = match it.group.as_str() {
        "" => {
            matches!(
                (it.resource.as_str(), sub),
                (
                    "secrets"
                        | "configmaps"
                        | "persistentvolumeclaims"
                        | "serviceaccounts"
                        | "nodes",
                    _
                )
            ) || (it.resource == "pods"
                && matches!(attributes.verb.as_str(), "get" | "list" | "watch"))
        }
        "coordination.k8s.io" => true,
        _ => false,
    };
    if by_graph {
        return refuse;
    }
    let rules =
        policy.rules_of(&RoleRef::ClusterRole("system:node".to_owned())).unwrap_or_default();
    if rules.iter().any(|it| it.allows(attributes)) {
        return Decision::Allow { reason: String::new() };
    }
    refuse
}

/// Everything in its own namespace that the pod names.
fn named_by(pod: &Value) -> BTreeSet<Named> {
    let mut out = BTreeSet::new();
    let Some(spec) = pod.get("spec") else {
        return out;
    };
    let items = |at: &Value, field: &str| {
        at.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let text = |at: &Value, path: &str| at.pointer(path).and_then(Value::as_str).map(str::to_owned);
    out.extend(text(spec, "/serviceAccountName").map(Named::ServiceAccount));
    out.extend(
        items(spec, "imagePullSecrets")
            .iter()
            .filter_map(|it| text(it, "/name"))
            .map(Named::Secret),
    );
    for volume in items(spec, "volumes") {
        out.extend(text(&volume, "/secret/secretName").map(Named::Secret));
        out.extend(text(&volume, "/configMap/name").map(Named::ConfigMap));
        out.extend(text(&volume, "/persistentVolumeClaim/claimName").map(Named::Claim));
        for source in volume.get("projected").map(|it| items(it, "sources")).unwrap_or_default() {
            out.extend(text(&source, "/secret/name").map(Named::Secret));
            out.extend(text(&source, "/configMap/name").map(Named::ConfigMap));
        }
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec, field) {
            for source in items(&container, "envFrom") {
                out.extend(text(&source, "/secretRef/name").map(Named::Secret));
                out.extend(text(&source, "/configMapRef/name").map(Named::ConfigMap));
            }
            for variable in items(&container, "env") {
                out.extend(text(&variable, "/valueFrom/secretKeyRef/name").map(Named::Secret));
                out.extend(
                    text(&variable, "/valueFrom/configMapKeyRef/name").map(Named::ConfigMap),
                );
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::User;

    fn graph() -> NodeGraph {
        let mut graph = NodeGraph::default();
        let pod = json!({"spec": {
            "nodeName": "n1", "serviceAccountName": "robot",
            "volumes": [{"secret": {"secretName": "vol"}},
                        {"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}]}],
        }});
        graph.set("a", "web", Some(&pod));
        graph
    }

    fn ask(graph: &NodeGraph, node: &str, verb: &str, resource: &str, name: &str) -> bool {
        let (resource, sub) = match resource.split_once('/') {
            Some((it, sub)) => (it, Some(sub.to_owned())),
            None => (resource, None),
        };
        let mut target = Resource::new("", "v1", resource).in_namespace("a").named(name);
        target.subresource = sub;
        graph.decide(node, &Attributes::new(&User::node(node), verb, &target)).is_allowed()
    }

    #[test]
    fn a_node_reads_only_what_its_own_pods_name() {
        let graph = graph();
        for (node, verb, resource, name, expected) in [
            ("n1", "get", "secrets", "vol", true),
            ("n1", "get", "secrets", "env", true),
            ("n1", "get", "secrets", "other", false),
            ("n1", "update", "secrets", "vol", false),
            ("n2", "get", "secrets", "vol", false),
            ("n1", "watch", "configmaps", "kube-root-ca.crt", true),
            ("n1", "create", "serviceaccounts/token", "robot", true),
            ("n1", "create", "serviceaccounts/token", "admin", false),
            ("n1", "get", "pods", "web", true),
            ("n2", "get", "pods", "web", false),
            ("n1", "get", "nodes", "n1", true),
            ("n1", "patch", "nodes/status", "n1", true),
            ("n1", "get", "nodes", "n2", false),
        ] {
            assert_eq!(
                ask(&graph, node, verb, resource, name),
                expected,
                "{node} {verb} {resource} {name}"
            );
        }
    }

    #[test]
    fn a_deleted_pod_takes_the_rights_with_it() {
        let mut graph = graph();
        graph.set("a", "web", None);
        assert!(!ask(&graph, "n1", "get", "secrets", "vol"));
        assert!(graph.nodes.is_empty() && graph.placed.is_empty());
    }

    #[test]
    fn pods_are_listed_by_node_only() {
        let graph = graph();
        let pods = Resource::new("", "v1", "pods");
        let list = |selector| {
            let ask = Attributes::new(&User::node("n1"), "list", &pods).selecting(selector);
            graph.decide("n1", &ask).is_allowed()
        };
        assert!(list(Some("spec.nodeName=n1")));
        assert!(!list(Some("spec.nodeName=n2")));
        assert!(!list(None));
    }
}
