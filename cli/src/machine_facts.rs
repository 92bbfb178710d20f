//! What this host is: read once from /proc, /etc and the kernel, for the Node object.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use kactor_agent::node_object::Machine;
use kactor_agent::pod_files::Resolver;

/// `driver` is what the Node shows as its container runtime, `kubelet` where its kubelet's API is. The name of the node is
/// its host name to the cluster, as with the kubelet's --hostname-override: nodes that share a machine differ in it.
pub fn read(
    node: &str,
    driver: &str,
    addresses: &[IpAddr],
    disk: &Path,
    kubelet: SocketAddr,
) -> Machine {
    let uname = nix::sys::utsname::uname().ok();
    let text = |it: Option<&std::ffi::OsStr>| {
        it.map(|it| it.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let statvfs = nix::sys::statvfs::statvfs(disk).ok();
    let disk_bytes = statvfs.map_or(0, |it| it.blocks() * it.fragment_size());
    Machine {
        hostname: node.to_owned(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        cpus: std::thread::available_parallelism().map_or(1, |it| it.get() as u32),
        memory_bytes: memory_bytes(&read_file("/proc/meminfo")),
        disk_bytes,
        machine_id: read_file("/etc/machine-id").trim().to_owned(),
        boot_id: read_file("/proc/sys/kernel/random/boot_id").trim().to_owned(),
        kernel_version: text(uname.as_ref().map(|it| it.release())),
        os_image: os_image(&read_file("/etc/os-release")),
        architecture: architecture(&text(uname.as_ref().map(|it| it.machine()))).to_owned(),
        runtime_version: driver.to_owned(),
        kubelet_version: kactor_gateway::version::GIT_VERSION.to_owned(),
        kubelet_port: kubelet.port(),
    }
}

fn read_file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The host's name as a node's name: lower case.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().map(|it| it.to_string_lossy().to_lowercase());
    name.ok().filter(|it| !it.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

pub fn host_resolver() -> Resolver {
    Resolver::parse(&read_file("/etc/resolv.conf"))
}

fn memory_bytes(meminfo: &str) -> u64 {
    let line = meminfo.lines().find(|it| it.starts_with("MemTotal:"));
    let kib =
        line.and_then(|it| it.split_whitespace().nth(1)).and_then(|it| it.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn os_image(os_release: &str) -> String {
    let line = os_release.lines().find_map(|it| it.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// As Go names it.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The addresses by which this node is known: the one it listens on, else those of its interfaces. Loopback is nobody
/// else's address, so it is only the last resort of a host without any interface.
pub fn addresses(listen: IpAddr) -> Vec<IpAddr> {
    if !listen.is_unspecified() && !listen.is_loopback() {
        return vec![listen];
    }
    let first = of_interfaces().next();
    vec![first.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())]
}

/// The addresses of this host's own interfaces.
fn of_interfaces() -> impl Iterator<Item = IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.filter(|it| !it.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK))
        .filter(|it| !is_virtual(&it.interface_name))
        .filter_map(|it| it.address?.as_sockaddr_in().map(|it| IpAddr::from(it.ip())))
        .filter(|it| !it.is_loopback())
}

/// Where other hosts reach what listens there: `preferred` where it listens everywhere and that is an address of this host.
pub fn reached_at(listen: SocketAddr, preferred: Option<IpAddr>) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let kept = preferred.filter(|it| it.is_loopback() || of_interfaces().any(|own| own == *it));
    let address = kept.unwrap_or_else(|| addresses(listen.ip())[0]);
    SocketAddr::new(address, listen.port())
}

/// The address of this host that it speaks to `other` from. Nothing is sent.
pub fn towards(other: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if other.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(other).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Bridges and pods' links of container engines are no address of the host.
fn is_virtual(name: &str) -> bool {
    ["docker", "br-", "veth", "cni", "flannel", "kactor", "ka"]
        .iter()
        .any(|it| name.starts_with(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_host_are_read_as_they_are_written() {
        assert_eq!(memory_bytes("MemTotal:       24649032 kB\nMemFree: 1 kB\n"), 24_649_032 * 1024);
        assert_eq!(memory_bytes(""), 0);
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert_eq!(architecture("x86_64"), "amd64");
    }

    #[test]
    fn others_reach_a_host_where_it_listens_or_where_it_spoke_from() {
        let there: SocketAddr = "127.0.0.1:7443".parse().unwrap();
        assert_eq!(reached_at(there, Some([192, 0, 2, 7].into())), there);
        let everywhere: SocketAddr = "0.0.0.0:6443".parse().unwrap();
        assert_eq!(towards(there), Some([127, 0, 0, 1].into()));
        assert_eq!(reached_at(everywhere, towards(there)).to_string(), "127.0.0.1:6443");
        let gone = reached_at(everywhere, Some([192, 0, 2, 7].into()));
        assert_ne!(gone.ip(), IpAddr::from([192, 0, 2, 7]), "an address that it no longer has");
        assert_eq!(gone.port(), 6443);
    }

    #[test]
    fn a_node_is_known_by_the_address_it_listens_on() {
        let address = "192.0.2.7".parse().unwrap();
        assert_eq!(addresses(address), [address]);
        assert!(!addresses("0.0.0.0".parse().unwrap()).is_empty());
    }
}
