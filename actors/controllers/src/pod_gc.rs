//! Pod garbage collection: Pods that no node will ever end.
//!
//! Follows kubernetes pkg/controller/podgc: Pods bound to a Node that has been gone for a while, Pods told to end before
//! they were bound, and the oldest ended Pods beyond a bound.

use std::time::Duration;

use kactor_protocol::Timestamp;
use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Object, Phase, Pod};
use serde_json::json;

use crate::conditions::{self, WholeSeconds};
use crate::controller::{Controller, Pass};
use crate::plan::{Plan, Verb};

/// A Node may be made again under its name.
const QUARANTINE: Duration = Duration::from_secs(40);

pub struct PodGarbageCollector {
    /// Ended Pods that are kept (kube-controller-manager, --terminated-pod-gc-threshold).
    pub terminated_max: usize,
}

/// Since when its Node is gone.
#[derive(Debug, Default)]
pub struct Missing {
    since: Option<Timestamp>,
}

impl Controller for PodGarbageCollector {
    const NAME: &'static str = "pod-garbage-collector";
    type Memory = Missing;

    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key> {
        match changed.object() {
            Some(Object::Pod(pod)) if changed.after.is_some() => {
                let mut keys = vec![pod.meta.key.clone()];
                if pod.is_terminal() && view.pods().len() > self.terminated_max {
                    keys.extend(self.surplus(view).into_iter().map(|it| it.meta.key.clone()));
                }
                keys
            }
            Some(Object::Node(node)) => {
                view.pods().on_node(node.name()).map(|it| it.meta.key.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, pass: &Pass<'_>, missing: &mut Missing) -> Plan {
        let mut plan = Plan::new();
        let Some(pod) = pass.view.pods().get(pass.key) else {
            return plan;
        };
        let is_surplus = pod.is_terminal()
            && pass.view.pods().len() > self.terminated_max
            && self.surplus(pass.view).iter().any(|it| it.meta.key == *pass.key);
        match &pod.node {
            None if pod.meta.is_terminating() => end(&mut plan, pod, pass.now, None),
            Some(node) if is_gone(node, pass.view) => {
                let since = *missing.since.get_or_insert(pass.now);
                self.end_orphan(&mut plan, pod, since, pass);
            }
            _ => {
                missing.since = None;
                if is_surplus {
                    plan.delete_with(&pod.meta, None, Some(0));
                }
            }
        }
        plan
    }
}

impl PodGarbageCollector {
    /// The oldest ended Pods beyond the bound.
    fn surplus<'a>(&self, view: &'a ClusterView) -> Vec<&'a Pod> {
        let mut ended: Vec<&Pod> =
            view.pods().iter().map(|it| &**it).filter(|it| it.is_terminal()).collect();
        let n_surplus = ended.len().saturating_sub(self.terminated_max);
        ended.sort_by_key(|it| (it.meta.created, it.meta.key.clone()));
        ended.truncate(n_surplus);
        ended
    }

    /// After the quarantine the Node is read live: deletion cannot be taken back.
    fn end_orphan(&self, plan: &mut Plan, pod: &Pod, since: Timestamp, pass: &Pass<'_>) {
        let due = since.plus(QUARANTINE);
        if pass.now < due {
            plan.again_at(due);
            return;
        }
        let Some(node) = pod.node.as_deref().and_then(|it| Key::new("", "nodes", "", it).ok())
        else {
            return;
        };
        match pass.facts.read(&node) {
            Some(Err(refusal)) if refusal.code == 404 => {
                end(plan, pod, pass.now, Some("PodGC: node no longer exists"));
            }
            Some(Ok(_)) => {} // it is back; its event wakes this Pod
            _ => {
                plan.add(node, crate::plan::Request::Get);
            }
        }
    }
}

fn is_gone(node: &str, view: &ClusterView) -> bool {
    Key::new("", "nodes", "", node).is_ok_and(|it| view.nodes().get(&it).is_none())
}

/// Failed first, so that who watches learns how it ended; then gone without grace.
fn end(plan: &mut Plan, pod: &Pod, now: Timestamp, why: Option<&str>) {
    if !pod.is_terminal() {
        let mut conditions = pod.conditions.clone();
        if let Some(message) = why.filter(|_| pod.condition("DisruptionTarget").is_none()) {
            conditions.push(kactor_view::Condition {
                kind: "DisruptionTarget".to_owned(),
                status: "True".to_owned(),
                reason: "DeletionByPodGC".to_owned(),
                message: message.to_owned(),
                last_transition: Some(now.whole_seconds()),
                last_update: None,
                last_heartbeat: None,
            });
        }
        let status = json!({"phase": "Failed", "conditions": conditions::values(&conditions)});
        plan.patch_status_exactly(&pod.meta, status);
    }
    plan.delete_with(&pod.meta, None, Some(0));
    debug_assert!(plan.effects.iter().all(|it| it.request.verb() != Verb::Create));
    debug_assert!(pod.phase != Phase::Unknown || why.is_some());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Facts, Outcome, Refusal};
    use crate::testing::Life;
    use expect_test::expect;
    use kactor_view::fixture::{self, key_of};

    #[test]
    fn a_pod_of_a_vanished_node_waits_and_is_verified_before_it_goes() {
        let world = fixture::parse("pod/a node=gone phase=Running <- subject");
        let gc = PodGarbageCollector { terminated_max: 10 };
        let mut missing = Missing::default();
        let mut at = |now: u64, facts: &Facts| {
            let now = Timestamp::from_seconds(now);
            let pass = Pass { view: world.view(), key: world.subject(), facts, now };
            gc.reconcile(&pass, &mut missing).to_string()
        };
        assert_eq!(at(100, &Facts::default()), "again at 140s\n");
        assert_eq!(at(140, &Facts::default()), "get node/gone\n");
        let not_found = Refusal { code: 404, reason: "NotFound".into(), message: String::new() };
        let outcome = Outcome { key: key_of("node/gone"), verb: Verb::Get, result: Err(not_found) };
        let facts = Facts { outcomes: vec![outcome], last_heard: None };
        expect![[r#"
            status pod/a {"conditions":[{"lastTransitionTime":"1970-01-01T00:02:20Z","message":"PodGC: node no longer exists","reason":"DeletionByPodGC","status":"True","type":"DisruptionTarget"}],"phase":"Failed"}
            delete pod/a grace=0
        "#]]
        .assert_eq(&at(140, &facts));
    }

    #[test]
    fn the_oldest_ended_pods_beyond_the_bound_go() {
        let mut life = Life::new(
            "
pod/a phase=Succeeded created=30 node=n
pod/b phase=Failed created=10 node=n
pod/c phase=Succeeded created=20 node=n
pod/d phase=Running created=1 node=n
node/n
",
        );
        life.settle(&PodGarbageCollector { terminated_max: 1 });
        let left: Vec<_> = life.field("pods", "/x").into_iter().map(|it| it.0).collect();
        assert_eq!(left, ["a", "d"]);
    }

    #[test]
    fn a_pod_told_to_end_before_it_was_bound_goes_at_once() {
        let world = fixture::parse("pod/a deleting=5 finalizer=x <- subject");
        let (facts, now) = (Facts::default(), Timestamp(0));
        let pass = Pass { view: world.view(), key: world.subject(), facts: &facts, now };
        let plan =
            PodGarbageCollector { terminated_max: 1 }.reconcile(&pass, &mut Missing::default());
        assert!(plan.to_string().ends_with("delete pod/a grace=0\n"), "{plan}");
    }
}
