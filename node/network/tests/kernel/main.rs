//! The network on a real kernel: namespaces as pods, connections through services, names, and nothing left behind.
//!
//! Each test makes a network namespace of its own for "the host" and others for pods, so nothing of the machine's
//! own network is touched. Needs root: without it the test says so and passes, with `KACTOR_E2E=1` it fails.

#![allow(clippy::disallowed_methods, reason = "threads play pods: each lives in a namespace")]
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use kactor_agent::perform::LinkedServices;
use kactor_agent::ports::{HostPort, NetworkFeed, Plumbing, PodDialer};
use kactor_network::netns;
use kactor_network::network::{Network, NetworkConfig, purge};
use kactor_protocol::node::Feed;
use kactor_runtime::env::Machine;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod hosts;

const INSTANCE: &str = "kernel-test";

/// True if the test can run here.
fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("KACTOR_E2E").is_err(), "this test needs root, and KACTOR_E2E is set");
    eprintln!("skipped: namespaces and nftables need root");
    false
}

/// A namespace that lives as long as its thread waits.
struct Pod {
    netns: PathBuf,
    _alive: std::sync::mpsc::SyncSender<()>,
}

fn pod() -> Pod {
    let (alive, ended) = std::sync::mpsc::sync_channel::<()>(0);
    let (told, thread) = std::sync::mpsc::sync_channel(0);
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        told.send(nix::unistd::gettid()).unwrap();
        let _ = ended.recv();
    });
    let tid = thread.recv().unwrap();
    Pod {
        netns: PathBuf::from(format!("/proc/{}/task/{tid}/ns/net", std::process::id())),
        _alive: alive,
    }
}

/// Says `name` to everyone who connects, for ever. The listener is open when this returns.
fn serve(pod: &Pod, port: u16, name: &'static str) {
    let listener =
        netns::inside(&pod.netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    let listener = listener.unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream: TcpStream = stream;
            let from = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{name} {from}");
        }
    });
}

/// What the server at `to` says; the namespace is the calling thread's.
fn ask(to: (Ipv4Addr, u16)) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(to), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Who answered in 40 connections.
fn who(to: (Ipv4Addr, u16)) -> BTreeSet<String> {
    let names = (0..40).map(|_| ask(to).unwrap());
    names.map(|it| it.split(' ').next().unwrap().to_owned()).collect()
}

fn both() -> BTreeSet<String> {
    ["a", "b"].map(str::to_owned).into()
}

fn resolve(server: Ipv4Addr, name: &str) -> Message {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect((server, 53)).unwrap();
    let mut message = Message::new(11, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let mut buffer = [0; 1500];
    let mut len = None;
    // The server is a task that opens its socket some time after `configure`.
    for _ in 0..50 {
        let _ = socket.send(&message.to_vec().unwrap());
        match socket.recv(&mut buffer) {
            Ok(it) => {
                len = Some(it);
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    Message::from_vec(&buffer[..len.expect("the nameserver listens")]).unwrap()
}

fn address(message: &Message) -> Option<Ipv4Addr> {
    message.answers.iter().find_map(|it| match &it.data {
        RData::A(it) => Some(it.0),
        _ => None,
    })
}

fn config(data_dir: &Path) -> NetworkConfig {
    NetworkConfig {
        instance: INSTANCE.to_owned(),
        node_name: "n1".to_owned(),
        service_cidr: "10.96.0.0/16".to_owned(),
        domain: "cluster.local".to_owned(),
        data_dir: data_dir.to_owned(),
        resolvers: vec![],
    }
}

fn objects(network: &Network, endpoints: &[IpAddr]) {
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]);
    let web = json!({"spec": {"clusterIP": "10.96.0.7", "ports": ports}});
    let empty = json!({"spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 80}]}});
    let list: Vec<Value> = endpoints.iter().map(|it| json!({"addresses": [it]})).collect();
    let slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": list,
    });
    for feed in [Feed::Services, Feed::EndpointSlices] {
        network.begin(feed);
    }
    network.changed(Feed::Services, "default", "web", Some(&web));
    network.changed(Feed::Services, "default", "empty", Some(&empty));
    network.changed(Feed::EndpointSlices, "default", "web-1", Some(&slice));
    let mut sticky = web.clone();
    sticky["spec"]["clusterIP"] = json!("10.96.0.9");
    sticky["spec"]["sessionAffinity"] = json!("ClientIP");
    sticky["spec"]["ports"][0]["nodePort"] = json!(30081);
    let mut sticky_slice = slice.clone();
    sticky_slice["metadata"]["labels"]["kubernetes.io/service-name"] = json!("sticky");
    network.changed(Feed::Services, "default", "sticky", Some(&sticky));
    network.changed(Feed::EndpointSlices, "default", "sticky-1", Some(&sticky_slice));
    network.complete(Feed::Services);
    network.complete(Feed::EndpointSlices);
}

/// Links, addresses and routes of the thread's namespace, and whether the instance has a table.
fn traces() -> (String, String, bool) {
    let read = |it: &str| fs::read_to_string(format!("/proc/thread-self/net/{it}")).unwrap();
    let links: Vec<String> = read("dev")
        .lines()
        .skip(2)
        .map(|it| it.split(':').next().unwrap().trim().to_owned())
        .collect();
    let table = kactor_network::nft::exists(&format!("kactor_{INSTANCE}")).unwrap();
    (links.join(" "), read("route"), table)
}

/// Runs `test` on a thread in a namespace of its own, with `lo` up by way of a dialled address.
fn on_a_fresh_host(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        loopback_up();
        test();
    });
    thread.join().unwrap();
}

