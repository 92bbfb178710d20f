//! Cluster DNS as Kubernetes' own tools look for it: the Service `kube-dns`, and where its name is answered.
//!
//! No Pod serves it: every node's agent answers on the Service's own address, which each host has on its bridge
//! (`node/network`), and no packet to it is ever translated. So the one true endpoint is that address itself, the same
//! on every node and always near; without a node that serves (`--runtime none` or `hollow`) there is none. Whoever
//! deletes a part sees it made again; whoever gives the Service a selector, to bring a nameserver of their own, keeps
//! it: then nothing here claims to serve. Labels and port names: kubernetes cluster/addons/dns.

use std::net::Ipv4Addr;

use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Meta, Object};
use serde_json::{Value, json};

use crate::controller::{Controller, NoMemory, Pass};
use crate::namespace::{is_open, namespace_key};
use crate::plan::Plan;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const PORT: u16 = 53;

/// Whether nameservers answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    ByNodes,
    ByNobody,
}

#[derive(Debug, Clone, Copy)]
pub struct ClusterDns {
    /// The tenth of the Services' addresses.
    pub address: Ipv4Addr,
    pub served: Served,
}

impl Controller for ClusterDns {
    const NAME: &'static str = "cluster-dns-controller";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, _: &ClusterView) -> Vec<Key> {
        let is_part = |meta: &Meta| meta.namespace() == NAMESPACE && meta.name() == SERVICE;
        let concerns = match changed.object() {
            Some(Object::Namespace(it)) => it.meta.name() == NAMESPACE,
            Some(Object::Service(it)) => is_part(&it.meta),
            Some(Object::EndpointSlice(it)) => is_part(&it.meta),
            Some(Object::Endpoints(it)) => is_part(&it.meta),
            _ => false,
        };
        if concerns { vec![key("", "services")] } else { Vec::new() }
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let view = pass.view;
        if !view.namespaces().get(&namespace_key(NAMESPACE)).is_some_and(|it| is_open(it)) {
            return plan;
        }
        let slice = view.endpoint_slices().get(&key("discovery.k8s.io", "endpointslices"));
        match view.services().get(pass.key) {
            None => drop(plan.create(pass.key.clone(), self.service())),
            Some(service) if service.meta.is_terminating() => return plan,
            Some(service) if service.selector.is_some() => {
                let is_ours =
                    |meta: &Meta| meta.labels.get(MANAGED_BY).is_some_and(|it| it == Self::NAME);
                if let Some(slice) = slice.filter(|it| is_ours(&it.meta)) {
                    plan.delete(&slice.meta);
                }
                return plan;
            }
            Some(_) => {}
        }
        match slice {
            None => {
                plan.create(key("discovery.k8s.io", "endpointslices"), self.slice());
            }
            Some(slice) if !self.is_told_by(&slice.endpoints, &slice.ports) => {
                let body = self.slice();
                let patch = json!({"endpoints": body["endpoints"], "ports": body["ports"]});
                plan.patch_exactly(&slice.meta, patch);
            }
            Some(_) => {}
        }
        let subsets = self.subsets();
        match view.endpoints().get(&key("", "endpoints")) {
            None => drop(plan.create(key("", "endpoints"), self.endpoints())),
            Some(endpoints) if !is_same(&endpoints.subsets, &subsets) => {
                plan.patch_exactly(&endpoints.meta, json!({"subsets": subsets}));
            }
            Some(_) => {}
        }
        plan
    }
}

impl ClusterDns {
    fn addresses(&self) -> Vec<String> {
        match self.served {
            Served::ByNodes => vec![self.address.to_string()],
            Served::ByNobody => Vec::new(),
        }
    }

    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": SERVICE,
                "namespace": NAMESPACE,
                "labels": {
                    "k8s-app": "kube-dns",
                    "kubernetes.io/cluster-service": "true",
                    "kubernetes.io/name": "KubeDNS",
                },
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": self.address.to_string(),
                "ports": ports(|name, protocol| json!({
                    "name": name, "protocol": protocol, "port": PORT, "targetPort": PORT,
                })),
            },
        })
    }

    fn slice(&self) -> Value {
        let endpoint = |it: String| {
            let conditions = json!({"ready": true, "serving": true, "terminating": false});
            json!({"addresses": [it], "conditions": conditions})
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": SERVICE,
                "namespace": NAMESPACE,
                "labels": {
                    "kubernetes.io/service-name": SERVICE,
                    "k8s-app": "kube-dns",
                    MANAGED_BY: Self::NAME,
                },
            },
            "addressType": "IPv4",
            "endpoints": self.addresses().into_iter().map(endpoint).collect::<Vec<_>>(),
            "ports": port_numbers(),
        })
    }

    /// Whether the slice says so already; what the API fills in beside it is no difference.
    fn is_told_by(&self, endpoints: &[Value], ports: &Value) -> bool {
        let told = endpoints.iter().flat_map(|it| it["addresses"].as_array().into_iter().flatten());
        let told: Vec<&str> = told.filter_map(Value::as_str).collect();
        told == self.addresses() && is_same(ports, &port_numbers())
    }

    /// For tools that read the older kind.
    fn endpoints(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": SERVICE,
                "namespace": NAMESPACE,
                "labels": {
                    "k8s-app": "kube-dns",
                    "endpointslice.kubernetes.io/skip-mirror": "true",
                },
            },
            "subsets": self.subsets(),
        })
    }

    fn subsets(&self) -> Value {
        let subset = |it: String| json!({"addresses": [{"ip": it}], "ports": port_numbers()});
        self.addresses().into_iter().map(subset).collect()
    }
}

