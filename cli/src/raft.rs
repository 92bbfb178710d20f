//! `kactor raft`: the store's report as an operator reads it at night, in words and units.

use serde_json::Value;

use crate::print::{bytes, span, table};

/// The report of the actor `store`, as text.
pub fn text(store: &Value) -> String {
    let number = |path: &str| store.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let size = |path: &str| bytes(number(path));
    let ms = |path: &str| format!("{:.1} ms", number(path) as f64 / 1000.0);
    let word = |path: &str| store.pointer(path).and_then(Value::as_str).unwrap_or("none");
    let role = match (store["leads"] == true, store["leader"].as_u64()) {
        (true, _) => "leads".to_owned(),
        (false, Some(leader)) => format!("follows replica {leader}"),
        (false, None) => "no leader is known".to_owned(),
    };
    let rows = [
        ("replica", format!("{}, {role}", number("/replica"))),
        (
            "term",
            format!(
                "{}, reign {}, epoch {}, feature level {}",
                number("/term"),
                number("/reign"),
                number("/epoch"),
                number("/feature_level")
            ),
        ),
        (
            "log",
            format!(
                "last {}, committed {}, applied {}",
                number("/log/last"),
                number("/log/committed"),
                number("/log/applied")
            ),
        ),
        (
            "revision",
            format!(
                "{}; can be read and watched from {} on",
                number("/revision"),
                number("/compacted")
            ),
        ),
        (
            "journal",
            format!(
                "{} on disk, {} in use",
                size("/journal/bytes"),
                segments(number("/journal/segments"))
            ),
        ),
        (
            "syncs",
            format!(
                "{}; of the last {}: half within {}, 99 % within {}; longest ever {}",
                number("/journal/syncs"),
                number("/journal/sync_us/of_last"),
                ms("/journal/sync_us/p50"),
                ms("/journal/sync_us/p99"),
                ms("/journal/sync_us/max")
            ),
        ),
        ("checkpoint", checkpoint(&store["checkpoint"])),
        (
            "state",
            format!(
                "{} objects, {}; {} of the past; checksum {}",
                number("/state/objects"),
                size("/state/live_bytes"),
                size("/state/past_bytes"),
                word("/state/checksum")
            ),
        ),
        (
            "clients",
            format!(
                "{} watchers, {} proposals wait",
                number("/watchers"),
                number("/proposals_waiting")
            ),
        ),
        ("writes", word("/writes").to_owned()),
        ("trouble", word("/trouble").to_owned()),
    ];
    let mut out: String =
        rows.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect();
    out.push('\n');
    out.push_str(&kinds(&store["state"]["kinds"]));
    out
}

fn segments(n: u64) -> String {
    format!("{n} segment{}", if n == 1 { "" } else { "s" })
}

fn checkpoint(checkpoint: &Value) -> String {
    let size = |name: &str| bytes(checkpoint[name].as_u64().unwrap_or_default());
    let made = match (checkpoint["index"].as_u64(), checkpoint["age_ms"].as_u64()) {
        (None, _) => "none yet".to_owned(),
        (Some(index), None) => format!("of entry {index}, from before this start"),
        (Some(index), Some(age)) => format!("of entry {index}, {} ago", span(age / 1000)),
    };
    format!(
        "{made}; {} changed since, in the journal alone; {} on disk",
        size("pending_bytes"),
        size("disk_bytes")
    )
}

/// The largest kinds first.
fn kinds(kinds: &Value) -> String {
    let mut sorted: Vec<&Value> = kinds.as_array().into_iter().flatten().collect();
    sorted.sort_by_key(|it| std::cmp::Reverse(it["bytes"].as_u64()));
    let row = |it: &&Value| {
        let kind = it["kind"].as_str().unwrap_or_default().to_owned();
        let objects = it["objects"].as_u64().unwrap_or_default();
        vec![kind, objects.to_string(), bytes(it["bytes"].as_u64().unwrap_or_default())]
    };
    table(&["KIND", "OBJECTS", "SIZE"], &sorted.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_read_without_a_manual() {
        let report = json!({
            "replica": 1, "leader": 1, "leads": true, "term": 2, "reign": 3, "epoch": 0,
            "revision": 98, "compacted": 12, "feature_level": 1,
            "log": {"last": 120, "committed": 120, "applied": 119},
            "journal": {
                "bytes": 50_331_648, "segments": 1, "syncs": 210,
                "sync_us": {"last": 400, "p50": 420, "p99": 3100, "max": 9000, "of_last": 210},
            },
            "checkpoint": {"index": 80, "age_ms": 75_000, "pending_bytes": 4300, "disk_bytes": 524_288},
            "state": {
                "objects": 3, "live_bytes": 900, "past_bytes": 0, "checksum": "00ab",
                "kinds": [
                    {"kind": "pods", "objects": 1, "bytes": 200},
                    {"kind": "deployments.apps", "objects": 2, "bytes": 700},
                ],
            },
            "watchers": 4, "proposals_waiting": 0, "writes": "open", "trouble": null,
        });
        let expected = "\
replica     1, leads
term        2, reign 3, epoch 0, feature level 1
log         last 120, committed 120, applied 119
revision    98; can be read and watched from 12 on
journal     48.0 MiB on disk, 1 segment in use
syncs       210; of the last 210: half within 0.4 ms, 99 % within 3.1 ms; longest ever 9.0 ms
checkpoint  of entry 80, 1m15s ago; 4.2 KiB changed since, in the journal alone; 512.0 KiB on disk
state       3 objects, 900 B; 0 B of the past; checksum 00ab
clients     4 watchers, 0 proposals wait
writes      open
trouble     none

KIND              OBJECTS  SIZE
deployments.apps  2        700 B
pods              1        200 B
";
        assert_eq!(text(&report), expected);
        assert!(text(&json!({})).starts_with("replica     0, no leader is known\n"));
    }
}
