//! Namespaces: a label with their own name, the `kubernetes` finalizer, a phase.

use serde_json::{Value, json};

use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::names;
use crate::registry::{Strategy, SubresourceStrategy};
use crate::table::{self, Column, Printer};
use crate::tree;
use crate::writes;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Held until the namespace's content is gone.
pub const FINALIZER: &str = "kubernetes";

pub const STRATEGY: Strategy = Strategy {
    default: |namespace| {
        let name = meta::name(namespace).to_owned();
        if !name.is_empty() {
            meta::put_label(namespace, NAME_LABEL, &name);
        }
        tree::fill(namespace, "status.phase", "Active");
    },
    prepare_create: |namespace| {
        tree::put(namespace, "status", json!({"phase": "Active"}));
        let finalizers = tree::list(namespace, "spec.finalizers");
        if !finalizers.iter().any(|it| it == FINALIZER) {
            let mut all = finalizers.to_vec();
            all.push(json!(FINALIZER));
            tree::put(namespace, "spec.finalizers", all);
        }
    },
    prepare_update: |new, old| {
        tree::copy(new, old, "spec.finalizers");
        tree::copy(new, old, "status");
    },
    validate: |namespace| {
        let mut errors = Vec::new();
        let list = tree::list(namespace, "spec.finalizers");
        for (at, it) in list.iter().enumerate() {
            let it = it.as_str().unwrap_or("");
            let path = Path::new("spec.finalizers").index(at);
            for why in names::qualified_name(it) {
                errors.push(FieldError::invalid(path.clone(), it, why));
            }
            if !it.contains('/') && it != FINALIZER {
                let why = "name is neither a standard finalizer name nor is it fully qualified";
                errors.push(FieldError::invalid(path, it, why));
            }
        }
        errors
    },
    name: names::dns1123_label,
    ..Strategy::PLAIN
};

pub const STATUS: SubresourceStrategy = SubresourceStrategy {
    prepare: writes::only_status,
    validate: |new, old| {
        let (phase, terminating) = (tree::text(new, "status.phase"), meta::is_terminating(old));
        let path = Path::new("status.Phase");
        match (terminating, phase) {
            (true, "Terminating") | (false, "Active") => Vec::new(),
            (true, it) => vec![FieldError::invalid(
                path,
                it,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            )],
            (false, it) => vec![FieldError::invalid(
                path,
                it,
                "may only be 'Active' if `deletionTimestamp` is empty",
            )],
        }
    },
};

/// Writes `spec.finalizers`, which nothing else may, and leaves the status.
pub const FINALIZE: SubresourceStrategy = SubresourceStrategy {
    prepare: |new, old| tree::copy(new, old, "status"),
    validate: |new, _: &Value| (STRATEGY.validate)(new),
};

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Status", "Active, or Terminating while its content is deleted."),
        Column::AGE,
    ],
    cells: |namespace, now| {
        vec![
            json!(meta::name(namespace)),
            json!(tree::text(namespace, "status.phase")),
            table::age(namespace, now),
        ]
    },
};
