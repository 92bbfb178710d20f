//! Conditions as they are written: absent fields stay absent, times are whole seconds.

use kactor_protocol::Timestamp;
use kactor_view::Condition;
use serde_json::{Value, json};

/// Kubernetes' `Time` has whole seconds: what was written must compare equal with what is read back.
pub(crate) trait WholeSeconds {
    fn whole_seconds(self) -> Timestamp;
}

impl WholeSeconds for Timestamp {
    fn whole_seconds(self) -> Timestamp {
        Timestamp::from_seconds(self.seconds())
    }
}

pub(crate) fn condition_value(condition: &Condition) -> Value {
    let mut value = json!({"type": condition.kind, "status": condition.status});
    for (field, text) in [("reason", &condition.reason), ("message", &condition.message)] {
        if !text.is_empty() {
            value[field] = text.as_str().into();
        }
    }
    for (field, time) in [
        ("lastTransitionTime", condition.last_transition),
        ("lastUpdateTime", condition.last_update),
        ("lastHeartbeatTime", condition.last_heartbeat),
    ] {
        if let Some(time) = time {
            value[field] = time.to_string().into();
        }
    }
    value
}

pub(crate) fn values(conditions: &[Condition]) -> Value {
    match conditions {
        [] => Value::Null,
        some => some.iter().map(condition_value).collect(),
    }
}
