//! Whether the networks of pods and services can be what was asked for: judged before anything is made.
//!
//! Pods and services are reached by routes and rules of this host. A network that overlaps one of the host's own would
//! cut it off from its neighbours, so it is refused with the flag that mends it.

use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use kactor_network::names::Names;

/// An IPv4 network: its first address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: u32,
    prefix: u8,
}

impl Network {
    fn of(address: Ipv4Addr, prefix: u8) -> Self {
        Self { first: address.to_bits() & mask(prefix), prefix }
    }

    /// `10.244.0.0/16`; bits behind the prefix must be zero.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok().filter(|it| *it <= 32)?;
        let network = Self::of(address, prefix);
        (network.first == address.to_bits()).then_some(network)
    }

    fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.first & shorter == other.first & shorter
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.first), self.prefix)
    }
}

/// A network that the host is in, and by which link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNetwork {
    pub link: String,
    pub network: Network,
}

/// The host's networks, without those of this instance, which an earlier start made.
pub fn of_host(instance: &str) -> Vec<HostNetwork> {
    let own = Names::of(instance);
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.filter(|it| !own.owns_link(&it.interface_name))
        .filter_map(|it| {
            let address = it.address?.as_sockaddr_in()?.ip();
            let prefix = it.netmask?.as_sockaddr_in()?.ip().to_bits().count_ones() as u8;
            Some(HostNetwork { link: it.interface_name, network: Network::of(address, prefix) })
        })
        .collect()
}

/// Both networks as they may be used, or a sentence that names the flag.
pub fn check(pods: &str, services: &str, host: &[HostNetwork]) -> anyhow::Result<()> {
    let parse = |flag: &str, text: &str, example: &str| {
        Network::parse(text).with_context(|| {
            format!("{flag} {text:?} is no IPv4 network such as {example} (an address, its length, no bits behind it)")
        })
    };
    let pod_network = parse("--pod-cidr", pods, "10.244.0.0/16")?;
    let service_network = parse("--service-cidr", services, "10.96.0.0/16")?;
    if pod_network.prefix > 24 {
        bail!(
            "--pod-cidr {pods} is too small: a node takes a /24 of it; take one of /24 or shorter"
        );
    }
    if pod_network.overlaps(service_network) {
        bail!(
            "--pod-cidr {pods} and --service-cidr {services} overlap, so an address could be a pod's and a service's; name two that do not"
        );
    }
    for (flag, network) in [("--pod-cidr", pod_network), ("--service-cidr", service_network)] {
        if let Some(it) = host.iter().find(|it| it.network.overlaps(network)) {
            let whose = if it.link.starts_with("kb-") { " (pods of another kactor)" } else { "" };
            bail!(
                "{flag} {network} overlaps {}, which this host is in by {}{whose}; name another network with {flag}",
                it.network,
                it.link
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_cannot_be_used_are_named_with_their_flag() {
        let host = [
            HostNetwork {
                link: "eth0".to_owned(),
                network: Network::parse("192.168.7.0/24").unwrap(),
            },
            HostNetwork {
                link: "kb-1".to_owned(),
                network: Network::parse("10.70.0.0/24").unwrap(),
            },
        ];
        for (pods, services, words) in [
            ("10.244.0.0/16", "10.96.0.0/16", ""),
            ("10.244.0.0/99", "10.96.0.0/16", "--pod-cidr \"10.244.0.0/99\" is no IPv4 network"),
            ("10.244.1.0/16", "10.96.0.0/16", "no bits behind it"),
            ("fd00::/48", "10.96.0.0/16", "--pod-cidr"),
            ("10.244.0.0/16", "x", "--service-cidr \"x\""),
            ("10.244.0.0/25", "10.96.0.0/16", "too small"),
            ("10.96.0.0/16", "10.96.0.0/16", "overlap, so"),
            ("10.0.0.0/8", "10.96.0.0/16", "overlap, so"),
            (
                "192.168.0.0/16",
                "10.96.0.0/16",
                "--pod-cidr 192.168.0.0/16 overlaps 192.168.7.0/24, which this host is in by eth0",
            ),
            ("10.70.0.0/16", "10.96.0.0/16", "by kb-1 (pods of another kactor); name"),
            ("10.244.0.0/16", "192.168.7.0/28", "with --service-cidr"),
            ("0.0.0.0/0", "10.96.0.0/16", "overlap"),
        ] {
            match check(pods, services, &host) {
                Ok(()) => assert_eq!(words, "", "{pods} {services}"),
                Err(error) => {
                    assert!(
                        !words.is_empty() && error.to_string().contains(words),
                        "{pods} {services}: {error}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_host_is_in_its_loopback_network() {
        let loopback = Network::parse("127.0.0.0/8").unwrap();
        assert!(of_host("none").iter().any(|it| it.network == loopback && it.link == "lo"));
    }
}
