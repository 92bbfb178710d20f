//! The services, endpoints and nodes that this host knows of: what rules, DNS answers and environments are made of.
//!
//! Pure. Reads the few fields that matter out of the API's JSON and keeps nothing else. A service with a field that
//! cannot be read is left out with a reason instead of half served. IPv4 only: other families are skipped.
//!
//! Reference: kubernetes pkg/proxy/endpointslicecache.go and topology.go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use kactor_protocol::node::Feed;
use serde::Deserialize;
use serde_json::Value;

use crate::cidr::Cidr;
use crate::ipam::Protocol;

/// Namespace and name.
pub type ObjectName = (String, String);

/// What is known now.
#[derive(Debug, Default)]
pub struct View {
    services: BTreeMap<ObjectName, Service>,
    slices: BTreeMap<ObjectName, Slice>,
    nodes: BTreeMap<ObjectName, NodeNetwork>,
    /// Feeds that come anew, with what was named so far.
    anew: BTreeMap<Feed, BTreeSet<ObjectName>>,
    complete: BTreeSet<Feed>,
}

/// How a service's name is answered and where its traffic goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Absent for headless services and external names.
    pub cluster_ip: Option<Ipv4Addr>,
    pub external_name: Option<String>,
    pub ports: Vec<ServicePort>,
    /// `externalIPs` and the load balancer's addresses.
    pub external_addresses: BTreeSet<Ipv4Addr>,
    pub affinity: Affinity,
    pub internal_policy: TrafficPolicy,
    pub external_policy: TrafficPolicy,
    pub publish_not_ready: bool,
}

impl Service {
    pub fn is_headless(&self) -> bool {
        self.cluster_ip.is_none() && self.external_name.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty if the port has none.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// Whether one client always meets the same endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Affinity {
    #[default]
    None,
    ClientIp,
}

/// Which endpoints serve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    /// Those of this node.
    Local,
}

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub service: ObjectName,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub hostname: Option<String>,
    pub node: Option<String>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

/// Where another node's pods are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeNetwork {
    pub pod_cidrs: Vec<Cidr>,
    /// What other nodes reach the host by, in the node's own order.
    pub addresses: Vec<Ipv4Addr>,
}

impl View {
    /// From here on what is named counts, until `complete`.
    pub fn begin(&mut self, feed: Feed) {
        self.anew.insert(feed, BTreeSet::new());
    }

    /// The object has this state now. `Err` names what cannot be read; the object counts as absent then.
    pub fn change(
        &mut self,
        feed: Feed,
        name: ObjectName,
        object: Option<&Value>,
    ) -> Result<(), String> {
        if let Some(named) = self.anew.get_mut(&feed) {
            if object.is_some() {
                named.insert(name.clone());
            } else {
                named.remove(&name);
            }
        }
        match feed {
            Feed::Services => put(&mut self.services, name, object.map(service)),
            Feed::EndpointSlices => {
                let read = object.map(|it| slice(&name.0, it));
                put(&mut self.slices, name, read)
            }
            Feed::Nodes => put(&mut self.nodes, name, object.map(node)),
            Feed::Pods => Ok(()),
        }
    }

    /// What was not named since `begin` is gone.
    pub fn complete(&mut self, feed: Feed) {
        self.complete.insert(feed);
        let Some(named) = self.anew.remove(&feed) else { return };
        match feed {
            Feed::Services => self.services.retain(|it, _| named.contains(it)),
            Feed::EndpointSlices => self.slices.retain(|it, _| named.contains(it)),
            Feed::Nodes => self.nodes.retain(|it, _| named.contains(it)),
            Feed::Pods => {}
        }
    }

    /// True once services and endpoints are all here: rules made earlier would cut off what works.
    pub fn is_complete(&self) -> bool {
        self.complete.contains(&Feed::Services) && self.complete.contains(&Feed::EndpointSlices)
    }

    /// True once every node was named: until then a way of an earlier run may still be wanted.
    pub fn has_all_nodes(&self) -> bool {
        self.complete.contains(&Feed::Nodes) && !self.anew.contains_key(&Feed::Nodes)
    }

    pub fn node_networks(&self) -> impl Iterator<Item = (&str, &NodeNetwork)> {
        self.nodes.iter().map(|(at, node)| (at.1.as_str(), node))
    }

