//! The entries of a VXLAN device: which hardware address a hop has, and on which host that one is.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::LinkError;
use super::route::Route;

/// One entry; both live in the kernel's neighbour tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FarEnd {
    /// In the table of addresses (what ARP would find out).
    Hop { address: Ipv4Addr, hardware: [u8; 6] },
    /// In the device's forwarding table.
    Host { hardware: [u8; 6], address: Ipv4Addr },
}

impl FarEnd {
    fn message(&self, device: u32) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        let (Self::Hop { address, hardware } | Self::Host { hardware, address }) = self;
        (message.header.family, message.header.flags) = match self {
            Self::Hop { .. } => (AddressFamily::Inet, NeighbourFlags::empty()),
            Self::Host { .. } => (AddressFamily::Bridge, NeighbourFlags::Own),
        };
        message.header.ifindex = device;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(*address)),
            NeighbourAttribute::LinkLayerAddress(hardware.to_vec()),
        ];
        message
    }

    fn read(message: &NeighbourMessage) -> Option<Self> {
        let address = message.attributes.iter().find_map(|it| match it {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => Some(*it),
            // In the bridge's family the kernel does not say what kind of address it is.
            NeighbourAttribute::Destination(NeighbourAddress::Other(it)) => {
                <[u8; 4]>::try_from(it.as_slice()).ok().map(Ipv4Addr::from)
            }
            _ => None,
        })?;
        let hardware = message.attributes.iter().find_map(|it| match it {
            NeighbourAttribute::LinkLayerAddress(it) => <[u8; 6]>::try_from(it.as_slice()).ok(),
            _ => None,
        })?;
        match message.header.family {
            AddressFamily::Inet => Some(Self::Hop { address, hardware }),
            AddressFamily::Bridge => Some(Self::Host { hardware, address }),
            _ => None,
        }
    }
}

impl Route {
    /// All entries of the device that somebody wrote; what the kernel noted itself is left out.
    pub(super) fn far_ends(&mut self, device: u32) -> Result<BTreeSet<FarEnd>, LinkError> {
        let mut out = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Bridge] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetNeighbour(request);
            let answers = self.ask(request, NLM_F_DUMP, "listing neighbours".to_owned())?;
            out.extend(answers.iter().filter_map(|it| match it {
                RouteNetlinkMessage::NewNeighbour(it)
                    if it.header.ifindex == device
                        && it.header.state == NeighbourState::Permanent =>
                {
                    FarEnd::read(it)
                }
                _ => None,
            }));
        }
        Ok(out)
    }

    pub(super) fn add_far_end(&mut self, device: u32, end: &FarEnd) -> Result<(), LinkError> {
        let message = RouteNetlinkMessage::NewNeighbour(end.message(device));
        self.ask(message, NLM_F_CREATE | NLM_F_REPLACE, format!("adding {end:?}")).map(drop)
    }

    pub(super) fn remove_far_end(&mut self, device: u32, end: &FarEnd) -> Result<(), LinkError> {
        let message = RouteNetlinkMessage::DelNeighbour(end.message(device));
        self.ask(message, 0, format!("removing {end:?}")).map(drop)
    }
}
