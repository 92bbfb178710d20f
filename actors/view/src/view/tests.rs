//! The view answers from its indexes what a walk over all objects would, whatever the order of changes.

use super::*;
use crate::fixture::{self, key_of};
use crate::selector::Selector;
use proptest::prelude::*;

fn names<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Vec<&'a str> {
    pods.into_iter().map(|it| it.name()).collect()
}

#[test]
fn pods_are_found_by_owner_node_and_label() {
    let world = fixture::parse(
        "
rs/web
pod/a  owner=rs/web node=n1
pod/b  owner=rs/web node=n2
pod/c  app=db node=n1
pod/other/d  owner=rs/web@x app=web
",
    );
    let pods = world.view().pods();
    assert_eq!(names(pods.owned_by(&Uid::from("uid-rs-web"))), ["a", "b"]);
    assert_eq!(names(pods.on_node("n1")), ["a", "c"]);
    let web = Selector::from_map([("app".to_owned(), "web".to_owned())].into());
    assert_eq!(names(pods.selected("default", &web)), ["a", "b"]);
    assert_eq!(names(pods.selected("other", &web)), ["d"]);
    assert_eq!(names(pods.in_namespace("other")), ["d"]);
}

#[test]
fn a_change_shows_both_sides() {
    let mut world = fixture::parse("pod/a node=n1");
    let changed = world.line("pod/a node=n2");
    let node = |it: &Option<Object>| it.as_ref().unwrap().as_pod().unwrap().node.clone().unwrap();
    assert_eq!((&*node(&changed.before), &*node(&changed.after)), ("n1", "n2"));
    assert_eq!(names(world.view().pods().on_node("n1")), [""; 0]);
    let gone = world.delete(&key_of("pod/a"));
    assert!(gone.before.is_some() && gone.after.is_none());
    assert!(world.view().pods().is_empty());
    assert!(world.view().by_uid(&Uid::from("uid-pod-a")).is_none());
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let mut world = fixture::parse("pod/a node=n1");
    let snapshot = world.view().clone();
    world.line("pod/b node=n1");
    assert_eq!(names(snapshot.pods().on_node("n1")), ["a"]);
    assert_eq!(names(world.view().pods().on_node("n1")), ["a", "b"]);
}

#[test]
fn dependents_are_known_of_owners_that_do_not_exist() {
    let world = fixture::parse("cm/a owner=rs/gone\nsecret/b ref=rs/gone\nwidget/w owner=widget/v");
    let found: Vec<_> = world
        .view()
        .dependents(&Uid::from("uid-rs-gone"))
        .map(|it| fixture::short(&it.key))
        .collect();
    assert_eq!(found, ["cm/a", "secret/b"]);
    let widget = world.view().meta(&key_of("widget/w")).unwrap();
    let (owner, version) = world.view().owner_key(&widget.owners[0], "default").unwrap();
    assert_eq!((owner, version.as_str()), (key_of("widget/v"), "v1"), "a kind learned from use");
}

#[test]
fn requests_add_up_as_kubernetes_counts_them() {
    let world = fixture::parse(
        r#"pod/a cpu=100m .spec.initContainers=[{"name":"i","resources":{"requests":{"cpu":"1"}}},{"name":"s","restartPolicy":"Always","resources":{"requests":{"cpu":"50m"}}}] .spec.overhead={"cpu":"10m"}"#,
    );
    let pod = world.view().pods().get(&key_of("pod/a")).unwrap();
    assert_eq!(pod.spec.requests.get("cpu"), 1010, "the init container peaks above the rest");
}

#[test]
fn templates_are_equal_whatever_their_hash() {
    let world = fixture::parse(
        "rs/a app=web hash=1 image=v1\nrs/b app=web hash=2 image=v1\nrs/c app=web image=v2",
    );
    let template = |name| &world.view().replica_sets().get(&key_of(name)).unwrap().template.json;
    assert_eq!(template("rs/a"), template("rs/b"));
    assert_ne!(template("rs/a"), template("rs/c"));
}

proptest! {
    #[test]
    fn indexes_agree_with_a_walk(steps in prop::collection::vec((0..6_u8, 0..3_u8, 0..3_u8, any::<bool>()), 0..60)) {
        let mut world = fixture::parse("");
        for (name, node, app, delete) in steps {
            if delete {
                world.delete(&key_of(&format!("pod/p{name}")));
            } else {
                world.line(&format!("pod/p{name} node=n{node} app=a{app} owner=rs/r{app}"));
            }
        }
        let pods = world.view().pods();
        for at in 0..3 {
            let (node, app, uid) = (format!("n{at}"), format!("a{at}"), format!("uid-rs-r{at}"));
            let walk = |keep: &dyn Fn(&Pod) -> bool| -> Vec<Key> {
                pods.iter().filter(|it| keep(it)).map(|it| it.meta.key.clone()).collect()
            };
            let keys = |it: Vec<&Arc<Pod>>| it.into_iter().map(|it| it.meta.key.clone()).collect::<Vec<_>>();
            let selector = Selector::from_map([("app".to_owned(), app.clone())].into());
            prop_assert_eq!(keys(pods.on_node(&node).collect()), walk(&|it| it.node.as_deref() == Some(&node)));
            prop_assert_eq!(keys(pods.selected("default", &selector)), walk(&|it| it.meta.labels["app"] == app));
            prop_assert_eq!(keys(pods.owned_by(&uid.as_str().into()).collect()), walk(&|it| it.meta.owners[0].uid.as_str() == uid));
        }
    }
}
