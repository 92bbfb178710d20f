//! Links, addresses and routes: the bridge with the node's gateway, and a veth pair per pod.
//!
//! Pods have their address with 32 bits and everything goes through the gateway, so that also traffic between two
//! pods of this host passes its rules: services then work without `br_netfilter`, which a plain host has not
//! loaded. Ports hairpin, because a host that has it loaded translates frames on the bridge, back to where they
//! came from included. Sockets are blocking and answered by the kernel at once; a request that finds its work
//! done succeeds.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::cidr::Cidr;
use crate::names::Names;
use crate::netns::{self, NetnsError};

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
    let to_services = Way { to: bridge.service_cidr, via: None, source: Some(bridge.gateway) };
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
    route.add_route(index, &Way { to: host(gateway), via: None, source: None })?;
    let all = "0.0.0.0/0".parse().expect("a literal network");
    route.add_route(index, &Way { to: all, via: Some(gateway), source: None })?;
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
    for (_, name) in route.links()? {
        if names.owns_link(&name) {
            route.remove(&name)?;
        }
    }
    Ok(())
}

fn set(path: &str, value: &'static str) -> Result<(), LinkError> {
    // Reading first: in a container /proc/sys is often read-only, and set already.
    if fs::read_to_string(path).is_ok_and(|it| it.trim() == value) {
        return Ok(());
    }
    let setting = path.trim_start_matches("/proc/sys/").replace('/', ".");
    fs::write(path, value).map_err(|source| LinkError::Setting { setting, value, source })
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut out = LinkMessage::default();
    out.attributes = attributes;
    out
}

/// A route: where to, and how.
struct Way {
    to: Cidr,
    via: Option<Ipv4Addr>,
    source: Option<Ipv4Addr>,
}

