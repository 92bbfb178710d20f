//! Strict decoding against a schema: unknown fields are pruned and reported, wrong JSON types refuse the object.
//!
//! The texts are those of Kubernetes' decoder (sigs.k8s.io/json), because clients and people match on them. `null`
//! means absent there: it decodes to a nil or zero value that is not written back, so it is removed here too.

mod json_types;
mod scalar;

pub use json_types::{TypeError, check_types};

use crate::schema::{Node, Scalar, Schema, Shape};
use serde_json::Value;
use std::fmt::{self, Write};

/// How many problems are reported; more are still pruned.
pub const PROBLEMS_MAX: usize = 100;

/// One thing that a strict decoder refuses and a lenient one drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// As Kubernetes writes it: `spec.containers[0].foo`.
    pub path: String,
    pub kind: ProblemKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    Unknown,
    Duplicate,
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ProblemKind::Unknown => "unknown",
            ProblemKind::Duplicate => "duplicate",
        };
        write!(f, "{kind} field {:?}", self.path)
    }
}

/// The message of a request refused by `fieldValidation=Strict`, without its prefix
/// (`Pod in version "v1" cannot be handled as a Pod: `).
pub fn strict_message(problems: &[FieldProblem]) -> String {
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("strict decoding error: {}", shown.join(", "))
}

/// Removes fields that the schema does not know, and nulls; reports the unknown ones.
pub fn check_fields(schema: &Schema, value: &mut Value) -> Vec<FieldProblem> {
    let mut pruning = Pruning { path: FieldPath::default(), problems: Vec::new() };
    pruning.walk(schema.root(), value);
    pruning.problems
}

struct Pruning {
    path: FieldPath,
    problems: Vec<FieldProblem>,
}

impl Pruning {
    fn walk(&mut self, node: Node<'_>, value: &mut Value) {
        match (node.shape(), value) {
            (Shape::Struct(fields), Value::Object(object)) => object.retain(|name, value| {
                self.path.push_field(name);
                let kept = match fields.field(name) {
                    None => self.report_unknown(),
                    Some(field) if value.is_null() => field.node().is_any(),
                    Some(field) => {
                        self.walk(field.node(), value);
                        true
                    }
                };
                self.path.pop();
                kept
            }),
            (Shape::Map(of), Value::Object(object)) => {
                for (name, value) in object {
                    self.path.push_field(name);
                    self.walk(of, value);
                    self.path.pop();
                }
            }
            (Shape::List(list), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.path.push_index(index);
                    self.walk(list.items, item);
                    self.path.pop();
                }
            }
            // A null in a map of strings is the zero value there.
            (Shape::Scalar(Scalar::Text), value) if value.is_null() => *value = Value::from(""),
            _ => {} // `check_types` refuses what has the wrong type
        }
    }

    fn report_unknown(&mut self) -> bool {
        if self.problems.len() < PROBLEMS_MAX {
            let path = self.path.to_string();
            self.problems.push(FieldProblem { path, kind: ProblemKind::Unknown });
        }
        false
    }
}

impl Node<'_> {
    fn is_any(self) -> bool {
        matches!(self.shape(), Shape::Scalar(Scalar::Any))
    }
}

/// A path as the strict decoder writes it: fields joined by dots, indices in brackets.
#[derive(Debug, Default, Clone)]
pub(crate) struct FieldPath {
    text: String,
    ends: Vec<usize>,
}

impl FieldPath {
    pub fn push_field(&mut self, name: &str) {
        self.ends.push(self.text.len());
        if !self.text.is_empty() {
            self.text.push('.');
        }
        self.text.push_str(name);
    }

    pub fn push_index(&mut self, index: usize) {
        self.ends.push(self.text.len());
        write!(self.text, "[{index}]").expect("a String takes every write");
    }

    pub fn pop(&mut self) {
        let end = self.ends.pop().expect("every pop follows a push");
        self.text.truncate(end);
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
