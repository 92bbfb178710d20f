//! The OpenAPI v2 document of all served kinds, as JSON and in gnostic's protobuf form.

use super::Served;
use super::descriptions::Descriptions;
use super::openapi_v3::write_object;
use super::operations::{self, Operation, Parameter, Path, Place};
use super::protobuf::Message;
use super::rendering::{Dialect, closure, definition};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

const ANSWERS: [&str; 2] = ["application/json", "application/yaml"];

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": crate::schema::facts_version() })
}

fn security_definitions() -> Value {
    json!({ "BearerToken": {
        "type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication",
    } })
}

fn paths_of(kinds: &[&Served]) -> Vec<Path> {
    kinds.iter().flat_map(|kind| operations::paths(kind)).collect()
}

pub(super) fn write(kinds: &[&Served], out: &mut dyn Write) -> io::Result<()> {
    let paths = paths_of(kinds);
    let texts = Descriptions::load();
    write!(out, r#"{{"swagger":"2.0","info":{},"paths":"#, info())?;
    write_object(out, paths.iter().map(|path| (path.path.as_str(), path_item(path))))?;
    write!(out, r#","definitions":"#)?;
    let names = closure(&paths);
    write_object(out, names.iter().map(|name| (*name, definition(name, Dialect::V2, &texts))))?;
    let definitions = security_definitions();
    write!(out, r#","securityDefinitions":{definitions},"security":[{{"BearerToken":[]}}]}}"#)
}

/// The same document as gnostic's `openapi.v2.Document`.
pub(super) fn protobuf(kinds: &[&Served]) -> Vec<u8> {
    let paths = paths_of(kinds);
    let texts = Descriptions::load();
    let mut path_items = Message::default();
    for path in &paths {
        path_items.named(2, &path.path, Message::path_item(&path_item(path)));
    }
    let mut definitions = Message::default();
    for name in closure(&paths) {
        let schema = definition(name, Dialect::V2, &texts);
        definitions.named(1, name, Message::schema(&schema));
    }
    Message::document(&info(), path_items, definitions, &security_definitions())
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
        "type": parameter.type_name,
        "uniqueItems": true,
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
    let schema = match &operation.answer {
        Some(definition) => Dialect::V2.reference(definition),
        None => json!({ "type": "string" }),
    };
    let mut responses: Map<String, Value> = operation
        .codes
        .iter()
        .map(|&code| (code.to_owned(), json!({ "description": "OK", "schema": schema })))
        .collect();
    responses.insert("401".to_owned(), json!({ "description": "Unauthorized" }));
    let mut parameters: Vec<Value> = Vec::new();
    if let Some(body) = &operation.body {
        let required = operation.method != "delete";
        let schema = Dialect::V2.reference(body);
        parameters
            .push(json!({ "name": "body", "in": "body", "required": required, "schema": schema }));
    }
    parameters.extend(operation.parameters.iter().map(parameter));
    json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "consumes": operation.consumes,
        "produces": if operation.answer.is_some() { &ANSWERS[..] } else { &["text/plain"][..] },
        "schemes": ["https"],
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
    })
}
