//! Endpoints controller: the older form of EndpointSlices, for clients that still read it. One object per Service.
//!
//! Follows kubernetes pkg/controller/endpoint: the primary address family only, at most 1,000 addresses, Pods that are
//! ending are left out.

use std::collections::BTreeMap;

use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Labels, Object, Pod, Service};
use serde_json::{Value, json};

use crate::controller::{Controller, NoMemory, Pass};
use crate::endpointslice::{HEADLESS, is_served, resolved_ports, services_of};
use crate::owner;
use crate::plan::Plan;

const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

pub struct EndpointsController;

impl Controller for EndpointsController {
    const NAME: &'static str = "endpoint-controller";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key> {
        let mut keys = Vec::new();
        for side in changed.sides() {
            match side {
                Object::Service(service) => keys.push(service.meta.key.clone()),
                Object::Pod(pod) => keys.extend(services_of(pod, view)),
                Object::Endpoints(it) => {
                    keys.push(owner::sibling(&it.meta.key, "", "services", it.meta.name()));
                }
                _ => {}
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let key = owner::sibling(pass.key, "", "endpoints", pass.key.name());
        let present = pass.view.endpoints().get(&key);
        let Some(service) = pass.view.services().get(pass.key) else {
            // It has no owner reference: kubernetes deletes it here too.
            let mine = present.filter(|it| it.meta.labels.contains_key(MANAGED_BY));
            mine.into_iter().for_each(|it| {
                plan.delete(&it.meta);
            });
            return plan;
        };
        if service.selector.is_none() || service.kind == "ExternalName" {
            return plan;
        }
        let (subsets, is_cut) = subsets(service, pass.view);
        let labels = labels(service);
        match present {
            None => {
                let mut metadata =
                    json!({"name": key.name(), "namespace": key.namespace(), "labels": labels});
                if is_cut {
                    metadata["annotations"] = json!({OVER_CAPACITY: "truncated"});
                }
                let kind = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets});
                plan.create(key, kind);
            }
            Some(it) if it.subsets != subsets || it.meta.labels != labels => {
                let cut = if is_cut { json!("truncated") } else { Value::Null };
                let mut patch = json!({"metadata": {"labels": labels}, "subsets": subsets});
                if is_cut || it.meta.annotation(OVER_CAPACITY).is_some() {
                    patch["metadata"]["annotations"] = json!({OVER_CAPACITY: cut});
                }
                plan.patch_exactly(&it.meta, patch);
            }
            Some(_) => {}
        }
        plan
    }
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.meta.labels.clone();
    labels.remove(HEADLESS);
    if service.is_headless() {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
    labels
}

/// Addresses by the ports that they share, and whether some were left out. `null` when there is none.
fn subsets(service: &Service, view: &ClusterView) -> (Value, bool) {
    let Some(selector) = &service.selector else { return (Value::Null, false) };
    let is_v6 = service.ip_families.first().is_some_and(|it| it == "IPv6");
    let mut by_ports: BTreeMap<String, (Value, Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let mut n_addresses = 0;
    for pod in view.pods().selected(service.meta.namespace(), selector) {
        let is_in = is_served(pod) && (!pod.meta.is_terminating() || service.publishes_not_ready);
        let ip = pod.ips.iter().find(|it| it.contains(':') == is_v6);
        let Some(ip) = ip.filter(|_| is_in) else { continue };
        n_addresses += 1;
        if n_addresses > ADDRESSES_MAX {
            break;
        }
        let ports = ports(service, pod);
        let subset = by_ports.entry(ports.to_string()).or_insert((ports, Vec::new(), Vec::new()));
        let address = address(service, pod, ip);
        if pod.is_ready() || service.publishes_not_ready {
            subset.1.push(address);
        } else {
            subset.2.push(address);
        }
    }
    let subsets: Vec<Value> = by_ports.into_values().map(subset).collect();
    let subsets = if subsets.is_empty() { Value::Null } else { subsets.into() };
    (subsets, n_addresses > ADDRESSES_MAX)
}

fn subset((ports, ready, not_ready): (Value, Vec<Value>, Vec<Value>)) -> Value {
    let mut subset = json!({});
    for (field, mut addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        addresses.sort_by_key(|it| it["ip"].to_string());
        if !addresses.is_empty() {
            subset[field] = addresses.into();
        }
    }
    if ports != json!([]) {
        subset["ports"] = ports;
    }
    subset
}

fn ports(service: &Service, pod: &Pod) -> Value {
    let port = |(port, number): (&kactor_view::ServicePort, i64)| {
        let mut value = json!({"port": number, "protocol": port.protocol});
        if !port.name.is_empty() {
            value["name"] = port.name.as_str().into();
        }
        if let Some(protocol) = &port.app_protocol {
            value["appProtocol"] = protocol.as_str().into();
        }
        value
    };
    resolved_ports(service, pod).into_iter().map(port).collect()
}

fn address(service: &Service, pod: &Pod, ip: &str) -> Value {
    let mut address = json!({
        "ip": ip,
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.meta.namespace(),
            "name": pod.name(),
            "uid": pod.meta.uid.as_str(),
        },
    });
    if let Some(node) = &pod.node {
        address["nodeName"] = (**node).into();
    }
    if !pod.hostname.is_empty() && pod.subdomain == service.meta.name() {
        address["hostname"] = pod.hostname.as_str().into();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Life;
    use kactor_view::fixture::key_of;

    #[test]
    fn ready_and_not_ready_addresses_follow_the_pods() {
        let mut life = Life::new(
            "
svc/web  port=80:8080
pod/a    app=web ip=10.0.0.2 ready node=n1
pod/b    app=web ip=10.0.0.1 phase=Running
pod/c    app=web ip=10.0.0.3 ready deleting=5
",
        );
        life.settle(&EndpointsController);
        let subsets = &life.world.body(&key_of("ep/web")).unwrap()["subsets"];
        assert_eq!(subsets[0]["addresses"][0]["ip"], "10.0.0.2");
        assert_eq!(subsets[0]["addresses"].as_array().unwrap().len(), 1);
        assert_eq!(subsets[0]["notReadyAddresses"][0]["ip"], "10.0.0.1");
        assert_eq!(subsets[0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
    }

    #[test]
    fn they_end_with_their_service_but_others_are_left_alone() {
        let mut life = Life::new("svc/web port=80\nep/other");
        life.settle(&EndpointsController);
        life.world.delete(&key_of("svc/web"));
        life.pass(&EndpointsController, &key_of("svc/web"));
        life.pass(&EndpointsController, &key_of("svc/other"));
        assert!(life.world.body(&key_of("ep/web")).is_none());
        assert!(life.world.body(&key_of("ep/other")).is_some());
    }
}
