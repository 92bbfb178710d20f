//! From the bytes of a request to a tree: JSON or YAML, within limits, with every refusal as a `Status`.
//!
//! Limits come before work: size first, then nesting while parsing (kactor-schema `decode`). Duplicate fields are found
//! while parsing, because a tree can't hold them; strict validation refuses them, Warn tells of them.

use kactor_objects::status::Status;
use kactor_schema::{FieldProblem, decode};
use serde_json::Value;

use crate::request::Body;

/// Largest request body, as etcd's and Kubernetes' own limit on a write.
pub const BODY_BYTES_MAX: usize = 3 << 20;
/// What a 415 names.
const ACCEPTED: &[&str] = &["application/json", "application/yaml"];

/// A parsed body, and the fields that stood in it twice (the last one counts).
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub tree: Value,
    pub duplicates: Vec<FieldProblem>,
}

pub fn parse(body: &Body) -> Result<Parsed, Status> {
    let (content_type, bytes) = match body {
        Body::Tree(tree) => return Ok(Parsed { tree: tree.clone(), duplicates: Vec::new() }),
        Body::Encoded { content_type, bytes } => (content_type, bytes),
    };
    if bytes.len() > BODY_BYTES_MAX {
        return Err(Status::request_too_large(BODY_BYTES_MAX));
    }
    let media = content_type.split(';').next().unwrap_or_default().trim();
    match media {
        "" | "text/json" => parse_json(bytes),
        "text/yaml" | "application/x-yaml" => parse_yaml(bytes),
        _ if media.starts_with("application/") && media.ends_with("json") => parse_json(bytes),
        _ if media.starts_with("application/") && media.ends_with("yaml") => parse_yaml(bytes),
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

fn parse_json(bytes: &[u8]) -> Result<Parsed, Status> {
    let decoded = decode(bytes).map_err(|error| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type JSON): {error}"
        ))
    })?;
    Ok(Parsed { tree: decoded.value, duplicates: decoded.duplicates })
}

fn parse_yaml(bytes: &[u8]) -> Result<Parsed, Status> {
    let wrong =
        |why: String| Status::bad_request(format!("error converting YAML to JSON: yaml: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
    let tree: Value = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    // Through JSON once more: YAML has values that JSON has not, and its own limit on depth.
    let printed = serde_json::to_vec(&tree).map_err(|error| wrong(error.to_string()))?;
    if printed.len() > BODY_BYTES_MAX {
        return Err(Status::request_too_large(BODY_BYTES_MAX));
    }
    parse_json(&printed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_fields_are_reported_with_their_path_and_the_last_counts() {
        let parsed = parse(&Body::json(&br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#[..])).unwrap();
        assert_eq!(parsed.tree, json!({"a": 3, "b": [{"c": 2}]}));
        let shown: Vec<String> = parsed.duplicates.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [r#"duplicate field "b[0].c""#, r#"duplicate field "a""#]);
    }

    #[test]
    fn malformed_deep_and_oversized_bodies_are_refused() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let yaml = |bytes: &'static str| Body::Encoded {
            content_type: "application/yaml".into(),
            bytes: bytes.into(),
        };
        for (body, code) in [
            (Body::json(&b"{"[..]), 400),
            (Body::json(&b"{} {}"[..]), 400),
            (Body::json(deep.into_bytes()), 400),
            (Body::json(vec![b' '; BODY_BYTES_MAX + 1]), 413),
            (
                Body::Encoded {
                    content_type: "application/vnd.kubernetes.protobuf".into(),
                    bytes: "k8s".into(),
                },
                415,
            ),
            (yaml("a: ["), 400),
            (
                yaml(
                    "a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]",
                ),
                400,
            ),
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
