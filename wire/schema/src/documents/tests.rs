//! What clients read from the documents, and that nothing is in them that is not served.

use super::*;
use serde_json::json;
use std::collections::BTreeSet;

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn served(group: &str, kind: &str, resource: &str) -> Served {
    Served {
        group: group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        resource: resource.to_owned(),
        singular: kind.to_lowercase(),
        namespaced: true,
        short_names: Vec::new(),
        categories: strings(&["all"]),
        verbs: strings(&[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ]),
        subresources: Vec::new(),
    }
}

fn documents() -> Documents {
    let mut pod = served("", "Pod", "pods");
    pod.short_names = strings(&["po"]);
    let subresource = |name: &str, kind: &str, verbs: &[&str]| ServedSubresource {
        name: name.to_owned(),
        group_version: None,
        kind: kind.to_owned(),
        verbs: strings(verbs),
    };
    pod.subresources = vec![
        subresource("exec", "PodExecOptions", &["create", "get"]),
        subresource("log", "Pod", &["get"]),
        subresource("status", "Pod", &["get", "patch", "update"]),
    ];
    let mut namespace = served("", "Namespace", "namespaces");
    namespace.namespaced = false;
    let mut deployment = served("apps", "Deployment", "deployments");
    deployment.subresources = vec![ServedSubresource {
        group_version: Some(("autoscaling".to_owned(), "v1".to_owned())),
        ..subresource("scale", "Scale", &["get", "patch", "update"])
    }];
    Documents::new(vec![deployment, namespace, pod])
}

fn v3(group: &str) -> Value {
    let document = documents().openapi_v3(group, "v1").expect("a served version");
    serde_json::from_slice(&document.plain()).expect("the document is JSON")
}

fn v2() -> Value {
    serde_json::from_slice(&documents().openapi_v2().plain()).expect("the document is JSON")
}

#[test]
fn legacy_discovery_lists_what_is_served() {
    let documents = documents();
    assert_eq!(documents.api_versions("10.0.0.1:6443")["versions"], json!(["v1"]));
    let groups = documents.api_groups();
    assert_eq!(
        groups["groups"],
        json!([{
            "name": "apps",
            "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
            "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
        }])
    );
    assert_eq!(documents.api_group("apps").expect("served")["kind"], "APIGroup");
    assert!(documents.api_group("batch").is_none() && documents.api_group("").is_none());
    let core = documents.api_resources("", "v1").expect("served");
    assert_eq!(core["groupVersion"], "v1");
    let names: Vec<&str> = core["resources"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|resource| resource["name"].as_str())
        .collect();
    assert_eq!(names, ["namespaces", "pods", "pods/exec", "pods/log", "pods/status"]);
    assert_eq!(core["resources"][1]["shortNames"], json!(["po"]));
    let apps = documents.api_resources("apps", "v1").expect("served");
    assert_eq!(apps["resources"][1]["group"], "autoscaling");
    assert!(documents.api_resources("apps", "v2").is_none());
}

