//! The ways to pods elsewhere, in the kernel: routes through neighbours, and one VXLAN device with its far ends.
//!
//! Level-triggered: `hold` looks at what is there and changes what differs, so it mends what a link that went down
//! took along, and what an earlier run left. Routes through neighbours carry kactor's protocol number and the
//! instance's metric; everything of the tunnel hangs on its device. Far ends are written, never learned or asked
//! for: no packet of a stranger changes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo};

use super::LinkError;
use super::far_end::FarEnd;
use super::route::{Link, Mark, Route, Way, link};
use crate::cidr::Cidr;
use crate::names::Names;
use crate::ways::{HostAddress, Ways, tunnel_hardware};

/// The number by which `ip route` shows that a route is kactor's; free in iproute2's rt_protos.
const PROTOCOL: u8 = 107;
/// Where other pod networks have it, so firewalls that know Kubernetes let it through.
pub const TUNNEL_PORT: u16 = 8472;

/// This host's end of the tunnel.
#[derive(Debug, Clone, Copy)]
pub struct TunnelEnd {
    pub pod_cidr: Cidr,
    pub gateway: Ipv4Addr,
    /// 24 bits, the same on all hosts of a cluster.
    pub network_id: u32,
}

/// This host's addresses, but for the instance's own links and loopback's.
pub fn host_addresses(names: &Names) -> Result<Vec<HostAddress>, LinkError> {
    let mut route = Route::open()?;
    let links: BTreeMap<u32, Link> = route.links()?.into_iter().map(|it| (it.index, it)).collect();
    let mut out = Vec::new();
    for (index, address, prefix_len) in route.addresses()? {
        let Some(link) = links.get(&index) else { continue };
        if link.name != "lo" && link.is_up && !names.owns_link(&link.name) {
            out.push(HostAddress { link: index, address, prefix_len, mtu: link.mtu });
        }
    }
    Ok(out)
}

/// Makes the kernel have these ways; what it has too much goes only if `is_whole`, when all nodes are known.
///
/// One way that the kernel refuses leaves the others alone; the first refusal is returned.
pub fn hold(names: &Names, end: &TunnelEnd, ways: &Ways, is_whole: bool) -> Result<(), LinkError> {
    let mut route = Route::open()?;
    let mut refused = Vec::new();
    let mut wanted = Vec::new();
    if !ways.tunnelled.is_empty() {
        let device = set_up_tunnel(&mut route, names, end, ways.tunnel_mtu)?;
        refused.extend(hold_far_ends(&mut route, device, ways, is_whole)?);
        let through = ways.tunnelled.iter().map(|(to, peer)| {
            let source = Some(end.gateway);
            (device, Way { on_link: true, ..Way::new(*to, Some(peer.hop), source) })
        });
        wanted.extend(through);
    } else if is_whole {
        route.remove(&names.tunnel)?;
    }
    wanted.extend(ways.direct.iter().map(|(to, it)| (it.link, Way::new(*to, Some(it.via), None))));
    let mark = Mark { protocol: PROTOCOL, metric: names.route_metric };
    refused.extend(hold_routes(&mut route, mark, wanted, is_whole)?);
    refused.into_iter().next().map_or(Ok(()), Err)
}

/// Removes the routes of the instance; those of its links went with them.
pub(super) fn forget(names: &Names, route: &mut Route) -> Result<(), LinkError> {
    let mark = Mark { protocol: PROTOCOL, metric: names.route_metric };
    for (index, way) in route.routes(mark)? {
        route.remove_route(index, &way)?;
    }
    Ok(())
}

fn hold_routes(
    route: &mut Route,
    mark: Mark,
    wanted: Vec<(u32, Way)>,
    is_whole: bool,
) -> Result<Vec<LinkError>, LinkError> {
    let found = route.routes(mark)?;
    let wanted = wanted.into_iter().map(|(index, way)| (index, Way { mark: Some(mark), ..way }));
    let wanted: Vec<(u32, Way)> = wanted.collect();
    let mut refused = Vec::new();
    for (index, way) in &wanted {
        if !found.iter().any(|it| it.0 == *index && it.1 == *way) {
            refused.extend(route.add_route(*index, way).err());
        }
    }
    let kept: BTreeSet<Cidr> = wanted.iter().map(|it| it.1.to).collect();
    for (index, way) in found.iter().filter(|it| is_whole && !kept.contains(&it.1.to)) {
        refused.extend(route.remove_route(*index, way).err());
    }
    Ok(refused)
}

/// The device's index. One whose pod network was another is made anew: others write to it by that name.
fn set_up_tunnel(
    route: &mut Route,
    names: &Names,
    end: &TunnelEnd,
    mtu: u32,
) -> Result<u32, LinkError> {
    let hardware = tunnel_hardware(end.pod_cidr.network()).to_vec();
    let mut found = route.link(&names.tunnel)?;
    if found.as_ref().is_some_and(|it| it.hardware != hardware) {
        route.remove(&names.tunnel)?;
        found = None;
    }
    let found = match found {
        Some(it) => it,
        None => {
            make_tunnel(route, names, end.network_id, hardware)?;
            route
                .link(&names.tunnel)?
                .ok_or_else(|| LinkError::NoLink { name: names.tunnel.clone() })?
        }
    };
    if found.mtu != mtu {
        route.set_mtu(found.index, mtu, &names.tunnel)?;
    }
    if !found.is_up {
        route.up(found.index, &names.tunnel)?;
    }
    // Masquerading takes the device's own address, and answers find back to this node by it.
    if !route.has_address(&names.tunnel, end.gateway)? {
        route.add_address(found.index, end.gateway, 32)?;
    }
    Ok(found.index)
}

fn make_tunnel(
    route: &mut Route,
    names: &Names,
    network_id: u32,
    hardware: Vec<u8>,
) -> Result<(), LinkError> {
    let message = link(vec![
        LinkAttribute::IfName(names.tunnel.clone()),
        LinkAttribute::Address(hardware),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::Id(network_id),
                InfoVxlan::Port(TUNNEL_PORT),
                InfoVxlan::Learning(false),
            ])),
        ]),
    ]);
    let what = format!("making the VXLAN device {} (needs the kernel's vxlan)", names.tunnel);
    route.make_link(message, what)
}

/// Where each far end is: its hop's hardware address, and that one's host.
fn hold_far_ends(
    route: &mut Route,
    device: u32,
    ways: &Ways,
    is_whole: bool,
) -> Result<Vec<LinkError>, LinkError> {
    let mut wanted = BTreeSet::new();
    for peer in ways.peers() {
        let hardware = peer.hardware();
        wanted.insert(FarEnd::Hop { address: peer.hop, hardware });
        wanted.insert(FarEnd::Host { hardware, address: peer.host });
    }
    let found = route.far_ends(device)?;
    let mut refused = Vec::new();
    for it in wanted.difference(&found) {
        refused.extend(route.add_far_end(device, it).err());
    }
    // Replaced ones are gone already: what is asked for is what is still there.
    if is_whole {
        for it in route.far_ends(device)?.difference(&wanted) {
            refused.extend(route.remove_far_end(device, it).err());
        }
    }
    Ok(refused)
}
