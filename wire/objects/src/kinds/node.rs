//! Nodes: capacity, taints, addresses; status is written through its subresource only, but for the first time.

use serde_json::{Value, json};

use crate::field_error::{FieldError, Path};
use crate::labels;
use crate::meta;
use crate::names;
use crate::quantity;
use crate::registry::{Strategy, SubresourceStrategy};
use crate::table::{self, Column, Printer};
use crate::tree;
use crate::writes;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
pub const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub const STRATEGY: Strategy = Strategy {
    default,
    // A node may be created with its status: agents register that way.
    prepare_create: |_| {},
    prepare_update: |new, old| tree::copy(new, old, "status"),
    validate,
    validate_update: |new, old| {
        let mut errors = Vec::new();
        let provider = tree::text(old, "spec.providerID");
        if !provider.is_empty() && provider != tree::text(new, "spec.providerID") {
            errors.push(FieldError::forbidden(
                Path::new("spec.providerID"),
                "node updates may not change providerID except from \"\" to valid",
            ));
        }
        let (new, old) = (tree::at(new, "spec.podCIDRs"), tree::at(old, "spec.podCIDRs"));
        if !tree::is_empty(old) && new != old {
            errors.push(FieldError::forbidden(
                Path::new("spec.podCIDRs"),
                "node updates may not change podCIDR except from \"\" to valid",
            ));
        }
        errors
    },
    ..Strategy::PLAIN
};

pub const STATUS: SubresourceStrategy = SubresourceStrategy {
    prepare: writes::only_status,
    validate: |new, _| validate_resources(new),
};

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Status", "Whether the node is ready and takes pods."),
        Column::text("Roles", "Roles from the node's labels."),
        Column::AGE,
        Column::text("Version", "The version that the node's agent reports."),
        Column::text("Internal-IP", "Address inside the cluster.").wide(),
        Column::text("External-IP", "Address outside the cluster.").wide(),
        Column::text("OS-Image", "The operating system.").wide(),
        Column::text("Kernel-Version", "The kernel.").wide(),
        Column::text("Container-Runtime", "What runs containers.").wide(),
    ],
    cells: |node, now| {
        let about = |field: &str| match tree::at(node, "status.nodeInfo").get(field) {
            Some(Value::String(it)) if !it.is_empty() => json!(it),
            _ => json!("<unknown>"),
        };
        vec![
            json!(meta::name(node)),
            json!(status_words(node)),
            table::or_none(roles(node).join(",")),
            table::age(node, now),
            json!(tree::text(node, "status.nodeInfo.kubeletVersion")),
            address(node, "InternalIP"),
            address(node, "ExternalIP"),
            about("osImage"),
            about("kernelVersion"),
            about("containerRuntimeVersion"),
        ]
    },
};

fn default(node: &mut Value) {
    let capacity = tree::at(node, "status.capacity").clone();
    if !capacity.is_null() && tree::at(node, "status.allocatable").is_null() {
        tree::put(node, "status.allocatable", capacity);
    }
    for list in ["status.capacity", "status.allocatable"] {
        if let Some(list) = tree::find_mut(node, list) {
            super::pod_template::canonicalize_quantities(list);
        }
    }
    if tree::at(node, "spec").is_null() {
        tree::put(node, "spec", json!({}));
    }
}

fn status_words(node: &Value) -> String {
    let ready =
        tree::list(node, "status.conditions").iter().find(|it| tree::text(it, "type") == "Ready");
    let mut words = vec![match ready {
        Some(it) if tree::text(it, "status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if tree::is_true(node, "spec.unschedulable") {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(node: &Value) -> Vec<&str> {
    let mut roles: Vec<&str> = tree::entries(node, "metadata.labels")
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == ROLE_LABEL => value.as_str().filter(|it| !it.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles
}

fn address(node: &Value, kind: &str) -> Value {
    let found =
        tree::list(node, "status.addresses").iter().find(|it| tree::text(it, "type") == kind);
    table::or_none(found.map_or("", |it| tree::text(it, "address")))
}

fn validate(node: &Value) -> Vec<FieldError> {
    let mut errors = validate_taints(node);
    errors.extend(validate_resources(node));
    errors
}

fn validate_taints(node: &Value) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    for (at, taint) in tree::list(node, "spec.taints").iter().enumerate() {
        let path = Path::new("spec.taints").index(at);
        let (key, effect) = (tree::text(taint, "key"), tree::text(taint, "effect"));
        for why in names::qualified_name(key) {
            errors.push(FieldError::invalid(path.child("key"), key, why));
        }
        let value = tree::text(taint, "value");
        for why in names::label_value(value) {
            errors.push(FieldError::invalid(path.child("value"), value, why));
        }
        match effect {
            "" => errors.push(FieldError::required(path.child("effect"), "")),
            it if TAINT_EFFECTS.contains(&it) => {}
            it => errors.push(FieldError::not_supported(path.child("effect"), it, TAINT_EFFECTS)),
        }
        if seen.contains(&(key, effect)) {
            let mut error = FieldError::duplicate(path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
        seen.push((key, effect));
    }
    errors.extend(labels::validate_labels(meta::labels(node), &Path::new("metadata.labels")));
    errors.dedup();
    errors
}

fn validate_resources(node: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["status.capacity", "status.allocatable"] {
        for (name, value) in tree::entries(node, list) {
            let path = Path::new(list).key(name);
            match quantity::of_json(value) {
                Ok(it) if it.is_negative() => {
                    let why = "must be greater than or equal to 0";
                    errors.push(FieldError::invalid(path, it.to_string(), why));
                }
                Ok(_) => {}
                Err(why) => errors.push(FieldError::invalid(path, value.clone(), why.to_string())),
            }
        }
    }
    errors
}
