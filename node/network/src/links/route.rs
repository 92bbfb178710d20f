//! The kernel's route socket: one request, its answers, and the few messages that this crate sends.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Bridge, LinkError};
use crate::cidr::Cidr;
use crate::names::Names;

pub(super) fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut out = LinkMessage::default();
    out.attributes = attributes;
    out
}

/// A route: where to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub to: Cidr,
    pub via: Option<Ipv4Addr>,
    pub source: Option<Ipv4Addr>,
    /// The next hop need not be in a network of the link.
    pub on_link: bool,
    /// By what it is found again; routes that leave with their link need nothing.
    pub mark: Option<Mark>,
}

impl Way {
    pub(super) fn new(to: Cidr, via: Option<Ipv4Addr>, source: Option<Ipv4Addr>) -> Self {
        Self { to, via, source, on_link: false, mark: None }
    }
}

/// What marks a route as ours: the protocol is kactor's, the metric the instance's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub protocol: u8,
    pub metric: u32,
}

/// A link as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    pub hardware: Vec<u8>,
    pub mtu: u32,
    pub is_up: bool,
}

/// A socket of the namespace that it was opened in.
pub(super) struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    pub(super) fn open() -> Result<Self, LinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(LinkError::Socket)?;
        socket.bind_auto().map_err(LinkError::Socket)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(LinkError::Socket)?;
        Ok(Self { socket, sequence: 0 })
    }

    pub(super) fn links(&mut self) -> Result<Vec<Link>, LinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask(request, NLM_F_DUMP, "listing links".to_owned())?;
        let found = answers.into_iter().filter_map(|it| match it {
            RouteNetlinkMessage::NewLink(message) => Some(read_link(message)),
            _ => None,
        });
        Ok(found.collect())
    }

    pub(super) fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Addr, u8)>, LinkError> {
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
    pub(super) fn refuse_overlaps(
        &mut self,
        names: &Names,
        bridge: &Bridge,
    ) -> Result<(), LinkError> {
        let links = self.links()?;
        let name_of = |index: u32| {
            let found = links.iter().find(|it| it.index == index);
            found.map(|it| it.name.clone()).unwrap_or_default()
        };
        for (index, address, prefix_len) in self.addresses()? {
            let link = name_of(index);
            if link == names.bridge || link == names.tunnel || link == "lo" {
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

    pub(super) fn index(&mut self, name: &str) -> Result<Option<u32>, LinkError> {
        Ok(self.link(name)?.map(|it| it.index))
    }

    pub(super) fn link(&mut self, name: &str) -> Result<Option<Link>, LinkError> {
        Ok(self.links()?.into_iter().find(|it| it.name == name))
    }

    pub(super) fn need(&mut self, name: &str) -> Result<u32, LinkError> {
        self.index(name)?.ok_or_else(|| LinkError::NoLink { name: name.to_owned() })
    }

    pub(super) fn has_address(&mut self, name: &str, address: Ipv4Addr) -> Result<bool, LinkError> {
        let Some(index) = self.index(name)? else { return Ok(false) };
        Ok(self.addresses()?.iter().any(|it| it.0 == index && it.1 == address))
    }

    pub(super) fn make_link(&mut self, link: LinkMessage, what: String) -> Result<(), LinkError> {
        self.ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, what).map(drop)
    }

    pub(super) fn up(&mut self, index: u32, name: &str) -> Result<(), LinkError> {
        let mut message = link(Vec::new());
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::NewLink(message), 0, format!("setting {name} up")).map(drop)
    }

    pub(super) fn enslave(&mut self, index: u32, bridge: u32, name: &str) -> Result<(), LinkError> {
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

    pub(super) fn remove(&mut self, name: &str) -> Result<(), LinkError> {
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

    pub(super) fn add_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        len: u8,
    ) -> Result<(), LinkError> {
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

    pub(super) fn add_route(&mut self, index: u32, way: &Way) -> Result<(), LinkError> {
        let message = route_message(index, way);
        let what = format!("adding the route to {}", way.to);
        let message = RouteNetlinkMessage::NewRoute(message);
        self.ask(message, NLM_F_CREATE | NLM_F_REPLACE, what).map(drop)
    }

    pub(super) fn set_mtu(&mut self, index: u32, mtu: u32, name: &str) -> Result<(), LinkError> {
        let mut message = link(vec![LinkAttribute::Mtu(mtu)]);
        message.header.index = index;
        let what = format!("letting {name} take packets of {mtu} bytes");
        self.ask(RouteNetlinkMessage::NewLink(message), 0, what).map(drop)
    }

    /// The routes of the main table that carry the mark, with their links.
    pub(super) fn routes(&mut self, mark: Mark) -> Result<Vec<(u32, Way)>, LinkError> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        let request = RouteNetlinkMessage::GetRoute(request);
        let answers = self.ask(request, NLM_F_DUMP, "listing routes".to_owned())?;
        let found = answers.into_iter().filter_map(|it| match it {
            RouteNetlinkMessage::NewRoute(message) => read_route(&message, mark),
            _ => None,
        });
        Ok(found.collect())
    }

    pub(super) fn remove_route(&mut self, index: u32, way: &Way) -> Result<(), LinkError> {
        let what = format!("removing the route to {}", way.to);
        let message = RouteNetlinkMessage::DelRoute(route_message(index, way));
        match self.ask(message, 0, what) {
            // Its link went down in between.
            Err(LinkError::Refused { source, .. })
                if source.raw_os_error() == Some(libc::ESRCH) =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Sends one request and takes its answers until the kernel says that it is done.
    pub(super) fn ask(
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

fn read_link(message: LinkMessage) -> Link {
    let mut out = Link {
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => out.name = name,
            LinkAttribute::Address(hardware) => out.hardware = hardware,
            LinkAttribute::Mtu(mtu) => out.mtu = mtu,
            _ => {}
        }
    }
    out
}

fn route_message(index: u32, way: &Way) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = match way.mark {
        Some(mark) => RouteProtocol::Other(mark.protocol),
        None => RouteProtocol::Static,
    };
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = way.to.prefix_len();
    message.header.scope = if way.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let inet = RouteAddress::Inet;
    message.attributes = vec![RouteAttribute::Oif(index)];
    message.attributes.extend(way.mark.map(|it| RouteAttribute::Priority(it.metric)));
    if way.on_link {
        message.header.flags = RouteFlags::Onlink;
    }
    if way.to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(inet(way.to.network())));
    }
    message.attributes.extend(way.via.map(|it| RouteAttribute::Gateway(inet(it))));
    message.attributes.extend(way.source.map(|it| RouteAttribute::PrefSource(inet(it))));
    message
}

/// The route, if it carries the mark.
fn read_route(message: &RouteMessage, mark: Mark) -> Option<(u32, Way)> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || u8::from(header.protocol) != mark.protocol {
        return None;
    }
    let mut way = Way::new(Cidr::new(Ipv4Addr::UNSPECIFIED, 0)?, None, None);
    way.on_link = header.flags.contains(RouteFlags::Onlink);
    let mut index = None;
    let mut metric = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(it)) => {
                way.to = Cidr::new(*it, header.destination_prefix_length)?;
            }
            RouteAttribute::Gateway(RouteAddress::Inet(it)) => way.via = Some(*it),
            RouteAttribute::PrefSource(RouteAddress::Inet(it)) => way.source = Some(*it),
            RouteAttribute::Oif(it) => index = Some(*it),
            RouteAttribute::Priority(it) => metric = *it,
            _ => {}
        }
    }
    way.mark = Some(mark);
    (metric == mark.metric).then_some((index?, way))
}
