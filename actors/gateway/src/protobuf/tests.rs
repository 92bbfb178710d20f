//! Bodies built by hand, field by field, as client-go writes them.

use proptest::prelude::*;

use super::*;

fn tag(out: &mut Vec<u8>, number: u64, wire_type: u64) {
    put(out, number << 3 | wire_type);
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A message of these fields.
fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, bytes) in fields {
        tag(&mut out, *number, 2);
        put(&mut out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
    out
}

fn int(number: u64, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    tag(&mut out, number, 0);
    put(&mut out, value.cast_unsigned());
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = message(&[(1, api_version.as_bytes()), (2, kind.as_bytes())]);
    [MAGIC, &message(&[(1, &type_meta), (2, raw), (3, b""), (4, b"")])].concat()
}

/// Every text of ObjectMeta is written, empty or not, and a zero time as an empty message.
fn metadata(name: &str) -> Vec<u8> {
    let texts =
        message(&[(1, name.as_bytes()), (2, b""), (3, b"default"), (4, b""), (5, b""), (6, b"")]);
    let label = message(&[(1, b"app"), (2, b"web")]);
    [texts, int(7, 0), message(&[(8, b""), (11, &label)])].concat()
}

#[test]
fn a_deployment_is_what_the_client_would_have_sent_as_json() {
    let quantity = message(&[(1, b"64Mi")]);
    let limit = message(&[(1, b"memory"), (2, &quantity)]);
    let port_of_probe = [int(1, 1), int(2, 0), message(&[(3, b"http")])].concat();
    let get = message(&[(1, b"/"), (2, &port_of_probe), (3, b""), (4, b"")]);
    let handler = message(&[(2, &get)]);
    let probe = [message(&[(1, &handler)]), int(2, 0), int(3, 0), int(4, 7)].concat();
    let container = message(&[
        (1, b"app"),
        (2, b"demo"),
        (3, b"run"),
        (3, b"fast"),
        (5, b""),
        (8, &message(&[(1, &limit)])),
        (10, &probe),
        (13, b""),
    ]);
    let pod_spec = [message(&[(2, &container), (3, b"")]), int(11, 0)].concat();
    let template = message(&[(1, &metadata("")), (2, &pod_spec)]);
    let surge = [int(1, 0), int(2, 1), message(&[(3, b"")])].concat();
    let strategy = message(&[(1, b""), (2, &message(&[(2, &surge)]))]);
    let spec =
        [int(1, 0), message(&[(3, &template), (4, &strategy)]), int(5, 0), int(7, 0)].concat();
    let raw = message(&[(1, &metadata("web")), (2, &spec), (3, b"")]);
    let decoded = decode(&envelope("apps/v1", "Deployment", &raw)).unwrap();
    assert_eq!(decoded.warnings, Vec::<String>::new());
    assert_eq!(
        decoded.tree,
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default", "creationTimestamp": null, "labels": {"app": "web"}},
            "spec": {
                "replicas": 0, // A pointer: this zero was meant.
                "template": {
                    "metadata": {"namespace": "default", "creationTimestamp": null, "labels": {"app": "web"}},
                    "spec": {"containers": [{
                        "name": "app",
                        "image": "demo",
                        "command": ["run", "fast"],
                        "resources": {"limits": {"memory": "64Mi"}},
                        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 7},
                    }]},
                },
                "strategy": {"rollingUpdate": {"maxSurge": 1}},
            },
            "status": {},
        })
    );
}

#[test]
fn special_forms_are_read() {
    let data = message(&[(1, b"k"), (2, b"\x00\xff")]);
    let secret = message(&[(1, &metadata("s")), (2, &data), (3, b"Opaque")]);
    let tree = decode(&envelope("v1", "Secret", &secret)).unwrap().tree;
    assert_eq!(tree["data"], json!({"k": "AP8="}));

    let time = [int(1, 86_400), int(2, 5_000)].concat();
    let lease = message(&[(1, &metadata("l")), (2, &message(&[(1, b"me"), (3, &time)]))]);
    let tree = decode(&envelope("coordination.k8s.io/v1", "Lease", &lease)).unwrap().tree;
    assert_eq!(tree["spec"]["acquireTime"], "1970-01-02T00:00:00.000005Z");

    let options = [int(1, 0), message(&[(4, b"Foreground"), (5, b"All")])].concat();
    let tree = decode(&envelope("apps/v1", "DeleteOptions", &options)).unwrap().tree;
    assert_eq!(tree["gracePeriodSeconds"], 0);
    assert_eq!(
        (&tree["propagationPolicy"], &tree["dryRun"]),
        (&json!("Foreground"), &json!(["All"]))
    );

    let extra = message(&[(1, b"scopes"), (2, &message(&[(1, b"a"), (1, b"b")]))]);
    let review = message(&[(1, b""), (2, &message(&[(3, b"jane"), (5, &extra)]))]);
    let tree =
        decode(&envelope("authorization.k8s.io/v1", "SubjectAccessReview", &review)).unwrap().tree;
    assert_eq!(tree["spec"]["extra"], json!({"scopes": ["a", "b"]}));
}

#[test]
fn what_cannot_be_read_says_what_it_is() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
    assert!(matches!(
        decode(&envelope("acme.com/v1", "Thing", b"")),
        Err(ProtobufError::Kind { .. })
    ));
    assert!(matches!(
        decode(&envelope("v1", "Pod", b"\x0a\xff")),
        Err(ProtobufError::Malformed(_))
    ));
    let newer = message(&[(1, &metadata("c")), (99, b"?")]);
    let decoded = decode(&envelope("v1", "ConfigMap", &newer)).unwrap();
    assert_eq!(decoded.warnings, ["unknown field 99 of k8s.io/api/core/v1.ConfigMap"]);
}

#[test]
fn every_type_that_a_field_names_is_there() {
    for (name, fields) in TYPES.iter() {
        for field in fields.values() {
            if let Form::Message(inner) = &field.form {
                assert!(TYPES.contains_key(inner), "{name} has a {inner}");
            }
        }
    }
}

#[test]
fn every_registered_kind_that_is_sent_can_be_read() {
    use kactor_objects::registry::{Verb, registry};
    for kind in registry().iter().filter(|it| it.allows(Verb::Create)) {
        let found = type_name(&kind.api_version(), kind.kind);
        assert!(found.is_some(), "{} {}", kind.api_version(), kind.kind);
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_usize..3) {
        let (api_version, kind) = [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "DeleteOptions")][kind];
        let _ = decode(&envelope(api_version, kind, &raw));
        let _ = decode(&[MAGIC, &raw].concat());
    }
}
