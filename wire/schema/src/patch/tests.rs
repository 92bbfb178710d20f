//! The rules of each patch, and the laws that hold for all documents.

use super::*;
use crate::Schema;
use proptest::prelude::*;
use serde_json::json;

fn pod() -> &'static Schema {
    Schema::of("", "v1", "Pod").expect("a built-in kind")
}

#[track_caller]
fn strategic(kind: (&str, &str), document: Value, patch: Value, expected: Value) {
    let schema = Schema::of(kind.0, "v1", kind.1).expect("a built-in kind");
    let merged = strategic_merge(schema, &document, &patch).expect("a good patch");
    assert_eq!(merged, expected);
}

const POD: (&str, &str) = ("", "Pod");

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn lists_with_a_merge_key_are_merged_by_it() {
    strategic(
        POD,
        containers(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b"}])),
        containers(json!([{"name": "a", "image": "2", "tty": null}])),
        containers(json!([{"name": "a", "image": "2"}, {"name": "b"}])),
    );
}

#[test]
fn service_ports_are_found_by_port_and_container_ports_by_container_port() {
    strategic(
        ("", "Service"),
        json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443, "name": "https"}]}}),
        json!({"spec": {"ports": [{"port": 443, "nodePort": 30443}]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443, "name": "https", "nodePort": 30443}]}}),
    );
    strategic(
        POD,
        containers(json!([{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}])),
        containers(json!([{"name": "a", "ports": [{"containerPort": 80, "name": "web"}]}])),
        containers(
            json!([{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "web"}]}]),
        ),
    );
}

#[test]
fn new_elements_without_an_order_stand_before_the_servers() {
    strategic(
        POD,
        containers(json!([{"name": "a"}, {"name": "b"}])),
        containers(json!([{"name": "c"}])),
        containers(json!([{"name": "c"}, {"name": "a"}, {"name": "b"}])),
    );
}

#[test]
fn set_element_order_arranges_and_keeps_server_only_elements_in_place() {
    strategic(
        POD,
        containers(json!([{"name": "a"}, {"name": "sidecar"}, {"name": "b"}])),
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}],
            "containers": [{"name": "c", "image": "3"}],
        }}),
        containers(
            json!([{"name": "sidecar"}, {"name": "b"}, {"name": "c", "image": "3"}, {"name": "a"}]),
        ),
    );
    strategic(
        POD,
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        json!({"metadata": {
            "$setElementOrder/finalizers": ["c", "d"],
            "$deleteFromPrimitiveList/finalizers": ["a"],
            "finalizers": ["d"],
        }}),
        json!({"metadata": {"finalizers": ["b", "c", "d"]}}),
    );
    strategic(
        POD,
        json!({"spec": {}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "tty": null}]}}),
        containers(json!([{"name": "a"}])),
    );
}

#[test]
fn an_order_list_that_misses_an_element_of_the_patch_is_refused() {
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}});
    let refused = strategic_merge(pod(), &containers(json!([])), &patch);
    assert!(matches!(refused, Err(PatchError::Malformed(_))), "{refused:?}");
}

#[test]
fn elements_and_maps_are_deleted_and_replaced_by_directive() {
    strategic(
        POD,
        containers(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])),
        containers(json!([{"name": "b", "$patch": "delete"}, {"name": "c", "image": "x"}])),
        containers(json!([{"name": "a"}, {"name": "c", "image": "x"}])),
    );
    strategic(
        POD,
        containers(json!([{"name": "a"}, {"name": "b"}])),
        containers(json!([{"name": "z"}, {"$patch": "replace"}])),
        containers(json!([{"name": "z"}])),
    );
    strategic(
        POD,
        json!({"spec": {"securityContext": {"runAsUser": 1, "fsGroup": 2}}}),
        json!({"spec": {"securityContext": {"$patch": "replace", "runAsUser": 5}}}),
        json!({"spec": {"securityContext": {"runAsUser": 5}}}),
    );
    strategic(
        POD,
        json!({"spec": {"securityContext": {"runAsUser": 1}, "nodeName": "n"}}),
        json!({"spec": {"securityContext": {"$patch": "delete"}}}),
        json!({"spec": {"securityContext": {}, "nodeName": "n"}}),
    );
}

#[test]
fn retain_keys_clears_the_other_fields() {
    strategic(
        ("apps", "Deployment"),
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    let patch = json!({"spec": {"$retainKeys": ["a"], "nodeName": "n"}});
    let refused = strategic_merge(pod(), &json!({"spec": {}}), &patch);
    assert!(matches!(refused, Err(PatchError::Malformed(_))), "{refused:?}");
}

#[test]
fn primitive_lists_are_sets_where_the_api_says_so_and_replaced_elsewhere() {
    strategic(
        POD,
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["b", "c"]}}),
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
    );
    strategic(
        POD,
        containers(json!([{"name": "a", "command": ["x", "y"]}])),
        containers(json!([{"name": "a", "command": ["z"]}])),
        containers(json!([{"name": "a", "command": ["z"]}])),
    );
}

