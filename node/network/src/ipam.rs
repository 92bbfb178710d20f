//! Which pod has which address of this node's pod CIDR, and which ports of the host lead to it.
//!
//! Pure: `Ledger` decides, the shell writes `to_json` before an address is used, so that after a crash running
//! pods keep theirs. Addresses are handed out in a circle, not lowest first: the address of a pod that has just
//! gone is the last to be used again, when nobody's cache names it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;

/// Shorter prefixes hold more addresses than a node may have pods by orders of magnitude.
const PREFIX_LEN_MIN: u8 = 16;
/// A network's own address, the gateway, one pod, broadcast.
const PREFIX_LEN_MAX: u8 = 30;
/// The network's own address and the gateway's stand before those of pods.
const FIRST_POD_INDEX: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    #[error(
        "the pod network {cidr} must have a prefix of {PREFIX_LEN_MIN} to {PREFIX_LEN_MAX} bits"
    )]
    Size { cidr: Cidr },
    #[error(
        "all {pods} addresses of the pod network {cidr} are in use: delete pods, or give the node a larger pod CIDR"
    )]
    Exhausted { cidr: Cidr, pods: usize },
    #[error(
        "the node's pod CIDR was {before} and is {now}, but pods still have addresses of the old one: remove them first"
    )]
    Renumbered { before: String, now: Cidr },
    #[error("port {port}/{protocol} of the host is taken by pod {by}")]
    PortTaken { port: u16, protocol: Protocol, by: String },
    #[error(
        "the file of pod addresses cannot be read; delete it once this node has no pods: {why}"
    )]
    Damaged { why: String },
}

/// What ports are of.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As in objects: `TCP`; empty is TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// IANA's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As in DNS names and rules: `tcp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name().to_uppercase())
    }
}

/// A port of the host that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MappedPort {
    /// All of the host's addresses if absent.
    pub host_address: Option<Ipv4Addr>,
    pub host_port: u16,
    pub pod_port: u16,
    pub protocol: Protocol,
}

/// A pod's part of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    #[serde(default)]
    pub ports: Vec<MappedPort>,
}

/// All leases of this node, by the pod's uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    cidr: Cidr,
    next: u32,
    leases: BTreeMap<String, Lease>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    pod_cidr: String,
    next: u32,
    leases: BTreeMap<String, Lease>,
}

impl Ledger {
    pub fn new(cidr: Cidr) -> Result<Self, IpamError> {
        if !(PREFIX_LEN_MIN..=PREFIX_LEN_MAX).contains(&cidr.prefix_len()) {
            return Err(IpamError::Size { cidr });
        }
        Ok(Self { cidr, next: FIRST_POD_INDEX, leases: BTreeMap::new() })
    }

    /// What `to_json` wrote, for a node whose pod CIDR is `cidr`.
    pub fn from_json(cidr: Cidr, text: &[u8]) -> Result<Self, IpamError> {
        let mut out = Self::new(cidr)?;
        let stored: Stored = serde_json::from_slice(text)
            .map_err(|it| IpamError::Damaged { why: it.to_string() })?;
        if stored.leases.values().any(|it| out.index(it.address).is_none()) {
            return Err(IpamError::Renumbered { before: stored.pod_cidr, now: cidr });
        }
        let addresses: BTreeSet<_> = stored.leases.values().map(|it| it.address).collect();
        if addresses.len() != stored.leases.len() {
            return Err(IpamError::Damaged { why: "two pods have one address".to_owned() });
        }
        out.leases = stored.leases;
        if cidr.nth(stored.next).is_some_and(|it| out.index(it).is_some()) {
            out.next = stored.next;
        }
        Ok(out)
    }

    pub fn to_json(&self) -> Vec<u8> {
        let stored = Stored {
            pod_cidr: self.cidr.to_string(),
            next: self.next,
            leases: self.leases.clone(),
        };
        serde_json::to_vec(&stored).expect("addresses and names always have a JSON form")
    }

    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// The first address: the bridge's, and the pods' way out.
    pub fn gateway(&self) -> Ipv4Addr {
        self.cidr.nth(1).expect("`new` refuses networks without room for a gateway")
    }

    pub fn leases(&self) -> impl Iterator<Item = (&str, &Lease)> {
        self.leases.iter().map(|(uid, lease)| (uid.as_str(), lease))
    }

    /// The pod's address: the one that it has, or a free one. Its ports are those named now.
    pub fn take(&mut self, uid: &str, ports: Vec<MappedPort>) -> Result<Ipv4Addr, IpamError> {
        self.check_ports(uid, &ports)?;
        let address = match self.leases.get(uid) {
            Some(lease) => lease.address,
            None => self.free_address()?,
        };
        self.leases.insert(uid.to_owned(), Lease { address, ports });
        Ok(address)
    }

    /// `None` if the pod had no address.
    pub fn release(&mut self, uid: &str) -> Option<Lease> {
        self.leases.remove(uid)
    }

    fn check_ports(&self, uid: &str, ports: &[MappedPort]) -> Result<(), IpamError> {
        for (by, lease) in self.leases.iter().filter(|(it, _)| *it != uid) {
            for taken in &lease.ports {
                if let Some(port) = ports.iter().find(|it| clash(it, taken)) {
                    let (port, protocol) = (port.host_port, port.protocol);
                    return Err(IpamError::PortTaken { port, protocol, by: by.clone() });
                }
            }
        }
        Ok(())
    }

