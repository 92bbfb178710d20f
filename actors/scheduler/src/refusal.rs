//! Why no node would do: per node for `kactor why`, summed up in kube-scheduler's words for the Pod's condition.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Nodes that a sentence names before it only counts.
const NODES_NAMED_MAX: usize = 3;

/// Every node's reasons, and which plugins gave them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusals {
    pub by_node: Vec<Refusal>,
    pub plugins: BTreeSet<&'static str>,
}

/// One node's first refusal: the plugins after it were not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub node: Arc<str>,
    pub plugin: &'static str,
    pub reasons: Vec<String>,
}

impl Refusals {
    /// Which plugin refused which nodes and why, in words; empty when there was no node.
    pub fn told(&self) -> String {
        let mut alike: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
        for it in &self.by_node {
            alike.entry((it.plugin, it.reasons.join(", "))).or_default().push(&it.node);
        }
        let sentence = |((plugin, reasons), nodes): (&(&str, String), &Vec<&str>)| {
            let named = nodes[..nodes.len().min(NODES_NAMED_MAX)].join(", ");
            let more = match nodes.len().saturating_sub(NODES_NAMED_MAX) {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            format!("{plugin} refused {named}{more}: {reasons}")
        };
        alike.iter().map(sentence).collect::<Vec<_>>().join("; ")
    }
}

/// `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.` (scheduler framework, FitError)
impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by_node.is_empty() {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.by_node.iter().flat_map(|it| &it.reasons) {
            *counts.entry(reason).or_insert(0) += 1;
        }
        let mut told: Vec<String> =
            counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        told.sort();
        write!(f, "0/{} nodes are available: {}.", self.by_node.len(), told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_names_the_filter_and_the_nodes_and_counts_when_there_are_many() {
        let refusal = |node: &str, plugin, reason: &str| Refusal {
            node: node.into(),
            plugin,
            reasons: vec![reason.to_owned()],
        };
        let fit = "NodeResourcesFit";
        let mut refusals = Refusals::default();
        assert_eq!(refusals.told(), "");
        for node in ["a", "b", "c", "d", "e"] {
            refusals.by_node.push(refusal(node, fit, "Insufficient cpu"));
        }
        refusals.by_node.push(refusal("f", "TaintToleration", "node(s) had untolerated taint"));
        assert_eq!(
            refusals.told(),
            "NodeResourcesFit refused a, b, c and 2 more: Insufficient cpu; \
             TaintToleration refused f: node(s) had untolerated taint"
        );
    }
}
