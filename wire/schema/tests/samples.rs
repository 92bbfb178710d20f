//! Every field of every v1 kind, as Kubernetes itself writes it, passes the checks untouched.
//!
//! The samples set all fields, so a fact that extraction lost or mistook shows here.

use kactor_schema::{Schema, check_fields, check_types, decode};
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

#[test]
fn samples_of_all_kinds_have_no_unknown_fields_and_no_wrong_types() {
    let samples = samples();
    assert!(samples.len() > 60, "only {} samples were found", samples.len());
    for (path, mut value) in samples {
        let api_version = value["apiVersion"].as_str().expect("a sample has a version").to_owned();
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = value["kind"].as_str().expect("a sample has a kind").to_owned();
        let schema = Schema::of(group, version, &kind).unwrap_or_else(|| panic!("{path} has a schema"));
        check_types(schema, &value).unwrap_or_else(|error| panic!("{path}: {error}"));
        let before = value.clone();
        assert_eq!(check_fields(schema, &mut value), [], "{path}");
        assert_eq!(value, before, "{path}: checking changed the object");
    }
}
