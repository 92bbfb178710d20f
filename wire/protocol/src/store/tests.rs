//! Keys' shape, a transaction's limits, and what each refusal allows.

use bytes::Bytes;

use super::*;

fn key(name: &str) -> Key {
    Key::new("", "pods", "default", name).unwrap()
}

fn put(name: &str, len_bytes: usize) -> Write {
    Write::Put {
        key: key(name),
        precondition: Precondition::Absent,
        value: Value {
            storage_version: 1,
            flags: 0,
            uid: "u".into(),
            body: Bytes::from(vec![b'x'; len_bytes]),
        },
        expires_at: None,
    }
}

fn transaction(writes: Vec<Write>) -> Propose {
    Propose { reign: None, guards: Vec::new(), writes, trace: TraceId(1) }
}

#[test]
fn a_key_gives_back_its_parts() {
    for (text, parts) in [
        ("//pods/default/web", ["", "pods", "default", "web"]),
        ("//nodes//n1", ["", "nodes", "", "n1"]),
        (
            "/rbac.authorization.k8s.io/clusterroles//system:node",
            ["rbac.authorization.k8s.io", "clusterroles", "", "system:node"],
        ),
    ] {
        let key = Key::parse(text).unwrap();
        assert_eq!([key.group(), key.resource(), key.namespace(), key.name()], parts);
        assert_eq!(key.to_string(), text);
    }
}

#[test]
fn malformed_keys_are_refused_also_when_decoded() {
    for text in [
        "",
        "pods",
        "/pods/default/web",
        "//pods/default/",
        "///default/web",
        "//pods/default/a/b",
        "x//pods/default/web",
        "//pods/default/a\nb",
    ] {
        assert!(matches!(Key::parse(text), Err(KeyError::Malformed { .. })), "{text:?}");
        let json = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<Key>(&json).is_err(), "{text:?}");
    }
    let long = format!("//pods/default/{}", "x".repeat(KEY_BYTES_MAX));
    assert!(matches!(Key::parse(&long), Err(KeyError::TooLong { .. })));
    assert!(Key::new("", "pods", "a/b", "c").is_err(), "a part may not smuggle a slash");
}

#[test]
fn a_transaction_is_bounded_in_writes_and_bytes() {
    let many = |n: usize| (0..n).map(|it| put(&format!("p{it}"), 1)).collect::<Vec<_>>();
    let mib = 1 << 20;
    for (writes, allowed, why) in [
        (vec![], false, "nothing to do"),
        (many(WRITES_PER_TRANSACTION_MAX), true, "as many as allowed"),
        (many(WRITES_PER_TRANSACTION_MAX + 1), false, "one too many"),
        (vec![put("a", OBJECT_BYTES_MAX)], true, "the largest object"),
        (vec![put("a", OBJECT_BYTES_MAX + 1)], false, "one byte larger"),
        (vec![put("a", OBJECT_BYTES_MAX), put("b", mib / 2)], true, "the rest is small"),
        (vec![put("a", OBJECT_BYTES_MAX), put("b", mib)], false, "keys count too"),
        (vec![put("a", 1), put("a", 1)], false, "one key twice"),
    ] {
        assert_eq!(transaction(writes).check().is_ok(), allowed, "{why}");
    }
}

#[test]
fn only_a_lost_answer_leaves_the_outcome_unknown() {
    let table = [
        (ProposeError::NotLeader { leader: Some(ReplicaId(2)) }, Retry::Now, false),
        (ProposeError::NotLeader { leader: None }, Retry::After { ms: 100 }, false),
        (ProposeError::Exists { key: key("a") }, Retry::Replan, false),
        (ProposeError::Deposed { reign: Reign(1), current: Reign(2) }, Retry::Never, false),
        (ProposeError::Full, Retry::After { ms: 5_000 }, false),
        (ProposeError::Timeout, Retry::Replan, true),
        (ProposeError::Stopped, Retry::Replan, true),
    ];
    for (error, retry, unknown) in table {
        assert_eq!((error.retry(), error.outcome_is_unknown()), (retry, unknown), "{error}");
    }
}