    pub fn services(&self) -> impl Iterator<Item = (&ObjectName, &Service)> {
        self.services.iter()
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The slices of a service, by name.
    pub fn slices_of<'a>(&'a self, service: &'a ObjectName) -> impl Iterator<Item = &'a Slice> {
        // Slices are named after their service with a suffix by convention only, so the namespace is the range.
        let from = (service.0.clone(), String::new());
        self.slices
            .range(from..)
            .take_while(|((namespace, _), _)| *namespace == service.0)
            .map(|(_, slice)| slice)
            .filter(move |it| it.service == *service)
    }

    /// All slices, grouped by their service.
    pub fn slices_by_service(&self) -> BTreeMap<&ObjectName, Vec<&Slice>> {
        let mut out: BTreeMap<&ObjectName, Vec<&Slice>> = BTreeMap::new();
        for slice in self.slices.values() {
            out.entry(&slice.service).or_default().push(slice);
        }
        out
    }

    /// The pod networks of all nodes, without doubles.
    pub fn pod_cidrs(&self) -> BTreeSet<Cidr> {
        self.nodes.values().flat_map(|it| it.pod_cidrs.iter().copied()).collect()
    }
}

fn put<T>(
    into: &mut BTreeMap<ObjectName, T>,
    name: ObjectName,
    read: Option<Result<Option<T>, String>>,
) -> Result<(), String> {
    match read {
        Some(Ok(Some(it))) => {
            into.insert(name, it);
            Ok(())
        }
        Some(Err(why)) => {
            let text = format!("{}/{}: {why}", name.0, name.1);
            into.remove(&name);
            Err(text)
        }
        Some(Ok(None)) | None => {
            into.remove(&name);
            Ok(())
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceObject {
    spec: ServiceSpec,
    status: ServiceStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    r#type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    external_name: String,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    session_affinity: String,
    internal_traffic_policy: String,
    external_traffic_policy: String,
    publish_not_ready_addresses: bool,
    ports: Vec<PortObject>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ingress {
    ip: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortObject {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
    node_port: Option<u16>,
}

fn service(object: &Value) -> Result<Option<Service>, String> {
    let ServiceObject { spec, status } =
        Deserialize::deserialize(object).map_err(|it: serde_json::Error| it.to_string())?;
    let policy =
        |text: &str| if text == "Local" { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    let is_external_name = spec.r#type == "ExternalName";
    let mut out = Service {
        cluster_ip: spec.cluster_ip.parse().ok().filter(|_| !is_external_name),
        external_name: is_external_name.then_some(spec.external_name),
        affinity: match spec.session_affinity.as_str() {
            "ClientIP" => Affinity::ClientIp,
            _ => Affinity::None,
        },
        internal_policy: policy(&spec.internal_traffic_policy),
        external_policy: policy(&spec.external_traffic_policy),
        publish_not_ready: spec.publish_not_ready_addresses,
        ..Service::default()
    };
    if out.cluster_ip.is_none() && spec.cluster_ip.contains(':') {
        return Ok(None); // An IPv6 service: this host's pods have no such addresses.
    }
    let ingress = status.load_balancer.ingress.into_iter().map(|it| it.ip);
    let externals = spec.external_ips.into_iter().chain(ingress);
    out.external_addresses = externals.filter_map(|it| it.parse().ok()).collect();
    for port in spec.ports {
        out.ports.push(ServicePort {
            name: port.name.unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref())?,
            port: port.port.ok_or("a port has no number")?,
            node_port: port.node_port.filter(|it| *it != 0),
        });
    }
    Ok(Some(out))
}

fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    let text = text.unwrap_or_default();
    Protocol::parse(text).ok_or_else(|| format!("the protocol `{text}` is not known"))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SliceObject {
    metadata: SliceMetadata,
    address_type: String,
    endpoints: Option<Vec<EndpointObject>>,
    ports: Option<Vec<PortObject>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SliceMetadata {
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EndpointObject {
    addresses: Vec<String>,
    conditions: Conditions,
    hostname: Option<String>,
    node_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

fn slice(namespace: &str, object: &Value) -> Result<Option<Slice>, String> {
    let object: SliceObject =
        Deserialize::deserialize(object).map_err(|it: serde_json::Error| it.to_string())?;
    let Some(service) = object.metadata.labels.get("kubernetes.io/service-name") else {
        return Ok(None); // It belongs to no service, so nothing is sent to it.
    };
    if object.address_type != "IPv4" {
        return Ok(None);
    }
    let mut ports = Vec::new();
    for port in object.ports.unwrap_or_default() {
        let protocol = protocol(port.protocol.as_deref())?;
        // Without a number it means "all ports", which only custom consumers understand.
        let Some(number) = port.port else { continue };
        ports.push(SlicePort { name: port.name.unwrap_or_default(), protocol, port: number });
    }
    let endpoints = object.endpoints.unwrap_or_default();
    let endpoints = endpoints.into_iter().filter_map(endpoint).collect();
    Ok(Some(Slice { service: (namespace.to_owned(), service.clone()), ports, endpoints }))
}

/// Absent conditions mean ready, and serving as ready, by the API's definition.
fn endpoint(object: EndpointObject) -> Option<Endpoint> {
    let ready = object.conditions.ready.unwrap_or(true);
    Some(Endpoint {
        address: object.addresses.first()?.parse().ok()?,
        hostname: object.hostname.filter(|it| !it.is_empty()),
        node: object.node_name,
        ready,
        serving: object.conditions.serving.unwrap_or(ready),
        terminating: object.conditions.terminating.unwrap_or(false),
    })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeObject {
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeAddress {
    r#type: String,
    address: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

fn node(object: &Value) -> Result<Option<NodeNetwork>, String> {
    let NodeObject { spec, status } =
        Deserialize::deserialize(object).map_err(|it: serde_json::Error| it.to_string())?;
    let texts = if spec.pod_cidrs.is_empty() { vec![spec.pod_cidr] } else { spec.pod_cidrs };
    let pod_cidrs = texts.iter().filter_map(|it| it.parse().ok()).collect();
    let internal = status.addresses.iter().filter(|it| it.r#type == "InternalIP");
    let addresses = internal.filter_map(|it| it.address.parse().ok()).collect();
    Ok(Some(NodeNetwork { pod_cidrs, addresses }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> ObjectName {
        ("default".to_owned(), text.to_owned())
    }

    #[test]
    fn what_a_new_listing_does_not_name_is_gone() {
        let mut view = View::default();
        let object = json!({"spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}});
        for feed in [Feed::Services, Feed::EndpointSlices] {
            view.begin(feed);
        }
        view.change(Feed::Services, name("a"), Some(&object)).unwrap();
        view.change(Feed::Services, name("b"), Some(&object)).unwrap();
        view.complete(Feed::Services);
        assert!(!view.is_complete());
        view.complete(Feed::EndpointSlices);
        assert!(view.is_complete());
        view.change(Feed::Services, name("c"), Some(&object)).unwrap();
        view.begin(Feed::Services);
        view.change(Feed::Services, name("b"), Some(&object)).unwrap();
        assert_eq!(view.services().count(), 3, "nothing is forgotten before the listing is whole");
        view.complete(Feed::Services);
        let left: Vec<_> = view.services().map(|(it, _)| it.1.as_str()).collect();
        assert_eq!(left, ["b"]);
    }

    #[test]
    fn an_object_that_cannot_be_read_is_absent_and_named() {
        let mut view = View::default();
        let good = json!({"spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}});
        let bad = json!({"spec": {"ports": [{"port": 80, "protocol": "QUIC"}]}});
        view.change(Feed::Services, name("a"), Some(&good)).unwrap();
        let error = view.change(Feed::Services, name("a"), Some(&bad)).unwrap_err();
        assert_eq!(error, "default/a: the protocol `QUIC` is not known");
        assert_eq!(view.services().count(), 0);
    }

    #[test]
    fn headless_external_and_plain_services_are_told_apart() {
        let read = |spec: Value| service(&json!({ "spec": spec })).unwrap();
        assert!(read(json!({"clusterIP": "None"})).unwrap().is_headless());
        let external = read(json!({"type": "ExternalName", "externalName": "a.example"})).unwrap();
        assert_eq!(external.external_name.as_deref(), Some("a.example"));
        assert!(!external.is_headless());
        assert_eq!(read(json!({"clusterIP": "fd00::7"})), None);
    }

    #[test]
    fn absent_conditions_mean_ready() {
        let object = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "all"}],
            "endpoints": [
                {"addresses": ["10.244.0.2"]},
                {"addresses": ["10.244.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            ],
        });
        let slice = slice("default", &object).unwrap().unwrap();
        assert_eq!(slice.service, name("web"));
        assert_eq!(slice.ports.len(), 1);
        let states: Vec<_> =
            slice.endpoints.iter().map(|it| (it.ready, it.serving, it.terminating)).collect();
        assert_eq!(states, [(true, true, false), (false, true, true)]);
    }
}
