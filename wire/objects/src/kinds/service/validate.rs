//! What is wrong with a Service, in upstream's words.

use serde_json::Value;

use crate::field_error::{FieldError, Path};
use crate::labels;
use crate::meta;
use crate::names;
use crate::tree;

/// The range that NodePorts are given out from.
pub const NODE_PORT_MIN: i64 = 30_000;
pub const NODE_PORT_MAX: i64 = 32_767;
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(super) fn on_create(service: &Value) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let kind = tree::text(service, "spec.type");
    let mut errors = Vec::new();
    let ports = tree::list(service, "spec.ports");
    let headless = tree::text(service, "spec.clusterIP") == "None";
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(spec.child("ports"), ""));
    }
    if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(spec.child("type"), kind, TYPES));
    }
    match kind {
        "LoadBalancer" if headless => errors.push(FieldError::invalid(
            spec.child("clusterIPs[0]"),
            "None",
            "may not be set to 'None' for LoadBalancer services",
        )),
        "NodePort" if headless => errors.push(FieldError::invalid(
            spec.child("clusterIPs[0]"),
            "None",
            "may not be set to 'None' for NodePort services",
        )),
        "ExternalName" => errors.extend(validate_external_name(service, &spec)),
        _ => {}
    }
    errors.extend(validate_ports(service, ports, &spec.child("ports")));
    errors.extend(validate_choices(service, &spec));
    errors.extend(labels::validate_labels(
        tree::at(service, "spec.selector"),
        &spec.child("selector"),
    ));
    errors.extend(validate_addresses(service, &spec));
    errors
}

fn validate_external_name(service: &Value, spec: &Path) -> Vec<FieldError> {
    let name = tree::text(service, "spec.externalName");
    let path = spec.child("externalName");
    if name.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    names::dns1123_subdomain(name.trim_end_matches('.'))
        .into_iter()
        .map(|why| FieldError::invalid(path.clone(), name, why))
        .collect()
}

fn validate_choices(service: &Value, spec: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, known) in [
        ("sessionAffinity", &["ClientIP", "None"][..]),
        ("internalTrafficPolicy", &["Cluster", "Local"]),
        ("externalTrafficPolicy", &["Cluster", "Local"]),
        ("ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]),
    ] {
        let value = tree::text(tree::at(service, "spec"), field);
        if value.is_empty() && field == "sessionAffinity" {
            errors.push(FieldError::required(spec.child(field), ""));
        } else if !value.is_empty() && !known.contains(&value) {
            errors.push(FieldError::not_supported(spec.child(field), value, known));
        }
    }
    let timeout = "sessionAffinityConfig.clientIP.timeoutSeconds";
    if let Some(seconds) = tree::integer(tree::at(service, "spec"), timeout)
        && !(1..=AFFINITY_SECONDS_MAX).contains(&seconds)
    {
        let why = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.push(FieldError::invalid(spec.child(timeout), seconds, why));
    }
    let internal = matches!(tree::text(service, "spec.type"), "ClusterIP")
        && tree::list(service, "spec.externalIPs").is_empty();
    let policy = tree::text(service, "spec.externalTrafficPolicy");
    if internal && !policy.is_empty() {
        errors.push(FieldError::invalid(
            spec.child("externalTrafficPolicy"),
            policy,
            "may only be set for externally-accessible services",
        ));
    }
    errors
}

fn validate_addresses(service: &Value, spec: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let cluster_ip = tree::text(service, "spec.clusterIP");
    if !matches!(cluster_ip, "" | "None") {
        for why in names::ip(cluster_ip) {
            errors.push(FieldError::invalid(spec.child("clusterIPs[0]"), cluster_ip, why));
        }
    }
    let first = tree::list(service, "spec.clusterIPs").first().and_then(Value::as_str);
    if let Some(first) = first
        && !cluster_ip.is_empty()
        && first != cluster_ip
    {
        errors.push(FieldError::invalid(
            spec.child("clusterIPs"),
            tree::at(service, "spec.clusterIPs").clone(),
            "first value must match `clusterIP`",
        ));
    }
    for (at, it) in tree::list(service, "spec.externalIPs").iter().enumerate() {
        let path = spec.child("externalIPs").index(at);
        errors.extend(crate::kinds::endpoints::validate_address(it.as_str().unwrap_or(""), &path));
    }
    errors
}

fn validate_ports(service: &Value, ports: &[Value], path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let takes_node_ports = matches!(tree::text(service, "spec.type"), "NodePort" | "LoadBalancer");
    let (mut port_names, mut numbers, mut node_ports) = (Vec::new(), Vec::new(), Vec::new());
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        errors.extend(validate_port(port, ports.len(), &path));
        let name = tree::text(port, "name");
        if !name.is_empty() && port_names.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        port_names.push(name);
        let (number, protocol) =
            (tree::integer(port, "port").unwrap_or(0), tree::text(port, "protocol"));
        if numbers.contains(&(number, protocol)) {
            let shown = serde_json::json!({"port": number, "protocol": protocol});
            errors.push(FieldError::duplicate(path.clone(), shown));
        }
        numbers.push((number, protocol));
        let node_port = tree::integer(port, "nodePort").unwrap_or(0);
        if node_port == 0 {
            continue;
        }
        let path = path.child("nodePort");
        if !takes_node_ports {
            let why = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(path, why));
        } else if node_ports.contains(&(node_port, protocol)) {
            errors.push(FieldError::duplicate(path, node_port));
        } else if !(NODE_PORT_MIN..=NODE_PORT_MAX).contains(&node_port) {
            let why = format!(
                "provided port is not in the valid range. The range of valid ports is {NODE_PORT_MIN}-{NODE_PORT_MAX}"
            );
            errors.push(FieldError::invalid(path, node_port, why));
        }
        node_ports.push((node_port, protocol));
    }
    errors
}

fn validate_port(port: &Value, n_ports: usize, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = tree::text(port, "name");
    if name.is_empty() {
        if n_ports > 1 {
            errors.push(FieldError::required(path.child("name"), ""));
        }
    } else {
        for why in names::dns1123_label(name) {
            errors.push(FieldError::invalid(path.child("name"), name, why));
        }
    }
    let number = tree::integer(port, "port").unwrap_or(0);
    for why in names::port_number(number) {
        errors.push(FieldError::invalid(path.child("port"), number, why));
    }
    errors.extend(validate_protocol(port, path));
    let (target, path) = (tree::at(port, "targetPort"), path.child("targetPort"));
    let faults = match target {
        Value::String(name) => names::port_name(name),
        other => names::port_number(other.as_i64().unwrap_or(0)),
    };
    for why in faults {
        errors.push(FieldError::invalid(path.clone(), target.clone(), why));
    }
    errors
}

/// The `protocol` of any kind of port.
pub(crate) fn validate_protocol(port: &Value, path: &Path) -> Option<FieldError> {
    let path = path.child("protocol");
    match tree::text(port, "protocol") {
        "" => Some(FieldError::required(path, "")),
        it if PROTOCOLS.contains(&it) => None,
        it => Some(FieldError::not_supported(path, it, PROTOCOLS)),
    }
}

/// A cluster IP stays for as long as the type has one.
pub(super) fn on_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let kind = |it: &Value| tree::text(it, "spec.type").to_owned();
    let given = tree::text(old, "spec.clusterIP");
    if kind(new) == "ExternalName" || kind(old) == "ExternalName" || given.is_empty() {
        return Vec::new();
    }
    let path = Path::new("spec.clusterIPs[0]");
    meta::validate::immutable(new, old, "spec.clusterIP", &path).into_iter().collect()
}
