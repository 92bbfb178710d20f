//! Tables: which node a Pod gets, and in which words it is refused.

use expect_test::{Expect, expect};
use kactor_view::Changed;
use kactor_view::fixture;
use proptest::prelude::*;

use super::*;

fn columns(world: &fixture::World) -> Columns {
    let mut columns = Columns::default();
    for object in world.view().objects() {
        columns.apply(&Changed::appeared(object.clone()));
    }
    columns
}

fn seeker(world: &fixture::World) -> Seeker {
    let pod = world.view().pods().get(world.subject()).unwrap();
    Seeker::new(pod, Vec::new())
}

fn chosen(cluster: &str, seed: u64) -> String {
    let world = fixture::parse(cluster);
    let (nodes, profile) = (columns(&world), Profile::default_scheduler());
    match choose(&profile, &seeker(&world), &nodes, &mut Evaluations::default(), seed) {
        Choice::Node { node, .. } => nodes.name(node).to_string(),
        Choice::Nowhere(refusals) => refusals.to_string(),
    }
}

#[track_caller]
fn check(cluster: &str, expect: Expect) {
    expect.assert_eq(&chosen(cluster, 7));
}

#[test]
fn refusals_are_told_as_kube_scheduler_tells_them() {
    check(
        "
pod/p   cpu=2 memory=9Gi selects=disk:ssd   <- subject
node/a  taint=dedicated=db:NoSchedule
node/b  label=disk:ssd cpu=1
node/c  unschedulable
node/d
node/e  label=disk:ssd pods=0 memory=32Gi
node/f  taint=gone:NoExecute
",
        expect![
            "0/6 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods, 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) had untolerated taint {gone: }, 1 node(s) were unschedulable."
        ],
    );
    check("pod/p <- subject", expect!["no nodes available to schedule pods"]);
}

#[test]
fn what_runs_on_a_node_takes_its_room_and_ports() {
    check(
        "
pod/p   cpu=3 hostport=80   <- subject
node/a
node/b
pod/x   node=a cpu=2
pod/y   node=b hostport=80
pod/z   node=b cpu=4 phase=Succeeded
",
        expect![
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't have free ports for the requested pod ports."
        ],
    );
}

#[test]
fn the_emptier_node_is_better() {
    check(
        "pod/p cpu=1 memory=1Gi <- subject\nnode/a\nnode/b\npod/x node=a cpu=2 memory=4Gi",
        expect!["b"],
    );
}

#[test]
fn preferred_taints_and_labels_weigh() {
    check("pod/p tolerates=x <- subject\nnode/a taint=y:PreferNoSchedule\nnode/b", expect!["b"]);
    check(
        r#"
pod/p   .spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution=[{"weight":1,"preference":{"matchExpressions":[{"key":"disk","operator":"In","values":["ssd"]}]}}] <- subject
node/a
node/b  label=disk:ssd
"#,
        expect!["b"],
    );
}

#[test]
fn hard_spreading_keeps_the_skew() {
    check(
        "
pod/p   app=web spread=topology.kubernetes.io/zone:1   <- subject
node/a  zone=z1
node/b  zone=z2 taint=x:NoSchedule
pod/x   app=web node=a
",
        expect![
            "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) had untolerated taint {x: }."
        ],
    );
    check(
        "
pod/p   app=web spread=topology.kubernetes.io/zone:1   <- subject
node/a  zone=z1
node/b  zone=z2
node/c
pod/x   app=web node=a
",
        expect!["b"],
    );
}

#[test]
fn soft_and_default_spreading_prefer_the_less_crowded() {
    check(
        "
pod/p   app=web spread=kubernetes.io/hostname:1:soft   <- subject
node/a
node/b
pod/x   app=web node=a
pod/y   app=db  node=b cpu=1
",
        expect!["b"],
    );
}

