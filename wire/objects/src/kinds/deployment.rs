//! Deployments: rolling-update defaults, checks, a generation that counts changes of spec and annotations.

use serde_json::{Value, json};

use super::pod_template;
use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::registry::{Strategy, SubresourceStrategy};
use crate::table::{self, Column, Printer};
use crate::tree;
use crate::writes;

const ROLLING_UPDATE: &str = "RollingUpdate";
const RECREATE: &str = "Recreate";

pub const STRATEGY: Strategy = Strategy {
    default,
    prepare_create: |deployment| {
        writes::reset_status(deployment);
        meta::put_generation(deployment, 1);
    },
    prepare_update: |new, old| {
        tree::copy(new, old, "status");
        // Annotations count too: they are synced to the ReplicaSets.
        let annotations = |it: &Value| match meta::annotations(it) {
            it if tree::is_empty(it) => Value::Null,
            it => it.clone(),
        };
        let changed =
            tree::at(new, "spec") != tree::at(old, "spec") || annotations(new) != annotations(old);
        writes::bump_generation(new, old, changed);
    },
    validate,
    validate_update: |new, old| {
        let path = Path::new("spec.selector");
        meta::validate::immutable(new, old, "spec.selector", &path).into_iter().collect()
    },
    ..Strategy::PLAIN
};

pub const STATUS: SubresourceStrategy = SubresourceStrategy {
    prepare: |new, old| {
        writes::only_status(new, old);
        tree::copy(new, old, "metadata.labels");
    },
    validate: |new, _| validate_status(new),
};

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Ready", "Ready replicas of those wanted."),
        Column::text("Up-to-date", "Replicas of the newest template."),
        Column::text("Available", "Replicas that have been ready long enough."),
        Column::AGE,
        Column::text("Containers", "Names of the containers in the template.").wide(),
        Column::text("Images", "Images of the containers in the template.").wide(),
        Column::text("Selector", "Which pods belong to it.").wide(),
    ],
    cells: |it, now| {
        let count = |path| tree::integer(it, path).unwrap_or(0);
        let (containers, images) = pod_template::names_and_images(tree::at(it, "spec.template"));
        let ready = format!("{}/{}", count("status.readyReplicas"), count("spec.replicas"));
        vec![
            json!(meta::name(it)),
            json!(ready),
            json!(count("status.updatedReplicas")),
            json!(count("status.availableReplicas")),
            table::age(it, now),
            json!(containers),
            json!(images),
            json!(crate::labels::print_object(tree::at(it, "spec.selector"))),
        ]
    },
};

fn default(deployment: &mut Value) {
    tree::fill(deployment, "spec.replicas", 1);
    tree::fill(deployment, "spec.strategy.type", ROLLING_UPDATE);
    if tree::text(deployment, "spec.strategy.type") == ROLLING_UPDATE {
        for field in ["maxUnavailable", "maxSurge"] {
            let path = format!("spec.strategy.rollingUpdate.{field}");
            tree::fill(deployment, &path, "25%");
        }
    }
    tree::fill(deployment, "spec.revisionHistoryLimit", 10);
    tree::fill(deployment, "spec.progressDeadlineSeconds", 600);
    pod_template::default(tree::place(deployment, "spec.template"));
}

fn validate(deployment: &Value) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let mut errors = Vec::new();
    errors.extend(pod_template::not_negative(deployment, "spec.replicas"));
    errors.extend(pod_template::validate_selector(deployment, &spec));
    errors.extend(pod_template::validate_of_workload(deployment, &spec));
    errors.extend(validate_strategy(tree::at(deployment, "spec.strategy")));
    for field in ["spec.minReadySeconds", "spec.revisionHistoryLimit"] {
        errors.extend(pod_template::not_negative(deployment, field));
    }
    errors.extend(pod_template::not_negative(deployment, "spec.progressDeadlineSeconds"));
    let min_ready = tree::integer(deployment, "spec.minReadySeconds").unwrap_or(0);
    if let Some(deadline) = tree::integer(deployment, "spec.progressDeadlineSeconds")
        && deadline <= min_ready
    {
        let path = Path::new("spec.progressDeadlineSeconds");
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(path, deadline, why));
    }
    errors
}

fn validate_strategy(strategy: &Value) -> Vec<FieldError> {
    let path = Path::new("spec.strategy");
    let rolling = tree::at(strategy, "rollingUpdate");
    match tree::text(strategy, "type") {
        RECREATE if rolling.is_null() => Vec::new(),
        RECREATE => vec![FieldError::forbidden(
            path.child("rollingUpdate"),
            "may not be specified when strategy `type` is 'Recreate'",
        )],
        ROLLING_UPDATE => validate_rolling(rolling, &path.child("rollingUpdate")),
        other => {
            vec![FieldError::not_supported(path.child("type"), other, &[RECREATE, ROLLING_UPDATE])]
        }
    }
}

fn validate_rolling(rolling: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["maxUnavailable", "maxSurge"] {
        let value = tree::at(rolling, field);
        errors.extend(pod_template::validate_int_or_percent(value, &path.child(field)));
    }
    let is_zero = |field| match tree::at(rolling, field) {
        Value::String(it) => it.trim_end_matches('%').parse() == Ok(0),
        it => it.as_i64() == Some(0),
    };
    if is_zero("maxUnavailable") && is_zero("maxSurge") {
        errors.push(FieldError::invalid(
            path.child("maxUnavailable"),
            tree::at(rolling, "maxUnavailable").clone(),
            "may not be 0 when `maxSurge` is 0",
        ));
    }
    if let Some(percent) = pod_template::percent(tree::at(rolling, "maxUnavailable"))
        && percent > 100
    {
        errors.push(FieldError::invalid(
            path.child("maxUnavailable"),
            tree::at(rolling, "maxUnavailable").clone(),
            "must not be greater than 100%",
        ));
    }
    errors
}

fn validate_status(deployment: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let replicas = tree::integer(deployment, "status.replicas").unwrap_or(0);
    for field in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ] {
        let path = Path::new("status").child(field);
        errors.extend(pod_template::not_negative(deployment, path.as_str()));
        let counted = matches!(field, "updatedReplicas" | "readyReplicas" | "availableReplicas");
        let count = tree::integer(deployment, path.as_str()).unwrap_or(0);
        if counted && count > replicas {
            let why = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(path, count, why));
        }
    }
    let ready = tree::integer(deployment, "status.readyReplicas").unwrap_or(0);
    let available = tree::integer(deployment, "status.availableReplicas").unwrap_or(0);
    if available > ready {
        let path = Path::new("status.availableReplicas");
        let why = "cannot be greater than readyReplicas";
        errors.push(FieldError::invalid(path, available, why));
    }
    errors
}
