//! The addresses that Services may have: an IPv4 range, as `--service-cidr` names it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network. The first and the last address are never given to a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRange {
    base: u32,
    prefix_len: u8,
}

/// Why a text is no range for Services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceRangeError {
    #[error("{text:?} is no IPv4 network; write it as 10.96.0.0/16")]
    Malformed { text: String },
    #[error("/{prefix_len} is not between /12 and /28: too few Services, or more than are indexed")]
    Size { prefix_len: u8 },
}

impl ServiceRange {
    /// How many addresses may be given out.
    pub fn len(&self) -> u32 {
        (1 << (32 - u32::from(self.prefix_len))) - 2
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `nth` address, from 0; it wraps around at the end.
    pub fn nth(&self, nth: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1 + nth % self.len())
    }

    /// The API's own address.
    pub fn first(&self) -> Ipv4Addr {
        self.nth(0)
    }

    /// Where the cluster's nameserver answers: the tenth address, as everywhere.
    pub fn dns(&self) -> Ipv4Addr {
        self.nth(9)
    }

    /// How many of the first addresses are kept for Services that name theirs, the API's own included (Kubernetes
    /// KEP-3070: a sixteenth, at least 16 and at most 256; the smallest ranges keep the API's and the nameserver's).
    pub fn static_band(&self) -> u32 {
        let band = (self.len() / 16).clamp(16, 256);
        if band < self.len() { band } else { 10 }
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let at = u32::from(address);
        at > self.base && at <= self.base + self.len()
    }
}

impl FromStr for ServiceRange {
    type Err = ServiceRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ServiceRangeError::Malformed { text: text.to_owned() };
        let (address, len) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix_len: u8 = len.parse().map_err(|_| malformed())?;
        if !(12..=28).contains(&prefix_len) {
            return Err(ServiceRangeError::Size { prefix_len });
        }
        let mask = u32::MAX << (32 - u32::from(prefix_len));
        Ok(Self { base: u32::from(address) & mask, prefix_len })
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nameservers_address_is_kept_for_it() {
        for (text, band) in [("10.96.0.0/28", 10), ("10.96.0.0/24", 16), ("10.96.0.0/16", 256)] {
            let range: ServiceRange = text.parse().unwrap();
            assert_eq!(range.static_band(), band, "{text}");
            assert_eq!(range.dns(), Ipv4Addr::new(10, 96, 0, 10));
            assert!(u32::from(range.dns()) < u32::from(range.nth(band)), "{text}");
        }
    }

    #[test]
    fn the_ends_of_the_range_are_never_given_out() {
        let range: ServiceRange = "10.96.0.0/28".parse().unwrap();
        assert_eq!(range.first(), Ipv4Addr::new(10, 96, 0, 1));
        assert_eq!((range.len(), range.nth(13)), (14, Ipv4Addr::new(10, 96, 0, 14)));
        assert_eq!(range.nth(14), range.first());
        for (address, inside) in
            [([10, 96, 0, 0], false), ([10, 96, 0, 14], true), ([10, 96, 0, 15], false)]
        {
            assert_eq!(range.contains(Ipv4Addr::from(address)), inside, "{address:?}");
        }
        for text in ["10.96.0.0", "10.96.0.0/8", "10.96.0.0/30", "x/16", "::/64"] {
            assert!(text.parse::<ServiceRange>().is_err(), "{text}");
        }
    }
}
