//! EndpointSlices: a Service's endpoints in pieces of at most 1000.

use serde_json::{Value, json};

use super::endpoints::validate_address;
use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::names;
use crate::registry::Strategy;
use crate::table::{self, Column, Printer};
use crate::tree;
use crate::writes;

const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;
const ADDRESSES_MAX: usize = 100;
const SHOWN_MAX: usize = 3;

pub const STRATEGY: Strategy = Strategy {
    default: |slice| {
        for port in tree::each_mut(slice, "ports") {
            tree::fill(port, "protocol", "TCP");
            if tree::at(port, "name").is_null() {
                tree::put(port, "name", "");
            }
        }
    },
    prepare_create: |slice| meta::put_generation(slice, 1),
    prepare_update: |new, old| {
        let body = |it: &Value, field| tree::at(it, field).clone();
        let changed = ["endpoints", "ports", "addressType", "metadata.labels"]
            .iter()
            .any(|it| body(new, it) != body(old, it));
        writes::bump_generation(new, old, changed);
    },
    validate,
    validate_update: |new, old| {
        let path = Path::new("addressType");
        meta::validate::immutable(new, old, "addressType", &path).into_iter().collect()
    },
    ..Strategy::PLAIN
};

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("AddressType", "IPv4, IPv6 or FQDN."),
        Column::text("Ports", "Ports of the endpoints."),
        Column::text("Endpoints", "Addresses of the endpoints."),
        Column::AGE,
    ],
    cells: |slice, now| {
        vec![
            json!(meta::name(slice)),
            json!(tree::text(slice, "addressType")),
            json!(shown_ports(slice)),
            json!(shown_endpoints(slice)),
            table::age(slice, now),
        ]
    },
};

fn shown_ports(slice: &Value) -> String {
    let ports: Vec<String> = tree::list(slice, "ports")
        .iter()
        .map(|port| match (tree::integer(port, "port"), tree::text(port, "name")) {
            (Some(number), _) => number.to_string(),
            (None, "") => "*".to_owned(),
            (None, name) => name.to_owned(),
        })
        .collect();
    shorten(&ports, "<unset>")
}

fn shown_endpoints(slice: &Value) -> String {
    let addresses: Vec<String> = tree::list(slice, "endpoints")
        .iter()
        .flat_map(|it| tree::list(it, "addresses"))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    shorten(&addresses, "<unset>")
}

fn shorten(items: &[String], none: &str) -> String {
    match items.len() {
        0 => none.to_owned(),
        len if len > SHOWN_MAX => {
            let more = len - SHOWN_MAX;
            format!("{} + {more} more...", items[..SHOWN_MAX].join(","))
        }
        _ => items.join(","),
    }
}

fn validate(slice: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let family = tree::text(slice, "addressType");
    match family {
        "" => errors.push(FieldError::required(Path::new("addressType"), "")),
        "IPv4" | "IPv6" | "FQDN" => {}
        other => {
            let path = Path::new("addressType");
            errors.push(FieldError::not_supported(path, other, &["FQDN", "IPv4", "IPv6"]));
        }
    }
    let endpoints = tree::list(slice, "endpoints");
    let path = Path::new("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many(path.clone(), endpoints.len(), ENDPOINTS_MAX));
        return errors;
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        errors.extend(validate_endpoint(endpoint, family, &path.index(at)));
    }
    errors.extend(validate_ports(tree::list(slice, "ports")));
    errors
}

fn validate_endpoint(endpoint: &Value, family: &str, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let addresses = tree::list(endpoint, "addresses");
    let path_of_addresses = path.child("addresses");
    match addresses.len() {
        0 => {
            let why = "must contain at least 1 address";
            errors.push(FieldError::required(path_of_addresses.clone(), why));
        }
        len if len > ADDRESSES_MAX => {
            errors.push(FieldError::too_many(path_of_addresses.clone(), len, ADDRESSES_MAX));
        }
        _ => {}
    }
    for (at, it) in addresses.iter().enumerate() {
        let (text, path) = (it.as_str().unwrap_or(""), path_of_addresses.index(at));
        let parsed = text.parse::<std::net::IpAddr>();
        match (family, parsed) {
            ("IPv4", Ok(ip)) if ip.is_ipv6() => {
                errors.push(FieldError::invalid(path, text, "must be an IPv4 address"));
            }
            ("IPv6", Ok(ip)) if ip.is_ipv4() => {
                errors.push(FieldError::invalid(path, text, "must be an IPv6 address"));
            }
            ("IPv4" | "IPv6", _) => errors.extend(validate_address(text, &path)),
            _ => {
                for why in names::dns1123_subdomain(text) {
                    errors.push(FieldError::invalid(path.clone(), text, why));
                }
            }
        }
    }
    let node = tree::text(endpoint, "nodeName");
    for why in names::dns1123_subdomain(node) {
        if !node.is_empty() {
            errors.push(FieldError::invalid(path.child("nodeName"), node, why));
        }
    }
    errors
}

fn validate_ports(ports: &[Value]) -> Vec<FieldError> {
    let path = Path::new("ports");
    if ports.len() > PORTS_MAX {
        return vec![FieldError::too_many(path, ports.len(), PORTS_MAX)];
    }
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let name = tree::text(port, "name");
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        seen.push(name);
        for why in names::dns1123_label(name) {
            if !name.is_empty() {
                errors.push(FieldError::invalid(path.child("name"), name, why));
            }
        }
        errors.extend(super::service::validate_protocol(port, &path));
    }
    errors
}
