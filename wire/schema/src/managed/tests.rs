//! Ownership as kubectl's users see it: who owns what, which conflicts, what disappears.

use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

fn deployment() -> &'static Schema {
    Schema::of("apps", "v1", "Deployment").expect("a built-in kind")
}

fn writer<'a>(manager: &'a str, time: &'a str, ignored: &'a FieldSet) -> Writer<'a> {
    Writer { manager, api_version: "apps/v1", subresource: "", time, ignored }
}

fn web(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

/// `manager operation time: paths` for each entry.
fn owners(object: &Value) -> String {
    let mut shown = String::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let fields = FieldSet::decode(&entry["fieldsV1"]).expect("a set of fields");
        let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        shown += &format!("{} {} {}\n", text("manager"), text("operation"), text("time"));
        for path in fields.paths() {
            shown += &format!("  {path}\n");
        }
    }
    shown
}

#[track_caller]
fn check(object: &Value, expected: Expect) {
    expected.assert_eq(&owners(object));
}

fn applied(live: Option<&Value>, config: Value, manager: &str, time: &str) -> Applied {
    let none = FieldSet::default();
    apply(deployment(), live, &config, &writer(manager, time, &none), OnConflict::Refuse)
        .expect("no conflict")
}

fn updated(live: Option<&Value>, mut new: Value, manager: &str, time: &str) -> Value {
    let none = FieldSet::default();
    update_fields(deployment(), live, &mut new, &writer(manager, time, &none));
    new
}

#[test]
fn a_create_owns_what_it_set_as_kubernetes_writes_it() {
    let mut new = web(json!({
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [
                {"name": "nginx", "image": "nginx", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            ]},
        },
    }));
    new["metadata"]["labels"] = json!({"app": "web"});
    let object = updated(None, new, "kubectl-create", "t1");
    let fields = &object["metadata"]["managedFields"][0];
    assert_eq!(fields["fieldsType"], "FieldsV1");
    assert_eq!(fields["apiVersion"], "apps/v1");
    let expected = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"nginx\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:containerPort": {}, "f:protocol": {},
                    }},
                }}},
            },
        },
    });
    assert_eq!(fields["fieldsV1"], expected);
}