/// `ip link set lo up` by the oldest of interfaces.
fn loopback_up() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: an all-zero ifreq is valid; the name fits with its terminating zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open and the request lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Bridged frames pass the host's rules or do not: a host with Docker has it on, a plain one has it not.
fn set_bridge_filter(value: &str) {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if Path::new(path).exists() {
        fs::write(path, value).unwrap();
    }
}

/// As Docker leaves a host: what its chain does not know is not forwarded.
fn close_forwarding() {
    use kactor_network::nft::message::{Batch, CREATE};
    let mut batch = Batch::begin();
    batch.message(0, CREATE, "table filter".to_owned(), |it| it.text(1, "filter"));
    batch.message(3, CREATE, "chain FORWARD".to_owned(), |it| {
        it.text(1, "filter");
        it.text(3, "FORWARD");
        it.nested(4, |it| {
            it.number(1, 2);
            it.number(2, 0);
        });
        it.number(5, 0);
        it.text(7, "filter");
    });
    kactor_network::nft::commit(batch, "filter").unwrap();
}

fn services_reach_pods(bridge_filter: &'static str) {
    if !is_root() {
        return;
    }
    on_a_fresh_host(move || {
        set_bridge_filter(bridge_filter);
        close_forwarding();
        let data = tempfile::tempdir().unwrap();
        let before = traces();
        let machine = Machine::start();
        let network = Network::new(machine.env().clone(), config(data.path())).unwrap();
        network.configure("10.244.0.0/24").unwrap();
        let (a, b) = (pod(), pod());
        let host_port = HostPort {
            host_address: None,
            host_port: 8081,
            container_port: 8080,
            protocol: "TCP".to_owned(),
        };
        let net = network.clone();
        let (netns_a, netns_b) = (a.netns.clone(), b.netns.clone());
        let addresses = machine.block_on(async move {
            let one =
                net.attach("uid-a", &netns_a, std::slice::from_ref(&host_port)).await.unwrap()[0];
            let again = net.attach("uid-a", &netns_a, &[host_port]).await.unwrap()[0];
            assert_eq!(one, again, "attaching again changes nothing");
            let other = net.attach("uid-b", &netns_b, &[]).await.unwrap()[0];
            objects(&net, &[one, other]);
            net.settled().await;
            let allowed = kactor_network::nft::forwarding::handles(&format!("kactor_{INSTANCE}"));
            assert_eq!(allowed.unwrap().map(|it| it.len()), Some(3));
            [one, other]
        });
        let addresses = addresses.unwrap();
        assert_eq!(network.problem(), None);
        serve(&a, 8080, "a");
        serve(&b, 8080, "b");
        reach_everything(&network, (&a, &b), addresses);
        dial(&machine, &network, &a);
        let net = network.clone();
        let ended = machine.block_on(async move {
            net.detach("uid-b").await.unwrap();
            net.detach("uid-b").await.unwrap();
            net.detach("uid-a").await.unwrap();
        });
        ended.unwrap();
        machine.stop();
        purge(INSTANCE).unwrap();
        purge(INSTANCE).unwrap();
        assert_eq!(traces(), before, "something is left behind");
        let left = kactor_network::nft::forwarding::handles(&format!("kactor_{INSTANCE}"));
        assert_eq!(left.unwrap(), Some(vec![]), "a rule in another program's chain is left behind");
    });
}

fn reach_everything(network: &Network, (a, b): (&Pod, &Pod), addresses: [IpAddr; 2]) {
    let service = (Ipv4Addr::new(10, 96, 0, 7), 80);
    let dns = network.dns_address();
    let gateway = Ipv4Addr::new(10, 244, 0, 1);
    let IpAddr::V4(address_b) = addresses[1] else { panic!("pods have IPv4 addresses") };
    // From the host.
    assert_eq!(who(service), both(), "the cluster address from the host");
    assert_eq!(who((gateway, 30080)), both(), "the node port");
    assert_eq!(who((Ipv4Addr::new(10, 96, 0, 9), 80)).len(), 1, "one client, one endpoint");
    assert_eq!(ask((gateway, 8081)).unwrap(), format!("a {gateway}"), "the host port");
    let refused = ask((Ipv4Addr::new(10, 96, 0, 8), 80)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "no endpoints");
    let web = "web.default.svc.cluster.local.";
    assert_eq!(address(&resolve(dns, web)), Some(service.0));
    // From pods: to each other, through the service (itself among the endpoints), by name.
    for (from, own) in [(a, addresses[0]), (b, addresses[1])] {
        let inside = || {
            assert_eq!(ask((address_b, 8080)).unwrap(), format!("b {own}"), "pod to pod");
            assert_eq!(who(service), both(), "the cluster address from a pod");
            assert_eq!(who((gateway, 30080)), both(), "the node port from a pod");
            let refused = ask((Ipv4Addr::new(10, 96, 0, 8), 80)).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            assert_eq!(address(&resolve(dns, web)), Some(service.0), "a name from a pod");
            let denied = resolve(dns, "nope.default.svc.cluster.local.");
            assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
        };
        netns::inside(&from.netns, inside).unwrap();
    }
    assert_eq!(network.of("other").len(), 0);
    assert_eq!(network.of("default").len(), 3);
}

