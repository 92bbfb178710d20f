//! Pods of several hosts: two on one link, a third behind a router, so that routes and the tunnel both are used.
//!
//! Hosts, the router and pods are namespaces; the wires between them are veth pairs made by `ip`.

use std::process::Command;
use std::sync::Arc;

use super::*;

/// A host with its network, and one pod that says the host's name on port 8080.
struct Host {
    name: &'static str,
    space: Pod,
    machine: Machine,
    network: Arc<Network>,
    pod: Pod,
    pod_address: Ipv4Addr,
    before: (String, String, bool),
    _data: tempfile::TempDir,
}

/// Runs `ip` in the namespace.
fn ip(space: &Pod, args: &str) {
    let run = || Command::new("ip").args(args.split(' ')).output().unwrap();
    let answer = netns::inside(&space.netns, run).unwrap();
    assert!(answer.status.success(), "ip {args}: {}", String::from_utf8_lossy(&answer.stderr));
}

/// A wire from the host to the router's bridge; the router is the host's way out.
fn plug_in(router: &Pod, bridge: &str, name: &str, space: &Pod, address: &str) {
    ip(
        router,
        &format!("link add to-{name} type veth peer name eth0 netns {}", space.netns.display()),
    );
    ip(router, &format!("link set to-{name} master {bridge} up"));
    ip(space, "link set lo up");
    ip(space, &format!("addr add {address}/24 dev eth0"));
    ip(space, "link set eth0 up");
    let gateway = address.rsplit_once('.').unwrap().0;
    ip(space, &format!("route add default via {gateway}.254"));
}

fn router() -> Pod {
    let router = pod();
    for (bridge, address) in [("one", "192.0.2.254"), ("two", "198.51.100.254")] {
        // A hardware address of its own, else it changes when a port leaves, and hosts know the old one.
        let digit = bridge.len() + usize::from(bridge == "two");
        ip(&router, &format!("link add {bridge} address 02:00:00:00:00:0{digit} type bridge"));
        ip(&router, &format!("addr add {address}/24 dev {bridge}"));
        ip(&router, &format!("link set {bridge} up"));
    }
    let forward = || fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    netns::inside(&router.netns, forward).unwrap();
    router
}

fn host(name: &'static str, space: Pod, pod_cidr: &str) -> Host {
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path());
    config.node_name = name.to_owned();
    let pod = pod();
    serve(&pod, 8080, name);
    let start = || {
        close_forwarding();
        let before = traces();
        let machine = Machine::start();
        let network = Network::new(machine.env().clone(), config).unwrap();
        network.configure(pod_cidr).unwrap();
        let (net, path) = (network.clone(), pod.netns.clone());
        let attached = async move { net.attach("uid", &path, &[]).await.unwrap()[0] };
        let attached = machine.block_on(attached).unwrap();
        (before, machine, network, attached)
    };
    let (before, machine, network, attached) = netns::inside(&space.netns, start).unwrap();
    let IpAddr::V4(pod_address) = attached else { panic!("pods have IPv4 addresses") };
    Host { name, space, machine, network, pod, pod_address, before, _data: data }
}

/// A lane's thread is begun by its first task, and stays in the namespace of who gave it.
fn in_space<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
    netns::inside(&host.space.netns, work).unwrap()
}

/// The three hosts: `a` and `b` on one link, `c` on another.
fn three(router: &Pod) -> Vec<Host> {
    let places =
        [("a", "one", "192.0.2.1"), ("b", "one", "192.0.2.2"), ("c", "two", "198.51.100.3")];
    let made = places.iter().enumerate().map(|(index, (name, bridge, address))| {
        let space = pod();
        plug_in(router, bridge, name, &space, address);
        host(name, space, &format!("10.244.{index}.0/24"))
    });
    made.collect()
}

