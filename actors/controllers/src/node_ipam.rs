//! Node IPAM: every Node gets a range of Pod addresses of its own, cut from the cluster's.
//!
//! One key for all Nodes: two Nodes planned beside each other would be given the same range.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Object};
use serde_json::json;

use crate::controller::{Controller, NoMemory, Pass};
use crate::plan::{Plan, Severity};

pub struct NodeIpam {
    pub cluster: CidrRange,
    /// The prefix length of each Node's range.
    pub node_prefix: u8,
}

/// An IPv4 range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CidrRange {
    pub first: Ipv4Addr,
    pub prefix: u8,
}

impl CidrRange {
    /// `10.244.0.0/16`; host bits must be zero.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let range = Self { first: address.parse().ok()?, prefix: prefix.parse().ok()? };
        let is_aligned = range.prefix <= 32 && u64::from(range.first.to_bits()) % range.size() == 0;
        is_aligned.then_some(range)
    }

    fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix.min(32)))
    }

    fn overlaps(self, other: CidrRange) -> bool {
        let span = |it: CidrRange| {
            let first = u64::from(it.first.to_bits());
            first..first + it.size()
        };
        let (a, b) = (span(self), span(other));
        a.start < b.end && b.start < a.end
    }

    /// Its parts of the given prefix length, in order.
    fn parts(self, prefix: u8) -> impl Iterator<Item = CidrRange> {
        let step = 1_u64 << (32 - u32::from(prefix.min(32)));
        let n_parts = self.size() / step;
        let first = u64::from(self.first.to_bits());
        (0..n_parts).filter_map(move |it| {
            let first = u32::try_from(first + it * step).ok()?;
            Some(CidrRange { first: Ipv4Addr::from_bits(first), prefix })
        })
    }
}

impl std::fmt::Display for CidrRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

fn everything() -> Key {
    Key::new("kactor.internal", "podcidrs", "", "all").expect("a constant")
}

impl Controller for NodeIpam {
    const NAME: &'static str = "node-controller";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, _: &ClusterView) -> Vec<Key> {
        match changed.object() {
            Some(Object::Node(_)) => vec![everything()],
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let nodes = pass.view.nodes();
        let given: Vec<CidrRange> =
            nodes.iter().filter_map(|it| CidrRange::parse(it.pod_cidr.as_deref()?)).collect();
        let mut free = self
            .cluster
            .parts(self.node_prefix)
            .filter(|part| !given.iter().any(|it| it.overlaps(*part)));
        let mut planned = BTreeSet::new();
        for node in nodes.iter().filter(|it| it.pod_cidr.is_none() && !it.meta.is_terminating()) {
            let Some(part) = free.next() else {
                let message = format!("no range is left in {} for {}", self.cluster, node.name());
                plan.note(&node.meta.key, Severity::Warning, "CIDRNotAvailable", message);
                continue;
            };
            let part = part.to_string();
            assert!(planned.insert(part.clone()), "a range is given once");
            let spec = json!({"podCIDR": part, "podCIDRs": [part]});
            plan.patch_exactly(&node.meta, json!({"spec": spec}));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Life;

    fn ipam(cluster: &str) -> NodeIpam {
        NodeIpam { cluster: CidrRange::parse(cluster).unwrap(), node_prefix: 24 }
    }

    #[test]
    fn nodes_get_the_lowest_free_ranges_and_keep_what_they_have() {
        let mut life =
            Life::new("node/a\nnode/b cidr=10.244.0.0/24\nnode/c\nnode/d cidr=10.244.2.0/23");
        life.settle(&ipam("10.244.0.0/16"));
        let given: Vec<_> =
            life.field("nodes", "/spec/podCIDR").into_iter().map(|it| it.1).collect();
        assert_eq!(given, ["10.244.1.0/24", "10.244.0.0/24", "10.244.4.0/24", "10.244.2.0/23"]);
    }

    #[test]
    fn an_exhausted_cluster_says_so() {
        let mut life = Life::new("node/a\nnode/b\nnode/c");
        life.settle(&ipam("10.244.0.0/23"));
        let given = life.field("nodes", "/spec/podCIDR");
        assert_eq!(given.iter().filter(|it| it.1.is_null()).count(), 1);
        assert!(life.log[0].contains("CIDRNotAvailable"), "{:?}", life.log);
    }

    #[test]
    fn ranges_with_host_bits_are_refused() {
        assert_eq!(CidrRange::parse("10.244.0.1/16"), None);
        assert_eq!(CidrRange::parse("10.244.0.0/33"), None);
        assert!(CidrRange::parse("0.0.0.0/0").is_some());
    }
}