fn key(group: &str, resource: &str) -> Key {
    Key::new(group, resource, NAMESPACE, SERVICE).expect("constant names make a key")
}

fn ports(port: impl Fn(&str, &str) -> Value) -> Value {
    json!([port("dns", "UDP"), port("dns-tcp", "TCP")])
}

fn port_numbers() -> Value {
    ports(|name, protocol| json!({"name": name, "protocol": protocol, "port": PORT}))
}

/// Equal, where an absent list is an empty one.
fn is_same(stands: &Value, wanted: &Value) -> bool {
    stands == wanted || (stands.is_null() && wanted.as_array().is_some_and(Vec::is_empty))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Life;
    use kactor_view::fixture::key_of;

    const DNS: ClusterDns =
        ClusterDns { address: Ipv4Addr::new(10, 96, 0, 10), served: Served::ByNodes };

    fn settled(cluster: &str, dns: &ClusterDns) -> Life {
        let mut life = Life::new(cluster);
        life.settle(dns);
        life
    }

    #[test]
    fn the_service_stands_at_its_address_and_leads_there() {
        let life = settled("ns/kube-system", &DNS);
        let body = |key: &str| life.world.body(&key_of(key)).unwrap().clone();
        let service = body("svc/kube-system/kube-dns");
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.10");
        assert_eq!(service["spec"]["ports"][1]["name"], "dns-tcp");
        let slice = body("slice/kube-system/kube-dns");
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.96.0.10"]));
        assert_eq!(slice["endpoints"][0].get("nodeName"), None, "it is the same on every node");
        let older = body("ep/kube-system/kube-dns");
        assert_eq!(older["subsets"][0]["addresses"], json!([{"ip": "10.96.0.10"}]));
    }

    #[test]
    fn what_a_user_deletes_or_bends_is_mended() {
        let mut life = settled("ns/kube-system", &DNS);
        let n_plans = life.log.len();
        life.settle(&DNS);
        assert_eq!(life.log.len(), n_plans, "nothing to do twice");
        for part in ["svc", "slice", "ep"] {
            life.world.delete(&key_of(&format!("{part}/kube-system/kube-dns")));
            life.settle(&DNS);
            assert!(life.world.body(&key_of(&format!("{part}/kube-system/kube-dns"))).is_some());
        }
        let slice = key_of("slice/kube-system/kube-dns");
        let mut bent = life.world.body(&slice).unwrap().clone();
        bent["endpoints"][0]["addresses"] = json!(["192.0.2.1"]);
        life.world.put(&slice, bent);
        life.settle(&DNS);
        let mended = &life.world.body(&slice).unwrap()["endpoints"][0]["addresses"];
        assert_eq!(*mended, json!(["10.96.0.10"]));
    }

    #[test]
    fn without_a_node_that_serves_nothing_claims_to() {
        let nobody = ClusterDns { served: Served::ByNobody, ..DNS };
        let mut life = settled("ns/kube-system", &DNS);
        life.settle(&nobody);
        let body = |key: &str| life.world.body(&key_of(key)).unwrap().clone();
        assert_eq!(body("slice/kube-system/kube-dns")["endpoints"], json!([]));
        assert_eq!(body("ep/kube-system/kube-dns")["subsets"], json!([]));
    }

    #[test]
    fn a_nameserver_of_the_users_own_is_left_alone() {
        let mut life = settled("ns/kube-system", &DNS);
        let service = key_of("svc/kube-system/kube-dns");
        let mut theirs = life.world.body(&service).unwrap().clone();
        theirs["spec"]["selector"] = json!({"k8s-app": "kube-dns"});
        life.world.put(&service, theirs);
        life.settle(&DNS);
        assert!(life.world.body(&key_of("slice/kube-system/kube-dns")).is_none());
    }

    #[test]
    fn nothing_is_made_before_there_is_the_namespace() {
        assert!(settled("ns/default", &DNS).log.is_empty());
    }
}
