//! Whether each value has the JSON type of its field, with the words of Go's decoder.
//!
//! Go names the innermost struct, the fields on the way (no indices, no map keys) and the Go type:
//! `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.

use super::{FieldPath, scalar};
use crate::schema::{Node, Schema, Shape};
use serde_json::Value;

/// A value has the wrong JSON type; the request is a 400 with this text behind
/// `Deployment in version "v1" cannot be handled as a Deployment: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeError {
    /// Where, with indices: `spec.template.spec.containers[0].image`.
    pub path: String,
    pub message: String,
}

/// Checks the whole tree; the first wrong value is the error. Unknown fields and nulls are ignored.
pub fn check_types(schema: &Schema, value: &Value) -> Result<(), TypeError> {
    let mut checking =
        Checking { path: FieldPath::default(), fields: Vec::new(), structs: Vec::new() };
    checking
        .walk(schema.root(), value)
        .map_err(|message| TypeError { path: checking.path.to_string(), message })
}

struct Checking<'a> {
    path: FieldPath,
    fields: Vec<&'a str>,
    structs: Vec<&'a str>,
}

impl<'a> Checking<'a> {
    /// On an error the path stays where the error is.
    fn walk(&mut self, node: Node<'a>, value: &Value) -> Result<(), String> {
        match (node.shape(), value) {
            (_, Value::Null) => Ok(()),
            (Shape::Struct(fields), Value::Object(object)) => {
                self.structs.push(fields.type_name());
                for (name, value) in object {
                    let Some(field) = fields.field(name) else { continue };
                    self.fields.push(field.name());
                    self.path.push_field(name);
                    self.walk(field.node(), value)?;
                    self.path.pop();
                    self.fields.pop();
                }
                self.structs.pop();
                Ok(())
            }
            (Shape::Map(of), Value::Object(object)) => {
                for (name, value) in object {
                    self.path.push_field(name);
                    self.walk(of, value)?;
                    self.path.pop();
                }
                Ok(())
            }
            (Shape::List(list), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push_index(index);
                    self.walk(list.items, item)?;
                    self.path.pop();
                }
                Ok(())
            }
            (Shape::Scalar(kind), value) => {
                scalar::check(kind, value).map_err(|refusal| match refusal {
                    scalar::Refusal::Type(found) => self.mismatch(&found, node),
                    scalar::Refusal::Message(message) => message,
                })
            }
            (_, value) => Err(self.mismatch(scalar::json_type(value), node)),
        }
    }

    fn mismatch(&self, found: &str, node: Node<'_>) -> String {
        let go_type = node.go_type();
        match self.structs.last() {
            None => format!("json: cannot unmarshal {found} into Go value of type {go_type}"),
            Some(inner) => {
                let fields = self.fields.join(".");
                format!(
                    "json: cannot unmarshal {found} into Go struct field {inner}.{fields} of type {go_type}"
                )
            }
        }
    }
}
