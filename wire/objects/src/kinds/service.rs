//! Services: defaults, checks of ports and addresses, what an update may not change.
//!
//! ClusterIPs and NodePorts are given out by the api, which owns the allocations; here `None` is all that is
//! known of them. IP families are defaulted for a single-stack IPv4 cluster by `default_ip_families`.

use serde_json::{Value, json};

use crate::meta;
use crate::names;
use crate::registry::{PutOfAbsent, Strategy, SubresourceStrategy};
use crate::table::{self, Column, Printer};
use crate::tree;
use crate::writes;

mod validate;

pub(crate) use validate::validate_protocol;
pub use validate::{NODE_PORT_MAX, NODE_PORT_MIN};

const AFFINITY_SECONDS: i64 = 10_800;

pub const STRATEGY: Strategy = Strategy {
    default,
    prepare_create: |service| {
        tree::put(service, "status", json!({"loadBalancer": {}}));
        drop_unused(service);
    },
    prepare_update: |new, old| {
        tree::copy(new, old, "status");
        keep_allocations(new, old);
        drop_left_over(new, old);
        drop_unused(new);
    },
    validate: validate::on_create,
    validate_update: validate::on_update,
    name: names::dns1035_label,
    put_of_absent: PutOfAbsent::Create,
    ..Strategy::PLAIN
};

pub const STATUS: SubresourceStrategy =
    SubresourceStrategy { prepare: writes::only_status, validate: |_, _| Vec::new() };

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Type", "How the service is reached."),
        Column::text("Cluster-IP", "Its address inside the cluster."),
        Column::text("External-IP", "Its addresses outside the cluster."),
        Column::text("Port(s)", "Its ports, node ports after a colon."),
        Column::AGE,
        Column::text("Selector", "Which pods it sends to.").wide(),
    ],
    cells: |service, now| {
        let kind = tree::text(service, "spec.type");
        vec![
            json!(meta::name(service)),
            json!(kind),
            table::or_none(match kind {
                "ExternalName" => "",
                _ => tree::text(service, "spec.clusterIP"),
            }),
            json!(external_address(service)),
            table::or_none(ports(service)),
            table::age(service, now),
            table::or_none(
                crate::labels::Selector::from_map(tree::at(service, "spec.selector")).to_string(),
            ),
        ]
    },
};

/// Whether the type gets a cluster IP at all.
pub fn wants_cluster_ip(service: &Value) -> bool {
    let kind = tree::text(service, "spec.type");
    kind != "ExternalName" && tree::text(service, "spec.clusterIP") != "None"
}

/// Whether the type gets node ports.
pub fn wants_node_ports(service: &Value) -> bool {
    match tree::text(service, "spec.type") {
        "NodePort" => true,
        "LoadBalancer" => {
            tree::at(service, "spec.allocateLoadBalancerNodePorts").as_bool() != Some(false)
        }
        _ => false,
    }
}

/// Fills in `ipFamilies` and `ipFamilyPolicy` as a single-stack IPv4 cluster does. Who runs the endpoints of a
/// headless Service without selector is unknown, so upstream assumes both families there.
pub fn default_ip_families(service: &mut Value) {
    if tree::text(service, "spec.type") == "ExternalName" {
        return;
    }
    let unmanaged = tree::text(service, "spec.clusterIP") == "None"
        && tree::is_empty(tree::at(service, "spec.selector"));
    let (policy, families) = match unmanaged {
        true => ("RequireDualStack", json!(["IPv4", "IPv6"])),
        false => ("SingleStack", json!(["IPv4"])),
    };
    tree::fill(service, "spec.ipFamilyPolicy", policy);
    if tree::list(service, "spec.ipFamilies").is_empty() {
        tree::put(service, "spec.ipFamilies", families);
    }
}

fn default(service: &mut Value) {
    tree::fill(service, "spec.sessionAffinity", "None");
    match tree::text(service, "spec.sessionAffinity") {
        "None" => drop(tree::remove(service, "spec.sessionAffinityConfig")),
        "ClientIP" => {
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            tree::fill(service, path, AFFINITY_SECONDS);
        }
        _ => {}
    }
    tree::fill(service, "spec.type", "ClusterIP");
    for port in tree::each_mut(service, "spec.ports") {
        tree::fill(port, "protocol", "TCP");
        let target = tree::at(port, "targetPort");
        if tree::is_empty(target) || target == 0 {
            let number = tree::at(port, "port").clone();
            tree::put(port, "targetPort", number);
        }
    }
    let kind = tree::text(service, "spec.type").to_owned();
    let external = !tree::list(service, "spec.externalIPs").is_empty() && kind == "ClusterIP";
    if external || matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        tree::fill(service, "spec.externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        tree::fill(service, "spec.internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        tree::fill(service, "spec.allocateLoadBalancerNodePorts", true);
    }
}

