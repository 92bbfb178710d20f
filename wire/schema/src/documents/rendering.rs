//! Definitions as JSON schemas, in the dialects of OpenAPI v2 and v3, and the closure of what kinds refer to.

use super::descriptions::Descriptions;
use super::operations::Path;
use crate::schema::{self, Definition, Field, ListType, Node, PatchStrategy, Scalar, Shape};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub fn reference(self, definition: &str) -> Value {
        match self {
            Dialect::V2 => json!({ "$ref": format!("#/definitions/{definition}") }),
            Dialect::V3 => json!({ "$ref": format!("#/components/schemas/{definition}") }),
        }
    }
}

/// The names of all definitions that these paths need.
pub(super) fn closure(paths: &[Path]) -> BTreeSet<&'static str> {
    let operations = paths.iter().flat_map(|path| &path.operations);
    let mut open: Vec<&'static str> = operations
        .flat_map(|operation| operation.body.iter().chain(&operation.answer))
        .filter_map(|name| Some(&*schema::definition(name)?.0.name))
        .collect();
    let mut found = BTreeSet::new();
    while let Some(name) = open.pop() {
        if !found.insert(name) {
            continue;
        }
        if let Some((_, node)) = schema::definition(name)
            && let Shape::Struct(fields) = node.shape()
        {
            open.extend(fields.fields().filter_map(|field| referenced(field.node())));
        }
    }
    found
}

fn referenced(node: Node<'static>) -> Option<&'static str> {
    match (node.definition(), node.shape()) {
        (Some(definition), _) => Some(&definition.name),
        (None, Shape::Map(value)) => referenced(value),
        (None, Shape::List(list)) => referenced(list.items),
        (None, _) => None,
    }
}

/// One definition. Panics when the name is not one of `closure`.
pub(super) fn definition(name: &str, dialect: Dialect, texts: &Descriptions) -> Value {
    let (definition, node) = schema::definition(name).expect("the closure holds definitions");
    let mut schema = match node.shape() {
        Shape::Struct(fields) => {
            let rendered = fields.fields().map(|field| {
                (field.name().to_owned(), property(definition, field, dialect, texts))
            });
            let properties: Map<String, Value> = rendered.collect();
            match properties.is_empty() {
                true => json!({ "type": "object" }),
                false => json!({ "type": "object", "properties": properties }),
            }
        }
        Shape::Scalar(scalar) => scalar_schema(scalar, dialect),
        Shape::Map(_) | Shape::List(_) => json!({}),
    };
    if let Some(text) = texts.of(name) {
        schema["description"] = json!(text);
    }
    if !definition.required.is_empty() {
        schema["required"] = json!(definition.required);
    }
    if definition.atomic {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    if !definition.kinds.is_empty() {
        let kinds: Vec<Value> = definition
            .kinds
            .iter()
            .map(|kind| json!({ "group": kind.group, "version": kind.version, "kind": kind.kind }))
            .collect();
        schema["x-kubernetes-group-version-kind"] = json!(kinds);
    }
    schema
}

fn property(
    definition: &Definition,
    field: Field<'_>,
    dialect: Dialect,
    texts: &Descriptions,
) -> Value {
    let mut schema = node_schema(field.node(), dialect);
    // OpenAPI v3 ignores what stands beside a reference, so it is wrapped.
    if dialect == Dialect::V3 && schema.get("$ref").is_some() {
        schema = json!({ "allOf": [schema] });
    }
    if let Some(text) = texts.of_field(&definition.name, field.name()) {
        schema["description"] = json!(text);
    }
    if let Some(written) = strategy(field.strategy()) {
        schema["x-kubernetes-patch-strategy"] = json!(written);
    }
    if let Some(key) = field.merge_key() {
        schema["x-kubernetes-patch-merge-key"] = json!(key);
    }
    if field.granular() {
        schema["x-kubernetes-map-type"] = json!("granular");
    }
    schema
}

fn strategy(strategy: PatchStrategy) -> Option<String> {
    let words = [
        (strategy.merge, "merge"),
        (strategy.retain_keys, "retainKeys"),
        (strategy.replace, "replace"),
    ];
    let set: Vec<&str> = words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
    (!set.is_empty()).then(|| set.join(","))
}

fn node_schema(node: Node<'_>, dialect: Dialect) -> Value {
    if let Some(definition) = node.definition() {
        return dialect.reference(&definition.name);
    }
    match node.shape() {
        Shape::Scalar(scalar) => scalar_schema(scalar, dialect),
        Shape::Map(value) => {
            let mut schema =
                json!({ "type": "object", "additionalProperties": node_schema(value, dialect) });
            if node.is_atomic() {
                schema["x-kubernetes-map-type"] = json!("atomic");
            }
            schema
        }
        Shape::List(list) => {
            let mut schema = json!({ "type": "array", "items": node_schema(list.items, dialect) });
            schema["x-kubernetes-list-type"] = json!(match list.list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            });
            if !list.keys.is_empty() {
                schema["x-kubernetes-list-map-keys"] = json!(list.keys);
            }
            schema
        }
        Shape::Struct(_) => json!({ "type": "object" }),
    }
}

fn scalar_schema(scalar: Scalar, dialect: Dialect) -> Value {
    match (scalar, dialect) {
        (Scalar::Any, _) => json!({}),
        (Scalar::Object, _) => json!({ "type": "object" }),
        (Scalar::Boolean, _) => json!({ "type": "boolean" }),
        (Scalar::Int32, _) => json!({ "type": "integer", "format": "int32" }),
        (Scalar::Int64, _) => json!({ "type": "integer", "format": "int64" }),
        (Scalar::Double, _) => json!({ "type": "number", "format": "double" }),
        (Scalar::Text, _) => json!({ "type": "string" }),
        (Scalar::Bytes, _) => json!({ "type": "string", "format": "byte" }),
        (Scalar::Time | Scalar::MicroTime, _) => json!({ "type": "string", "format": "date-time" }),
        (Scalar::Quantity, Dialect::V2) => json!({ "type": "string" }),
        (Scalar::Quantity, Dialect::V3) => {
            json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] })
        }
        (Scalar::IntOrString, Dialect::V2) => {
            json!({ "type": "string", "format": "int-or-string" })
        }
        (Scalar::IntOrString, Dialect::V3) => {
            json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] })
        }
    }
}
