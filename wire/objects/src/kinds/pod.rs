//! Pods: the strategy, its subresources, grace periods and quality of service.
//!
//! Defaults are in `default`, checks in `validate`, what an update may change in `update`, table cells in
//! `print`. What upstream does by admission plugins (service account, tolerations, priority) is in
//! `crate::admission`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::meta;
use crate::quantity::{self, Quantity};
use crate::registry::{Strategy, SubresourceStrategy};
use crate::tree;
use crate::writes;

pub mod default;
pub mod print;
pub mod update;
pub mod validate;

pub use print::PRINTER;

pub const STRATEGY: Strategy = Strategy {
    default: default::pod,
    prepare_create,
    prepare_update: |new, old| {
        tree::copy(new, old, "status");
        writes::bump_generation(new, old, tree::at(new, "spec") != tree::at(old, "spec"));
    },
    validate: validate::pod,
    validate_update: update::validate,
    grace_period_seconds: Some(grace_period_seconds),
    ..Strategy::PLAIN
};

pub const STATUS: SubresourceStrategy = SubresourceStrategy {
    prepare: |new, old| {
        writes::only_status(new, old);
        // What was decided at creation stays, whoever leaves it out.
        let class = tree::text(old, "status.qosClass").to_owned();
        if !class.is_empty() {
            tree::put(new, "status.qosClass", class);
        }
    },
    validate: update::validate_status,
};

pub const EPHEMERAL_CONTAINERS: SubresourceStrategy = SubresourceStrategy {
    prepare: |new, old| {
        keep_all_but(new, old, &["spec.ephemeralContainers"]);
        writes::bump_generation(new, old, tree::at(new, "spec") != tree::at(old, "spec"));
    },
    validate: update::validate_ephemeral_containers,
};

pub const RESIZE: SubresourceStrategy = SubresourceStrategy {
    prepare: |new, old| {
        let wished = new.clone();
        keep_all_but(new, old, &[]);
        for list in ["spec.containers", "spec.initContainers"] {
            for container in tree::each_mut(new, list) {
                let name = tree::text(container, "name").to_owned();
                let wish =
                    tree::list(&wished, list).iter().find(|it| tree::text(it, "name") == name);
                if let Some(wish) = wish {
                    tree::copy(container, wish, "resources");
                    tree::copy(container, wish, "resizePolicy");
                }
            }
        }
        writes::bump_generation(new, old, tree::at(new, "spec") != tree::at(old, "spec"));
    },
    validate: update::validate_resize,
};

fn keep_all_but(new: &mut Value, old: &Value, fields: &[&str]) {
    let mut kept = old.clone();
    for field in fields.iter().chain(&["metadata.managedFields", "metadata.resourceVersion"]) {
        tree::copy(&mut kept, new, field);
    }
    *new = kept;
}

fn prepare_create(pod: &mut Value) {
    meta::put_generation(pod, 1);
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(pod)});
    if !tree::list(pod, "spec.schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": null,
            "lastTransitionTime": tree::text(pod, "metadata.creationTimestamp"),
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    tree::put(pod, "status", status);
}

/// How long a deleted pod is waited for: what is asked, else what its spec says; at once when nothing runs.
pub fn grace_period_seconds(pod: &Value, asked: Option<i64>) -> i64 {
    let own = tree::integer(pod, "spec.terminationGracePeriodSeconds").unwrap_or(0);
    let unbound = tree::text(pod, "spec.nodeName").is_empty();
    let ended = matches!(tree::text(pod, "status.phase"), "Failed" | "Succeeded");
    match asked.unwrap_or(own) {
        _ if unbound || ended => 0,
        ..0 => 1,
        seconds => seconds,
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from cpu and memory of all containers.
pub fn qos_class(pod: &Value) -> &'static str {
    let own = tree::at(pod, "spec.resources");
    if !tree::is_empty(own) {
        return class_of(&[own]);
    }
    let containers: Vec<&Value> = ["spec.initContainers", "spec.containers"]
        .into_iter()
        .flat_map(|it| tree::list(pod, it))
        .map(|it| tree::at(it, "resources"))
        .collect();
    class_of(&containers)
}

fn class_of(resources: &[&Value]) -> &'static str {
    let (mut requests, mut limits) = (Sums::new(), Sums::new());
    let mut all_limited = true;
    for it in resources {
        add_counted(&mut requests, it, "requests");
        let limited = add_counted(&mut limits, it, "limits");
        all_limited &= limited == COUNTED.len();
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let same = requests.iter().all(|(name, it)| limits.get(name) == Some(it));
    match all_limited && same && requests.len() == limits.len() {
        true => "Guaranteed",
        false => "Burstable",
    }
}

const COUNTED: [&str; 2] = ["cpu", "memory"];
type Sums = BTreeMap<&'static str, Quantity>;

/// Adds one container's cpu and memory to `sums`; how many of the two it names.
fn add_counted(sums: &mut Sums, resources: &Value, list: &str) -> usize {
    let mut n_named = 0;
    for name in COUNTED {
        let value = tree::at(resources, list).get(name).map(quantity::of_json);
        if let Some(Ok(value)) = value
            && !value.is_zero()
        {
            let sum = sums.entry(name).or_insert(Quantity::ZERO);
            *sum = sum.plus(value);
            n_named += 1;
        }
    }
    n_named
}

#[cfg(test)]
mod tests;
