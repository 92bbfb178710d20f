//! Duplicates, depth, and that nothing else differs from serde_json.

use super::*;
use proptest::prelude::*;

#[test]
fn duplicate_keys_are_reported_with_their_paths_and_the_last_wins() {
    let body =
        br#"{"spec":{"a":1,"a":2,"list":[{"x":1},{"x":1,"x":3}]},"spec":{"b":[{"c":1,"c":2}]}}"#;
    let decoded = decode(body).expect("valid JSON");
    let shown: Vec<String> = decoded.duplicates.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            r#"duplicate field "spec.a""#,
            r#"duplicate field "spec.list[1].x""#,
            r#"duplicate field "spec""#,
            r#"duplicate field "spec.b[0].c""#,
        ]
    );
    assert_eq!(decoded.value, serde_json::json!({"spec": {"b": [{"c": 2}]}}));
}

#[test]
fn depth_is_limited_before_the_stack_is() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(decode(deep(DEPTH_MAX - 1).as_bytes()).is_ok());
    for levels in [DEPTH_MAX + 1, 100_000] {
        let error = decode(deep(levels).as_bytes()).expect_err("too deep");
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }
}

#[test]
fn broken_and_trailing_bytes_are_refused() {
    for body in ["", "{", "{}x", "{} {}", r#"{"a":}"#, "nul", "\"\\ud800\"", "1e999"] {
        assert!(decode(body.as_bytes()).is_err(), "{body:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_give_what_serde_json_gives(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let theirs: Result<Value, _> = serde_json::from_slice(&bytes);
        prop_assert_eq!(decode(&bytes).map(|decoded| decoded.value).ok(), theirs.ok());
    }
}