#[test]
fn pods_attract_and_repel_by_topology() {
    let near = r#".spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution=[{"topologyKey":"topology.kubernetes.io/zone","labelSelector":{"matchLabels":{"app":"db"}}}]"#;
    let nodes = "node/a zone=z1\nnode/b zone=z2\nnode/c zone=z2";
    check(&format!("pod/p {near} <- subject\n{nodes}\npod/x app=db node=a"), expect!["a"]);
    check(
        &format!("pod/p {near} <- subject\n{nodes}"),
        expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."],
    );
    assert!(
        ["a", "b", "c"].contains(&&*chosen(&format!("pod/p app=db {near} <- subject\n{nodes}"), 1)),
        "the first of its group"
    );
    let away = near.replace("podAffinity", "podAntiAffinity");
    check(
        &format!("pod/p {away} <- subject\n{nodes}\npod/x app=db node=a\npod/y app=db node=b"),
        expect!["0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."],
    );
    check(&format!("pod/p app=db <- subject\n{nodes}\npod/x app=x {away} node=b"), expect!["a"]);
}

#[test]
fn equal_nodes_are_chosen_by_the_seed() {
    let cluster = "pod/p <- subject\nnode/a\nnode/b\nnode/c\nnode/d";
    assert_eq!(chosen(cluster, 1), chosen(cluster, 1));
    let seen: std::collections::BTreeSet<_> = (0..30).map(|seed| chosen(cluster, seed)).collect();
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn pods_of_one_template_share_an_evaluation() {
    let mut text = String::from("pod/p cpu=100m <- subject\n");
    for n in 0..50 {
        text.push_str(&format!("node/n{n}\n"));
    }
    let world = fixture::parse(&text);
    let (mut nodes, profile) = (columns(&world), Profile::default_scheduler());
    let mut evaluations = Evaluations::default();
    choose(&profile, &seeker(&world), &nodes, &mut evaluations, 1);
    let first = evaluations.n_found;
    nodes.assume(world.view().pods().get(world.subject()).unwrap(), "n7");
    choose(&profile, &seeker(&world), &nodes, &mut evaluations, 1);
    assert_eq!(evaluations.n_found - first, 1, "only the node that changed is looked at again");
}

/// A random cluster as text.
fn cluster() -> impl Strategy<Value = String> {
    let node = (1..5_u8, 0..3_u8, any::<bool>());
    let pod = (0..6_u8, 100..2500_u16, 0..3_u8);
    (prop::collection::vec(node, 1..6), prop::collection::vec(pod, 0..12)).prop_map(
        |(nodes, pods)| {
            let mut text = String::from(
                "pod/p app=a0 cpu=700m spread=topology.kubernetes.io/zone:2 <- subject\n",
            );
            for (n, (cpu, zone, tainted)) in nodes.iter().enumerate() {
                let taint = if *tainted { "taint=t:NoSchedule" } else { "" };
                text.push_str(&format!("node/n{n} cpu={cpu} zone=z{zone} {taint}\n"));
            }
            for (n, (node, cpu, app)) in pods.iter().enumerate() {
                text.push_str(&format!("pod/x{n} node=n{node} cpu={cpu}m app=a{app}\n"));
            }
            text
        },
    )
}

proptest! {
    #[test]
    fn the_chosen_node_is_one_that_fits(text in cluster()) {
        let world = fixture::parse(&text);
        let (nodes, profile, pod) = (columns(&world), Profile::default_scheduler(), seeker(&world));
        let fits: Vec<usize> = nodes.nodes().filter(|it| verdict_on(&profile, &pod, &nodes, *it) == Verdict::Fits).collect();
        match choose(&profile, &pod, &nodes, &mut Evaluations::default(), 3) {
            Choice::Node { node, .. } => prop_assert!(fits.contains(&node)),
            Choice::Nowhere(refusals) => {
                prop_assert!(fits.is_empty());
                prop_assert_eq!(refusals.by_node.len(), nodes.n_nodes());
            }
        }
    }

    #[test]
    fn the_choice_does_not_depend_on_the_order_in_which_things_came(text in cluster(), turn in 0..20_usize) {
        let mut lines: Vec<&str> = text.lines().collect();
        let n = lines.len();
        let one = chosen(&text, 5);
        lines.rotate_left(turn % n);
        prop_assert_eq!(one, chosen(&lines.join("\n"), 5));
    }
}
