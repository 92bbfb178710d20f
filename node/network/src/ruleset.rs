//! What the host's packet filter shall do, decided from the view: service addresses, node ports, host ports,
//! masquerading, refusals.
//!
//! Pure; `nft` writes it to the kernel as one table, replaced as a whole. Semantics: kubernetes pkg/proxy/nftables
//! and topology.go. ClientIP affinity is a hash of the client's address over the sorted endpoints: it needs no
//! state and outlives every timeout, and moves clients only when the endpoints change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::cidr::Cidr;
use crate::ipam::{MappedPort, Protocol};
use crate::view::{
    Affinity, Endpoint, ObjectName, Service, ServicePort, Slice, TrafficPolicy, View,
};

/// Most endpoints that one port of a service is spread over; a map of the kernel holds more, nobody needs them.
pub const ENDPOINTS_MAX: usize = 1000;
/// Most service ports; above it the rest is left out and said so.
pub const CHAINS_MAX: usize = 50_000;

/// What does not change while the node runs, and which pods it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    pub table: String,
    pub bridge: String,
    pub node_name: String,
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    /// Local on the bridge, so never translated nor refused.
    pub dns_address: Ipv4Addr,
    /// The node's pods with their host ports.
    pub pods: Vec<(Ipv4Addr, Vec<MappedPort>)>,
}

/// The whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub table: String,
    pub bridge: String,
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    pub dns_address: Ipv4Addr,
    /// Pod networks of the cluster: pods reach them under their own address.
    pub pod_cidrs: BTreeSet<Cidr>,
    /// Every chain that spreads connections, by name.
    pub chains: BTreeMap<String, Balance>,
    /// Addresses with a port, and the chain that serves them.
    pub addresses: BTreeMap<(Ipv4Addr, Protocol, u16), String>,
    /// Ports of every address of this host.
    pub node_ports: BTreeMap<(Protocol, u16), String>,
    /// The node's pods: their connections to themselves through a service need another source.
    pub pods: BTreeSet<Ipv4Addr>,
    /// Service ports that were left out because of `CHAINS_MAX`.
    pub left_out: usize,
}

/// One chain: where its connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    pub protocol: Protocol,
    /// Sorted; never empty.
    pub endpoints: Vec<SocketAddrV4>,
    pub affinity: Affinity,
    pub source: Source,
}

/// Whose address the endpoint sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client's.
    Kept,
    /// The host's, unless the client is a pod of this node: answers then come back through this host.
    Masqueraded,
}

/// The rules for what is known now.
pub fn plan(site: &Site, view: &View) -> Ruleset {
    let mut pod_cidrs = view.pod_cidrs();
    pod_cidrs.insert(site.pod_cidr);
    let mut out = Ruleset {
        table: site.table.clone(),
        bridge: site.bridge.clone(),
        pod_cidr: site.pod_cidr,
        service_cidr: site.service_cidr,
        dns_address: site.dns_address,
        pod_cidrs,
        chains: BTreeMap::new(),
        addresses: BTreeMap::new(),
        node_ports: BTreeMap::new(),
        pods: site.pods.iter().map(|(address, _)| *address).collect(),
        left_out: 0,
    };
    let slices = view.slices_by_service();
    for (name, service) in view.services() {
        let slices = slices.get(name).map(Vec::as_slice).unwrap_or_default();
        for port in &service.ports {
            out.add_service(site, (name, service, port), slices);
        }
    }
    // Last, so that a pod's host port wins over a service's node port of the same number, as the bound socket would.
    for (address, ports) in &site.pods {
        ports.iter().for_each(|port| out.add_host_port(*address, port));
    }
    out
}

