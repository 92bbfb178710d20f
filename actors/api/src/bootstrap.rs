//! What must exist before anybody asks: namespaces, the default roles and bindings, the Service `kubernetes`.
//!
//! Runs at every start, as the API's own user through the same pipeline, and is idempotent: what exists is kept, what a
//! newer release adds to a role or binding is added, unless its `rbac.authorization.kubernetes.io/autoupdate` is
//! "false". The roles are Kubernetes' own files (data/NOTICE). Aggregated roles get their rules written out, as
//! Kubernetes' controller does, so that a person who reads `admin` sees what it grants.

use futures::future::try_join_all;
use kactor_objects::status::{Reason, Status};
use kactor_objects::{meta, tree};
use kactor_protocol::ids::TraceId;
use kactor_protocol::time::Deadline;
use serde_json::{Value, json};

use crate::api::{Api, Endpoint};
use crate::authorize::policy::Policy;
use crate::request::{Body, Caller, Operation, Options, Request, Resource, Response, User};

/// The default roles and bindings of Kubernetes 1.36, and those of controllers that only kactor has.
const ROLES: &[&str] = &[
    include_str!("../data/cluster-roles.yaml"),
    include_str!("../data/controller-roles.yaml"),
    include_str!("../data/namespace-roles.yaml"),
    include_str!("../data/kactor-roles.yaml"),
];
const BINDINGS: &[&str] = &[
    include_str!("../data/cluster-role-bindings.yaml"),
    include_str!("../data/controller-role-bindings.yaml"),
    include_str!("../data/namespace-role-bindings.yaml"),
    include_str!("../data/kactor-role-bindings.yaml"),
];
pub const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Objects that are written at the same time: one sync of the log serves them all.
const AT_ONCE: usize = 32;

impl Api {
    /// As `bootstrap_at`, of a cluster whose one control host this is.
    pub async fn bootstrap(&self, deadline: Deadline) -> Result<(), Status> {
        self.bootstrap_at(&[self.config().endpoint], deadline).await
    }

    /// Makes what is missing and repairs what is old; the API is served at `endpoints`. Call it when this host leads, before
    /// `/readyz` is 200. The Service `kubernetes` comes last: where it is, everything is.
    pub async fn bootstrap_at(
        &self,
        endpoints: &[Endpoint],
        deadline: Deadline,
    ) -> Result<(), Status> {
        let namespaces = NAMESPACES.iter().map(
            |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
        self.ensure_all(namespaces.collect(), deadline).await?;
        let mut roles = objects_in(ROLES)?;
        write_out_aggregates(&mut roles);
        self.ensure_all(roles, deadline).await?;
        self.ensure_all(objects_in(BINDINGS)?, deadline).await?;
        self.publish(endpoints, deadline).await
    }

    /// Lets the Service `kubernetes` lead to these, and nowhere else. All have the port of this host's API.
    pub async fn publish(&self, endpoints: &[Endpoint], deadline: Deadline) -> Result<(), Status> {
        self.ensure_all(self.own_service(endpoints), deadline).await
    }

    async fn ensure_all(&self, objects: Vec<Value>, deadline: Deadline) -> Result<(), Status> {
        for some in objects.chunks(AT_ONCE) {
            try_join_all(some.iter().map(|it| self.ensure(it, deadline))).await?;
        }
        Ok(())
    }

    async fn ensure(&self, wanted: &Value, deadline: Deadline) -> Result<(), Status> {
        let resource = resource_of(wanted)?;
        let named = resource.clone().named(meta::name(wanted));
        let present = match self.own(Operation::Get, &named, None, deadline).await {
            Ok(it) => it.object.to_tree(),
            Err(status) if status.reason == Reason::NotFound => {
                return match self
                    .own(Operation::Create, &resource, Some(wanted.clone()), deadline)
                    .await
                {
                    Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
                    outcome => outcome.map(drop),
                };
            }
            Err(status) => return Err(status),
        };
        let Some(repaired) = repair(&present, wanted) else {
            return Ok(());
        };
        self.own(Operation::Update, &named, Some(repaired), deadline).await.map(drop)
    }

    async fn own(
        &self,
        operation: Operation,
        resource: &Resource,
        body: Option<Value>,
        deadline: Deadline,
    ) -> Result<Response, Status> {
        self.handle(Request {
            caller: Caller::internal(User::api(), "kactor-api", TraceId::NONE),
            resource: resource.clone(),
            operation,
            options: Options::default(),
            body: body.map(Body::Tree),
            deadline,
        })
        .await
    }

    /// The Service `kubernetes` and where it leads.
    fn own_service(&self, endpoints: &[Endpoint]) -> Vec<Value> {
        let own = self.config().endpoint;
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let service = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": self.config().service_range.first().to_string(),
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": own.port}],
                },
        });
        // A loopback address is no endpoint (validation refuses it): such a host has no pods that could reach it. A slice
        // has one port and one family.
        let is_published = |it: &&Endpoint| {
            !it.address.is_loopback()
                && it.port == own.port
                && it.address.is_ipv4() == own.address.is_ipv4()
        };
        let mut addresses: Vec<String> =
            endpoints.iter().filter(is_published).map(|it| it.address.to_string()).collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            return vec![service];
        }
        let address_type = if own.address.is_ipv4() { "IPv4" } else { "IPv6" };
        let ready = |it: &String| json!({"addresses": [it], "conditions": {"ready": true}});
        let ip = |it: &String| json!({ "ip": it });
        vec![
            service,
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": "kubernetes", "namespace": "default",
                             "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": address_type,
                "endpoints": addresses.iter().map(ready).collect::<Vec<_>>(),
                "ports": [{"name": "https", "port": own.port, "protocol": "TCP"}],
            }),
            json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": {"name": "kubernetes", "namespace": "default",
                             "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
                "subsets": [{
                    "addresses": addresses.iter().map(ip).collect::<Vec<_>>(),
                    "ports": [{"name": "https", "port": own.port, "protocol": "TCP"}],
                }],
            }),
        ]
    }
}

