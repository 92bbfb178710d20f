//! Puts `resourceVersion` into a stored body without parsing it.
//!
//! Stored bodies are canonical JSON (no white space, keys sorted) with a `metadata` object and without
//! `metadata.resourceVersion`: a reader adds the revision at the front of `metadata`. The search for `metadata`
//! skips nested values byte by byte; nearly all kinds have it right behind `apiVersion` and `kind`.

use bytes::{BufMut, Bytes, BytesMut};
use kactor_protocol::ids::Revision;

/// The body with its revision inside.
pub fn with_revision(body: &Bytes, revision: Revision) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 48);
    append(&mut out, body, revision);
    out.freeze()
}

/// Appends the body with its revision inside. A body without `metadata` is appended as it is.
pub fn append(out: &mut BytesMut, body: &[u8], revision: Revision) {
    let Some(at) = metadata_start(body) else {
        out.put_slice(body);
        return;
    };
    out.put_slice(&body[..at]);
    out.put_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
    if body.get(at) != Some(&b'}') {
        out.put_u8(b',');
    }
    out.put_slice(&body[at..]);
}

/// The offset just behind the `{` of the top-level `metadata`.
fn metadata_start(body: &[u8]) -> Option<usize> {
    const KEY: &[u8] = b"\"metadata\":{";
    let mut depth = 0_u32;
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                if depth == 1 && body[at..].starts_with(KEY) && matches!(body[at - 1], b'{' | b',')
                {
                    return Some(at + KEY.len());
                }
                at = string_end(body, at)?;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The offset of the quote that ends the string that begins at `start`.
fn string_end(body: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while at < body.len() {
        match body[at] {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spliced(tree: &Value) -> Value {
        let body = Bytes::from(serde_json::to_vec(tree).unwrap());
        serde_json::from_slice(&with_revision(&body, Revision(7))).unwrap()
    }

    #[test]
    fn the_revision_lands_in_the_objects_own_metadata_and_nowhere_else() {
        for tree in [
            json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}}),
            json!({"data": {"metadata": {"name": "not me"}, "k": "\"metadata\":{"}, "metadata": {}}),
            json!({"data": {"k\\": "}]\\\""}, "kind": "metadata", "metadata": {"labels": {"a": "b"}}}),
        ] {
            let mut expected = tree.clone();
            expected["metadata"]["resourceVersion"] = json!("7");
            assert_eq!(spliced(&tree), expected);
        }
    }

    proptest! {
        #[test]
        fn splicing_equals_setting_the_field_in_the_tree(before in ".*", key in ".*", value in ".*") {
            let tree = json!({"a": {key: [value, {"metadata": {}}]}, "b": before, "metadata": {"uid": "u"}});
            let mut expected = tree.clone();
            expected["metadata"]["resourceVersion"] = json!("7");
            prop_assert_eq!(spliced(&tree), expected);
        }

        #[test]
        fn any_bytes_are_copied_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let body = Bytes::from(body);
            prop_assert!(with_revision(&body, Revision(1)).len() >= body.len());
        }
    }
}
