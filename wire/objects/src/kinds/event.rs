//! Events, in the words of the core group and of events.k8s.io, over one storage.
//!
//! Stored as core/v1. Converting there and back loses nothing: each field of one form has its place in the other,
//! the deprecated fields of events.k8s.io being the core group's own.

use kactor_protocol::Timestamp;
use serde_json::{Value, json};

use crate::field_error::{FieldError, Path};
use crate::fields::SelectableField;
use crate::meta;
use crate::names;
use crate::registry::{PutOfAbsent, Strategy};
use crate::table::{self, Column, Printer};
use crate::tree;

const NOTE_BYTES_MAX: usize = 1024;
const WORD_BYTES_MAX: usize = 128;

pub const STRATEGY: Strategy = Strategy {
    default: |event| {
        // No omitempty on these in the core form.
        for (field, empty) in [
            ("involvedObject", json!({})),
            ("source", json!({})),
            ("firstTimestamp", Value::Null),
            ("lastTimestamp", Value::Null),
            ("eventTime", Value::Null),
        ] {
            if tree::at(event, field).is_null() {
                tree::object(event).insert(field.to_owned(), empty);
            }
        }
        for field in ["reportingComponent", "reportingInstance"] {
            if tree::at(event, field).is_null() {
                tree::put(event, field, "");
            }
        }
    },
    validate: validate_core,
    put_of_absent: PutOfAbsent::Create,
    ..Strategy::PLAIN
};

pub const EVENTS_V1_STRATEGY: Strategy = Strategy {
    validate: validate_events_v1,
    put_of_absent: PutOfAbsent::Create,
    ..Strategy::PLAIN
};

pub const CORE_FIELDS: &[SelectableField] = &[
    SelectableField::text(&["involvedObject.kind"]),
    SelectableField::text(&["involvedObject.namespace"]),
    SelectableField::text(&["involvedObject.name"]),
    SelectableField::text(&["involvedObject.uid"]),
    SelectableField::text(&["involvedObject.apiVersion"]),
    SelectableField::text(&["involvedObject.resourceVersion"]),
    SelectableField::text(&["involvedObject.fieldPath"]),
    SelectableField::text(&["reason"]),
    SelectableField::text(&["reportingComponent"]),
    SelectableField {
        label: "source",
        paths: &["source.component", "reportingComponent"],
        absent: "",
    },
    SelectableField::text(&["type"]),
];

pub const EVENTS_V1_FIELDS: &[SelectableField] = &[
    SelectableField::text(&["regarding.kind"]),
    SelectableField::text(&["regarding.namespace"]),
    SelectableField::text(&["regarding.name"]),
    SelectableField::text(&["regarding.uid"]),
    SelectableField::text(&["regarding.apiVersion"]),
    SelectableField::text(&["regarding.resourceVersion"]),
    SelectableField::text(&["regarding.fieldPath"]),
    SelectableField::text(&["reason"]),
    SelectableField::text(&["reportingController"]),
    SelectableField::text(&["type"]),
];

const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "When it was seen last."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "A word for machines."),
    Column::text("Object", "What it is about."),
    Column::text("Subobject", "Which part of the object.").wide(),
    Column::text("Source", "Who reports it.").wide(),
    Column::text("Message", "What happened."),
    Column::text("First Seen", "When it was seen first.").wide(),
    Column::text("Count", "How often it was seen.").wide(),
    Column { priority: 1, ..Column::NAME },
];

pub const CORE_PRINTER: Printer = Printer { columns: COLUMNS, cells };

pub const EVENTS_V1_PRINTER: Printer =
    Printer { columns: COLUMNS, cells: |event, now| cells(&to_core_v1(event), now) };

fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let seen = |paths: &[&str]| {
        let then = paths.iter().find_map(|it| meta::time(event, it));
        table::since(then, now)
    };
    let first = seen(&["firstTimestamp", "eventTime"]);
    let (last, count) = match tree::at(event, "series") {
        Value::Null => (
            seen(&["lastTimestamp", "firstTimestamp", "eventTime"]),
            tree::integer(event, "count").unwrap_or(0).max(1),
        ),
        series => (seen(&["series.lastObservedTime"]), tree::integer(series, "count").unwrap_or(0)),
    };
    let involved = tree::at(event, "involvedObject");
    let target = match tree::text(involved, "name") {
        "" => tree::text(involved, "kind").to_lowercase(),
        name => format!("{}/{name}", tree::text(involved, "kind").to_lowercase()),
    };
    let first_of = |paths: [&str; 2]| match tree::text(event, paths[0]) {
        "" => tree::text(event, paths[1]).to_owned(),
        it => it.to_owned(),
    };
    let component = first_of(["source.component", "reportingComponent"]);
    let host = first_of(["source.host", "reportingInstance"]);
    let source = match host.as_str() {
        "" => component,
        host => format!("{component}, {host}"),
    };
    vec![
        json!(last),
        json!(tree::text(event, "type")),
        json!(tree::text(event, "reason")),
        json!(target),
        json!(tree::text(involved, "fieldPath")),
        json!(source),
        json!(tree::text(event, "message").trim()),
        json!(first),
        json!(count),
        json!(meta::name(event)),
    ]
}

/// Field names of core/v1 and events.k8s.io/v1 that mean the same.
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// core/v1 → events.k8s.io/v1.
pub fn to_events_v1(event: &Value) -> Value {
    renamed(event, "events.k8s.io/v1", NAMES.iter().copied())
}

/// events.k8s.io/v1 → core/v1.
pub fn to_core_v1(event: &Value) -> Value {
    renamed(event, "v1", NAMES.iter().map(|(core, events)| (*events, *core)))
}

fn renamed<'a>(
    event: &Value,
    api_version: &str,
    names: impl Iterator<Item = (&'a str, &'a str)>,
) -> Value {
    let mut event = event.clone();
    let fields = tree::object(&mut event);
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
    fields.insert("apiVersion".to_owned(), json!(api_version));
    event
}

/// The old form is checked loosely, as it always was, unless it carries the new form's `eventTime`.
fn validate_core(event: &Value) -> Vec<FieldError> {
    let involved = tree::text(event, "involvedObject.namespace");
    let path = Path::new("involvedObject.namespace");
    let namespace = meta::namespace(event);
    let mut errors = Vec::new();
    match involved {
        "" if namespace != "default" && namespace != "kube-system" => {
            errors.push(FieldError::invalid(path, "", "does not match event.namespace"));
        }
        "" => {}
        it if it != namespace => {
            errors.push(FieldError::invalid(path, it, "does not match event.namespace"));
        }
        _ => {}
    }
    if !tree::is_empty(tree::at(event, "eventTime")) {
        errors.extend(validate_words(event, "reportingComponent", "message"));
    }
    errors
}

fn validate_events_v1(event: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if tree::is_empty(tree::at(event, "eventTime")) {
        errors.push(FieldError::required(Path::new("eventTime"), ""));
    }
    errors.extend(validate_words(event, "reportingController", "note"));
    errors
}

fn validate_words(event: &Value, controller_field: &str, note_field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let controller = tree::text(event, controller_field);
    if controller.is_empty() {
        errors.push(FieldError::required(Path::new(controller_field), ""));
    } else {
        for why in names::qualified_name(controller) {
            errors.push(FieldError::invalid(Path::new(controller_field), controller, why));
        }
    }
    for field in ["reportingInstance", "action", "reason"] {
        match tree::text(event, field) {
            "" => errors.push(FieldError::required(Path::new(field), "")),
            it if it.len() > WORD_BYTES_MAX => {
                let why = format!("can have at most {WORD_BYTES_MAX} characters");
                errors.push(FieldError::invalid(Path::new(field), "", why));
            }
            _ => {}
        }
    }
    if tree::text(event, note_field).len() > NOTE_BYTES_MAX {
        let why = format!("can have at most {NOTE_BYTES_MAX} characters");
        errors.push(FieldError::invalid(Path::new(note_field), "", why));
    }
    let kind = tree::text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(FieldError::invalid(
            Path::new("type"),
            "",
            format!("has invalid value: {kind}"),
        ));
    }
    errors
}

#[cfg(test)]
mod tests;