#[test]
fn an_update_takes_what_it_changes_and_leaves_the_rest() {
    let first = updated(None, web(json!({"replicas": 1, "paused": true})), "create", "t1");
    let mut next = first.clone();
    next["spec"]["replicas"] = json!(3);
    let second = updated(Some(&first), next, "scale", "t2");
    check(
        &second,
        expect![[r#"
        create Update t1
          .spec.paused
        scale Update t2
          .spec.replicas
    "#]],
    );
    let third = updated(Some(&second), second.clone(), "other", "t3");
    assert_eq!(third, second, "a write that changes nothing owns nothing");
    let mut without = second.clone();
    without["spec"].as_object_mut().expect("a spec").remove("paused");
    check(
        &updated(Some(&second), without, "scale", "t4"),
        expect![[r#"
        scale Update t2
          .spec.replicas
    "#]],
    );
}

#[test]
fn system_fields_are_nobodys() {
    let object = json!({"apiVersion": "v1", "kind": "Deployment", "metadata": {
        "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1", "generation": 1,
        "creationTimestamp": "2026-11-21T00:00:00Z", "finalizers": ["x/y"],
    }});
    check(
        &updated(None, object, "m", "t"),
        expect![[r#"
        m Update t
          .metadata.finalizers[="x/y"]
          .metadata.finalizers
    "#]],
    );
}

#[test]
fn an_apply_owns_what_it_names_and_is_idempotent() {
    let config = web(json!({
        "replicas": 2,
        "template": {"spec": {"containers": [{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}]}},
    }));
    let first = applied(None, config.clone(), "kubectl", "t1");
    check(
        &first.object,
        expect![[r#"
        kubectl Apply t1
          .spec.replicas
          .spec.template.spec.containers[name="a"].image
          .spec.template.spec.containers[name="a"].name
          .spec.template.spec.containers[name="a"].ports[containerPort=80,protocol="TCP"].containerPort
          .spec.template.spec.containers[name="a"].ports[containerPort=80,protocol="TCP"]
          .spec.template.spec.containers[name="a"]
    "#]],
    );
    let again = applied(Some(&first.object), config, "kubectl", "t2");
    assert!(!again.changed);
    assert_eq!(again.object, first.object);
}

#[test]
fn a_conflict_is_told_in_kubernetes_words() {
    let live = updated(
        None,
        web(json!({"replicas": 1, "paused": true, "minReadySeconds": 1})),
        "kubectl-client-side-apply",
        "t1",
    );
    let none = FieldSet::default();
    let refused = |spec: Value| {
        apply(deployment(), Some(&live), &web(spec), &writer("me", "t2", &none), OnConflict::Refuse)
            .expect_err("a conflict")
            .to_string()
    };
    assert_eq!(
        refused(json!({"replicas": 2})),
        r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas"#
    );
    assert_eq!(
        refused(json!({"replicas": 2, "paused": false})),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let same = apply(
        deployment(),
        Some(&live),
        &web(json!({"replicas": 1})),
        &writer("me", "t2", &none),
        OnConflict::Refuse,
    );
    check(
        &same.expect("equal values are shared").object,
        expect![[r#"
        me Apply t2
          .spec.replicas
        kubectl-client-side-apply Update t1
          .spec.minReadySeconds
          .spec.paused
          .spec.replicas
    "#]],
    );
    let forced = apply(
        deployment(),
        Some(&live),
        &web(json!({"replicas": 2})),
        &writer("me", "t2", &none),
        OnConflict::Force,
    );
    check(
        &forced.expect("forced").object,
        expect![[r#"
        me Apply t2
          .spec.replicas
        kubectl-client-side-apply Update t1
          .spec.minReadySeconds
          .spec.paused
    "#]],
    );
}

#[test]
fn appliers_conflict_by_name_and_subresources_are_named() {
    let live = applied(None, web(json!({"replicas": 1})), "one", "t1").object;
    let none = FieldSet::default();
    let error = apply(
        deployment(),
        Some(&live),
        &web(json!({"replicas": 2})),
        &writer("two", "t2", &none),
        OnConflict::Refuse,
    );
    assert_eq!(
        error.expect_err("a conflict").to_string(),
        r#"Apply failed with 1 conflict: conflict with "one": .spec.replicas"#
    );
    let mut scaled = web(json!({"replicas": 5}));
    let scaler = Writer { subresource: "scale", ..writer("hpa", "t1", &none) };
    update_fields(deployment(), None, &mut scaled, &scaler);
    let error = apply(
        deployment(),
        Some(&scaled),
        &web(json!({"replicas": 2})),
        &writer("two", "t2", &none),
        OnConflict::Refuse,
    );
    assert_eq!(
        error.expect_err("a conflict").to_string(),
        r#"Apply failed with 1 conflict: conflict with "hpa" with subresource "scale" using apps/v1: .spec.replicas"#
    );
}

fn containers(list: Value) -> Value {
    web(json!({"template": {"spec": {"containers": list}}}))
}

#[test]
fn what_is_applied_no_more_is_removed_unless_others_own_it() {
    let first = applied(
        None,
        containers(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}])),
        "one",
        "t1",
    );
    let mut others = first.object.clone();
    others["spec"]["template"]["spec"]["containers"][0]["stdin"] = json!(true);
    others["spec"]["paused"] = json!(true);
    let live = updated(Some(&first.object), others, "two", "t2");
    let second =
        applied(Some(&live), containers(json!([{"name": "a", "image": "1"}])), "one", "t3");
    let mut expected = containers(json!([{"name": "a", "image": "1", "stdin": true}]));
    expected["spec"]["paused"] = json!(true);
    let mut object = second.object.clone();
    entries::take(&mut object);
    assert_eq!(object, expected);
    check(
        &second.object,
        expect![[r#"
        one Apply t3
          .spec.template.spec.containers[name="a"].image
          .spec.template.spec.containers[name="a"].name
          .spec.template.spec.containers[name="a"]
        two Update t2
          .spec.paused
          .spec.template.spec.containers[name="a"].stdin
    "#]],
    );
}

#[test]
fn two_appliers_share_a_field_and_the_last_one_to_let_go_removes_it() {
    let one = applied(None, web(json!({"replicas": 1, "paused": true})), "one", "t1").object;
    let both = applied(Some(&one), web(json!({"replicas": 1})), "two", "t2").object;
    let left = applied(Some(&both), web(json!({"paused": true})), "one", "t3").object;
    assert_eq!(left["spec"], json!({"replicas": 1, "paused": true}));
    let gone = applied(Some(&left), web(json!({})), "two", "t4").object;
    assert_eq!(gone["spec"], json!({"paused": true}));
}

#[test]
fn lists_merge_in_place_and_atomic_ones_are_owned_whole() {
    let live = applied(
        None,
        containers(json!([{"name": "a"}, {"name": "side"}, {"name": "b"}])),
        "one",
        "t1",
    )
    .object;
    let merged = applied(
        Some(&live),
        containers(json!([{"name": "new"}, {"name": "b", "command": ["x", "y"]}])),
        "two",
        "t2",
    )
    .object;
    let names: Vec<&str> = merged["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|container| container["name"].as_str())
        .collect();
    assert_eq!(names, ["a", "side", "new", "b"]);
    let none = FieldSet::default();
    let config = containers(json!([{"name": "b", "command": ["x"]}]));
    let refused = apply(
        deployment(),
        Some(&merged),
        &config,
        &writer("three", "t3", &none),
        OnConflict::Refuse,
    );
    let Err(ApplyError::Conflicts(conflicts)) = refused else { panic!("a conflict: {refused:?}") };
    assert_eq!(conflicts[0].field, r#".spec.template.spec.containers[name="b"].command"#);
}

#[test]
fn a_configuration_whose_lists_are_not_sets_is_refused() {
    let none = FieldSet::default();
    for (list, why) in [
        (
            json!([{"name": "a"}, {"name": "a"}]),
            r#".spec.template.spec.containers: duplicate entries for key [name="a"]"#,
        ),
        (
            json!([{"image": "a"}]),
            r#".spec.template.spec.containers: associative list with keys has an element that omits key field "name" (and doesn't have default value)"#,
        ),
    ] {
        let refused = apply(
            deployment(),
            None,
            &containers(list),
            &writer("m", "t", &none),
            OnConflict::Refuse,
        );
        assert_eq!(refused.expect_err("not a set").to_string(), why);
    }
    let mut config = web(json!({}));
    config["metadata"]["managedFields"] = json!([]);
    let refused = apply(deployment(), None, &config, &writer("m", "t", &none), OnConflict::Refuse);
    assert_eq!(
        refused.expect_err("brings owners").to_string(),
        "metadata.managedFields must be nil"
    );
}

#[test]
fn ignored_fields_are_neither_set_nor_owned() {
    let ignored = FieldSet::of(&["status"]);
    let mut config = web(json!({"replicas": 1}));
    config["status"] = json!({"replicas": 9});
    let applied =
        apply(deployment(), None, &config, &writer("m", "t", &ignored), OnConflict::Refuse)
            .expect("applied");
    assert_eq!(applied.object.get("status"), None);
    check(
        &applied.object,
        expect![[r#"
        m Apply t
          .spec.replicas
    "#]],
    );
}

#[test]
fn an_object_without_owners_is_claimed_before_the_first_apply() {
    let live = web(json!({"replicas": 1, "paused": true}));
    let none = FieldSet::default();
    let refused = apply(
        deployment(),
        Some(&live),
        &web(json!({"replicas": 2})),
        &writer("m", "t", &none),
        OnConflict::Refuse,
    );
    assert_eq!(
        refused.expect_err("a conflict").to_string(),
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using apps/v1: .spec.replicas"#
    );
}

#[test]
fn clients_may_rewrite_owners_and_clear_them() {
    let live = updated(None, web(json!({"replicas": 1, "paused": true})), "old", "t1");
    let mut renamed = live.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("new");
    check(
        &updated(Some(&live), renamed, "me", "t2"),
        expect![[r#"
        new Update t1
          .spec.paused
          .spec.replicas
    "#]],
    );
    let mut cleared = live.clone();
    cleared["metadata"]["managedFields"] = json!([{}]);
    check(&updated(Some(&live), cleared, "me", "t2"), expect![[""]]);
    for broken in [
        json!([{"operation": "Explode"}]),
        json!("x"),
        json!([{"operation": "Update", "fieldsV1": {"q:": {}}}]),
    ] {
        let mut odd = live.clone();
        odd["metadata"]["managedFields"] = broken;
        assert_eq!(updated(Some(&live), odd, "me", "t2"), live, "the live owners stand");
    }
}

#[test]
fn old_updaters_melt_together() {
    let mut live = updated(None, web(json!({"replicas": 0})), "m0", "t000");
    for n in 1..40 {
        let mut next = live.clone();
        next["metadata"]["labels"][format!("l{n:02}")] = json!("x");
        live = updated(Some(&live), next, &format!("m{n}"), &format!("t{n:03}"));
        let entries = live["metadata"]["managedFields"].as_array().expect("owners").len();
        assert!(entries <= entries::UPDATE_MANAGERS_MAX, "{entries} after {n} writes");
    }
    let first = &live["metadata"]["managedFields"][0];
    assert_eq!(first["manager"], "ancient-changes");
    assert_eq!(first["fieldsV1"]["f:spec"], json!({"f:replicas": {}}));
}

#[test]
fn field_sets_survive_their_codec_and_bad_ones_are_refused() {
    let fields = json!({
        "f:metadata": {"f:finalizers": {".": {}, "v:\"a\"": {}}},
        "f:spec": {"f:list": {"k:{\"a\":1,\"b\":\"x\"}": {".": {}, "f:c": {}}, "i:3": {}}},
    });
    assert_eq!(FieldSet::decode(&fields).expect("a set").encode(), fields);
    for bad in [
        json!([]),
        json!({"x": {}}),
        json!({"k:1": {}}),
        json!({"i:x": {}}),
        json!({"f:a": 1}),
        json!({"v:": {}}),
    ] {
        assert!(FieldSet::decode(&bad).is_err(), "{bad}");
    }
}

#[test]
fn managers_are_named_after_user_agents() {
    assert_eq!(manager_of_user_agent("kubectl/v1.36 (linux)"), "kubectl");
    assert_eq!(manager_of_user_agent(&"ä".repeat(100)).len(), 128);
}

fn specs() -> impl Strategy<Value = Value> {
    let container = (0..4_u8, proptest::option::of(0..3_u8), any::<bool>());
    let containers = proptest::collection::vec(container, 0..4);
    (proptest::option::of(0..3_i32), proptest::option::of(any::<bool>()), containers).prop_map(
        |(replicas, paused, containers)| {
            let mut spec = json!({});
            if let Some(replicas) = replicas {
                spec["replicas"] = json!(replicas);
            }
            if let Some(paused) = paused {
                spec["paused"] = json!(paused);
            }
            let mut seen = std::collections::BTreeSet::new();
            let list: Vec<Value> = containers
                .into_iter()
                .filter(|(name, ..)| seen.insert(*name))
                .map(|(name, image, tty)| {
                    let mut container = json!({"name": format!("c{name}"), "tty": tty});
                    if let Some(image) = image {
                        container["image"] = json!(format!("i{image}"));
                    }
                    container
                })
                .collect();
            if !list.is_empty() {
                spec["template"] = json!({"spec": {"containers": list}});
            }
            spec
        },
    )
}

/// Any JSON, with names and path elements that the code looks for.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i32).prop_map(Value::from),
        "[a-b]{0,1}".prop_map(Value::from),
        Just(json!("Update")),
    ];
    let name = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("template"),
        Just("containers"),
        Just("name"),
        Just("ports"),
        Just("managedFields"),
        Just("operation"),
        Just("fieldsV1"),
        Just("f:spec"),
        Just("k:{}"),
        Just("v:1"),
        Just("."),
        Just("finalizers"),
        Just("labels"),
    ];
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..5).prop_map(|fields| {
                Value::Object(
                    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                )
            }),
        ]
    })
}

fn force(live: Option<&Value>, spec: &Value, manager: &str) -> Applied {
    let none = FieldSet::default();
    apply(deployment(), live, &web(spec.clone()), &writer(manager, "t", &none), OnConflict::Force)
        .expect("forced")
}

fn bare(mut object: Value) -> Value {
    entries::take(&mut object);
    object
}

proptest! {
    #[test]
    fn no_tree_however_wrong_makes_it_panic(live in anything(), new in anything()) {
        let none = FieldSet::default();
        let _ = apply(deployment(), Some(&live), &new, &writer("m", "t", &none), OnConflict::Force);
        updated(Some(&live), new.clone(), "m", "t");
        if let Ok(set) = FieldSet::decode(&new) {
            prop_assert_eq!(FieldSet::decode(&set.encode()), Ok(set));
        }
    }

    #[test]
    fn one_appliers_object_is_its_last_configuration(first in specs(), second in specs()) {
        let live = force(None, &first, "one").object;
        let object = bare(force(Some(&live), &second, "one").object);
        let fresh = bare(force(None, &second, "one").object);
        let sorted = |object: &Value| {
            let mut object = object.clone();
            if let Some(list) = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut) {
                list.sort_by_key(ToString::to_string);
            }
            if object["spec"] == json!({}) {
                object.as_object_mut().expect("an object").remove("spec");
            }
            object
        };
        prop_assert_eq!(sorted(&object), sorted(&fresh));
    }

    #[test]
    fn applying_twice_changes_nothing(live in specs(), config in specs()) {
        let live = updated(None, web(live), "creator", "t0");
        let once = force(Some(&live), &config, "one");
        let twice = force(Some(&once.object), &config, "one");
        prop_assert!(!twice.changed);
        prop_assert_eq!(twice.object, once.object);
    }

    #[test]
    fn a_forced_apply_leaves_no_conflict_and_a_refused_one_names_only_changed_fields(live in specs(), config in specs()) {
        let live = updated(None, web(live), "creator", "t0");
        let none = FieldSet::default();
        match apply(deployment(), Some(&live), &web(config.clone()), &writer("one", "t", &none), OnConflict::Refuse) {
            Ok(applied) => prop_assert_eq!(applied.object, force(Some(&live), &config, "one").object),
            Err(ApplyError::Conflicts(conflicts)) => prop_assert!(!conflicts.is_empty()),
            Err(other) => prop_assert!(false, "{}", other),
        }
        let forced = force(Some(&live), &config, "one").object;
        let again = apply(deployment(), Some(&forced), &web(config), &writer("one", "t", &none), OnConflict::Refuse);
        prop_assert!(again.is_ok());
    }

    #[test]
    fn after_updates_every_change_has_one_owner_and_removed_fields_have_none(first in specs(), second in specs()) {
        let live = updated(None, web(first), "one", "t1");
        let mut next = web(second);
        next["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        let next = updated(Some(&live), next, "two", "t2");
        let sets: Vec<FieldSet> = next["metadata"]["managedFields"]
            .as_array().into_iter().flatten()
            .map(|entry| FieldSet::decode(&entry["fieldsV1"]).expect("a set")).collect();
        if let [one, two] = &sets[..] {
            prop_assert!(one.intersection(two).is_empty());
        }
        let all = sets.iter().fold(FieldSet::default(), |all, set| all.union(set));
        let named = typed::fields_of(deployment().root(), &bare(next.clone())).expect("sets");
        let leaves = entries::without_stripped(&named);
        // A field that became empty is there without having been set by anyone.
        prop_assert!(leaves.difference(&all).paths().iter().all(|path| path == ".spec"), "{:?}", leaves.difference(&all).paths());
        prop_assert!(all.difference(&named).paths().iter().all(|path| !path.contains("replicas") && !path.contains("image")));
    }
}