/// Fields that the type has no use for go, so that a changed type leaves nothing behind.
fn drop_unused(service: &mut Value) {
    let kind = tree::text(service, "spec.type").to_owned();
    if kind == "ExternalName" {
        let clears = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"];
        for field in clears {
            tree::remove(service, &format!("spec.{field}"));
        }
    } else {
        default_ip_families(service);
        let ip = tree::text(service, "spec.clusterIP").to_owned();
        if !ip.is_empty() && tree::list(service, "spec.clusterIPs").is_empty() {
            tree::put(service, "spec.clusterIPs", json!([ip]));
        }
    }
    if kind != "LoadBalancer" {
        tree::remove(service, "spec.allocateLoadBalancerNodePorts");
        tree::remove(service, "spec.loadBalancerClass");
    }
}

/// A changed type takes along what only the old type used and the client did not touch: upstream's
/// dropTypeDependentFields.
fn drop_left_over(new: &mut Value, old: &Value) {
    let node_ports = |service: &Value| -> Vec<Value> {
        tree::list(service, "spec.ports")
            .iter()
            .map(|it| tree::at(it, "nodePort").clone())
            .collect()
    };
    if wants_node_ports(old) && !wants_node_ports(new) && node_ports(old) == node_ports(new) {
        tree::each_mut(new, "spec.ports").for_each(|port| drop(tree::remove(port, "nodePort")));
    }
    let is_external = |service: &Value| {
        matches!(tree::text(service, "spec.type"), "NodePort" | "LoadBalancer")
            || !tree::list(service, "spec.externalIPs").is_empty()
    };
    if is_external(old) && !is_external(new) {
        for field in ["spec.externalTrafficPolicy", "spec.healthCheckNodePort"] {
            if tree::at(new, field) == tree::at(old, field) {
                tree::remove(new, field);
            }
        }
    }
}

/// An update that leaves out what was given out keeps it: upstream's patchAllocatedValues.
fn keep_allocations(new: &mut Value, old: &Value) {
    if wants_cluster_ip(old) && wants_cluster_ip(new) {
        if tree::text(new, "spec.clusterIP").is_empty() {
            tree::copy(new, old, "spec.clusterIP");
        }
        if tree::list(new, "spec.clusterIPs").is_empty() {
            tree::copy(new, old, "spec.clusterIPs");
        }
    }
    if !wants_node_ports(old) || !wants_node_ports(new) {
        return;
    }
    let given: Vec<(Value, Value, Value)> = tree::list(old, "spec.ports")
        .iter()
        .map(|it| {
            let field = |name| tree::at(it, name).clone();
            (field("port"), field("protocol"), field("nodePort"))
        })
        .collect();
    for port in tree::each_mut(new, "spec.ports") {
        let unset = tree::integer(port, "nodePort").unwrap_or(0) == 0;
        let same = |it: &&(Value, Value, Value)| {
            it.0 == *tree::at(port, "port") && it.1 == *tree::at(port, "protocol")
        };
        if let Some((_, _, node_port)) = given.iter().find(same)
            && unset
            && !node_port.is_null()
        {
            tree::put(port, "nodePort", node_port.clone());
        }
    }
}

fn ports(service: &Value) -> String {
    let shown: Vec<String> = tree::list(service, "spec.ports")
        .iter()
        .map(|it| {
            let (port, protocol) = (tree::at(it, "port"), tree::text(it, "protocol"));
            match tree::integer(it, "nodePort") {
                Some(node_port @ 1..) => format!("{port}:{node_port}/{protocol}"),
                _ => format!("{port}/{protocol}"),
            }
        })
        .collect();
    shown.join(",")
}

fn external_address(service: &Value) -> String {
    let listed: Vec<&str> =
        tree::list(service, "spec.externalIPs").iter().filter_map(Value::as_str).collect();
    match tree::text(service, "spec.type") {
        "ExternalName" => tree::text(service, "spec.externalName").to_owned(),
        "LoadBalancer" => {
            let ingress = tree::list(service, "status.loadBalancer.ingress");
            let mut given: Vec<&str> = ingress
                .iter()
                .map(|it| match tree::text(it, "ip") {
                    "" => tree::text(it, "hostname"),
                    ip => ip,
                })
                .collect();
            given.extend(&listed);
            match given.join(",") {
                it if it.is_empty() => "<pending>".to_owned(),
                it => it,
            }
        }
        _ if listed.is_empty() => "<none>".to_owned(),
        _ => listed.join(","),
    }
}
