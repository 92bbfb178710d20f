//! Every field of every v1 kind, as Kubernetes itself writes it, passes the checks untouched.
//!
//! The samples set all fields, so a fact that extraction lost or mistook shows here.

use kactor_schema::managed::{FieldSet, OnConflict, Writer, apply};
use kactor_schema::patch::strategic_merge;
use kactor_schema::{Schema, check_fields, check_types, decode};
use serde_json::Value;
use std::path::Path;

fn samples() -> Vec<(String, serde_json::Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("the samples are committed")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let bytes = std::fs::read(&path).expect("a readable sample");
            let decoded = decode(&bytes).expect("a sample is JSON");
            assert_eq!(decoded.duplicates, []);
            (path.display().to_string(), decoded.value)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn schema_of(path: &str, value: &Value) -> &'static Schema {
    let api_version = value["apiVersion"].as_str().expect("a sample has a version");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = value["kind"].as_str().expect("a sample has a kind");
    Schema::of(group, version, kind).unwrap_or_else(|| panic!("{path} has a schema"))
}

#[test]
fn samples_of_all_kinds_have_no_unknown_fields_and_no_wrong_types() {
    let samples = samples();
    assert!(samples.len() >= 58, "only {} samples were found", samples.len());
    for (path, mut value) in samples {
        let schema = schema_of(&path, &value);
        check_types(schema, &value).unwrap_or_else(|error| panic!("{path}: {error}"));
        let before = value.clone();
        assert_eq!(check_fields(schema, &mut value), [], "{path}");
        assert_eq!(value, before, "{path}: checking changed the object");
    }
}

#[test]
fn samples_applied_are_themselves_and_applied_again_unchanged() {
    let none = FieldSet::default();
    for (path, mut value) in samples() {
        let schema = schema_of(&path, &value);
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let api_version = schema.api_version();
        let writer = Writer {
            manager: "test",
            api_version: &api_version,
            subresource: "",
            time: "2026-11-21T12:00:00Z",
            ignored: &none,
        };
        let on = |live: Option<&Value>| {
            apply(schema, live, &value, &writer, OnConflict::Refuse)
                .unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let mut first = on(None);
        assert!(!on(Some(&first.object)).changed, "{path}");
        if let Some(metadata) = first.object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        let mut expected = value.clone();
        if expected.get("metadata").is_none() {
            expected["metadata"] = first.object["metadata"].clone();
        }
        assert_eq!(first.object, expected, "{path}");
    }
}

#[test]
fn samples_patched_with_themselves_are_unchanged() {
    for (path, mut value) in samples() {
        if let Some(pods) = value.pointer_mut("/status/disruptedPods") {
            *pods = serde_json::json!({}); // a null in it, which in a patch removes
        }
        let merged = strategic_merge(schema_of(&path, &value), &value, &value)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(merged, value, "{path}");
    }
}