/// A socket of the namespace that it was opened in.
struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    fn open() -> Result<Self, LinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(LinkError::Socket)?;
        socket.bind_auto().map_err(LinkError::Socket)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(LinkError::Socket)?;
        Ok(Self { socket, sequence: 0 })
    }

    fn links(&mut self) -> Result<Vec<(u32, String)>, LinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask(request, NLM_F_DUMP, "listing links".to_owned())?;
        let named = answers.into_iter().filter_map(|it| match it {
            RouteNetlinkMessage::NewLink(link) => {
                let name = link.attributes.iter().find_map(|it| match it {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                })?;
                Some((link.header.index, name))
            }
            _ => None,
        });
        Ok(named.collect())
    }

    fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Addr, u8)>, LinkError> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let request = RouteNetlinkMessage::GetAddress(request);
        let answers = self.ask(request, NLM_F_DUMP, "listing addresses".to_owned())?;
        let found = answers.into_iter().filter_map(|it| match it {
            RouteNetlinkMessage::NewAddress(found) => {
                let address = found.attributes.iter().find_map(|it| match it {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                    _ => None,
                })?;
                Some((found.header.index, address, found.header.prefix_len))
            }
            _ => None,
        });
        Ok(found.collect())
    }

    /// Addresses of the host inside the networks that pods and services shall have would be cut off. Another
    /// instance's nameserver is such an address: two instances with one network of services would answer each
    /// other's clients.
    fn refuse_overlaps(&mut self, names: &Names, bridge: &Bridge) -> Result<(), LinkError> {
        let links = self.links()?;
        let name_of = |index: u32| {
            let found = links.iter().find(|it| it.0 == index);
            found.map(|it| it.1.clone()).unwrap_or_default()
        };
        for (index, address, prefix_len) in self.addresses()? {
            let link = name_of(index);
            if link == names.bridge || link == "lo" {
                continue;
            }
            let taken = format!("{address}/{prefix_len}").parse::<Cidr>();
            let taken = taken.expect("the kernel's prefixes have at most 32 bits");
            for wanted in [bridge.pod_cidr, bridge.service_cidr] {
                if wanted.overlaps(taken) && taken.prefix_len() > 0 {
                    return Err(LinkError::Overlap { wanted, address, prefix_len, link });
                }
            }
        }
        Ok(())
    }

    fn index(&mut self, name: &str) -> Result<Option<u32>, LinkError> {
        Ok(self.links()?.into_iter().find(|it| it.1 == name).map(|it| it.0))
    }

    fn need(&mut self, name: &str) -> Result<u32, LinkError> {
        self.index(name)?.ok_or_else(|| LinkError::NoLink { name: name.to_owned() })
    }

    fn has_address(&mut self, name: &str, address: Ipv4Addr) -> Result<bool, LinkError> {
        let Some(index) = self.index(name)? else { return Ok(false) };
        Ok(self.addresses()?.iter().any(|it| it.0 == index && it.1 == address))
    }

    fn make_link(&mut self, link: LinkMessage, what: String) -> Result<(), LinkError> {
        self.ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, what).map(drop)
    }

    fn up(&mut self, index: u32, name: &str) -> Result<(), LinkError> {
        let mut message = link(Vec::new());
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::NewLink(message), 0, format!("setting {name} up")).map(drop)
    }

    fn enslave(&mut self, index: u32, bridge: u32, name: &str) -> Result<(), LinkError> {
        let what = format!("putting {name} on the bridge");
        let mut message = link(vec![LinkAttribute::Controller(bridge)]);
        message.header.index = index;
        self.ask(RouteNetlinkMessage::NewLink(message), 0, what)?;
        let port = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
        let mut message = link(vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(port),
        ])]);
        message.header.index = index;
        let what = format!("letting {name} hairpin");
        self.ask(RouteNetlinkMessage::NewLink(message), 0, what)?;
        self.up(index, name)
    }

    fn remove(&mut self, name: &str) -> Result<(), LinkError> {
        let Some(index) = self.index(name)? else { return Ok(()) };
        let mut message = link(Vec::new());
        message.header.index = index;
        let what = format!("removing link {name}");
        match self.ask(RouteNetlinkMessage::DelLink(message), 0, what) {
            // The namespace of its other end took it away in between.
            Err(LinkError::Refused { source, .. })
                if source.raw_os_error() == Some(libc::ENODEV) =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    fn add_address(&mut self, index: u32, address: Ipv4Addr, len: u8) -> Result<(), LinkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = index;
        message.header.prefix_len = len;
        let ip = IpAddr::V4(address);
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        let what = format!("adding address {address}/{len}");
        let message = RouteNetlinkMessage::NewAddress(message);
        self.ask(message, NLM_F_CREATE | NLM_F_REPLACE, what).map(drop)
    }

    fn add_route(&mut self, index: u32, way: &Way) -> Result<(), LinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = way.to.prefix_len();
        message.header.scope =
            if way.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
        let inet = RouteAddress::Inet;
        message.attributes = vec![RouteAttribute::Oif(index)];
        if way.to.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(inet(way.to.network())));
        }
        message.attributes.extend(way.via.map(|it| RouteAttribute::Gateway(inet(it))));
        message.attributes.extend(way.source.map(|it| RouteAttribute::PrefSource(inet(it))));
        let what = format!("adding the route to {}", way.to);
        let message = RouteNetlinkMessage::NewRoute(message);
        self.ask(message, NLM_F_CREATE | NLM_F_REPLACE, what).map(drop)
    }

    /// Sends one request and takes its answers until the kernel says that it is done.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: String,
    ) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let refused = |source| LinkError::Refused { what: what.clone(), source };
        self.socket.send(&bytes, 0).map_err(refused)?;
        let mut out = Vec::new();
        loop {
            let (answer, _) = self.socket.recv_from_full().map_err(refused)?;
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let unreadable = |why: String| LinkError::Answer { what: what.clone(), why };
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|it| unreadable(it.to_string()))?;
                let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(out),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(out),
                    NetlinkPayload::Error(error) => return Err(refused(error.to_io())),
                    NetlinkPayload::InnerMessage(inner) => out.push(inner),
                    _ => {}
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}