#[test]
fn nulls_remove_and_never_stay() {
    strategic(
        POD,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": null, "c": null}, "annotations": {"x": null, "y": "1"}}}),
        json!({"metadata": {"labels": {"b": "2"}, "annotations": {"y": "1"}}}),
    );
}

#[test]
fn bad_directives_are_refused_and_not_ignored() {
    let mut document = containers(json!([{"name": "a"}]));
    document["metadata"] = json!({"finalizers": ["a"]});
    for patch in [
        json!({"$patch": "explode"}),
        json!({"$patch": 5}),
        containers(json!([{"name": "a", "$patch": "merge"}])),
        containers(json!([{"image": "no name"}])),
        containers(json!([{"$patch": "delete"}])),
        json!({"spec": {"$retainKeys": "containers"}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
        json!([]),
    ] {
        assert!(strategic_merge(pod(), &document, &patch).is_err(), "{patch}");
    }
}

#[test]
fn json_patches_are_all_or_none() {
    let document = json!({"a": [1, 2]});
    let patched = json_patch(
        &document,
        &json!([{"op": "test", "path": "/a/0", "value": 1}, {"op": "add", "path": "/a/-", "value": 3}]),
    );
    assert_eq!(patched, Ok(json!({"a": [1, 2, 3]})));
    for (patch, malformed) in [
        (json!([{"op": "test", "path": "/a/0", "value": 9}]), false),
        (json!([{"op": "remove", "path": "/b"}]), false),
        (json!([{"op": "explode", "path": "/b"}]), true),
        (json!({"op": "add"}), true),
    ] {
        let error = json_patch(&document, &patch).expect_err("a bad patch");
        assert_eq!(matches!(error, PatchError::Malformed(_)), malformed, "{error}");
    }
}

#[test]
fn json_patches_cannot_grow_a_document_without_limit() {
    let document = json!({"a": "0123456789abcdef"});
    let doubling: Vec<Value> =
        (0..40).map(|n| json!({"op": "copy", "from": "", "path": (["/b", "/c"][n % 2])})).collect();
    let grown = json_patch(&document, &json!(doubling));
    assert!(matches!(grown, Err(PatchError::TooLarge(_))), "{:?}", grown.map(|_| ()));
    let many: Vec<Value> = (0..=JSON_PATCH_OPERATIONS_MAX)
        .map(|_| json!({"op": "add", "path": "/a", "value": 1}))
        .collect();
    assert!(matches!(json_patch(&document, &json!(many)), Err(PatchError::TooLarge(_))));
}

#[test]
fn long_lists_take_no_quadratic_time() {
    let names: Vec<Value> = (0..50_000).map(|n| json!(format!("f{n}"))).collect();
    let document = json!({"metadata": {"finalizers": names}});
    let merged = strategic_merge(pod(), &document, &document).expect("a good patch");
    assert_eq!(merged, document);
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (0..9).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ]
}

fn tree() -> impl Strategy<Value = Value> {
    let inner = leaf().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    proptest::collection::btree_map("[a-d]", inner, 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

/// The merge patch from one document to another.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut patch = serde_json::Map::new();
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, new) in to {
        match from.get(name) {
            Some(old) if old == new => {}
            Some(old) if old.is_object() && new.is_object() => {
                patch.insert(name.clone(), difference(old, new));
            }
            _ => {
                patch.insert(name.clone(), new.clone());
            }
        }
    }
    Value::Object(patch)
}

fn pod_with(names: &[u8], images: &[u8]) -> Value {
    let mut seen = std::collections::BTreeSet::new();
    let list: Vec<Value> = names
        .iter()
        .zip(images)
        .filter(|(name, _)| seen.insert(**name))
        .map(|(name, image)| json!({"name": format!("c{name}"), "image": format!("i{image}")}))
        .collect();
    containers(list.into())
}

proptest! {
    #[test]
    fn merging_a_difference_gives_the_other_document(from in tree(), to in tree()) {
        prop_assert_eq!(merge_patch(&from, &difference(&from, &to)), Ok(to));
    }

    #[test]
    fn merge_patches_are_idempotent(document in tree(), patch in tree()) {
        let once = merge_patch(&document, &patch).expect("an object");
        prop_assert_eq!(merge_patch(&once, &patch), Ok(once));
    }

    #[test]
    fn strategic_patches_are_idempotent_and_contain_their_patch(
        names in proptest::collection::vec(0..6_u8, 0..6), images in proptest::collection::vec(0..4_u8, 6),
        wanted in proptest::collection::vec(0..6_u8, 0..6), new in proptest::collection::vec(0..4_u8, 6),
    ) {
        let (document, patch) = (pod_with(&names, &images), pod_with(&wanted, &new));
        let once = strategic_merge(pod(), &document, &patch).expect("a good patch");
        let merged = once["spec"]["containers"].as_array().expect("a list");
        for item in patch["spec"]["containers"].as_array().expect("a list") {
            prop_assert!(merged.contains(item));
        }
        prop_assert_eq!(strategic_merge(pod(), &once, &patch), Ok(once));
    }

    #[test]
    fn strategic_merge_takes_any_patch_without_panic(document in tree(), patch in tree()) {
        let _ = strategic_merge(pod(), &json!({"spec": document}), &json!({"spec": patch}));
    }
}
