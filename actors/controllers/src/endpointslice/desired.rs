//! Which endpoints a Service should have: one per selected Pod and address family, grouped by the ports that it has.

use std::collections::BTreeMap;

use kactor_protocol::store::Key;
use kactor_view::services::TargetPort;
use kactor_view::{ClusterView, Pod, Service, ServicePort};
use serde_json::{Value, json};

const ZONE: &str = "topology.kubernetes.io/zone";

/// What all endpoints of one slice share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GroupKey {
    pub(super) address_type: String,
    pub(super) ports: Value,
}

/// The Services that select the Pod.
pub(crate) fn services_of(pod: &Pod, view: &ClusterView) -> Vec<Key> {
    view.services()
        .in_namespace(pod.meta.namespace())
        .filter(|it| it.selector.as_ref().is_some_and(|it| it.matches(&pod.meta.labels)))
        .map(|it| it.meta.key.clone())
        .collect()
}

/// Endpoints by their Pod's uid. Every address family has at least one group, so that an empty slice says "nobody".
pub(super) fn groups(
    service: &Service,
    view: &ClusterView,
) -> Vec<(GroupKey, BTreeMap<String, Value>)> {
    let Some(selector) = &service.selector else { return Vec::new() };
    let mut families = service.ip_families.clone();
    if families.is_empty() {
        families.push("IPv4".to_owned());
    }
    let mut groups: Vec<(GroupKey, BTreeMap<String, Value>)> = Vec::new();
    for family in families {
        let mut of_family: BTreeMap<String, (Value, BTreeMap<String, Value>)> = BTreeMap::new();
        for pod in view.pods().selected(service.meta.namespace(), selector) {
            let Some(ip) = address(pod, &family).filter(|_| is_served(pod)) else { continue };
            let ports = slice_ports(service, pod);
            let endpoint = endpoint(service, pod, ip, view);
            let group = of_family.entry(ports.to_string()).or_insert((ports, BTreeMap::new()));
            group.1.insert(pod.meta.uid.to_string(), endpoint);
        }
        let address_type = family;
        if of_family.is_empty() {
            groups.push((GroupKey { address_type, ports: Value::Null }, BTreeMap::new()));
            continue;
        }
        for (ports, endpoints) in of_family.into_values() {
            groups.push((GroupKey { address_type: address_type.clone(), ports }, endpoints));
        }
    }
    groups
}

/// Pods that ended serve nobody; those that are ending may still.
pub(crate) fn is_served(pod: &Pod) -> bool {
    !pod.is_terminal() && !pod.ips.is_empty()
}

fn address<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    let is_v6 = family == "IPv6";
    pod.ips.iter().map(String::as_str).find(|it| it.contains(':') == is_v6)
}

/// The Service's ports as this Pod has them; what it does not name, it does not have.
pub(crate) fn resolved_ports<'a>(service: &'a Service, pod: &Pod) -> Vec<(&'a ServicePort, i64)> {
    let resolve = |port: &'a ServicePort| match &port.target {
        TargetPort::Number(number) => Some((port, *number)),
        TargetPort::Name(name) => pod
            .ports
            .iter()
            .find(|it| it.name == *name && it.protocol == port.protocol)
            .map(|it| (port, it.port)),
    };
    service.ports.iter().filter_map(resolve).collect()
}

/// `null` when it has none, which is how an empty list is stored.
fn slice_ports(service: &Service, pod: &Pod) -> Value {
    let port = |(port, number): (&ServicePort, i64)| {
        let mut value = json!({"name": port.name, "port": number, "protocol": port.protocol});
        if let Some(protocol) = &port.app_protocol {
            value["appProtocol"] = protocol.as_str().into();
        }
        value
    };
    let ports: Vec<Value> = resolved_ports(service, pod).into_iter().map(port).collect();
    if ports.is_empty() { Value::Null } else { ports.into() }
}

fn endpoint(service: &Service, pod: &Pod, ip: &str, view: &ClusterView) -> Value {
    let is_terminating = pod.meta.is_terminating();
    let is_serving = pod.is_ready();
    let mut endpoint = json!({
        "addresses": [ip],
        "conditions": {
            "ready": service.publishes_not_ready || (is_serving && !is_terminating),
            "serving": is_serving,
            "terminating": is_terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.meta.namespace(),
            "name": pod.name(),
            "uid": pod.meta.uid.as_str(),
        },
    });
    if let Some(node) = &pod.node {
        endpoint["nodeName"] = (**node).into();
        let key = Key::new("", "nodes", "", node).ok();
        let zone = key.and_then(|it| view.nodes().get(&it)?.meta.labels.get(ZONE).cloned());
        if let Some(zone) = zone {
            endpoint["zone"] = zone.into();
        }
    }
    if !pod.hostname.is_empty() && pod.subdomain == service.meta.name() {
        endpoint["hostname"] = pod.hostname.as_str().into();
    }
    endpoint
}
