//! What the store says of itself: for `kactor inspect store`, `kactor raft` and `kactor status`.
//!
//! Numbers and names of kinds only; no key and no body is in it. All of it is kept up to date elsewhere, so that asking
//! costs the same whatever the store holds.

use kactor_state::ClusterState;
use kactor_store::{LogStatus, Store, WriteState};
use serde_json::{Value, json};

/// The store at this moment, as one JSON object.
pub fn report(store: &Store) -> Value {
    let log = store.status();
    let leadership = store.leadership().current();
    let state = store.table().read();
    let kinds = kinds(&state);
    let checksum =
        state.checksums().values().fold(0_u64, |sum, it| sum.wrapping_add(it.sum).rotate_left(1));
    json!({
        "replica": log.replica.0,
        "leader": leadership.leader.map(|it| it.0),
        "leads": leadership.ours.is_some(),
        "term": log.term,
        "reign": state.reign().0,
        "epoch": state.epoch(),
        "revision": state.revision().0,
        "compacted": state.compacted().0,
        "feature_level": state.feature_level(),
        "log": {
            "last": log.last_index,
            "committed": log.committed_index,
            "applied": log.applied_index,
        },
        "journal": {
            "bytes": log.journal_bytes,
            "segments": log.journal_segments,
            "syncs": log.n_syncs,
            "sync_us": {
                "last": log.sync_us_last,
                "p50": log.sync_latency.us_p50,
                "p99": log.sync_latency.us_p99,
                "max": log.sync_us_max,
                "of_last": log.sync_latency.n_recent,
            },
        },
        "checkpoint": {
            "index": log.checkpoint.index,
            "age_ms": log.checkpoint.age.map(|it| it.as_millis()),
            "pending_bytes": log.checkpoint.pending_bytes,
            "disk_bytes": log.checkpoint.disk_bytes,
        },
        "state": {
            "objects": state.n_objects(),
            "live_bytes": state.live_bytes(),
            "past_bytes": state.past_bytes(),
            "checksum": format!("{checksum:016x}"),
            "kinds": kinds,
        },
        "watchers": store.table().n_watchers(),
        "proposals_waiting": store.n_proposals(),
        "writes": writes(&log),
        "stopped_at": log.stopped.map(|it| json!({ "index": it.index, "cause": it.cause })),
        "trouble": log.trouble,
    })
}

/// How many objects there are of each kind, and their size.
pub fn kinds(state: &ClusterState) -> Vec<Value> {
    let row = |(range, sum): (&String, &kactor_state::RangeSum)| {
        json!({
            "kind": kind_of(range),
            "objects": sum.n_objects,
            "bytes": state.range_bytes(range),
            "checksum": format!("{:016x}", sum.sum),
        })
    };
    state.checksums().iter().map(row).collect()
}

/// `/apps/deployments/` as `deployments.apps`, the way kubectl names it.
fn kind_of(range: &str) -> String {
    let mut parts = range.split('/').skip(1);
    let (group, resource) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    }
}

fn writes(log: &LogStatus) -> &'static str {
    match (&log.stopped, log.writes) {
        (None, WriteState::Open) => "open",
        (None, WriteState::Full { .. }) => "refused: the disk is almost full",
        _ => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_kubectl_names_them() {
        assert_eq!(kind_of("//pods/"), "pods");
        assert_eq!(kind_of("/apps/deployments/"), "deployments.apps");
    }
}
