//! Field selectors by kind.

use super::*;
use crate::registry::registry;
use serde_json::json;

fn pods() -> &'static Kind {
    registry().by_resource("", "v1", "pods").expect("pods")
}

fn refused(kind: &Kind, text: &str) -> String {
    FieldSelector::parse(kind, text).expect_err(text).message
}

#[test]
fn pods_are_selected_by_node_phase_and_flags() {
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"nodeName": "n1", "restartPolicy": "Always"},
        "status": {"phase": "Running"},
    });
    for (text, holds) in [
        ("", true),
        ("spec.nodeName=n1", true),
        ("spec.nodeName==n1,status.phase!=Failed", true),
        ("spec.nodeName=", false),
        ("spec.hostNetwork=false", true),
        ("spec.hostNetwork=true", false),
        ("metadata.name=web,metadata.namespace=default", true),
        ("metadata.namespace!=default", false),
        ("status.podIP=", true),
        ("status.nominatedNodeName!=x", true),
    ] {
        let selector = FieldSelector::parse(pods(), text).expect(text);
        assert_eq!(selector.matches(&pod), holds, "{text}");
    }
}

#[test]
fn unknown_fields_and_malformed_terms_are_refused() {
    assert_eq!(refused(pods(), "spec.x=y"), "field label not supported: spec.x");
    assert_eq!(
        refused(pods(), "spec.nodeName"),
        "invalid selector: 'spec.nodeName'; can't understand 'spec.nodeName'"
    );
    assert!(refused(pods(), "spec.nodeName=a=b").contains("invalid escape"));
    let leases = registry().by_group_resource("coordination.k8s.io", "leases").expect("leases");
    assert_eq!(
        refused(leases, "spec.x=y"),
        "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
}

#[test]
fn escaped_commas_belong_to_the_value() {
    let selector = FieldSelector::parse(pods(), r"status.phase=a\,b\=c\\").expect("escaped");
    assert_eq!(selector.required("status.phase"), Some(r"a,b=c\"));
}

#[test]
fn every_selectable_field_of_every_kind_parses() {
    for kind in registry().iter() {
        for field in kind.fields {
            let text = format!("{}=x", field.label);
            FieldSelector::parse(kind, &text).expect(&text);
        }
    }
}

#[test]
fn events_are_selected_by_source_old_and_new() {
    let kind = registry().by_resource("", "v1", "events").expect("events");
    let selector = FieldSelector::parse(kind, "source=agent").expect("valid");
    assert!(selector.matches(&json!({"source": {"component": "agent"}})));
    assert!(selector.matches(&json!({"source": {}, "reportingComponent": "agent"})));
    assert!(
        !selector.matches(&json!({"source": {"component": "x"}, "reportingComponent": "agent"}))
    );
}
