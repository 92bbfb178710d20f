//! Links, addresses and routes: the bridge with the node's gateway, and a veth pair per pod.
//!
//! Pods have their address with 32 bits and everything goes through the gateway, so that also traffic between two
//! pods of this host passes its rules: services then work without `br_netfilter`, which a plain host has not
//! loaded. Ports hairpin, because a host that has it loaded translates frames on the bridge, back to where they
//! came from included. Sockets are blocking and answered by the kernel at once; a request that finds its work
//! done succeeds.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;

use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo};

use self::route::{Route, Way, link};
use crate::cidr::Cidr;
use crate::names::Names;
use crate::netns::{self, NetnsError};

mod far_end;
pub mod remote;
mod route;

/// The pod's end of its link.
const POD_LINK: &str = "eth0";

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("no route socket")]
    Socket(#[source] io::Error),
    #[error("{what}")]
    Refused { what: String, source: io::Error },
    #[error("{what}: the kernel's answer cannot be read: {why}")]
    Answer { what: String, why: String },
    #[error(
        "{setting} cannot be set to {value}: pods would not be reached; is /proc/sys writable?"
    )]
    Setting { setting: String, value: &'static str, source: io::Error },
    #[error(
        "the network {wanted} overlaps {address}/{prefix_len}, which link {link} of this host has: choose another with --pod-cidr or --service-cidr"
    )]
    Overlap { wanted: Cidr, address: Ipv4Addr, prefix_len: u8, link: String },
    #[error("there is no link {name}")]
    NoLink { name: String },
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// What the bridge of a node carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub gateway: Ipv4Addr,
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    pub dns_address: Ipv4Addr,
}

/// Makes the bridge and lets the host forward. The network namespace is the calling thread's.
pub fn set_up_bridge(names: &Names, bridge: &Bridge) -> Result<(), LinkError> {
    let mut route = Route::open()?;
    route.refuse_overlaps(names, bridge)?;
    if route.index(&names.bridge)?.is_none() {
        // An address of its own, else it would take, and change to, the lowest of its ports.
        let mut hardware = vec![0x0a, 0x58];
        hardware.extend(bridge.gateway.octets());
        let message = link(vec![
            LinkAttribute::IfName(names.bridge.clone()),
            LinkAttribute::Address(hardware),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ]);
        route.make_link(message, format!("making bridge {}", names.bridge))?;
    }
    let index = route.need(&names.bridge)?;
    route.up(index, &names.bridge)?;
    route.add_address(index, bridge.gateway, bridge.pod_cidr.prefix_len())?;
    route.add_address(index, bridge.dns_address, 32)?;
    // Without it a host that has no default route could not even address a service.
    let to_services = Way::new(bridge.service_cidr, None, Some(bridge.gateway));
    route.add_route(index, &to_services)?;
    set("/proc/sys/net/ipv4/ip_forward", "1")
}

/// Connects the namespace: afterwards it has `address`, a way out through the gateway, and a loopback.
pub fn connect_pod(
    names: &Names,
    pod_uid: &str,
    netns: &Path,
    (address, gateway): (Ipv4Addr, Ipv4Addr),
) -> Result<(), LinkError> {
    let mut route = Route::open()?;
    let host_end = names.pod_link(pod_uid);
    let has_address = || Route::open()?.has_address(POD_LINK, address);
    if route.index(&host_end)?.is_some() {
        if netns::inside(netns, has_address)?? {
            return Ok(());
        }
        route.remove(&host_end)?; // Half made, or of a namespace that is gone.
    }
    let bridge = route.need(&names.bridge)?;
    let namespace = netns::open(netns)?;
    let peer = link(vec![
        LinkAttribute::IfName(POD_LINK.to_owned()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ]);
    let pair = link(vec![
        LinkAttribute::IfName(host_end.clone()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    route.make_link(pair, format!("making link {host_end} into {}", netns.display()))?;
    let index = route.need(&host_end)?;
    route.enslave(index, bridge, &host_end)?;
    netns::inside(netns, || set_up_pod(address, gateway))?
}

/// Inside the pod's namespace.
fn set_up_pod(address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), LinkError> {
    // The host forwards between pods through one bridge and tells senders of a shorter way. It is none: answers
    // that took it would miss the translation back.
    for name in ["all", POD_LINK] {
        set(&format!("/proc/sys/net/ipv4/conf/{name}/accept_redirects"), "0")?;
    }
    let mut route = Route::open()?;
    let lo = route.need("lo")?;
    route.up(lo, "lo")?;
    let index = route.need(POD_LINK)?;
    route.up(index, POD_LINK)?;
    let host = |it: Ipv4Addr| format!("{it}/32").parse().expect("an address is a network of one");
    route.add_route(index, &Way::new(host(gateway), None, None))?;
    let all = "0.0.0.0/0".parse().expect("a literal network");
    route.add_route(index, &Way::new(all, Some(gateway), None))?;
    // Last: a pod that has its address has everything, so a crash in between is seen.
    route.add_address(index, address, 32)
}

/// Removes the host's end, and the pod's with it. One that is gone is fine.
pub fn disconnect_pod(names: &Names, pod_uid: &str) -> Result<(), LinkError> {
    Route::open()?.remove(&names.pod_link(pod_uid))
}

/// Removes every link of the instance.
pub fn remove_all(names: &Names) -> Result<(), LinkError> {
    let mut route = Route::open()?;
    for link in route.links()? {
        if names.owns_link(&link.name) {
            route.remove(&link.name)?;
        }
    }
    remote::forget(names, &mut route)
}

fn set(path: &str, value: &'static str) -> Result<(), LinkError> {
    // Reading first: in a container /proc/sys is often read-only, and set already.
    if fs::read_to_string(path).is_ok_and(|it| it.trim() == value) {
        return Ok(());
    }
    let setting = path.trim_start_matches("/proc/sys/").replace('/', ".");
    fs::write(path, value).map_err(|source| LinkError::Setting { setting, value, source })
}