fn node(cidr: &str, address: &str) -> Value {
    json!({
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

fn settle(host: &Host) {
    let network = host.network.clone();
    in_space(host, || host.machine.block_on(async move { network.settled().await }).unwrap());
    assert_eq!(host.network.problem(), None, "on host {}", host.name);
}

/// Everybody learns of all nodes and of one service over all pods.
fn tell(hosts: &[Host], nodes: &[(&str, &str, &str)]) {
    let pods: Vec<IpAddr> = hosts.iter().map(|it| IpAddr::V4(it.pod_address)).collect();
    for host in hosts {
        host.network.begin(Feed::Nodes);
        for (name, cidr, address) in nodes {
            host.network.changed(Feed::Nodes, "", name, Some(&node(cidr, address)));
        }
        host.network.complete(Feed::Nodes);
        objects(&host.network, &pods);
        settle(host);
    }
}

const NODES: [(&str, &str, &str); 3] = [
    ("a", "10.244.0.0/24", "192.0.2.1"),
    ("b", "10.244.1.0/24", "192.0.2.2"),
    ("c", "10.244.2.0/24", "198.51.100.3"),
];

fn everybody_reaches_everybody(hosts: &[Host]) {
    let all: BTreeSet<String> = hosts.iter().map(|it| it.name.to_owned()).collect();
    let service = (Ipv4Addr::new(10, 96, 0, 7), 80);
    for from in hosts {
        let inside = || {
            for to in hosts {
                let said = ask((to.pod_address, 8080));
                let said =
                    said.unwrap_or_else(|it| panic!("pod of {} to {}: {it}", from.name, to.name));
                assert_eq!(said, format!("{} {}", to.name, from.pod_address), "the source is kept");
            }
            assert_eq!(who(service), all, "the service from a pod of {}", from.name);
        };
        netns::inside(&from.pod.netns, inside).unwrap();
        let inside = || {
            for to in hosts {
                let said = ask((to.pod_address, 8080));
                let said =
                    said.unwrap_or_else(|it| panic!("host {} to {}: {it}", from.name, to.name));
                assert!(said.starts_with(to.name), "{said} from host {} to {}", from.name, to.name);
            }
            assert_eq!(who(service), all, "the service from host {}", from.name);
        };
        netns::inside(&from.space.netns, inside).unwrap();
    }
}

/// Sends what fills many packets of full size, both ways, from a pod to another host's.
fn carries_much(from: &Host, to: &Host) {
    const LEN: usize = 1 << 20;
    let open = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap();
    let listener = netns::inside(&to.pod.netns, open).unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = vec![0; LEN];
        stream.read_exact(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let at = SocketAddr::from((to.pod_address, 9000));
    let dial = || TcpStream::connect_timeout(&at, Duration::from_secs(5)).unwrap();
    let mut stream = netns::inside(&from.pod.netns, dial).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let sent: Vec<u8> = (0..LEN).map(|it| (it % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    let mut got = vec![0; LEN];
    stream.read_exact(&mut got).unwrap();
    assert!(got == sent, "bytes changed on the way");
    echo.join().unwrap();
}

fn end(hosts: Vec<Host>) {
    for host in hosts {
        let Host { name, space, machine, network, before, .. } = host;
        let check = || {
            let detached = machine.block_on(async move { network.detach("uid").await.unwrap() });
            detached.unwrap();
            machine.stop();
            purge(INSTANCE).unwrap();
            let (links, routes, table) = traces();
            assert_eq!((links, table), (before.0, before.2), "left behind on host {name}");
            assert!(!routes.contains("F40A"), "routes into 10.244 stay on host {name}: {routes}");
            let left = kactor_network::nft::forwarding::handles(&format!("kactor_{INSTANCE}"));
            assert_eq!(left.unwrap(), Some(vec![]), "rules are left on host {name}");
        };
        netns::inside(&space.netns, check).unwrap();
    }
}

#[test]
fn pods_reach_pods_of_hosts_on_their_link_and_behind_a_router() {
    if !is_root() {
        return;
    }
    let router = router();
    let hosts = three(&router);
    tell(&hosts, &NODES);
    everybody_reaches_everybody(&hosts);
    carries_much(&hosts[0], &hosts[1]);
    carries_much(&hosts[0], &hosts[2]);
    carries_much(&hosts[2], &hosts[1]);
    end(hosts);
}

#[test]
fn a_node_port_leads_to_pods_of_other_hosts_where_forwarding_is_closed() {
    if !is_root() {
        return;
    }
    let router = router();
    let hosts = three(&router);
    tell(&hosts, &NODES);
    let all: BTreeSet<String> = hosts.iter().map(|it| it.name.to_owned()).collect();
    for (_, _, address) in NODES {
        // The router is a client from outside.
        let at: Ipv4Addr = address.parse().unwrap();
        let met = netns::inside(&router.netns, || who((at, 30080))).unwrap();
        assert_eq!(met, all, "the node port on {address}");
    }
    end(hosts);
}

#[test]
fn ways_follow_a_host_that_changes_its_address_and_one_that_leaves() {
    if !is_root() {
        return;
    }
    let router = router();
    let hosts = three(&router);
    tell(&hosts, &NODES);
    everybody_reaches_everybody(&hosts);
    // `c` gets another address on its link, and `b` moves to the link of `c`.
    ip(&hosts[2].space, "addr del 198.51.100.3/24 dev eth0");
    ip(&hosts[2].space, "addr add 198.51.100.33/24 dev eth0");
    ip(&hosts[2].space, "route replace default via 198.51.100.254");
    ip(&router, "link set to-b master two");
    ip(&hosts[1].space, "addr add 198.51.100.2/24 dev eth0");
    ip(&hosts[1].space, "addr del 192.0.2.2/24 dev eth0");
    ip(&hosts[1].space, "route replace default via 198.51.100.254");
    let mut moved = NODES;
    moved[1].2 = "198.51.100.2";
    moved[2].2 = "198.51.100.33";
    tell(&hosts, &moved);
    everybody_reaches_everybody(&hosts);
    // `b` and `c` leave: `a` keeps no way to them.
    let left = &hosts[0];
    left.network.changed(Feed::Nodes, "", "b", None);
    left.network.changed(Feed::Nodes, "", "c", None);
    settle(left);
    let (links, routes, _) = netns::inside(&left.space.netns, traces).unwrap();
    assert!(!links.contains("kx"), "the tunnel's device stays: {links}");
    // 10.244.1.0 and 10.244.2.0 as /proc/net/route writes them.
    assert!(!routes.contains("0001F40A") && !routes.contains("0002F40A"), "{routes}");
    end(hosts);
}

#[test]
fn a_restart_keeps_the_ways_until_all_nodes_are_known_again() {
    if !is_root() {
        return;
    }
    let router = router();
    let mut hosts = three(&router);
    tell(&hosts, &NODES);
    let a = hosts.remove(0);
    a.machine.stop();
    let start = || {
        let machine = Machine::start();
        let mut config = config(a._data.path());
        config.node_name = "a".to_owned();
        let network = Network::new(machine.env().clone(), config).unwrap();
        network.configure("10.244.0.0/24").unwrap();
        (machine, network)
    };
    let (machine, network) = netns::inside(&a.space.netns, start).unwrap();
    let a = Host { machine, network, ..a };
    // Of the others only `b` was named so far.
    a.network.begin(Feed::Nodes);
    a.network.changed(Feed::Nodes, "", "b", Some(&node("10.244.1.0/24", "192.0.2.2")));
    objects(&a.network, &[]);
    settle(&a);
    let reach = || [&hosts[0], &hosts[1]].map(|it| ask((it.pod_address, 8080)).is_ok());
    assert_eq!(netns::inside(&a.space.netns, reach).unwrap(), [true, true]);
    a.network.complete(Feed::Nodes);
    settle(&a);
    let (links, ..) = netns::inside(&a.space.netns, traces).unwrap();
    assert!(!links.contains("kx"), "`c` is no node any more: {links}");
    hosts.push(a);
    end(hosts);
}
