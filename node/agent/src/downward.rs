//! The downward API: a pod's own fields and resources, for environment variables and files. Pure.
//!
//! Upstream: pkg/fieldpath and pkg/api/v1/resource (`ExtractResourceValueByContainerName`): a resource is divided
//! by its divisor and rounded up; a limit that is not set is the node's allocatable amount.

use std::collections::BTreeMap;

use kactor_objects::quantity::Quantity;
use serde_json::Value;

use crate::spec::{Container, Pod};

/// What of a pod is known only on its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub node_name: String,
    pub host_addresses: Vec<String>,
    pub pod_addresses: Vec<String>,
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory_bytes: i64,
}

/// A field by its path; `None` if the downward API has no such field.
pub fn field(pod: &Pod, facts: &NodeFacts, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Some(meta.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Some(meta.annotations.get(key).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&facts.host_addresses),
        "status.hostIPs" => facts.host_addresses.join(","),
        "status.podIP" => first(&facts.pod_addresses),
        "status.podIPs" => facts.pod_addresses.join(","),
        _ => return None,
    })
}

/// `metadata.labels['app']` gives `app`.
fn subscript<'a>(path: &'a str, map: &str) -> Option<&'a str> {
    path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")
}

/// `key="value"`, sorted, one a line.
fn lines(map: &BTreeMap<String, String>) -> String {
    let all: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    all.join("\n")
}

/// `limits.memory` and its like, divided and rounded up.
pub fn resource(
    pod: &Pod,
    facts: &NodeFacts,
    container: &str,
    resource: &str,
    divisor: &str,
) -> Option<String> {
    let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let container = all.into_iter().find(|it| it.name == container)?;
    let divisor: Quantity = if divisor == "0" { "1" } else { divisor }.parse().ok()?;
    let (kind, name) = resource.split_once('.')?;
    let amount = |map: &BTreeMap<String, Value>| {
        map.get(name).and_then(|it| kactor_objects::quantity::of_json(it).ok())
    };
    let Container { resources, .. } = container;
    let limit = || amount(&resources.limits);
    let found = match kind {
        "limits" => limit(),
        "requests" => amount(&resources.requests).or_else(limit),
        _ => return None,
    };
    let milli = match (found, kind, name) {
        (Some(it), _, "cpu") => it.milli_value(),
        (Some(it), _, _) => it.value().saturating_mul(1000),
        (None, "limits", "cpu") => facts.allocatable_cpu_milli,
        (None, "limits", "memory") => facts.allocatable_memory_bytes.saturating_mul(1000),
        (None, "requests", "cpu" | "memory" | "ephemeral-storage") => 0,
        _ => return None,
    };
    let unit = divisor.milli_value().max(1);
    Some(milli.div_euclid(unit).saturating_add(i64::from(milli.rem_euclid(unit) != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        crate::spec::parse(
            br#"{"metadata":{"name":"web","namespace":"d","uid":"u","labels":{"b":"2","a":"1\""}},"spec":{"containers":[
            {"name":"c","resources":{"limits":{"cpu":"1500m"},"requests":{"memory":"64Mi"}}}]}}"#,
        )
        .unwrap()
    }

    fn facts() -> NodeFacts {
        NodeFacts {
            node_name: "n".to_owned(),
            pod_addresses: vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()],
            allocatable_memory_bytes: 1 << 30,
            ..NodeFacts::default()
        }
    }

    #[test]
    fn fields_are_the_documented_ones() {
        for (path, expected) in [
            ("metadata.labels['b']", Some("2")),
            ("metadata.labels['zz']", Some("")),
            ("metadata.labels", Some("a=\"1\\\"\"\nb=\"2\"")),
            ("spec.nodeName", Some("n")),
            ("status.podIPs", Some("10.0.0.1,fd00::1")),
            ("status.podIP", Some("10.0.0.1")),
            ("spec.containers", None),
        ] {
            assert_eq!(field(&pod(), &facts(), path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        for (name, divisor, expected) in [
            ("limits.cpu", "1", Some("2")),
            ("limits.cpu", "1m", Some("1500")),
            ("requests.cpu", "1m", Some("1500")),
            ("requests.memory", "1Mi", Some("64")),
            ("limits.memory", "1Mi", Some("1024")),
            ("limits.nonsense", "1", None),
            ("requests.memory", "x", None),
        ] {
            assert_eq!(
                resource(&pod(), &facts(), "c", name, divisor).as_deref(),
                expected,
                "{name}"
            );
        }
        assert_eq!(resource(&pod(), &facts(), "nobody", "limits.cpu", "1"), None);
    }
}