#[test]
fn aggregated_discovery_splits_the_core_from_the_groups() {
    let core = documents().aggregated(Root::Core);
    assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2");
    assert_eq!(core["items"].as_array().expect("a list").len(), 1);
    let pods = &core["items"][0]["versions"][0]["resources"][1];
    assert_eq!((&pods["resource"], &pods["scope"]), (&json!("pods"), &json!("Namespaced")));
    assert_eq!(pods["subresources"][2]["verbs"], json!(["get", "patch", "update"]));
    let groups = documents().aggregated(Root::Groups);
    assert_eq!(groups["items"][0]["metadata"]["name"], "apps");
    let deployments = &groups["items"][0]["versions"][0]["resources"][0];
    assert_eq!(
        deployments["subresources"][0]["responseKind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
}

#[test]
fn versions_are_preferred_as_clients_expect() {
    let versions = ["v1beta1", "v2", "v1", "v1alpha1", "v1beta2", "v10"];
    let kinds = versions.map(|version| Served {
        version: version.to_owned(),
        ..served("example.com", "Thing", "things")
    });
    let groups = Documents::new(kinds.into()).api_groups();
    let listed: Vec<&str> = groups["groups"][0]["versions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|version| version["version"].as_str())
        .collect();
    assert_eq!(listed, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
}

/// Every `$ref` in a document.
fn references(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get("$ref") {
                found.insert(to.strip_prefix(prefix).expect("a local reference").to_owned());
            }
            fields.values().for_each(|value| references(value, prefix, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, prefix, found)),
        _ => {}
    }
}

#[test]
fn definitions_are_exactly_what_is_referred_to() {
    for (document, schemas, prefix) in [
        (v3(""), "/components/schemas", "#/components/schemas/"),
        (v3("apps"), "/components/schemas", "#/components/schemas/"),
        (v2(), "/definitions", "#/definitions/"),
    ] {
        let mut referenced = BTreeSet::new();
        references(&document, prefix, &mut referenced);
        let defined = document.pointer(schemas).and_then(Value::as_object).expect("definitions");
        assert_eq!(defined.keys().cloned().collect::<BTreeSet<_>>(), referenced);
        assert!(!defined.contains_key("io.k8s.api.batch.v1.Job"), "not served");
    }
}

#[test]
fn openapi_v3_has_what_kubectl_explain_and_apply_read() {
    let apps = v3("apps");
    let deployment = &apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    assert!(deployment["description"].as_str().is_some_and(|text| text.contains("Pods")));
    let pod_spec = &apps["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    let containers = &pod_spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(pod_spec["required"], json!(["containers"]));
    let item = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(item["patch"]["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let names: Vec<&str> = item["patch"]["parameters"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"), "{names:?}");
    assert!(v3("")["paths"].get("/api/v1/namespaces/{name}").is_some());
    assert_eq!(
        v3("")["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["post"]["x-kubernetes-action"],
        "connect"
    );
}

#[test]
fn operation_ids_are_kubernetes_and_unique() {
    let document = v2();
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().expect("paths").values() {
        for operation in item.as_object().expect("a path item").values() {
            if let Some(id) = operation["operationId"].as_str() {
                assert!(ids.insert(id.to_owned()), "{id} stands twice");
            }
        }
    }
    for id in [
        "listCoreV1NamespacedPod",
        "readCoreV1Namespace",
        "deleteCoreV1CollectionNamespacedPod",
        "patchAppsV1NamespacedDeploymentScale",
        "readCoreV1NamespacedPodLog",
        "connectCoreV1PostNamespacedPodExec",
    ] {
        assert!(ids.contains(id), "{id} is missing from {ids:?}");
    }
}

#[test]
fn the_index_names_each_document_with_its_tag() {
    let documents = documents();
    let index = documents.openapi_v3_index();
    for (group, path) in [("", "api/v1"), ("apps", "apis/apps/v1")] {
        let etag = documents.openapi_v3(group, "v1").expect("served").etag;
        assert_eq!(
            index["paths"][path]["serverRelativeURL"],
            json!(format!("/openapi/v3/{path}?hash={etag}"))
        );
    }
    assert!(documents.openapi_v3("batch", "v1").is_none());
    let other = Documents::new(vec![served("apps", "ReplicaSet", "replicasets")]);
    let tag = |documents: &Documents| documents.openapi_v3("apps", "v1").map(|it| it.etag);
    assert_ne!(tag(&documents), tag(&other), "another content has another tag");
}

/// The fields of a protobuf message: numbers with their bytes; varints have none.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole varint");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return value;
            }
        }
        panic!("a varint of more than ten bytes");
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => {
                varint(&mut bytes);
                found.push((key >> 3, &[][..]));
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).expect("a length");
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                found.push((key >> 3, value));
            }
            other => panic!("wire type {other} is not used here"),
        }
    }
    found
}

/// The names of a message of named pairs, in the field of this number.
fn names(bytes: &[u8], number: u64) -> Vec<String> {
    let pairs = fields(bytes).into_iter().filter(|(field, _)| *field == number);
    pairs.map(|(_, pair)| String::from_utf8(fields(pair)[0].1.to_vec()).expect("a name")).collect()
}

#[test]
fn the_protobuf_form_has_the_paths_and_definitions_of_the_json() {
    let plain = documents().openapi_v2_protobuf().plain();
    let document = fields(&plain);
    let part =
        |number: u64| document.iter().find(|(field, _)| *field == number).expect("a field").1;
    assert_eq!(part(1), b"2.0");
    let json = v2();
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let set = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(set(names(part(8), 2)), keys(&json["paths"]));
    assert_eq!(set(names(part(9), 1)), keys(&json["definitions"]));
    let pod = fields(part(9))
        .into_iter()
        .map(|(_, pair)| fields(pair))
        .find(|pair| pair[0].1 == b"io.k8s.api.core.v1.Pod")
        .expect("Pod is defined");
    let schema = pod[1].1;
    assert_eq!(names(schema, 31), ["x-kubernetes-group-version-kind"]);
    let properties =
        fields(schema).into_iter().find(|(field, _)| *field == 25).expect("properties");
    assert_eq!(names(properties.1, 1), ["apiVersion", "kind", "metadata", "spec", "status"]);
}
