//! Node lifecycle: a Node that is not heard of is Unknown, what its conditions say becomes taints, its Pods are not ready.
//!
//! Follows kubernetes pkg/controller/nodelifecycle. A Node is heard of by the messages of its session, and when its
//! Lease or its Ready heartbeat is newer than what was seen before; the time counts from when *this* host heard or saw
//! it, never from the Node's clock. So a new leader, which remembers nothing, waits a full grace period of its own.

use std::time::Duration;

use kactor_protocol::Timestamp;
use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Condition, Node, Object, Pod, TaintEffect};
use serde_json::{Value, json};

use crate::conditions::{self, WholeSeconds};
use crate::controller::{Controller, Pass};
use crate::plan::{Plan, Severity};

/// How long a Node may be silent (kube-controller-manager, --node-monitor-grace-period).
pub const GRACE_PERIOD: Duration = Duration::from_secs(50);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// (condition, the status that taints, the taint)
const PRESSURES: &[(&str, &str, &str)] = &[
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that a Node itself reports, and so stops reporting when it is lost.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub struct NodeLifecycle {
    pub grace_period: Duration,
}

/// What was last seen of a Node, and when.
#[derive(Debug, Default)]
pub struct Heard {
    last: Option<Timestamp>,
    at: Option<Timestamp>,
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-controller";
    type Memory = Heard;

    fn wakes(&self, changed: &Changed, _: &ClusterView) -> Vec<Key> {
        match changed.object() {
            Some(Object::Node(node)) => vec![node.meta.key.clone()],
            Some(Object::Lease(lease)) if lease.meta.namespace() == "kube-node-lease" => {
                Key::new("", "nodes", "", lease.meta.name()).into_iter().collect()
            }
            // A Pod that arrives on a lost Node is not ready either.
            Some(Object::Pod(pod)) if changed.after.is_some() && pod.is_ready() => {
                let node = pod.node.as_deref().and_then(|it| Key::new("", "nodes", "", it).ok());
                node.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, pass: &Pass<'_>, heard: &mut Heard) -> Plan {
        let mut plan = Plan::new();
        let Some(node) = pass.view.nodes().get(pass.key) else {
            *heard = Heard::default();
            return plan;
        };
        let last = last_heard(node, pass);
        if heard.at.is_none() || last > heard.last {
            *heard = Heard { last, at: Some(pass.now) };
        }
        // A session's word is of this host's own clock, so it counts from when it came, not from when it was looked at.
        let seen = heard.at.expect("it was just set");
        let at = pass.facts.last_heard.map_or(seen, |it| it.clamp(seen, pass.now.max(seen)));
        let is_lost = pass.now.since(at) >= self.grace_period;
        let mut conditions = node.conditions.clone();
        if is_lost {
            mark_unknown(node, &mut conditions, pass.now);
        } else {
            plan.again_at(at.plus(self.grace_period));
        }
        if conditions != node.conditions {
            let status = json!({"conditions": conditions::values(&conditions)});
            plan.patch_status_exactly(&node.meta, status);
            if node.ready().is_some_and(|it| it.status != "Unknown") {
                let message = format!("Node {} status is now: NodeNotReady", node.name());
                plan.note(&node.meta.key, Severity::Normal, "NodeNotReady", message);
            }
            return plan; // taints follow from what the next view says
        }
        plan_taints(&mut plan, node, pass.now);
        if Condition::find(&node.conditions, "Ready").is_some_and(|it| !it.is_true()) {
            for pod in pass.view.pods().on_node(node.name()).filter(|it| it.is_ready()) {
                mark_not_ready(&mut plan, pod, pass.now);
            }
        }
        plan
    }
}

/// The newest sign of life that is stored.
fn last_heard(node: &Node, pass: &Pass<'_>) -> Option<Timestamp> {
    let lease = Key::new("coordination.k8s.io", "leases", "kube-node-lease", node.name()).ok();
    let renewed = lease.and_then(|it| pass.view.leases().get(&it)?.renewed);
    let heartbeat = node.ready().and_then(|it| it.last_heartbeat);
    renewed.max(heartbeat)
}

fn mark_unknown(node: &Node, conditions: &mut Vec<Condition>, now: Timestamp) {
    for kind in REPORTED {
        match conditions.iter_mut().find(|it| it.kind == *kind) {
            Some(known) if known.status != "Unknown" => {
                known.status = "Unknown".to_owned();
                known.reason = "NodeStatusUnknown".to_owned();
                known.message = "Kubelet stopped posting node status.".to_owned();
                known.last_transition = Some(now.whole_seconds());
            }
            Some(_) => {}
            None => conditions.push(Condition {
                kind: (*kind).to_owned(),
                status: "Unknown".to_owned(),
                reason: "NodeStatusNeverUpdated".to_owned(),
                message: "Kubelet never posted node status.".to_owned(),
                last_transition: Some(now.whole_seconds()),
                last_update: None,
                last_heartbeat: Some(node.meta.created),
            }),
        }
    }
}

/// The taints that this controller owns, as the conditions ask for them.
fn wanted_taints(node: &Node) -> Vec<(&'static str, TaintEffect)> {
    let mut wanted = Vec::new();
    let mut both = |key| {
        wanted.push((key, TaintEffect::NoSchedule));
        wanted.push((key, TaintEffect::NoExecute));
    };
    match node.ready().map(|it| it.status.as_str()) {
        Some("True") => {}
        Some("False") => both(NOT_READY),
        Some(_) => both(UNREACHABLE),
        None => {}
    }
    if node.is_unschedulable {
        wanted.push((UNSCHEDULABLE, TaintEffect::NoSchedule));
    }
    for (kind, status, key) in PRESSURES {
        if Condition::find(&node.conditions, kind).is_some_and(|it| it.status == *status) {
            wanted.push((key, TaintEffect::NoSchedule));
        }
    }
    wanted
}

fn is_owned(key: &str) -> bool {
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|it| it.2 == key)
}

fn plan_taints(plan: &mut Plan, node: &Node, now: Timestamp) {
    // A Node that never said anything keeps the not-ready taint that it was registered with.
    if node.ready().is_none() {
        return;
    }
    let wanted = wanted_taints(node);
    let is_wanted = |key: &str, effect| wanted.contains(&(key, effect));
    let mut taints: Vec<Value> = Vec::new();
    let mut is_changed = false;
    for taint in &node.taints {
        if is_owned(&taint.key) && !is_wanted(&taint.key, taint.effect) {
            is_changed = true;
            continue;
        }
        let mut value = json!({"key": taint.key, "effect": taint.effect.as_str()});
        if !taint.value.is_empty() {
            value["value"] = taint.value.as_str().into();
        }
        if let Some(added) = taint.added {
            value["timeAdded"] = added.to_string().into();
        }
        taints.push(value);
    }
    for (key, effect) in wanted {
        if !node.taints.iter().any(|it| it.key == key && it.effect == effect) {
            is_changed = true;
            let added = now.whole_seconds().to_string();
            taints.push(json!({"key": key, "effect": effect.as_str(), "timeAdded": added}));
        }
    }
    if is_changed {
        let taints = if taints.is_empty() { Value::Null } else { taints.into() };
        plan.patch_exactly(&node.meta, json!({"spec": {"taints": taints}}));
    }
}

fn mark_not_ready(plan: &mut Plan, pod: &Pod, now: Timestamp) {
    let mut conditions = pod.conditions.clone();
    for ready in conditions.iter_mut().filter(|it| it.kind == "Ready") {
        ready.status = "False".to_owned();
        ready.last_transition = Some(now.whole_seconds());
    }
    let status = json!({"conditions": conditions::values(&conditions)});
    plan.patch_status_exactly(&pod.meta, status);
    plan.note(&pod.meta.key, Severity::Warning, "NodeNotReady", "Node is not ready");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Facts;
    use expect_test::{Expect, expect};
    use kactor_view::fixture::{self, World};

    struct Watch {
        heard: Heard,
    }

    impl Watch {
        fn at(&mut self, world: &World, now: u64, heard: Option<u64>) -> String {
            let last_heard = heard.map(Timestamp::from_seconds);
            let facts = Facts { outcomes: Vec::new(), last_heard };
            let now = Timestamp::from_seconds(now);
            let pass = Pass { view: world.view(), key: world.subject(), facts: &facts, now };
            NodeLifecycle { grace_period: GRACE_PERIOD }
                .reconcile(&pass, &mut self.heard)
                .to_string()
        }
    }

    #[track_caller]
    fn check(cluster: &str, expect: Expect) {
        let mut watch = Watch { heard: Heard::default() };
        expect.assert_eq(&watch.at(&fixture::parse(cluster), 1000, None));
    }

    #[test]
    fn a_new_leader_waits_a_grace_period_of_its_own() {
        let world = fixture::parse("node/a ready=True@10 <- subject");
        let mut watch = Watch { heard: Heard::default() };
        assert_eq!(
            watch.at(&world, 1000, None),
            "again at 1050s\n",
            "silent for long, as the clock says"
        );
        assert_eq!(watch.at(&world, 1049, None), "again at 1050s\n");
        let lost = watch.at(&world, 1050, None);
        assert!(
            lost.contains("NodeStatusUnknown") && lost.contains("NodeStatusNeverUpdated"),
            "{lost}"
        );
    }

    #[test]
    fn any_sign_of_life_counts() {
        let mut world =
            fixture::parse("node/a ready=True@10 <- subject\nlease/kube-node-lease/a renewed=10");
        let mut watch = Watch { heard: Heard::default() };
        watch.at(&world, 1000, None);
        world.line("lease/kube-node-lease/a renewed=11");
        assert_eq!(watch.at(&world, 1040, None), "again at 1090s\n");
        let told = watch.at(&world, 1080, Some(1070));
        assert_eq!(told, "again at 1120s\n", "a message counts from when it came");
        assert_eq!(watch.at(&world, 1110, Some(1105)), "again at 1155s\n", "without any Lease");
        assert!(watch.at(&world, 1155, Some(1105)).contains("status node/a"));
    }

    #[test]
    fn what_was_heard_before_a_reign_does_not_shorten_its_grace_period() {
        let world = fixture::parse("node/a ready=True@10 <- subject");
        let mut watch = Watch { heard: Heard::default() };
        assert_eq!(watch.at(&world, 1000, Some(700)), "again at 1050s\n");
        assert_eq!(watch.at(&world, 1040, Some(700)), "again at 1050s\n");
        assert!(watch.at(&world, 1050, Some(700)).contains("NodeStatusUnknown"));
    }

    #[test]
    fn conditions_become_taints_and_others_taints_stay() {
        check(
            "node/a ready=Unknown@10 unschedulable taint=dedicated=db:NoSchedule taint=node.kubernetes.io/not-ready:NoExecute@5 <- subject",
            expect![[r#"
                patch node/a {"spec":{"taints":[{"effect":"NoSchedule","key":"dedicated","value":"db"},{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable","timeAdded":"1970-01-01T00:16:40Z"},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","timeAdded":"1970-01-01T00:16:40Z"},{"effect":"NoSchedule","key":"node.kubernetes.io/unschedulable","timeAdded":"1970-01-01T00:16:40Z"}]}}
                again at 1050s
            "#]],
        );
        check(
            "node/a ready=True taint=node.kubernetes.io/not-ready:NoSchedule <- subject",
            expect![[r#"
                patch node/a {"spec":{"taints":null}}
                again at 1050s
            "#]],
        );
    }

    #[test]
    fn pods_on_a_lost_node_are_not_ready() {
        check(
            "
node/a ready=False taint=node.kubernetes.io/not-ready:NoSchedule taint=node.kubernetes.io/not-ready:NoExecute <- subject
pod/p  node=a ready=10
pod/q  node=b ready=10
",
            expect![[r#"
                status pod/p {"conditions":[{"lastTransitionTime":"1970-01-01T00:16:40Z","status":"False","type":"Ready"}]}
                warning pod/p NodeNotReady: Node is not ready
                again at 1050s
            "#]],
        );
    }
}