    fn free_address(&mut self) -> Result<Ipv4Addr, IpamError> {
        let used: BTreeSet<Ipv4Addr> = self.leases.values().map(|it| it.address).collect();
        let last = u32::try_from(self.cidr.len()).unwrap_or(u32::MAX) - 2; // Broadcast is none.
        let n_pods = last - FIRST_POD_INDEX + 1;
        for step in 0..n_pods {
            let index = FIRST_POD_INDEX + (self.next - FIRST_POD_INDEX + step) % n_pods;
            let address = self.cidr.nth(index).expect("indexes up to `last` are in the network");
            if !used.contains(&address) {
                self.next = if index == last { FIRST_POD_INDEX } else { index + 1 };
                return Ok(address);
            }
        }
        Err(IpamError::Exhausted { cidr: self.cidr, pods: used.len() })
    }

    /// Where a pod's address is in the network; `None` for addresses that no pod can have.
    fn index(&self, address: Ipv4Addr) -> Option<u32> {
        let index = self.cidr.index_of(address)?;
        let is_pods = index >= FIRST_POD_INDEX && u64::from(index) < self.cidr.len() - 1;
        is_pods.then_some(index)
    }
}

fn clash(one: &MappedPort, other: &MappedPort) -> bool {
    let addresses_meet = match (one.host_address, other.host_address) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    addresses_meet && one.host_port == other.host_port && one.protocol == other.protocol
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(cidr: &str) -> Ledger {
        Ledger::new(cidr.parse().unwrap()).unwrap()
    }

    fn port(host_port: u16) -> MappedPort {
        MappedPort { host_address: None, host_port, pod_port: 80, protocol: Protocol::Tcp }
    }

    #[test]
    fn a_pod_keeps_its_address_and_a_gone_pods_address_is_used_last() {
        let mut pods = ledger("10.244.0.0/29");
        assert_eq!(pods.gateway(), Ipv4Addr::new(10, 244, 0, 1));
        let first = pods.take("a", vec![]).unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 244, 0, 2));
        assert_eq!(pods.take("a", vec![]).unwrap(), first);
        pods.release("a");
        let taken: Vec<u8> =
            (0..5).map(|it| pods.take(&format!("p{it}"), vec![]).unwrap().octets()[3]).collect();
        assert_eq!(taken, [3, 4, 5, 6, 2]);
    }

    #[test]
    fn a_full_network_is_refused_in_words_and_a_release_makes_room() {
        let mut pods = ledger("10.244.0.0/30");
        pods.take("a", vec![]).unwrap();
        let error = pods.take("b", vec![]).unwrap_err();
        assert!(error.to_string().starts_with("all 1 addresses of the pod network 10.244.0.0/30"));
        assert!(pods.release("a").is_some() && pods.release("a").is_none());
        assert_eq!(pods.take("b", vec![]).unwrap(), Ipv4Addr::new(10, 244, 0, 2));
    }

    #[test]
    fn leases_survive_a_restart_byte_for_byte() {
        let mut pods = ledger("10.244.0.0/24");
        pods.take("a", vec![port(8080)]).unwrap();
        pods.take("b", vec![]).unwrap();
        pods.release("b");
        let mut again = Ledger::from_json(pods.cidr(), &pods.to_json()).unwrap();
        assert_eq!(again, pods);
        assert_eq!(again.take("c", vec![]).unwrap().octets()[3], 4);
    }

    #[test]
    fn a_ledger_of_another_network_or_with_nonsense_is_refused() {
        let mut pods = ledger("10.244.0.0/24");
        pods.take("a", vec![]).unwrap();
        let other: Cidr = "10.9.0.0/24".parse().unwrap();
        let error = Ledger::from_json(other, &pods.to_json()).unwrap_err();
        assert!(matches!(error, IpamError::Renumbered { .. }), "{error}");
        pods.release("a");
        assert!(Ledger::from_json(other, &pods.to_json()).is_ok());
        let text = br#"{"pod_cidr":"10.9.0.0/24","next":2,"leases":{"a":{"address":"10.9.0.2"},"b":{"address":"10.9.0.2"}}}"#;
        assert!(matches!(Ledger::from_json(other, text), Err(IpamError::Damaged { .. })));
        assert!(matches!(Ledger::from_json(other, b"{"), Err(IpamError::Damaged { .. })));
        for cidr in ["10.0.0.0/8", "10.0.0.0/31"] {
            assert!(matches!(Ledger::new(cidr.parse().unwrap()), Err(IpamError::Size { .. })));
        }
    }

    #[test]
    fn a_port_of_the_host_leads_to_one_pod() {
        let mut pods = ledger("10.244.0.0/24");
        pods.take("a", vec![port(8080)]).unwrap();
        let error = pods.take("b", vec![port(8080)]).unwrap_err();
        assert_eq!(error.to_string(), "port 8080/TCP of the host is taken by pod a");
        let elsewhere = MappedPort { protocol: Protocol::Udp, ..port(8080) };
        assert!(pods.take("b", vec![elsewhere]).is_ok());
        assert!(pods.take("a", vec![port(8080)]).is_ok());
    }
}
