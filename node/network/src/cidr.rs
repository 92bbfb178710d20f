//! IPv4 networks in CIDR notation: what a node's pods and a cluster's services get their addresses from.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A network; the bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    network: u32,
    prefix_len: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an IPv4 network: {why}")]
pub struct CidrError {
    pub text: String,
    pub why: &'static str,
}

impl Cidr {
    /// The network of an address; `None` if there are no so long prefixes.
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Option<Self> {
        let mut out = Cidr { network: u32::from(address), prefix_len };
        (prefix_len <= 32).then(|| {
            out.network &= out.mask_bits();
            out
        })
    }

    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network)
    }

    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(self.mask_bits())
    }

    fn mask_bits(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0)
    }

    /// How many addresses are in it, network and broadcast among them.
    pub fn len(self) -> u64 {
        1 << (32 - u32::from(self.prefix_len))
    }

    pub fn is_empty(self) -> bool {
        false // A network has at least its own address.
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask_bits() == self.network
    }

    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// The `index`th address; `None` behind the end.
    pub fn nth(self, index: u32) -> Option<Ipv4Addr> {
        (u64::from(index) < self.len()).then(|| Ipv4Addr::from(self.network + index))
    }

    /// Where an address of this network is in it.
    pub fn index_of(self, address: Ipv4Addr) -> Option<u32> {
        self.contains(address).then(|| u32::from(address) - self.network)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let wrong = |why| CidrError { text: text.to_owned(), why };
        let (address, len) =
            text.split_once('/').ok_or_else(|| wrong("it has no `/` with the prefix's length"))?;
        let address: Ipv4Addr =
            address.parse().map_err(|_| wrong("the part before `/` is not an IPv4 address"))?;
        let prefix_len: u8 = len.parse().map_err(|_| wrong("the prefix's length is no number"))?;
        Cidr::new(address, prefix_len).ok_or_else(|| wrong("a prefix has at most 32 bits"))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_know_their_addresses() {
        let pods: Cidr = "10.244.3.7/24".parse().unwrap();
        assert_eq!(pods.to_string(), "10.244.3.0/24");
        assert_eq!(pods.nth(1), Some(Ipv4Addr::new(10, 244, 3, 1)));
        assert_eq!((pods.nth(255).is_some(), pods.nth(256)), (true, None));
        assert_eq!(pods.index_of(Ipv4Addr::new(10, 244, 3, 9)), Some(9));
        assert!(!pods.contains(Ipv4Addr::new(10, 244, 4, 0)));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST) && all.overlaps(pods) && pods.overlaps(all));
        assert!(!pods.overlaps("10.244.4.0/24".parse().unwrap()));
        assert_eq!(all.len(), 1 << 32);
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/64", "10.0.0.0/x", "10.0.0/8"] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is not an IPv4 network")));
        }
    }
}
