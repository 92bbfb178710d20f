//! The default plugins, one file each where there is something to say.

pub mod affinity;
pub mod node;
pub mod resources;
pub mod spread;

use std::cmp::Ordering;

use serde_json::{Value, json};

use crate::framework::{Bind, Plugin, QueueSort, Seeker};

/// The highest priority first, then who waits longest.
pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }

    fn queue_sort(&self) -> Option<&dyn QueueSort> {
        Some(self)
    }
}

impl QueueSort for PrioritySort {
    fn compare(&self, a: &Seeker, b: &Seeker) -> Ordering {
        b.spec
            .priority
            .cmp(&a.spec.priority)
            .then_with(|| a.created.cmp(&b.created))
            .then_with(|| a.key.cmp(&b.key))
    }
}

/// Binds by `pods/binding`.
pub struct DefaultBinder;

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn bind(&self) -> Option<&dyn Bind> {
        Some(self)
    }
}

impl Bind for DefaultBinder {
    fn bind(&self, pod: &Seeker, node: &str) -> Option<Value> {
        Some(json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {
                "name": pod.key.name(),
                "namespace": pod.key.namespace(),
                "uid": pod.uid,
            },
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }))
    }
}
