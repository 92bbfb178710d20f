//! PodDisruptionBudgets: how many pods of a set evictions must leave.

use serde_json::{Value, json};

use super::pod_template;
use crate::field_error::{FieldError, Path};
use crate::labels;
use crate::meta;
use crate::registry::{PutWithoutRevision, Strategy, SubresourceStrategy};
use crate::table::{self, Column, Printer};
use crate::tree;
use crate::writes;

pub const STRATEGY: Strategy = Strategy {
    prepare_create: |budget| {
        let status = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        tree::put(budget, "status", status);
        meta::put_generation(budget, 1);
    },
    prepare_update: |new, old| {
        tree::copy(new, old, "status");
        writes::bump_generation(new, old, tree::at(new, "spec") != tree::at(old, "spec"));
    },
    validate,
    put_without_revision: PutWithoutRevision::Refuse,
    ..Strategy::PLAIN
};

pub const STATUS: SubresourceStrategy = SubresourceStrategy {
    prepare: writes::only_status,
    validate: |new, _| {
        ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]
            .iter()
            .filter_map(|it| pod_template::not_negative(new, &format!("status.{it}")))
            .collect()
    },
};

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Min Available", "Pods that must stay available."),
        Column::text("Max Unavailable", "Pods that may be unavailable."),
        Column::integer("Allowed Disruptions", "Pods that may be disrupted now."),
        Column::AGE,
    ],
    cells: |budget, now| {
        let wish = |path| match tree::at(budget, path) {
            Value::Null => json!("N/A"),
            Value::String(it) => json!(it),
            it => json!(it.to_string()),
        };
        vec![
            json!(meta::name(budget)),
            wish("spec.minAvailable"),
            wish("spec.maxUnavailable"),
            json!(tree::integer(budget, "status.disruptionsAllowed").unwrap_or(0)),
            table::age(budget, now),
        ]
    },
};

fn validate(budget: &Value) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let mut errors = Vec::new();
    let present = |field| !tree::at(budget, field).is_null();
    if present("spec.minAvailable") && present("spec.maxUnavailable") {
        errors.push(FieldError::invalid(
            spec.clone(),
            tree::at(budget, "spec").clone(),
            "minAvailable and maxUnavailable cannot be both set",
        ));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let value = tree::at(budget, "spec").get(field).unwrap_or(&Value::Null);
        if value.is_null() {
            continue;
        }
        let path = spec.child(field);
        errors.extend(pod_template::validate_int_or_percent(value, &path));
        if pod_template::percent(value).is_some_and(|it| it > 100) {
            errors.push(FieldError::invalid(path, value.clone(), "must not be greater than 100%"));
        }
    }
    errors.extend(labels::validate(tree::at(budget, "spec.selector"), &spec.child("selector")));
    let policy = tree::text(budget, "spec.unhealthyPodEvictionPolicy");
    if !matches!(policy, "" | "IfHealthyBudget" | "AlwaysAllow") {
        let path = spec.child("unhealthyPodEvictionPolicy");
        let known = ["AlwaysAllow", "IfHealthyBudget"];
        errors.push(FieldError::not_supported(path, policy, &known));
    }
    errors
}
