//! JSON bytes to a tree, noticing what a plain parser hides: keys that come twice, and trees too deep to walk.
//!
//! Kubernetes keeps the last of duplicate keys and reports them when field validation is Warn or Strict; the report
//! must be made while parsing, because the tree has forgotten. Depth is limited to serde_json's 128, so that every
//! recursive walk of an accepted tree fits a small stack; the number of bytes is the caller's limit.

use crate::check::{FieldPath, FieldProblem, PROBLEMS_MAX, ProblemKind};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// How deep a tree may be; also the limit for patched trees.
pub const DEPTH_MAX: usize = 128;

/// A parsed document and the keys that came twice in one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub duplicates: Vec<FieldProblem>,
}

/// The bytes are not one JSON value.
#[derive(Debug, thiserror::Error)]
#[error("the body is not valid JSON: {source}")]
pub struct DecodeError {
    source: serde_json::Error,
}

/// Parses one JSON value. Errors on syntax, on depth over [`DEPTH_MAX`], and on bytes after the value.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut duplicates = Duplicates::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Tree(&mut duplicates)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|source| DecodeError { source })?;
    Ok(Decoded { value, duplicates: duplicates.found })
}

/// How many levels of objects and arrays a value has; a scalar has none.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[derive(Default)]
struct Duplicates {
    path: FieldPath,
    found: Vec<FieldProblem>,
}

struct Tree<'a>(&'a mut Duplicates);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            self.0.path.push_index(items.len());
            let item = access.next_element_seed(Tree(self.0))?;
            self.0.path.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            self.0.path.push_field(&name);
            if fields.contains_key(&name) && self.0.found.len() < PROBLEMS_MAX {
                let path = self.0.path.to_string();
                self.0.found.push(FieldProblem { path, kind: ProblemKind::Duplicate });
            }
            let value = access.next_value_seed(Tree(self.0))?;
            self.0.path.pop();
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests;
