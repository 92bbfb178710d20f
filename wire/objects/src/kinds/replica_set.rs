//! ReplicaSets: defaults, checks of selector against template, the selector that never changes.

use serde_json::{Value, json};

use super::pod_template;
use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::registry::{Strategy, SubresourceStrategy};
use crate::table::{self, Column, Printer};
use crate::tree;
use crate::writes;

pub const STRATEGY: Strategy = Strategy {
    default: |set| {
        tree::fill(set, "spec.replicas", 1);
        pod_template::default(tree::place(set, "spec.template"));
    },
    prepare_create: |set| {
        writes::reset_status(set);
        tree::put(set, "status.replicas", 0);
        meta::put_generation(set, 1);
    },
    prepare_update: |new, old| {
        tree::copy(new, old, "status");
        writes::bump_generation(new, old, tree::at(new, "spec") != tree::at(old, "spec"));
    },
    validate,
    validate_update: |new, old| {
        let path = Path::new("spec.selector");
        meta::validate::immutable(new, old, "spec.selector", &path).into_iter().collect()
    },
    ..Strategy::PLAIN
};

pub const STATUS: SubresourceStrategy =
    SubresourceStrategy { prepare: writes::only_status, validate: |new, _| validate_status(new) };

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::integer("Desired", "Replicas that are wanted."),
        Column::integer("Current", "Replicas that are there."),
        Column::integer("Ready", "Replicas that are ready."),
        Column::AGE,
        Column::text("Containers", "Names of the containers in the template.").wide(),
        Column::text("Images", "Images of the containers in the template.").wide(),
        Column::text("Selector", "Which pods belong to it.").wide(),
    ],
    cells: |set, now| {
        let count = |path| json!(tree::integer(set, path).unwrap_or(0));
        let (containers, images) = pod_template::names_and_images(tree::at(set, "spec.template"));
        vec![
            json!(meta::name(set)),
            count("spec.replicas"),
            count("status.replicas"),
            count("status.readyReplicas"),
            table::age(set, now),
            json!(containers),
            json!(images),
            json!(crate::labels::print_object(tree::at(set, "spec.selector"))),
        ]
    },
};

fn validate(set: &Value) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let mut errors = Vec::new();
    errors.extend(pod_template::not_negative(set, "spec.replicas"));
    errors.extend(pod_template::not_negative(set, "spec.minReadySeconds"));
    errors.extend(pod_template::validate_selector(set, &spec));
    errors.extend(pod_template::validate_of_workload(set, &spec));
    errors
}

/// Counts that cannot be true, whoever reports them.
fn validate_status(set: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let replicas = tree::integer(set, "status.replicas").unwrap_or(0);
    for field in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        let path = Path::new("status").child(field);
        errors.extend(pod_template::not_negative(set, path.as_str()));
        let count = tree::integer(set, path.as_str()).unwrap_or(0);
        if count > replicas {
            let why = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(path, count, why));
        }
    }
    let ready = tree::integer(set, "status.readyReplicas").unwrap_or(0);
    let available = tree::integer(set, "status.availableReplicas").unwrap_or(0);
    if available > ready {
        let path = Path::new("status.availableReplicas");
        let why = "cannot be greater than readyReplicas";
        errors.push(FieldError::invalid(path, available, why));
    }
    errors
}
