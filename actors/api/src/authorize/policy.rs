//! Role-based access control: the roles and bindings of the cluster, and what they say about a request.
//!
//! Pure: `Policy` is fed objects and asked questions. Aggregated roles are computed here from the roles that
//! their selectors match, so that a new role counts in the very revision that stored it. Reference: Kubernetes
//! plugin/pkg/auth/authorizer/rbac. Invariant: policy only ever allows; there is no rule that refuses.

use std::collections::BTreeMap;

use serde_json::Value;

use super::attributes::{Attributes, Decision};
use super::rule::Rule;
use crate::request::User;

/// All roles and bindings, by key parts. Keyed maps make an update a replacement.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    cluster_roles: BTreeMap<String, ClusterRole>,
    roles: BTreeMap<(String, String), Vec<Rule>>,
    cluster_bindings: BTreeMap<String, Binding>,
    bindings: BTreeMap<String, BTreeMap<String, Binding>>,
}

#[derive(Debug, Clone)]
struct ClusterRole {
    labels: Value,
    rules: Vec<Rule>,
    aggregation: Vec<Value>,
}

/// A binding's role and subjects.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Binding {
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Which role a binding grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleRef {
    ClusterRole(String),
    Role { namespace: String, name: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
}

impl Policy {
    /// Takes in one object of `rbac.authorization.k8s.io`; `None` is its deletion.
    pub fn set(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let (ns, key) = (namespace.to_owned(), name.to_owned());
        match resource {
            "clusterroles" => replace(&mut self.cluster_roles, key, object.map(ClusterRole::of)),
            "roles" => replace(&mut self.roles, (ns, key), object.map(Rule::all_of)),
            "clusterrolebindings" => {
                replace(&mut self.cluster_bindings, key, object.and_then(|it| Binding::of(it, "")));
            }
            "rolebindings" => {
                let binding = object.and_then(|it| Binding::of(it, namespace));
                replace(self.bindings.entry(ns).or_default(), key, binding);
            }
            _ => {}
        }
    }

    /// Whether a binding of the user allows it.
    pub fn decide(&self, attributes: &Attributes) -> Decision {
        let namespace =
            attributes.resource().and_then(|it| it.namespace.as_deref()).unwrap_or_default();
        for (name, binding) in &self.cluster_bindings {
            if binding.binds(&attributes.user) && self.allows(&binding.role, attributes) {
                return allowed("ClusterRoleBinding", name, &binding.role, &attributes.user);
            }
        }
        for (name, binding) in self.bindings_in(namespace) {
            if binding.binds(&attributes.user) && self.allows(&binding.role, attributes) {
                let name = format!("{name}/{namespace}");
                return allowed("RoleBinding", &name, &binding.role, &attributes.user);
            }
        }
        Decision::Refuse { reason: self.dangling(&attributes.user, namespace) }
    }

    /// Everything that bindings grant to the user in `namespace` (and in the cluster).
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let cluster = self.cluster_bindings.values();
        let bindings = cluster.chain(self.bindings_in(namespace).map(|(_, it)| it));
        let roles = bindings.filter(|it| it.binds(user)).map(|it| &it.role);
        roles.flat_map(|it| self.rules_of(it).unwrap_or_default()).collect()
    }

    /// A role's rules, with those it aggregates. `None`: there is no such role.
    pub fn rules_of(&self, role: &RoleRef) -> Option<Vec<Rule>> {
        match role {
            RoleRef::Role { namespace, name } => {
                self.roles.get(&(namespace.clone(), name.clone())).cloned()
            }
            RoleRef::ClusterRole(name) => {
                let role = self.cluster_roles.get(name)?;
                let mut rules = role.rules.clone();
                for rule in self.aggregated(role, 0) {
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
                Some(rules)
            }
        }
    }

    /// Aggregated roles may themselves be aggregated (admin → edit → view); a cycle ends at the depth.
    fn aggregated(&self, role: &ClusterRole, depth: u32) -> Vec<Rule> {
        const AGGREGATION_DEPTH_MAX: u32 = 8;
        if depth == AGGREGATION_DEPTH_MAX {
            return Vec::new();
        }
        let matching = self.cluster_roles.values().filter(|other| {
            role.aggregation.iter().any(|selector| selects(selector, &other.labels))
        });
        let mut rules: Vec<Rule> = Vec::new();
        for other in matching {
            for rule in other.rules.iter().cloned().chain(self.aggregated(other, depth + 1)) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        rules
    }

    fn allows(&self, role: &RoleRef, attributes: &Attributes) -> bool {
        let own = match role {
            RoleRef::ClusterRole(name) => {
                self.cluster_roles.get(name).map(|it| (&it.rules, Some(it)))
            }
            RoleRef::Role { namespace, name } => {
                self.roles.get(&(namespace.clone(), name.clone())).map(|it| (it, None))
            }
        };
        let Some((rules, cluster_role)) = own else {
            return false;
        };
        rules.iter().any(|it| it.allows(attributes))
            || cluster_role.is_some_and(|it| {
                !it.aggregation.is_empty()
                    && self.aggregated(it, 0).iter().any(|it| it.allows(attributes))
            })
    }

    fn bindings_in(&self, namespace: &str) -> impl Iterator<Item = (&String, &Binding)> {
        self.bindings.get(namespace).into_iter().flatten().filter(move |_| !namespace.is_empty())
    }

    /// Names roles that the user's bindings grant but that do not exist, as Kubernetes adds to a refusal.
    fn dangling(&self, user: &User, namespace: &str) -> String {
        let cluster = self.cluster_bindings.values();
        let bindings = cluster.chain(self.bindings_in(namespace).map(|(_, it)| it));
        let mut missing: Vec<String> = bindings
            .filter(|it| it.binds(user) && !self.exists(&it.role))
            .map(|it| match &it.role {
                RoleRef::ClusterRole(name) => {
                    format!("clusterrole.rbac.authorization.k8s.io {name:?} not found")
                }
                RoleRef::Role { name, .. } => {
                    format!("role.rbac.authorization.k8s.io {name:?} not found")
                }
            })
            .collect();
        missing.dedup();
        match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        }
    }

    fn exists(&self, role: &RoleRef) -> bool {
        match role {
            RoleRef::ClusterRole(name) => self.cluster_roles.contains_key(name),
            RoleRef::Role { namespace, name } => {
                self.roles.contains_key(&(namespace.clone(), name.clone()))
            }
        }
    }
}

impl ClusterRole {
    fn of(object: &Value) -> Self {
        let selectors =
            object.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
        Self {
            labels: object.pointer("/metadata/labels").cloned().unwrap_or_default(),
            rules: Rule::all_of(object),
            aggregation: selectors.cloned().unwrap_or_default(),
        }
    }
}

impl RoleRef {
    /// The `roleRef` of a binding in `namespace`.
    pub fn of(binding: &Value, namespace: &str) -> Option<Self> {
        let name = binding.pointer("/roleRef/name")?.as_str()?.to_owned();
        match binding.pointer("/roleRef/kind")?.as_str()? {
            "ClusterRole" => Some(Self::ClusterRole(name)),
            "Role" => Some(Self::Role { namespace: namespace.to_owned(), name }),
            _ => None,
        }
    }
}

impl Binding {
    fn of(object: &Value, namespace: &str) -> Option<Self> {
        let subjects = object.get("subjects").and_then(Value::as_array);
        let subjects = subjects.into_iter().flatten().filter_map(|it| Subject::of(it, namespace));
        Some(Self { role: RoleRef::of(object, namespace)?, subjects: subjects.collect() })
    }

    fn binds(&self, user: &User) -> bool {
        self.subjects.iter().any(|it| match it {
            Subject::User(name) => *name == user.name,
            Subject::Group(name) => user.is_in(name),
        })
    }
}

impl Subject {
    fn of(subject: &Value, binding_namespace: &str) -> Option<Self> {
        let name = subject.get("name")?.as_str()?;
        match subject.get("kind")?.as_str()? {
            "User" => Some(Self::User(name.to_owned())),
            "Group" => Some(Self::Group(name.to_owned())),
            "ServiceAccount" => {
                let own =
                    subject.get("namespace").and_then(Value::as_str).filter(|it| !it.is_empty());
                let namespace = own.unwrap_or(binding_namespace);
                Some(Self::User(format!("system:serviceaccount:{namespace}:{name}")))
            }
            _ => None,
        }
    }
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}

/// `matchLabels` and `matchExpressions` of a LabelSelector; an empty selector selects nothing here.
fn selects(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let exact = selector.get("matchLabels").and_then(Value::as_object);
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    if exact.is_none_or(|it| it.is_empty()) && expressions.is_none_or(|it| it.is_empty()) {
        return false;
    }
    let exact_holds = exact.into_iter().flatten().all(|(key, value)| label(key) == value.as_str());
    exact_holds
        && expressions.into_iter().flatten().all(|it| {
            let found = it.get("key").and_then(Value::as_str).and_then(label);
            let values = it.get("values").and_then(Value::as_array);
            let listed = found.is_some_and(|found| {
                values.into_iter().flatten().any(|it| it.as_str() == Some(found))
            });
            match it.get("operator").and_then(Value::as_str) {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                _ => false,
            }
        })
}

fn allowed(kind: &str, name: &str, role: &RoleRef, user: &User) -> Decision {
    let role = match role {
        RoleRef::ClusterRole(name) => format!("ClusterRole {name:?}"),
        RoleRef::Role { name, .. } => format!("Role {name:?}"),
    };
    Decision::Allow {
        reason: format!("RBAC: allowed by {kind} {name:?} of {role} to {:?}", user.name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::Resource;

    fn policy() -> Policy {
        let mut policy = Policy::default();
        let role = |verbs: &[&str]| json!({"rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
        let bind = |kind: &str, role: &str, subject: Value| json!({"roleRef": {"kind": kind, "name": role}, "subjects": [subject]});
        policy.set("clusterroles", "", "reader", Some(&role(&["get", "list"])));
        policy.set("roles", "a", "writer", Some(&role(&["create"])));
        let ann = json!({"kind": "User", "name": "ann"});
        policy.set(
            "clusterrolebindings",
            "",
            "r",
            Some(&bind("ClusterRole", "reader", ann.clone())),
        );
        policy.set("rolebindings", "a", "w", Some(&bind("Role", "writer", ann)));
        let robot = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "b"});
        policy.set("rolebindings", "a", "s", Some(&bind("ClusterRole", "reader", robot)));
        let group = json!({"kind": "Group", "name": "devs"});
        policy.set("rolebindings", "a", "g", Some(&bind("Role", "missing", group)));
        policy
    }

    fn ask(policy: &Policy, user: &User, verb: &str, namespace: &str) -> bool {
        let pods = Resource::new("", "v1", "pods").in_namespace(namespace);
        policy.decide(&Attributes::new(user, verb, &pods)).is_allowed()
    }

    #[test]
    fn bindings_grant_in_the_cluster_or_in_their_namespace_only() {
        let policy = policy();
        let ann = User::authenticated("ann", &[]);
        let robot = User::service_account("b", "robot");
        for (user, verb, namespace, expected) in [
            (&ann, "get", "a", true),
            (&ann, "get", "", true),
            (&ann, "create", "a", true),
            (&ann, "create", "b", false),
            (&robot, "list", "a", true),
            (&robot, "list", "b", false),
            (&robot, "list", "", false),
        ] {
            assert_eq!(
                ask(&policy, user, verb, namespace),
                expected,
                "{} {verb} {namespace:?}",
                user.name
            );
        }
    }

    #[test]
    fn a_refusal_names_the_role_that_a_binding_grants_but_nobody_made() {
        let pods = Resource::new("", "v1", "pods").in_namespace("a");
        let dev = User::authenticated("dev", &["devs"]);
        let decision = policy().decide(&Attributes::new(&dev, "get", &pods));
        assert_eq!(
            decision.reason(),
            r#"RBAC: role.rbac.authorization.k8s.io "missing" not found"#
        );
    }

    #[test]
    fn aggregated_roles_grant_what_they_select_also_through_each_other() {
        let mut policy = policy();
        let selecting = |label: &str| {
            json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]},
                   "metadata": {"labels": {"to-top": "true"}}, "rules": null})
        };
        policy.set("clusterroles", "", "top", Some(&selecting("to-top")));
        policy.set("clusterroles", "", "middle", Some(&selecting("to-middle")));
        let leaf = json!({"metadata": {"labels": {"to-middle": "true"}},
                          "rules": [{"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]}]});
        policy.set("clusterroles", "", "leaf", Some(&leaf));
        let bob = json!({"roleRef": {"kind": "ClusterRole", "name": "top"},
                         "subjects": [{"kind": "User", "name": "bob"}]});
        policy.set("clusterrolebindings", "", "b", Some(&bob));
        let bob = User::authenticated("bob", &[]);
        assert!(ask(&policy, &bob, "delete", "a"));
        policy.set("clusterroles", "", "leaf", None);
        assert!(!ask(&policy, &bob, "delete", "a"), "a deleted role grants no more");
    }
}