impl Ruleset {
    fn add_service(
        &mut self,
        site: &Site,
        (name, service, port): (&ObjectName, &Service, &ServicePort),
        slices: &[&Slice],
    ) {
        let Some(cluster_ip) = service.cluster_ip.filter(|it| *it != site.dns_address) else {
            return; // Headless, an external name, or ours to answer.
        };
        let title = format!("{}/{}/{}/{}", name.0, name.1, port.protocol.name(), port.port);
        let balance = |policy, source| Balance {
            protocol: port.protocol,
            endpoints: endpoints(slices, port, policy, &site.node_name),
            affinity: service.affinity,
            source,
        };
        let internal = balance(service.internal_policy, Source::Kept);
        if let Some(chain) = self.add_chain(format!("service-{title}"), internal) {
            self.addresses.insert((cluster_ip, port.protocol, port.port), chain);
        }
        if port.node_port.is_none() && service.external_addresses.is_empty() {
            return;
        }
        let source = match service.external_policy {
            TrafficPolicy::Cluster => Source::Masqueraded,
            TrafficPolicy::Local => Source::Kept,
        };
        let external = balance(service.external_policy, source);
        let Some(chain) = self.add_chain(format!("external-{title}"), external) else { return };
        for address in &service.external_addresses {
            self.addresses.insert((*address, port.protocol, port.port), chain.clone());
        }
        if let Some(node_port) = port.node_port {
            self.node_ports.insert((port.protocol, node_port), chain);
        }
    }

    fn add_host_port(&mut self, pod: Ipv4Addr, port: &MappedPort) {
        let balance = Balance {
            protocol: port.protocol,
            endpoints: vec![SocketAddrV4::new(pod, port.pod_port)],
            affinity: Affinity::None,
            source: Source::Kept,
        };
        let at = port.host_address.map(|it| it.to_string()).unwrap_or_default();
        let name = format!("host-{at}/{}/{}", port.protocol.name(), port.host_port);
        let Some(chain) = self.add_chain(name, balance) else { return };
        match port.host_address.filter(|it| !it.is_unspecified()) {
            Some(at) => self.addresses.insert((at, port.protocol, port.host_port), chain),
            None => self.node_ports.insert((port.protocol, port.host_port), chain),
        };
    }

    /// `None` if nothing would be in it: the address is refused then.
    fn add_chain(&mut self, name: String, balance: Balance) -> Option<String> {
        if balance.endpoints.is_empty() {
            return None;
        }
        if self.chains.len() >= CHAINS_MAX {
            self.left_out += 1;
            return None;
        }
        self.chains.insert(name.clone(), balance);
        Some(name)
    }
}

/// The ready endpoints of a service's port; if there are none, those that end but still serve.
fn endpoints(
    slices: &[&Slice],
    port: &ServicePort,
    policy: TrafficPolicy,
    node_name: &str,
) -> Vec<SocketAddrV4> {
    let is_near = |it: &Endpoint| match policy {
        TrafficPolicy::Cluster => true,
        TrafficPolicy::Local => it.node.as_deref() == Some(node_name),
    };
    let pick = |wanted: fn(&Endpoint) -> bool| -> BTreeSet<SocketAddrV4> {
        let ports = slices.iter().flat_map(|slice| {
            let ports = slice.ports.iter();
            let ours = ports.filter(|it| it.name == port.name && it.protocol == port.protocol);
            ours.map(move |it| (it.port, &slice.endpoints))
        });
        ports
            .flat_map(|(number, endpoints)| {
                let chosen = endpoints.iter().filter(|it| wanted(it) && is_near(it));
                chosen.map(move |it| SocketAddrV4::new(it.address, number))
            })
            .collect()
    };
    let ready = pick(|it| it.ready);
    let chosen = if ready.is_empty() { pick(|it| it.serving && it.terminating) } else { ready };
    chosen.into_iter().take(ENDPOINTS_MAX).collect()
}

/// For people and tests: one line a fact.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {}: pods {} on {}", self.table, self.pod_cidr, self.bridge)?;
        for cidr in self.pod_cidrs.iter().filter(|it| **it != self.pod_cidr) {
            writeln!(f, "pods elsewhere {cidr}")?;
        }
        for ((address, protocol, port), chain) in &self.addresses {
            writeln!(f, "{address}:{port}/{protocol} -> {chain}")?;
        }
        for ((protocol, port), chain) in &self.node_ports {
            writeln!(f, "*:{port}/{protocol} -> {chain}")?;
        }
        for (name, balance) in &self.chains {
            let endpoints: Vec<String> =
                balance.endpoints.iter().map(ToString::to_string).collect();
            write!(f, "{name}: {}", endpoints.join(" "))?;
            if balance.affinity == Affinity::ClientIp {
                write!(f, " by client")?;
            }
            if balance.source == Source::Masqueraded {
                write!(f, " masqueraded")?;
            }
            writeln!(f)?;
        }
        write!(f, "{} refused otherwise, but {}", self.service_cidr, self.dns_address)
    }
}

#[cfg(test)]
mod tests;
