//! Why no node would do: per node for `kactor why`, summed up in kube-scheduler's words for the Pod's condition.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Every node's reasons, and which plugins gave them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusals {
    pub by_node: Vec<(Arc<str>, Vec<String>)>,
    pub plugins: BTreeSet<&'static str>,
}

/// `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.` (scheduler framework, FitError)
impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by_node.is_empty() {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.by_node.iter().flat_map(|it| &it.1) {
            *counts.entry(reason).or_insert(0) += 1;
        }
        let mut told: Vec<String> =
            counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        told.sort();
        write!(f, "0/{} nodes are available: {}.", self.by_node.len(), told.join(", "))
    }
}
