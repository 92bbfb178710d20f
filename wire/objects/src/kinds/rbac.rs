//! Roles and bindings: rules that name something, a `roleRef` that never changes.

use serde_json::{Value, json};

use crate::field_error::{FieldError, Path};
use crate::labels;
use crate::meta;
use crate::names;
use crate::registry::{PutOfAbsent, Strategy};
use crate::table::{self, Column, Printer};
use crate::tree;

pub const GROUP: &str = "rbac.authorization.k8s.io";

const PLAIN: Strategy =
    Strategy { name: names::path_segment, put_of_absent: PutOfAbsent::Create, ..Strategy::PLAIN };

pub const ROLE: Strategy = Strategy {
    default: default_rules,
    validate: |role| validate_rules(role, Rules::OfNamespace),
    ..PLAIN
};

pub const CLUSTER_ROLE: Strategy =
    Strategy { default: default_rules, validate: validate_cluster_role, ..PLAIN };

pub const BINDING: Strategy = Strategy {
    default: default_binding,
    validate: |binding| validate_binding(binding, &["ClusterRole", "Role"]),
    validate_update: immutable_role,
    ..PLAIN
};

pub const CLUSTER_BINDING: Strategy = Strategy {
    default: default_binding,
    validate: |binding| validate_binding(binding, &["ClusterRole"]),
    validate_update: immutable_role,
    ..PLAIN
};

/// Roles show when they were made, not how long ago.
pub const ROLE_PRINTER: Printer = Printer {
    columns: &[Column::NAME, Column::text("Created At", "When the role was created.")],
    cells: |role, _| {
        vec![json!(meta::name(role)), json!(tree::text(role, "metadata.creationTimestamp"))]
    },
};

pub const BINDING_PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Role", "The role that is granted."),
        Column::AGE,
        Column::text("Users", "Users that have the role.").wide(),
        Column::text("Groups", "Groups that have the role.").wide(),
        Column::text("ServiceAccounts", "Service accounts that have the role.").wide(),
    ],
    cells: |binding, now| {
        let role = format!(
            "{}/{}",
            tree::text(binding, "roleRef.kind"),
            tree::text(binding, "roleRef.name")
        );
        let subjects = |kind: &str| {
            let found: Vec<String> = tree::list(binding, "subjects")
                .iter()
                .filter(|it| tree::text(it, "kind") == kind)
                .map(|it| match kind {
                    "ServiceAccount" => {
                        format!("{}/{}", tree::text(it, "namespace"), tree::text(it, "name"))
                    }
                    _ => tree::text(it, "name").to_owned(),
                })
                .collect();
            json!(found.join(", "))
        };
        vec![
            json!(meta::name(binding)),
            json!(role),
            table::age(binding, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    },
};

/// `rules` has no omitempty: without any it prints as null, which clients take; an empty list says the same.
fn default_rules(role: &mut Value) {
    if tree::at(role, "rules").is_null() {
        tree::put(role, "rules", json!([]));
    }
}

fn default_binding(binding: &mut Value) {
    tree::fill(binding, "roleRef.apiGroup", GROUP);
    for subject in tree::each_mut(binding, "subjects") {
        if matches!(tree::text(subject, "kind"), "User" | "Group") {
            tree::fill(subject, "apiGroup", GROUP);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    OfNamespace,
    OfCluster,
}

fn validate_rules(role: &Value, rules: Rules) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, rule) in tree::list(role, "rules").iter().enumerate() {
        let path = Path::new("rules").index(at);
        let len = |field| tree::list(rule, field).len();
        if len("verbs") == 0 {
            let why = "verbs must contain at least one value";
            errors.push(FieldError::required(path.child("verbs"), why));
        }
        if len("nonResourceURLs") > 0 {
            let urls = tree::at(rule, "nonResourceURLs").clone();
            let path = path.child("nonResourceURLs");
            if rules == Rules::OfNamespace {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(path.clone(), urls.clone(), why));
            }
            if len("apiGroups") + len("resources") + len("resourceNames") > 0 {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(path, urls, why));
            }
            continue;
        }
        if len("apiGroups") == 0 {
            let why = "resource rules must supply at least one api group";
            errors.push(FieldError::required(path.child("apiGroups"), why));
        }
        if len("resources") == 0 {
            let why = "resource rules must supply at least one resource";
            errors.push(FieldError::required(path.child("resources"), why));
        }
    }
    errors
}

fn validate_cluster_role(role: &Value) -> Vec<FieldError> {
    let mut errors = validate_rules(role, Rules::OfCluster);
    let selectors = tree::at(role, "aggregationRule");
    if selectors.is_null() {
        return errors;
    }
    let path = Path::new("aggregationRule.clusterRoleSelectors");
    let list = tree::list(selectors, "clusterRoleSelectors");
    if list.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(path, why));
        return errors;
    }
    for (at, it) in list.iter().enumerate() {
        errors.extend(labels::validate(it, &path.index(at)));
    }
    errors
}

fn validate_binding(binding: &Value, kinds: &[&str]) -> Vec<FieldError> {
    let path = Path::new("roleRef");
    let mut errors = Vec::new();
    let group = tree::text(binding, "roleRef.apiGroup");
    if group != GROUP {
        errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[GROUP]));
    }
    let kind = tree::text(binding, "roleRef.kind");
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(path.child("kind"), kind, kinds));
    }
    let name = tree::text(binding, "roleRef.name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else {
        for why in names::path_segment(name) {
            errors.push(FieldError::invalid(path.child("name"), name, why));
        }
    }
    for (at, it) in tree::list(binding, "subjects").iter().enumerate() {
        errors.extend(validate_subject(it, &Path::new("subjects").index(at)));
    }
    errors
}

fn validate_subject(subject: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (name, group) = (tree::text(subject, "name"), tree::text(subject, "apiGroup"));
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    }
    match tree::text(subject, "kind") {
        "ServiceAccount" => {
            for why in names::dns1123_subdomain(name).into_iter().filter(|_| !name.is_empty()) {
                errors.push(FieldError::invalid(path.child("name"), name, why));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[""]));
            }
            if tree::text(subject, "namespace").is_empty() {
                errors.push(FieldError::required(path.child("namespace"), ""));
            }
        }
        "User" | "Group" if group != GROUP => {
            errors.push(FieldError::not_supported(path.child("apiGroup"), group, &[GROUP]));
        }
        "User" | "Group" => {}
        kind => {
            let known = ["Group", "ServiceAccount", "User"];
            errors.push(FieldError::not_supported(path.child("kind"), kind, &known));
        }
    }
    errors
}

fn immutable_role(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (tree::at(new, "roleRef"), tree::at(old, "roleRef"));
    match new == old {
        true => Vec::new(),
        false => {
            vec![FieldError::invalid(Path::new("roleRef"), new.clone(), "cannot change roleRef")]
        }
    }
}
