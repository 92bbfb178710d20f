//! Whole lives of a scheduler: steps, bindings, conflicts, and that no node is ever over-committed.

use kactor_view::Changed;
use kactor_view::fixture::{self, World, key_of};
use proptest::prelude::*;

use super::*;

struct Play {
    world: World,
    scheduler: Scheduler,
    now: Duration,
}

impl Play {
    fn new(cluster: &str) -> Self {
        let world = fixture::parse(cluster);
        let mut scheduler = Scheduler::new(vec![Profile::default_scheduler()], 1);
        let all: Vec<Changed> = world.view().objects().cloned().map(Changed::appeared).collect();
        scheduler.changed(&all, world.view());
        Self { world, scheduler, now: Duration::from_secs(1) }
    }

    fn line(&mut self, line: &str) {
        let changed = self.world.line(line);
        self.scheduler.changed(&[changed], self.world.view());
    }

    fn delete(&mut self, head: &str) {
        let changed = self.world.delete(&key_of(head));
        self.scheduler.changed(&[changed], self.world.view());
    }

    fn step(&mut self) -> Step {
        self.now += Duration::from_secs(20);
        self.scheduler.step(self.world.view(), self.now)
    }

    /// As the API does: refuses a stale guard, else binds and touches the allocation key.
    fn bind(&mut self, request: &BindRequest) -> BindOutcome {
        let allocation = key_of(&format!("alloc/x/{}", request.node));
        let allocation =
            Key::new(allocation.group(), allocation.resource(), "", &request.node).unwrap();
        if self.world.view().meta(&allocation).map(|it| it.revision) != request.allocation {
            return BindOutcome::Conflict;
        }
        let Some(mut body) = self.world.body(&request.pod).cloned() else {
            return BindOutcome::Failed;
        };
        if body["spec"]["nodeName"].is_string() {
            return BindOutcome::Conflict;
        }
        body["spec"]["nodeName"] = (*request.node).into();
        let bound = self.world.put(&request.pod, body);
        let touched = self.world.put(&allocation, serde_json::json!({}));
        self.scheduler.changed(&[bound, touched], self.world.view());
        BindOutcome::Bound
    }

    /// Steps and binds until nothing more is bound.
    fn settle(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        for _ in 0..500 {
            let step = self.step();
            told.extend(step.told);
            if step.binds.is_empty() {
                return told;
            }
            for request in step.binds {
                let outcome = self.bind(&request);
                told.extend(self.scheduler.bind_ended(&request, outcome));
                self.assert_nothing_is_over_committed();
            }
        }
        panic!("it does not become quiet: {}", self.scheduler.summary());
    }

    fn assert_nothing_is_over_committed(&self) {
        for node in self.world.view().nodes().iter() {
            let on_node = self.world.view().pods().on_node(node.name());
            let cpu: i64 = on_node.map(|it| it.spec.requests.get("cpu")).sum();
            assert!(cpu <= node.allocatable.get("cpu"), "{} has {cpu}", node.name());
        }
    }

    fn node_of(&self, pod: &str) -> Option<String> {
        self.world.view().pods().get(&key_of(pod))?.node.as_ref().map(ToString::to_string)
    }
}

#[test]
fn pods_are_bound_until_the_nodes_are_full_and_the_rest_is_told() {
    let mut text = String::from("node/a cpu=2\nnode/b cpu=2\n");
    for n in 0..5 {
        text.push_str(&format!("pod/p{n} cpu=1\n"));
    }
    let mut play = Play::new(&text);
    let told = play.settle();
    let n_bound = told.iter().filter(|it| matches!(it, Told::Bound { .. })).count();
    assert_eq!(n_bound, 4);
    let refused: Vec<_> = told
        .iter()
        .filter_map(|it| match it {
            Told::Unschedulable { refusals, .. } => Some(refusals.to_string()),
            Told::Bound { .. } => None,
        })
        .collect();
    assert_eq!(refused.last().unwrap(), "0/2 nodes are available: 2 Insufficient cpu.");
}

#[test]
fn a_refused_pod_is_tried_when_room_appears() {
    let mut play = Play::new("node/a cpu=1\npod/x cpu=1 node=a\npod/p cpu=1");
    play.settle();
    assert_eq!(play.node_of("pod/p"), None);
    assert!(play.step().told.is_empty(), "it is not tried again for nothing");
    play.delete("pod/x");
    play.settle();
    assert_eq!(play.node_of("pod/p").as_deref(), Some("a"));
}