fn dial(machine: &Machine, network: &std::sync::Arc<Network>, pod: &Pod) {
    let (net, path) = (network.clone(), pod.netns.clone());
    let text = machine.block_on(async move {
        let mut stream = net.connect(Some(&path), 8080).await.unwrap();
        stream.flush().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let error = net.connect(Some(&path), 1).await.map(|_| ()).unwrap_err();
        assert!(error.starts_with("connecting to port 1 inside the pod: "), "{error}");
        text
    });
    assert_eq!(text.unwrap(), "a 127.0.0.1");
}

#[test]
fn services_reach_pods_when_the_bridge_passes_frames_by_the_rules() {
    services_reach_pods("1");
}

#[test]
fn services_reach_pods_when_the_bridge_does_not() {
    services_reach_pods("0");
}

#[test]
fn a_restart_keeps_addresses_and_rules_until_everything_is_known() {
    if !is_root() {
        return;
    }
    on_a_fresh_host(|| {
        let data = tempfile::tempdir().unwrap();
        let a = pod();
        let service = (Ipv4Addr::new(10, 96, 0, 7), 80);
        serve(&a, 8080, "a");
        let run = || {
            let machine = Machine::start();
            let network = Network::new(machine.env().clone(), config(data.path())).unwrap();
            network.configure("10.244.0.0/24").unwrap();
            let (net, path) = (network.clone(), a.netns.clone());
            let address =
                machine.block_on(async move { net.attach("uid-a", &path, &[]).await.unwrap()[0] });
            (machine, network, address.unwrap())
        };
        let (machine, network, first) = run();
        let told = machine.block_on(async move {
            objects(&network, &[first]);
            network.settled().await;
        });
        told.unwrap();
        assert_eq!(who(service), ["a".to_owned()].into());
        machine.stop();
        // Nothing of the services is known now, and the pod is found again by its uid.
        let (machine, network, again) = run();
        assert_eq!(again, first);
        assert_eq!(who(service), ["a".to_owned()].into(), "the earlier run's rules still serve");
        // A listing without the service takes its rules away.
        let net = network.clone();
        let done = machine.block_on(async move {
            for feed in [Feed::Services, Feed::EndpointSlices] {
                net.begin(feed);
                net.complete(feed);
            }
            net.settled().await;
        });
        done.unwrap();
        let refused = ask(service).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let error = network.configure("10.245.0.0/24").unwrap_err();
        assert!(error.contains("10.244.0.0/24 and is 10.245.0.0/24"), "{error}");
        machine.stop();
        purge(INSTANCE).unwrap();
    });
}

#[test]
fn a_network_that_the_host_already_uses_is_refused_in_words() {
    if !is_root() {
        return;
    }
    on_a_fresh_host(|| {
        let data = tempfile::tempdir().unwrap();
        let machine = Machine::start();
        let network = Network::new(machine.env().clone(), config(data.path())).unwrap();
        network.configure("10.244.0.0/24").unwrap();
        let other = NetworkConfig { instance: "other".to_owned(), ..config(data.path()) };
        let second = tempfile::tempdir().unwrap();
        let other_config = NetworkConfig { data_dir: second.path().to_owned(), ..other };
        let other = Network::new(machine.env().clone(), other_config.clone()).unwrap();
        let error = other.configure("10.244.0.128/25").unwrap_err();
        assert!(error.contains("overlaps 10.244.0.1/24, which link kb-kernel-test"), "{error}");
        let error = other.configure("10.244.1.0/24").unwrap_err();
        assert!(error.contains("10.96.0.0/16 overlaps 10.96.0.10/32"), "{error}");
        let services = "10.97.0.0/16".to_owned();
        let elsewhere = NetworkConfig { service_cidr: services, ..other_config.clone() };
        let other = Network::new(machine.env().clone(), elsewhere).unwrap();
        other.configure("10.244.1.0/24").unwrap();
        let error = network.configure("10.96.7.0/24").unwrap_err();
        assert!(error.contains("overlap"), "{error}");
        machine.stop();
        purge("other").unwrap();
        let (links, ..) = traces();
        assert_eq!(links, "lo kb-kernel-test", "purging one instance leaves the other's");
        purge(INSTANCE).unwrap();
    });
}
