//! What an instance's things are called on the host, so that several run on one machine and `purge` finds its own.
//!
//! Links have 15 bytes for a name, instances more: long names are cut to a digest. Invariant: every link of an
//! instance is its bridge, its tunnel or begins with its pod prefix, and no other instance's does.

use sha2::{Digest, Sha256};

/// IFNAMSIZ without the terminating zero.
const LINK_NAME_LEN_MAX: usize = 15;

/// Far behind what an administrator or another program gives: their route to the same network wins.
const ROUTE_METRIC_MIN: u32 = 1 << 24;

/// The names of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The bridge that the instance's pods hang on.
    pub bridge: String,
    /// The device that pods of hosts on other links are reached by.
    pub tunnel: String,
    /// The metric of the instance's routes, by which they are found again.
    pub route_metric: u32,
    /// What the host's end of every pod's link begins with.
    pub pod_link_prefix: String,
    /// The nftables table.
    pub table: String,
}

impl Names {
    pub fn of(instance: &str) -> Self {
        let readable = format!("kb-{instance}");
        let plain = instance.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        let bridge = if plain && readable.len() <= LINK_NAME_LEN_MAX {
            readable
        } else {
            format!("kb_{}", digest(instance, 12)) // `_` keeps digests apart from names that look like one.
        };
        let kept = |it: char| if it.is_ascii_alphanumeric() || it == '-' { it } else { '_' };
        let table = if plain && instance.len() <= 64 {
            format!("kactor_{instance}")
        } else {
            let text: String = instance.chars().take(32).map(kept).collect();
            format!("kactor_{text}_{}", digest(instance, 12))
        };
        let tunnel = format!("kx{}", digest(instance, 13));
        let metric = u32::from_str_radix(&digest(instance, 6), 16).expect("six hexadecimal digits");
        let pod_link_prefix = format!("kv{}", digest(instance, 5));
        Self { bridge, tunnel, route_metric: ROUTE_METRIC_MIN + metric, pod_link_prefix, table }
    }

    /// The host's end of a pod's link.
    pub fn pod_link(&self, pod_uid: &str) -> String {
        format!("{}{}", self.pod_link_prefix, digest(pod_uid, 8))
    }

    pub fn owns_link(&self, name: &str) -> bool {
        name == self.bridge
            || name == self.tunnel
            || (name.len() == LINK_NAME_LEN_MAX && name.starts_with(&self.pod_link_prefix))
    }
}

fn digest(text: &str, len: usize) -> String {
    let hex: String =
        Sha256::digest(text.as_bytes()).iter().map(|it| format!("{it:02x}")).collect();
    hex[..len].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_differ_between_instances() {
        let long = "an-instance-with-a-very-long-name";
        for instance in ["kactor", "a", long, "über", ""] {
            let names = Names::of(instance);
            assert!(names.bridge.len() <= LINK_NAME_LEN_MAX, "{names:?}");
            assert_eq!(names.pod_link("4c1f").len(), LINK_NAME_LEN_MAX);
            assert!(names.table.len() < 128 && names.table.is_ascii(), "{names:?}");
            assert!(names.owns_link(&names.bridge) && names.owns_link(&names.pod_link("4c1f")));
        }
        let (one, other) = (Names::of("one"), Names::of("other"));
        assert_eq!((one.bridge.as_str(), one.table.as_str()), ("kb-one", "kactor_one"));
        assert_eq!(one.tunnel.len(), LINK_NAME_LEN_MAX);
        assert!(one.owns_link(&one.tunnel) && !one.owns_link(&other.tunnel));
        assert_ne!(one.route_metric, other.route_metric);
        assert!(!one.owns_link(&other.bridge) && !one.owns_link(&other.pod_link("4c1f")));
        assert_ne!(Names::of(long).bridge, Names::of(&format!("{long}2")).bridge);
    }
}
