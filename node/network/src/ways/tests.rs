//! The ways, decided from nodes and addresses, by tables.

use kactor_protocol::node::Feed;
use serde_json::json;

use super::*;

fn view(nodes: &[(&str, &[&str], &[&str])]) -> View {
    let mut view = View::default();
    for (name, cidrs, addresses) in nodes {
        let addresses: Vec<_> =
            addresses.iter().map(|it| json!({"type": "InternalIP", "address": it})).collect();
        let node = json!({"spec": {"podCIDRs": cidrs}, "status": {"addresses": addresses}});
        let at = (String::new(), (*name).to_owned());
        view.change(Feed::Nodes, at, Some(&node)).unwrap();
    }
    view
}

fn own(address: &str, prefix_len: u8, link: u32, mtu: u32) -> HostAddress {
    HostAddress { link, address: address.parse().unwrap(), prefix_len, mtu }
}

fn check(host: &[HostAddress], nodes: &[(&str, &[&str], &[&str])]) -> String {
    let place = Place {
        node_name: "a",
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        host,
    };
    let ways = plan(&place, &view(nodes));
    let direct = ways.direct.iter().map(|(to, it)| format!("{to} via {} on {}", it.via, it.link));
    let tunnelled = ways.tunnelled.iter().map(|(to, it)| format!("{to} through {}", it.host));
    direct.chain(tunnelled).chain(ways.left_out).collect::<Vec<_>>().join("; ")
}

#[test]
fn a_shared_link_is_taken_before_the_tunnel() {
    let host = [own("192.0.2.1", 24, 7, 1500), own("198.51.100.1", 32, 8, 1500)];
    let a = ("a", &["10.244.0.0/24"][..], &["192.0.2.1"][..]);
    let b = ("b", &["10.244.1.0/24"][..], &["203.0.113.9", "192.0.2.2"][..]);
    let c = ("c", &["10.244.2.0/24"][..], &["203.0.113.5"][..]);
    // A network of one address is no link to share.
    let d = ("d", &["10.244.3.0/24"][..], &["198.51.100.2"][..]);
    assert_eq!(
        check(&host, &[a, b, c, d]),
        "10.244.1.0/24 via 192.0.2.2 on 7; 10.244.2.0/24 through 203.0.113.5; \
         10.244.3.0/24 through 198.51.100.2"
    );
}

#[test]
fn nodes_of_this_machine_and_without_pods_need_no_way() {
    let host = [own("192.0.2.1", 24, 7, 1500)];
    let twin = ("twin", &["10.244.1.0/24"][..], &["192.0.2.1"][..]);
    let young = ("young", &[][..], &["192.0.2.3"][..]);
    assert_eq!(check(&host, &[twin, young]), "");
}

#[test]
fn what_would_lead_in_a_circle_or_take_others_pods_is_left_out() {
    let host = [own("192.0.2.1", 24, 7, 1500)];
    for (cidr, address, says) in [
        ("10.244.1.0/24", "10.244.0.7", "node b has no address that could be used"),
        ("10.244.1.0/24", "127.0.0.1", "node b has no address that could be used"),
        ("10.244.0.0/25", "192.0.2.2", "pods 10.244.0.0/25 of node b overlap 10.244.0.0/24"),
        ("10.96.4.0/24", "192.0.2.2", "pods 10.96.4.0/24 of node b overlap 10.96.0.0/16"),
        ("192.0.2.0/24", "192.0.2.2", "node b stands inside its own pods' network 192.0.2.0/24"),
    ] {
        assert_eq!(check(&host, &[("b", &[cidr], &[address])]), says);
    }
    let b = ("b", &["10.244.1.0/24"][..], &["192.0.2.2"][..]);
    let c = ("c", &["10.244.1.0/24"][..], &["192.0.2.3"][..]);
    assert_eq!(
        check(&host, &[b, c]),
        "10.244.1.0/24 via 192.0.2.2 on 7; pods 10.244.1.0/24 of node c overlap 10.244.1.0/24"
    );
}

#[test]
fn the_tunnel_is_as_wide_as_the_link_that_the_node_is_known_by() {
    let host = [own("192.0.2.1", 24, 7, 9000), own("198.51.100.1", 24, 8, 1400)];
    let place = |host| Place {
        node_name: "a",
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        host,
    };
    let known = view(&[("a", &["10.244.0.0/24"], &["192.0.2.1"])]);
    assert_eq!(plan(&place(&host), &known).tunnel_mtu, 8950);
    assert_eq!(plan(&place(&host), &View::default()).tunnel_mtu, 1350, "unknown: the narrowest");
    assert_eq!(plan(&place(&[]), &known).tunnel_mtu, 1450);
}
