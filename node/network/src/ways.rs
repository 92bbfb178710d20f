//! How the pods of other nodes are reached from this host: a route where both hosts stand on one link, VXLAN where
//! routers lie between.
//!
//! Pure; `links::remote` makes the kernel so. What a peer's end of the tunnel is called follows from its pod network
//! alone (`Peer::hop`, `Peer::hardware`), so hosts agree without telling each other. A node that says nothing usable
//! is left out, never guessed. Shape: flannel's host-gw and vxlan backends, chosen per peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::cidr::Cidr;
use crate::view::View;

/// The outer headers: Ethernet, IPv4, UDP, VXLAN.
const TUNNEL_OVERHEAD_BYTES: u32 = 50;
const MTU_DEFAULT: u32 = 1500;
/// The least that every IPv4 host takes.
const MTU_MIN: u32 = 576;
/// Most reasons kept for people.
const REASONS_MAX: usize = 8;

/// One address of this host on a link that is not the instance's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddress {
    pub link: u32,
    pub address: Ipv4Addr,
    pub prefix_len: u8,
    pub mtu: u32,
}

/// What does not change while the node runs, and the host's addresses.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    pub node_name: &'a str,
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    pub host: &'a [HostAddress],
}

/// Every way to pods elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways {
    pub direct: BTreeMap<Cidr, Direct>,
    pub tunnelled: BTreeMap<Cidr, Peer>,
    pub tunnel_mtu: u32,
    /// Nodes whose pods are not reached, and why; a part of them.
    pub left_out: Vec<String>,
}

/// Through a neighbour on a link of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Direct {
    pub via: Ipv4Addr,
    pub link: u32,
}

/// The far end of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The host's address, where the outer packets go.
    pub host: Ipv4Addr,
    /// The first address of the node's first pod network: a name for the far end, nobody answers it.
    pub hop: Ipv4Addr,
}

impl Peer {
    pub fn hardware(&self) -> [u8; 6] {
        tunnel_hardware(self.hop)
    }
}

/// The address that the tunnel's device has on the host whose pod network begins there.
pub fn tunnel_hardware(hop: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = hop.octets();
    [0x0e, 0x58, a, b, c, d]
}

/// The ways for what is known now.
pub fn plan(place: &Place<'_>, view: &View) -> Ways {
    let mut out = Ways { tunnel_mtu: tunnel_mtu(place, view), ..Ways::default() };
    let mut taken: BTreeSet<Cidr> = [place.pod_cidr, place.service_cidr].into();
    for (name, node) in view.node_networks() {
        let Some(first) = node.pod_cidrs.first().filter(|_| name != place.node_name) else {
            continue;
        };
        let usable = node.addresses.iter().copied().filter(|it| is_usable(*it, place));
        let usable: Vec<Ipv4Addr> = usable.collect();
        // Several nodes of one machine: their bridges stand on this host, and the kernel knows the way.
        if usable.iter().any(|it| place.host.iter().any(|own| own.address == *it)) {
            continue;
        }
        let Some(way) = way_to(place, &usable, first.network()) else {
            out.leave_out(format!("node {name} has no address that could be used"));
            continue;
        };
        for cidr in &node.pod_cidrs {
            if let Some(other) = taken.iter().find(|it| it.overlaps(*cidr)) {
                out.leave_out(format!("pods {cidr} of node {name} overlap {other}"));
                continue;
            }
            if usable.iter().any(|it| cidr.contains(*it)) {
                out.leave_out(format!("node {name} stands inside its own pods' network {cidr}"));
                continue;
            }
            taken.insert(*cidr);
            match way {
                Way::Direct(it) => drop(out.direct.insert(*cidr, it)),
                Way::Tunnelled(it) => drop(out.tunnelled.insert(*cidr, it)),
            }
        }
    }
    out
}

impl Ways {
    fn leave_out(&mut self, why: String) {
        if self.left_out.len() < REASONS_MAX {
            self.left_out.push(why);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.tunnelled.is_empty()
    }

    /// Every far end once.
    pub fn peers(&self) -> BTreeSet<Peer> {
        self.tunnelled.values().copied().collect()
    }
}

#[derive(Clone, Copy)]
enum Way {
    Direct(Direct),
    Tunnelled(Peer),
}

/// A shared link if any of the peer's addresses is on one, else the tunnel to the first.
fn way_to(place: &Place<'_>, usable: &[Ipv4Addr], hop: Ipv4Addr) -> Option<Way> {
    let shared = usable.iter().find_map(|via| {
        let on = place.host.iter().find(|it| network(it).is_some_and(|it| it.contains(*via)))?;
        Some(Way::Direct(Direct { via: *via, link: on.link }))
    });
    shared.or_else(|| usable.first().map(|host| Way::Tunnelled(Peer { host: *host, hop })))
}

/// The network of a link, if others can be on it.
fn network(own: &HostAddress) -> Option<Cidr> {
    Cidr::new(own.address, own.prefix_len).filter(|it| (1..32).contains(&it.prefix_len()))
}

/// An address inside the networks of pods or services would lead the tunnel into itself.
fn is_usable(address: Ipv4Addr, place: &Place<'_>) -> bool {
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || place.pod_cidr.contains(address)
        || place.service_cidr.contains(address))
}

/// What fits through the tunnel: by the link that this node is known by, else the narrowest.
fn tunnel_mtu(place: &Place<'_>, view: &View) -> u32 {
    let known = view.node_networks().find(|it| it.0 == place.node_name);
    let known = known.map(|it| it.1.addresses.as_slice()).unwrap_or_default();
    let named = place.host.iter().filter(|it| known.contains(&it.address)).map(|it| it.mtu).min();
    let mtu = named.or_else(|| place.host.iter().map(|it| it.mtu).min()).unwrap_or(MTU_DEFAULT);
    mtu.saturating_sub(TUNNEL_OVERHEAD_BYTES).max(MTU_MIN)
}

#[cfg(test)]
mod tests;
