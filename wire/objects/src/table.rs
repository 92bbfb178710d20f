//! The `Table` form of objects: what `kubectl get` prints.
//!
//! A kind's row carries its columns and a function from an object to its cells; columns of priority 1 are the
//! wide ones. Ages are computed from the `now` that is passed in. Column names and cells follow upstream's
//! pkg/printers/internalversion; a kind without a printer shows name and age.

use kactor_protocol::Timestamp;
use serde_json::{Value, json};

use crate::ages;
use crate::meta;

/// One column; `wide` ones are shown with `-o wide`.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub kind: ColumnKind,
    pub description: &'static str,
    pub priority: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// The object's name; its format is `name`.
    Name,
    Text,
    Integer,
}

impl Column {
    pub const NAME: Column = Column {
        name: "Name",
        kind: ColumnKind::Name,
        description: "Name of the object, unique within its namespace.",
        priority: 0,
    };
    pub const AGE: Column = Column::text("Age", "Time since the object was created.");

    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: ColumnKind::Text, description, priority: 0 }
    }

    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: ColumnKind::Integer, description, priority: 0 }
    }

    pub const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    fn to_json(self) -> Value {
        let (kind, format) = match self.kind {
            ColumnKind::Name => ("string", "name"),
            ColumnKind::Text => ("string", ""),
            ColumnKind::Integer => ("integer", ""),
        };
        json!({
            "name": self.name,
            "type": kind,
            "format": format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

/// A kind's columns and cells; as many cells as columns.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    pub columns: &'static [Column],
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Printer {
    /// Name and age.
    pub const PLAIN: Printer = Printer {
        columns: &[Column::NAME, Column::AGE],
        cells: |object, now| vec![json!(meta::name(object)), age(object, now)],
    };
}

/// What each row carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// Parses the `includeObject` query parameter; empty is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// One row of a table. `object` is as the client would get it, resourceVersion included.
pub fn row(printer: &Printer, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let cells = (printer.cells)(object, now);
    debug_assert_eq!(cells.len(), printer.columns.len());
    let mut row = json!({ "cells": cells });
    match include {
        IncludeObject::None => row["object"] = Value::Null,
        IncludeObject::Metadata => row["object"] = partial(object, "meta.k8s.io/v1"),
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// `PartialObjectMetadata` of an object. `api_version` is `meta.k8s.io/v1` (or `v1beta1`).
pub fn partial(object: &Value, api_version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": api_version,
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// The whole table. `metadata` is the list's (`resourceVersion`, `continue`, `remainingItemCount`). Watches send
/// the columns with their first event only: `Columns::Omitted` afterwards.
pub fn table(printer: &Printer, metadata: Value, rows: Vec<Value>, columns: Columns) -> Value {
    let columns: Vec<Value> = match columns {
        Columns::Given => printer.columns.iter().map(|it| it.to_json()).collect(),
        Columns::Omitted => Vec::new(),
    };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    Given,
    Omitted,
}

/// The Age cell.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(meta::creation_timestamp(object), now)
}

/// Time since `then` as people read it; `<unknown>` without one.
pub fn since(then: Option<Timestamp>, now: Timestamp) -> Value {
    match then {
        Some(then) => json!(ages::human(now.since(then))),
        None => json!("<unknown>"),
    }
}

/// `text`, or `<none>` when there is none.
pub fn or_none(text: impl Into<String>) -> Value {
    let text = text.into();
    match text.is_empty() {
        true => json!("<none>"),
        false => Value::String(text),
    }
}

#[cfg(test)]
mod tests;