fn resource_of(object: &Value) -> Result<Resource, Status> {
    let (api_version, kind) = (meta::api_version(object), meta::kind(object));
    let row = kactor_objects::registry()
        .by_api_version(api_version, kind)
        .ok_or_else(|| Status::internal(&format!("{api_version} {kind} is not registered")))?;
    let mut resource = Resource::new(row.group, row.version, row.resource);
    if row.is_namespaced() {
        resource.namespace = Some(meta::namespace(object).to_owned());
    }
    Ok(resource)
}

/// The present object with what it lacks; `None` when it lacks nothing.
fn repair(present: &Value, wanted: &Value) -> Option<Value> {
    let mut out = present.clone();
    match meta::kind(wanted) {
        "ClusterRole" | "Role" | "ClusterRoleBinding" | "RoleBinding" => {
            if meta::annotation(present, AUTOUPDATE) == Some("false") {
                return None;
            }
            for path in ["metadata.labels", "metadata.annotations"] {
                for (key, value) in tree::entries(wanted, path) {
                    tree::object(tree::place(&mut out, path)).insert(key.to_owned(), value.clone());
                }
            }
            for path in ["rules", "subjects"] {
                add_missing(&mut out, wanted, path);
            }
            if let Some(rule) = wanted.get("aggregationRule") {
                out["aggregationRule"] = rule.clone();
            }
        }
        "EndpointSlice" => {
            for path in ["endpoints", "ports"] {
                tree::copy(&mut out, wanted, path);
            }
            // Defaults of the stored object are no difference.
            let same = |path: &str| {
                let (have, want) = (tree::list(present, path), tree::list(wanted, path));
                have.len() == want.len()
                    && have.iter().zip(want).all(|(have, want)| contains(have, want))
            };
            if same("endpoints") && same("ports") {
                return None;
            }
        }
        "Endpoints" => tree::copy(&mut out, wanted, "subsets"),
        "Service" => {
            let port = tree::list(wanted, "spec.ports").first()?.get("targetPort")?.clone();
            tree::each_mut(&mut out, "spec.ports")
                .take(1)
                .for_each(|it| it["targetPort"] = port.clone());
        }
        _ => return None,
    }
    (out != *present).then_some(out)
}

/// Whether `have` says all that `want` says.
fn contains(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(have), Value::Object(want)) => {
            want.iter().all(|(key, value)| have.get(key).is_some_and(|it| contains(it, value)))
        }
        _ => have == want,
    }
}

fn add_missing(out: &mut Value, wanted: &Value, path: &str) {
    let present = tree::list(out, path).to_vec();
    let missing: Vec<Value> = tree::list(wanted, path)
        .iter()
        .filter(|it| !present.iter().any(|have| contains(have, it)))
        .cloned()
        .collect();
    if !missing.is_empty() {
        tree::put(out, path, [present, missing].concat());
    }
}

fn objects_in(files: &[&str]) -> Result<Vec<Value>, Status> {
    let mut objects = Vec::new();
    for text in files {
        let list: Value = serde_saphyr::from_str(text).map_err(|error| {
            Status::internal(&format!("a default role cannot be read: {error}"))
        })?;
        objects.extend(tree::list(&list, "items").iter().cloned());
    }
    objects.iter_mut().for_each(tree::prune_nulls);
    Ok(objects)
}

/// Puts the rules that an aggregated role selects into it.
fn write_out_aggregates(roles: &mut [Value]) {
    let mut policy = Policy::default();
    for role in roles.iter().filter(|it| meta::kind(it) == "ClusterRole") {
        policy.set("clusterroles", "", meta::name(role), Some(role));
    }
    for role in roles.iter_mut().filter(|it| it.get("aggregationRule").is_some()) {
        let name = crate::authorize::policy::RoleRef::ClusterRole(meta::name(role).to_owned());
        let rules = policy.rules_of(&name).unwrap_or_default();
        role["rules"] = json!(rules);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_role_and_binding_is_read() {
        let roles = objects_in(ROLES).unwrap();
        let bindings = objects_in(BINDINGS).unwrap();
        assert!(roles.len() > 70 && bindings.len() > 50, "{} {}", roles.len(), bindings.len());
        let mut roles = roles;
        write_out_aggregates(&mut roles);
        let admin = roles.iter().find(|it| meta::name(it) == "admin").unwrap();
        assert!(tree::list(admin, "rules").len() > 10);
    }

    #[test]
    fn a_repaired_role_keeps_what_people_added() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let wanted = json!({"kind": "ClusterRole", "metadata": {"name": "x"}, "rules": [rule("get"), rule("list")]});
        let mut present = json!({"kind": "ClusterRole", "metadata": {"name": "x"}, "rules": [rule("get"), rule("delete")]});
        let repaired = repair(&present, &wanted).unwrap();
        assert_eq!(repaired["rules"], json!([rule("get"), rule("delete"), rule("list")]));
        assert_eq!(repair(&repaired, &wanted), None, "nothing is left to do");
        present["metadata"]["annotations"] = json!({AUTOUPDATE: "false"});
        assert_eq!(repair(&present, &wanted), None);
    }
}
