//! Taint eviction: Pods leave Nodes with NoExecute taints that they do not tolerate, or tolerate for a time.
//!
//! Follows kubernetes pkg/controller/tainteviction. Keys are Pods. The time counts from when the taint was added, or
//! from when it was first seen here if the taint does not say.

use std::time::Duration;

use kactor_protocol::Timestamp;
use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Node, Object, Pod, Taint, TaintEffect};
use serde_json::json;

use crate::conditions::{self, WholeSeconds};
use crate::controller::{Controller, Pass};
use crate::plan::{Note, Plan, Severity};

pub struct TaintEviction;

/// Since when its Node has had such a taint.
#[derive(Debug, Default)]
pub struct Seen {
    since: Option<Timestamp>,
}

impl Controller for TaintEviction {
    const NAME: &'static str = "node-controller";
    type Memory = Seen;

    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key> {
        match changed.object() {
            Some(Object::Pod(pod)) if pod.node.is_some() => vec![pod.meta.key.clone()],
            Some(Object::Node(node)) => {
                let taints_of = |it: &Option<Object>| match it {
                    Some(Object::Node(node)) => node.taints.clone(),
                    _ => Vec::new(),
                };
                if taints_of(&changed.before) == taints_of(&changed.after) {
                    return Vec::new();
                }
                view.pods().on_node(node.name()).map(|it| it.meta.key.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, pass: &Pass<'_>, seen: &mut Seen) -> Plan {
        let mut plan = Plan::new();
        let pod = pass.view.pods().get(pass.key).filter(|it| it.is_active());
        let node = pod.and_then(|it| node_of(it, pass.view));
        let (Some(pod), Some(node)) = (pod, node) else {
            return plan;
        };
        let taints: Vec<&Taint> =
            node.taints.iter().filter(|it| it.effect == TaintEffect::NoExecute).collect();
        if taints.is_empty() {
            if seen.since.take().is_some() {
                let message = format!("Cancelling deletion of Pod {}", path(pod));
                plan.note(&pod.meta.key, Severity::Normal, "TaintManagerEviction", message);
            }
            return plan;
        }
        let now = pass.now;
        let first_seen = *seen.since.get_or_insert(now);
        match leaves_at(pod, &taints, first_seen) {
            Leaves::Never => seen.since = None,
            Leaves::At(at) if at > now => plan.again_at(at),
            Leaves::At(_) => evict(&mut plan, pod, now),
        }
        plan
    }
}

enum Leaves {
    Never,
    At(Timestamp),
}

fn node_of<'a>(pod: &Pod, view: &'a ClusterView) -> Option<&'a Node> {
    let key = Key::new("", "nodes", "", pod.node.as_deref()?).ok()?;
    view.nodes().get(&key).map(|it| &**it)
}

/// The earliest end of its tolerations; at once if a taint is not tolerated at all.
fn leaves_at(pod: &Pod, taints: &[&Taint], first_seen: Timestamp) -> Leaves {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let since = taint.added.unwrap_or(first_seen);
        let mut fitting = pod.spec.tolerations.iter().filter(|it| it.tolerates(taint)).peekable();
        if fitting.peek().is_none() {
            return Leaves::At(Timestamp::EPOCH);
        }
        // Several tolerations of one taint: the shortest counts, as upstream has it; none with a time is for ever.
        let seconds = fitting.filter_map(|it| it.seconds).min();
        if let Some(seconds) = seconds {
            let end = since.plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            earliest = Some(earliest.map_or(end, |it| it.min(end)));
        }
    }
    earliest.map_or(Leaves::Never, Leaves::At)
}

fn path(pod: &Pod) -> String {
    format!("{}/{}", pod.meta.namespace(), pod.name())
}

fn evict(plan: &mut Plan, pod: &Pod, now: Timestamp) {
    let mut conditions = pod.conditions.clone();
    if pod.condition("DisruptionTarget").is_none() {
        conditions.push(kactor_view::Condition {
            kind: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: "DeletionByTaintManager".to_owned(),
            message: "Taint manager: deleting due to NoExecute taint".to_owned(),
            last_transition: Some(now.whole_seconds()),
            last_update: None,
            last_heartbeat: None,
        });
        let status = json!({"conditions": conditions::values(&conditions)});
        plan.patch_status_exactly(&pod.meta, status);
    }
    let message = format!("Marking for deletion Pod {}", path(pod));
    plan.delete(&pod.meta).on_done(Note::new(
        &pod.meta.key,
        Severity::Normal,
        "TaintManagerEviction",
        message,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn plan(pod: &str, node: &str, now: u64) -> String {
        let cluster = format!("pod/a node=n1 {pod} <- subject\nnode/n1 {node}");
        testing::plan(&TaintEviction, &cluster, now).to_string()
    }

    #[test]
    fn a_pod_leaves_at_once_or_when_its_toleration_ends() {
        let lost = "taint=node.kubernetes.io/unreachable:NoExecute@100";
        assert!(plan("", lost, 100).contains("delete pod/a"));
        let tolerates = "tolerates=node.kubernetes.io/unreachable:NoExecute:300";
        assert_eq!(plan(tolerates, lost, 399), "again at 400s\n");
        assert!(plan(tolerates, lost, 400).contains("delete pod/a"));
        assert_eq!(plan("tolerates=*", lost, 4000), "", "tolerated for ever");
        assert_eq!(plan("", "taint=x:NoSchedule", 100), "", "only NoExecute takes Pods away");
        assert_eq!(plan("phase=Succeeded", lost, 100), "");
    }

    #[test]
    fn the_shortest_of_several_taints_decides() {
        let taints = "taint=a:NoExecute@100 taint=b:NoExecute@100";
        let pod = "tolerates=a:NoExecute:300 tolerates=b:NoExecute:60";
        assert_eq!(plan(pod, taints, 100), "again at 160s\n");
        assert!(
            plan("tolerates=a:NoExecute:300", taints, 100).contains("delete"),
            "b is not tolerated"
        );
    }
}
