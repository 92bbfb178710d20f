//! Endpoints: the old form of a Service's addresses, still read by old clients.

use serde_json::{Value, json};

use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::names;
use crate::registry::{PutOfAbsent, Strategy};
use crate::table::{self, Column, Printer};
use crate::tree;

/// Addresses shown in a table before `+ N more...`.
const SHOWN_MAX: usize = 3;

pub const STRATEGY: Strategy = Strategy {
    default: |endpoints| {
        for subset in tree::each_mut(endpoints, "subsets") {
            for port in tree::each_mut(subset, "ports") {
                tree::fill(port, "protocol", "TCP");
            }
        }
    },
    validate,
    put_of_absent: PutOfAbsent::Create,
    ..Strategy::PLAIN
};

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Endpoints", "Ready addresses with their ports."),
        Column::AGE,
    ],
    cells: |endpoints, now| {
        vec![json!(meta::name(endpoints)), json!(shown(endpoints)), table::age(endpoints, now)]
    },
};

fn shown(endpoints: &Value) -> String {
    let subsets = tree::list(endpoints, "subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ports = tree::list(subset, "ports");
        for address in tree::list(subset, "addresses") {
            let ip = tree::text(address, "ip");
            match ports {
                [] => all.push(ip.to_owned()),
                _ => all.extend(
                    ports
                        .iter()
                        .map(|port| join_host_port(ip, tree::integer(port, "port").unwrap_or(0))),
                ),
            }
        }
    }
    match all.len() {
        0 => "<none>".to_owned(),
        len if len > SHOWN_MAX => {
            let more = len - SHOWN_MAX;
            format!("{} + {more} more...", all[..SHOWN_MAX].join(","))
        }
        _ => all.join(","),
    }
}

fn join_host_port(ip: &str, port: i64) -> String {
    match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    }
}

fn validate(endpoints: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, subset) in tree::list(endpoints, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(at);
        let ready = tree::list(subset, "addresses");
        let not_ready = tree::list(subset, "notReadyAddresses");
        if ready.is_empty() && not_ready.is_empty() {
            let why = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(path.clone(), why));
        }
        for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (at, address) in addresses.iter().enumerate() {
                let ip = tree::text(address, "ip");
                let path = path.child(field).index(at).child("ip");
                errors.extend(validate_address(ip, &path));
            }
        }
        let ports = tree::list(subset, "ports");
        for (at, port) in ports.iter().enumerate() {
            let path = path.child("ports").index(at);
            errors.extend(validate_port(port, &path));
            if ports.len() > 1 && tree::text(port, "name").is_empty() {
                errors.push(FieldError::required(path.child("name"), ""));
            }
        }
    }
    errors
}

/// An address that pods can be reached at: no loopback, link-local, multicast or unspecified one.
pub(crate) fn validate_address(ip: &str, path: &Path) -> Vec<FieldError> {
    let bad = |why: &str| vec![FieldError::invalid(path.clone(), ip, why)];
    let Ok(parsed) = ip.parse::<std::net::IpAddr>() else {
        return bad(&names::ip(ip).concat());
    };
    if parsed.is_unspecified() {
        return bad("may not be unspecified (0.0.0.0 or ::)");
    }
    if parsed.is_loopback() {
        return bad("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if parsed.is_multicast() {
        return bad("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
    match parsed {
        std::net::IpAddr::V4(it) if it.is_link_local() => {
            bad("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
        }
        std::net::IpAddr::V6(it) if it.is_unicast_link_local() => {
            bad("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
        }
        _ => Vec::new(),
    }
}

fn validate_port(port: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = tree::text(port, "name");
    if !name.is_empty() {
        for why in names::dns1123_label(name) {
            errors.push(FieldError::invalid(path.child("name"), name, why));
        }
    }
    let number = tree::integer(port, "port").unwrap_or(0);
    for why in names::port_number(number) {
        errors.push(FieldError::invalid(path.child("port"), number, why));
    }
    errors.extend(super::service::validate_protocol(port, path));
    errors
}
