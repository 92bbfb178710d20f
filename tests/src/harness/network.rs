//! Networks for pods and services that no other test of this machine has while they are held.
//!
//! A lock file per slot keeps tests that run at the same time apart, in whatever process; a slot whose addresses the
//! host routes already (a kactor that a killed test left behind) is passed over.

use std::fs::File;
use std::net::Ipv4Addr;

use nix::fcntl::{Flock, FlockArg};

/// Pods take `10.64.0.0/16` to `10.127.0.0/16`, services the 64 networks above them.
const FIRST: u8 = 64;
const COUNT: u8 = 64;

/// Held as long as the value lives.
pub struct NetworkSlot {
    second: u8,
    _lock: Flock<File>,
}

impl NetworkSlot {
    /// # Panics
    /// When all are taken.
    pub fn free() -> Self {
        let folder = std::env::temp_dir().join("kactor-test-networks");
        std::fs::create_dir_all(&folder).expect("the folder of network locks can be made");
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        let start = u8::try_from(std::process::id() % u32::from(COUNT)).expect("below COUNT");
        for step in 0..COUNT {
            let second = FIRST + (start + step) % COUNT;
            let Ok(file) = File::create(folder.join(second.to_string())) else {
                continue; // another user's
            };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            if !is_routed(&routes, second) {
                return Self { second, _lock: lock };
            }
        }
        panic!("all {COUNT} networks for tests are taken: `ip route` shows what was left behind");
    }

    pub fn pods(&self) -> String {
        format!("10.{}.0.0/16", self.second)
    }

    pub fn services(&self) -> String {
        format!("10.{}.0.0/16", self.second + COUNT)
    }
}

/// Whether a line of `/proc/net/route` (hexadecimal, in network order as this machine stores it) leads to `10.second`.
fn is_routed(routes: &str, second: u8) -> bool {
    let destinations = routes.lines().skip(1).filter_map(|it| it.split_whitespace().nth(1));
    let mut addresses = destinations
        .filter_map(|it| u32::from_str_radix(it, 16).ok())
        .map(|it| Ipv4Addr::from(it.to_ne_bytes()));
    addresses.any(|it| it.octets()[..2] == [10, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routed_network_is_seen() {
        let destination = u32::from_ne_bytes([10, 70, 3, 0]);
        let table = format!("Iface\tDestination\tGateway\nbr\t{destination:08X}\t00000000\n");
        assert!(is_routed(&table, 70));
        assert!(!is_routed(&table, 71));
    }

    #[test]
    fn two_slots_differ() {
        let (one, other) = (NetworkSlot::free(), NetworkSlot::free());
        assert_ne!(one.pods(), other.pods());
        assert_ne!(one.services(), other.services());
    }
}
