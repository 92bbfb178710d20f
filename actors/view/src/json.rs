//! Reading fields of JSON trees by RFC 6901 pointers, with Kubernetes' idea that an absent field is its zero.
//!
//! Projections are total: a field of a wrong type reads as absent. The API validated what it stored; what an older
//! or newer version stored must not stop a controller.

use std::collections::BTreeMap;

use kactor_protocol::Timestamp;
use serde_json::Value;

/// The text at `at`, empty when absent.
pub fn text<'a>(of: &'a Value, at: &str) -> &'a str {
    opt_text(of, at).unwrap_or_default()
}

/// The text at `at`; an empty text is absent.
pub fn opt_text<'a>(of: &'a Value, at: &str) -> Option<&'a str> {
    of.pointer(at).and_then(Value::as_str).filter(|it| !it.is_empty())
}

/// The integer at `at`.
pub fn int(of: &Value, at: &str) -> Option<i64> {
    of.pointer(at).and_then(Value::as_i64)
}

/// Whether `true` stands at `at`.
pub fn is_true(of: &Value, at: &str) -> bool {
    of.pointer(at).and_then(Value::as_bool).unwrap_or(false)
}

/// The list at `at`, empty when absent.
pub fn list<'a>(of: &'a Value, at: &str) -> &'a [Value] {
    of.pointer(at).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts in the list at `at`.
pub fn texts(of: &Value, at: &str) -> Vec<String> {
    list(of, at).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The map of texts at `at`, empty when absent.
pub fn text_map(of: &Value, at: &str) -> BTreeMap<String, String> {
    let Some(map) = of.pointer(at).and_then(Value::as_object) else {
        return BTreeMap::new();
    };
    map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The RFC 3339 instant at `at`.
pub fn time(of: &Value, at: &str) -> Option<Timestamp> {
    opt_text(of, at)?.parse().ok()
}

/// Canonical bytes: maps are sorted (serde_json without `preserve_order`), no white space.
pub fn canonical(of: &Value) -> Vec<u8> {
    serde_json::to_vec(of).expect("a JSON tree with text keys always encodes")
}

/// FNV-1a, 64 bits: a stable fingerprint of bytes, equal on every host and version.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
