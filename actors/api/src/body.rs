//! From the bytes of a request to a tree: JSON or YAML, within limits, with every refusal as a `Status`.
//!
//! Limits come before work: size first, then nesting while parsing. Duplicate fields are found here, because a tree
//! can't hold them; strict validation refuses them, Warn tells of them. serde_json itself stops at 128 levels, which is
//! far above any object of Kubernetes.

use std::cell::RefCell;
use std::fmt;

use kactor_objects::Status;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, de};
use serde_json::{Map, Number, Value};

use crate::request::Body;

/// Largest request body, as etcd's and Kubernetes' own limit on a write.
pub const BODY_BYTES_MAX: usize = 3 << 20;
/// Most duplicate fields that are reported for one body.
const DUPLICATES_MAX: usize = 32;

/// A parsed body, and the paths of fields that stood in it twice (the last one counts).
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub tree: Value,
    pub duplicates: Vec<String>,
}

pub fn parse(body: &Body) -> Result<Parsed, Status> {
    let (content_type, bytes) = match body {
        Body::Tree(tree) => return Ok(Parsed { tree: tree.clone(), duplicates: Vec::new() }),
        Body::Encoded { content_type, bytes } => (content_type, bytes),
    };
    if bytes.len() > BODY_BYTES_MAX {
        return Err(Status::request_entity_too_large(format!("limit is {BODY_BYTES_MAX}")));
    }
    let media = content_type.split(';').next().unwrap_or_default().trim();
    match media {
        "" | "application/json" | "application/json-patch+json" | "application/merge-patch+json"
        | "application/strategic-merge-patch+json" | "text/json" => parse_json(bytes),
        "application/yaml" | "application/apply-patch+yaml" | "text/yaml" | "application/x-yaml" => parse_yaml(bytes),
        other => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml (it was {other:?})"
        ))),
    }
}

pub fn parse_json(bytes: &[u8]) -> Result<Parsed, Status> {
    let duplicates = RefCell::new(Vec::new());
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let tree = Tree { path: Path::Root, duplicates: &duplicates }
        .deserialize(&mut input)
        .and_then(|tree| input.end().map(|()| tree))
        .map_err(|error| Status::bad_request(format!("the object provided is unrecognized (must be valid JSON): {error}")))?;
    Ok(Parsed { tree, duplicates: duplicates.into_inner() })
}

fn parse_yaml(bytes: &[u8]) -> Result<Parsed, Status> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: {error}")))?;
    let tree: Value = serde_saphyr::from_str(text)
        .map_err(|error| Status::bad_request(format!("error converting YAML to JSON: yaml: {error}")))?;
    Ok(Parsed { tree, duplicates: Vec::new() })
}

/// Builds a `Value` as serde_json does, and notes the paths of keys that come twice.
struct Tree<'a> {
    path: Path<'a>,
    duplicates: &'a RefCell<Vec<String>>,
}

/// Where the parser stands; printed only when there is something to report.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, at) => write!(f, "{parent}[{at}]"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_f64<E: de::Error>(self, it: f64) -> Result<Value, E> {
        Number::from_f64(it).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_string<E>(self, it: String) -> Result<Value, E> {
        Ok(it.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        loop {
            let path = Path::Item(&self.path, out.len());
            match input.next_element_seed(Tree { path, duplicates: self.duplicates })? {
                Some(item) => out.push(item),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = input.next_key::<String>()? {
            if key.contains('\0') {
                return Err(A::Error::custom("a field name holds a zero character"));
            }
            let path = Path::Field(&self.path, &key);
            if out.contains_key(&key) && self.duplicates.borrow().len() < DUPLICATES_MAX {
                self.duplicates.borrow_mut().push(path.to_string());
            }
            let value = input.next_value_seed(Tree { path, duplicates: self.duplicates })?;
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_fields_are_reported_with_their_path_and_the_last_counts() {
        let parsed = parse_json(br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#).unwrap();
        assert_eq!(parsed.tree, json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(parsed.duplicates, ["b[0].c", "a"]);
    }

    #[test]
    fn malformed_deep_and_oversized_bodies_are_refused_without_work() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for (body, code) in [
            (Body::json(&b"{"[..]), 400),
            (Body::json(&b"{} {}"[..]), 400),
            (Body::json(deep.into_bytes()), 400),
            (Body::json(vec![b' '; BODY_BYTES_MAX + 1]), 413),
            (Body::Encoded { content_type: "application/vnd.kubernetes.protobuf".into(), bytes: "k8s".into() }, 415),
            (Body::Encoded { content_type: "application/yaml".into(), bytes: "a: [".into() }, 400),
        ] {
            assert_eq!(parse(&body).unwrap_err().code, code);
        }
    }

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        let yaml = Body::Encoded {
            content_type: "application/yaml; charset=utf-8".into(),
            bytes: "a: 1\nb:\n- c: x\n  d: true\n".into(),
        };
        assert_eq!(parse(&yaml).unwrap().tree, json!({"a": 1, "b": [{"c": "x", "d": true}]}));
    }
}
