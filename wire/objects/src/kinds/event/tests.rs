//! Conversion between the two forms of Events, and their checks.

use super::*;
use crate::registry::registry;

fn event() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": "web.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web", "fieldPath": "spec.containers{a}"},
        "reason": "Started", "message": "Started it\n", "type": "Normal",
        "source": {"component": "agent", "host": "n1"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:05:00Z", "count": 3,
        "eventTime": null, "reportingComponent": "", "reportingInstance": "",
    })
}

#[test]
fn conversion_there_and_back_loses_nothing() {
    let core = event();
    let new = to_events_v1(&core);
    expect_test::expect![[r#"{"apiVersion":"events.k8s.io/v1","deprecatedCount":3,"deprecatedFirstTimestamp":"2026-01-01T00:00:00Z","deprecatedLastTimestamp":"2026-01-01T00:05:00Z","deprecatedSource":{"component":"agent","host":"n1"},"eventTime":null,"kind":"Event","metadata":{"name":"web.1","namespace":"default"},"note":"Started it\n","reason":"Started","regarding":{"fieldPath":"spec.containers{a}","kind":"Pod","name":"web","namespace":"default"},"reportingController":"","reportingInstance":"","type":"Normal"}"#]].assert_eq(&new.to_string());
    assert_eq!(to_core_v1(&new), core);
}

#[test]
fn the_rows_share_one_storage() {
    let core = registry().by_resource("", "v1", "events").and_then(|it| it.stored()).expect("core");
    let new = registry()
        .by_resource("events.k8s.io", "v1", "events")
        .and_then(|it| it.stored())
        .expect("new");
    assert_eq!((core.group, core.resource), (new.group, new.resource));
    assert_eq!((new.to_storage)((new.from_storage)(event())), event());
}

#[test]
fn events_must_be_in_the_namespace_of_what_they_are_about() {
    let mut core = event();
    assert!(validate_core(&core).is_empty());
    core["involvedObject"]["namespace"] = json!("other");
    assert_eq!(
        validate_core(&core)[0].to_string(),
        "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"
    );
    core["involvedObject"] = json!({"kind": "Node", "name": "n1"});
    assert!(validate_core(&core).is_empty(), "cluster-scoped things are reported in default");
}

#[test]
fn the_new_form_requires_its_words() {
    let errors: Vec<String> = validate_events_v1(&json!({"note": "x".repeat(1025), "type": "Odd"}))
        .iter()
        .map(ToString::to_string)
        .collect();
    expect_test::expect![[r#"
        eventTime: Required value
        reportingController: Required value
        reportingInstance: Required value
        action: Required value
        reason: Required value
        note: Invalid value: "": can have at most 1024 characters
        type: Invalid value: "": has invalid value: Odd"#]]
    .assert_eq(&errors.join("\n"));
}
