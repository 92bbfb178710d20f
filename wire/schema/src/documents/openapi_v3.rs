//! One group-version's OpenAPI v3 document: what `kubectl explain` and client-side checks read.

use super::Served;
use super::descriptions::Descriptions;
use super::operations::{self, Operation, Parameter, Path, Place};
use super::rendering::{Dialect, closure, definition};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

const ANSWERS: [&str; 2] = ["application/json", "application/yaml"];

pub(super) fn write(kinds: &[&Served], out: &mut dyn Write) -> io::Result<()> {
    let paths: Vec<Path> = kinds.iter().flat_map(|kind| operations::paths(kind)).collect();
    let texts = Descriptions::load();
    let info = json!({ "title": "Kubernetes", "version": crate::schema::facts_version() });
    write!(out, r#"{{"openapi":"3.0.0","info":{info},"paths":"#)?;
    let items = paths.iter().map(|path| (path.path.as_str(), path_item(path)));
    write_object(out, items)?;
    write!(out, r#","components":{{"schemas":"#)?;
    let schemas = closure(&paths);
    write_object(out, schemas.iter().map(|name| (*name, definition(name, Dialect::V3, &texts))))?;
    let security = json!({
        "BearerToken": { "type": "apiKey", "name": "authorization", "in": "header",
                         "description": "Bearer Token authentication" },
    });
    write!(out, r#","securitySchemes":{security}}}}}"#)
}

/// Writes an object value by value, so that only one is in memory.
pub(super) fn write_object<'a>(
    out: &mut dyn Write,
    entries: impl Iterator<Item = (&'a str, Value)>,
) -> io::Result<()> {
    write!(out, "{{")?;
    for (index, (name, value)) in entries.enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(out, "{comma}{}:{value}", Value::from(name))?;
    }
    write!(out, "}}")
}

fn path_item(path: &Path) -> Value {
    let parameters: Vec<Value> = path.parameters.iter().map(parameter).collect();
    let mut item = Map::from_iter([("parameters".to_owned(), json!(parameters))]);
    for it in &path.operations {
        item.insert(it.method.to_owned(), operation(it));
    }
    Value::Object(item)
}

fn parameter(parameter: &Parameter) -> Value {
    let mut value = json!({
        "name": parameter.name,
        "description": parameter.description,
        "schema": { "type": parameter.type_name, "uniqueItems": true },
    });
    match parameter.place {
        Place::Query => value["in"] = json!("query"),
        Place::Path => {
            value["in"] = json!("path");
            value["required"] = json!(true);
        }
    }
    value
}

fn operation(operation: &Operation) -> Value {
    let (group, version, kind) = &operation.kind;
    let content = |types: &[&str], schema: &Value| -> Map<String, Value> {
        types.iter().map(|&name| (name.to_owned(), json!({ "schema": schema }))).collect()
    };
    let answer = match &operation.answer {
        Some(definition) => content(&ANSWERS, &Dialect::V3.reference(definition)),
        None => content(&["text/plain"], &json!({ "type": "string" })),
    };
    let mut responses: Map<String, Value> = operation
        .codes
        .iter()
        .map(|&code| (code.to_owned(), json!({ "description": "OK", "content": answer })))
        .collect();
    responses.insert("401".to_owned(), json!({ "description": "Unauthorized" }));
    let mut value = json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "parameters": operation.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
    });
    if let Some(body) = &operation.body {
        let schema = Dialect::V3.reference(body);
        value["requestBody"] = json!({ "content": content(operation.consumes, &schema) });
    }
    value
}