#[test]
fn one_binding_per_node_is_under_way_and_others_wait_their_turn() {
    let mut play = Play::new("node/a\npod/p cpu=1\npod/q cpu=1");
    let step = play.step();
    assert_eq!(step.binds.len(), 1);
    assert!(play.step().binds.is_empty());
    let first = &step.binds[0];
    assert_eq!(play.bind(first), BindOutcome::Bound);
    assert!(play.scheduler.bind_ended(first, BindOutcome::Bound).is_some());
    let second = play.step().binds;
    assert_eq!(second.len(), 1);
    assert!(second[0].allocation.is_some(), "it guards on what the first one left");
}

#[test]
fn a_conflict_looks_again_at_that_node_alone() {
    let mut play = Play::new("node/a cpu=2\npod/p cpu=1");
    let step = play.step();
    // Another scheduler takes room on the node meanwhile.
    play.line("pod/other cpu=1 node=a");
    let touched = Key::new("kactor.internal", "allocations", "", "a").unwrap();
    let changed = play.world.put(&touched, serde_json::json!({}));
    assert_eq!(play.bind(&step.binds[0]), BindOutcome::Conflict);
    play.scheduler.bind_ended(&step.binds[0], BindOutcome::Conflict);
    assert!(play.step().binds.is_empty(), "the view does not show yet what happened");
    play.scheduler.changed(&[changed], play.world.view());
    let again = play.step().binds;
    assert_eq!(again.len(), 1);
    assert_eq!(play.bind(&again[0]), BindOutcome::Bound);
    play.assert_nothing_is_over_committed();
}

#[test]
fn a_conflict_that_leaves_no_room_sends_the_pod_back() {
    let mut play = Play::new("node/a cpu=1\npod/p cpu=1");
    let step = play.step();
    play.line("pod/other cpu=1 node=a");
    let touched = Key::new("kactor.internal", "allocations", "", "a").unwrap();
    let changed = play.world.put(&touched, serde_json::json!({}));
    play.scheduler.changed(&[changed], play.world.view());
    play.scheduler.bind_ended(&step.binds[0], BindOutcome::Conflict);
    let told = play.settle();
    assert!(matches!(&told[..], [Told::Unschedulable { .. }]), "{told:?}");
}

#[test]
fn a_failed_binding_gives_the_room_back() {
    let mut play = Play::new("node/a cpu=1\npod/p cpu=1");
    let step = play.step();
    play.delete("pod/p");
    assert_eq!(play.bind(&step.binds[0]), BindOutcome::Failed);
    play.scheduler.bind_ended(&step.binds[0], BindOutcome::Failed);
    play.line("pod/q cpu=1");
    play.settle();
    assert_eq!(play.node_of("pod/q").as_deref(), Some("a"));
}

#[test]
fn others_pods_and_gated_pods_are_left_alone() {
    let mut play = Play::new(
        r#"
node/a
pod/p .spec.schedulerName=mine
pod/q .spec.schedulingGates=[{"name":"x"}]
pod/r deleting=5
"#,
    );
    assert_eq!(play.step(), Step::default());
}

proptest! {
    #[test]
    fn no_node_is_over_committed_whatever_happens(steps in prop::collection::vec((0..6_u8, 0..8_u8, 1..4_u16), 1..40)) {
        let mut play = Play::new("node/n0 cpu=2\nnode/n1 cpu=3");
        for (what, name, cpu) in steps {
            match what {
                0..=2 => {
                    if play.world.body(&key_of(&format!("pod/p{name}"))).is_none() {
                        play.line(&format!("pod/p{name} cpu={}m", cpu * 500));
                    }
                }
                3 => play.delete(&format!("pod/p{name}")),
                4 => {
                    // A step whose bindings are answered late, after the next change.
                    let step = play.step();
                    for request in step.binds {
                        let outcome = play.bind(&request);
                        play.scheduler.bind_ended(&request, outcome);
                    }
                }
                _ => { play.settle(); }
            }
            play.assert_nothing_is_over_committed();
        }
        play.settle();
        // Everyone who would fit somewhere has a place.
        for pod in play.world.view().pods().iter().filter(|it| it.node.is_none()) {
            let room = play.world.view().nodes().iter().any(|node| {
                let used: i64 = play.world.view().pods().on_node(node.name()).map(|it| it.spec.requests.get("cpu")).sum();
                used + pod.spec.requests.get("cpu") <= node.allocatable.get("cpu")
            });
            prop_assert!(!room, "{} could run", pod.name());
        }
    }
}
