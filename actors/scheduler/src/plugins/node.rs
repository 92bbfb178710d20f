//! Filters and scores that read the Node: its name, schedulability, taints, labels and ports.

use kactor_view::{PodSpec, Taint, TaintEffect};

use crate::columns::Columns;
use crate::framework::{
    Filter, Hint, Most, Plugin, Prepared, Reads, Score, Scored, Seeker, Verdict,
    normalise_by_largest,
};

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// `spec.unschedulable`, unless the Pod tolerates the taint that says the same.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
}

impl Filter for NodeUnschedulable {
    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns) -> Prepared<'a> {
        let taint = Taint {
            key: UNSCHEDULABLE_TAINT.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
            added: None,
        };
        if pod.spec.tolerates(&taint) {
            return Prepared::Skip;
        }
        Prepared::Ask(Box::new(|node| {
            Verdict::fits_if(!nodes.is_unschedulable[node], "node(s) were unschedulable")
        }))
    }

    fn hints(&self) -> &'static [Hint] {
        &[Hint::NodeAdded, Hint::NodeChanged]
    }
}

/// Taints: `NoSchedule` and `NoExecute` refuse, `PreferNoSchedule` counts against.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// The first taint that keeps the Pod away.
pub(crate) fn untolerated<'a>(spec: &PodSpec, taints: &'a [Taint]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|it| it.effect != TaintEffect::PreferNoSchedule)
        .find(|it| !spec.tolerates(it))
}

impl Filter for TaintToleration {
    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns) -> Prepared<'a> {
        Prepared::Ask(Box::new(|node| match untolerated(&pod.spec, &nodes.taints[node]) {
            None => Verdict::Fits,
            Some(taint) => Verdict::refused(format!(
                "node(s) had untolerated taint {{{}: {}}}",
                taint.key, taint.value
            )),
        }))
    }

    fn hints(&self) -> &'static [Hint] {
        &[Hint::NodeAdded, Hint::NodeChanged]
    }
}

impl Score for TaintToleration {
    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns, _: &'a [usize]) -> Scored<'a> {
        Scored::Ask(Box::new(|node| {
            let disliked = nodes.taints[node]
                .iter()
                .filter(|it| it.effect == TaintEffect::PreferNoSchedule && !pod.spec.tolerates(it));
            i64::try_from(disliked.count()).unwrap_or(i64::MAX)
        }))
    }

    fn normalise(&self, scores: &mut [i64]) {
        normalise_by_largest(scores, Most::Worst);
    }
}

/// `nodeSelector` and node affinity.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Filter for NodeAffinity {
    fn reads(&self) -> Reads {
        Reads::Node
    }

    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns) -> Prepared<'a> {
        if pod.spec.node_selector.is_empty() && !pod.spec.demands_affinity {
            return Prepared::Skip;
        }
        Prepared::Ask(Box::new(|node| {
            let accepts = pod.spec.accepts_node(nodes.name(node), &nodes.labels[node]);
            Verdict::fits_if(accepts, "node(s) didn't match Pod's node affinity/selector")
        }))
    }

    fn hints(&self) -> &'static [Hint] {
        &[Hint::NodeAdded, Hint::NodeChanged]
    }
}

impl Score for NodeAffinity {
    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns, _: &'a [usize]) -> Scored<'a> {
        if pod.spec.preferred_nodes.is_empty() {
            return Scored::Skip;
        }
        Scored::Ask(Box::new(|node| {
            pod.spec
                .preferred_nodes
                .iter()
                .filter(|it| it.matches(nodes.name(node), &nodes.labels[node]))
                .map(|it| it.weight)
                .sum()
        }))
    }

    fn normalise(&self, scores: &mut [i64]) {
        normalise_by_largest(scores, Most::Best);
    }
}

/// Host ports: two Pods cannot have the same one on a node. (NodeName is decided before the queue: such a Pod is bound.)
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }
}

impl Filter for NodePorts {
    fn reads(&self) -> Reads {
        Reads::NodeAndItsPods
    }

    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns) -> Prepared<'a> {
        if pod.spec.host_ports.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Ask(Box::new(|node| {
            let mut taken = nodes.pods[node].values().flat_map(|it| &it.spec.host_ports);
            let conflicts =
                taken.any(|it| pod.spec.host_ports.iter().any(|mine| mine.conflicts(it)));
            let reason = "node(s) didn't have free ports for the requested pod ports";
            Verdict::fits_if(!conflicts, reason)
        }))
    }

    fn hints(&self) -> &'static [Hint] {
        &[Hint::NodeAdded, Hint::PodLeft]
    }
}
