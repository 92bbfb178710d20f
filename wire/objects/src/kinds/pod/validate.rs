//! What is wrong with a pod spec, in upstream's words. Containers and volumes have files of their own.

use serde_json::Value;

use crate::field_error::{FieldError, Path};
use crate::labels;
use crate::names;
use crate::tree;

mod affinity;
pub(super) mod containers;
mod volumes;

const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const GRACE_SECONDS_MAX: i64 = i32::MAX as i64;

pub(super) fn pod(pod: &Value) -> Vec<FieldError> {
    let mut errors = spec(tree::at(pod, "spec"), &Path::new("spec"));
    if !tree::list(pod, "spec.schedulingGates").is_empty()
        && !tree::text(pod, "spec.nodeName").is_empty()
        && tree::text(pod, "metadata.deletionTimestamp").is_empty()
    {
        errors.push(FieldError::forbidden(
            Path::new("spec.nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
    errors
}

/// Checks a spec, of a pod or inside a template.
pub fn spec(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes = tree::list(spec, "volumes");
    errors.extend(volumes::validate(volumes, &path.child("volumes")));
    errors.extend(containers::validate_all(spec, path));
    errors.extend(choice(spec, path, "restartPolicy", RESTART_POLICIES));
    errors.extend(choice(spec, path, "dnsPolicy", DNS_POLICIES));
    errors.extend(labels::validate_labels(
        tree::at(spec, "nodeSelector"),
        &path.child("nodeSelector"),
    ));
    errors.extend(validate_seconds(spec, path));
    errors.extend(validate_names(spec, path));
    errors.extend(validate_tolerations(spec, path));
    errors.extend(affinity::validate(spec, path));
    errors.extend(validate_host_access(spec, path));
    if tree::text(spec, "dnsPolicy") == "None"
        && tree::list(spec, "dnsConfig.nameservers").is_empty()
    {
        let path = path.child("dnsConfig");
        errors.push(match tree::at(spec, "dnsConfig") {
            Value::Null => {
                FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
            }
            _ => FieldError::required(
                path.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ),
        });
    }
    errors
}

fn choice(spec: &Value, path: &Path, field: &str, known: &[&str]) -> Option<FieldError> {
    let path = path.child(field);
    match tree::text(spec, field) {
        "" => Some(FieldError::required(path, "")),
        it if known.contains(&it) => None,
        it => Some(FieldError::not_supported(path, it, known)),
    }
}

fn validate_seconds(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(seconds) = tree::integer(spec, "activeDeadlineSeconds")
        && !(1..=GRACE_SECONDS_MAX).contains(&seconds)
    {
        let why = names::out_of_range(1, GRACE_SECONDS_MAX);
        errors.push(FieldError::invalid(path.child("activeDeadlineSeconds"), seconds, why));
    }
    if let Some(seconds @ ..0) = tree::integer(spec, "terminationGracePeriodSeconds") {
        let why = "must be greater than or equal to 0";
        let path = path.child("terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(path, seconds, why));
    }
    errors
}

fn validate_names(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    type Rule = fn(&str) -> Vec<String>;
    let rules: [(&str, Rule); 6] = [
        ("serviceAccountName", names::dns1123_subdomain),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("schedulerName", names::dns1123_subdomain),
    ];
    for (field, rule) in rules {
        let value = tree::text(spec, field);
        for why in rule(value).into_iter().filter(|_| !value.is_empty()) {
            errors.push(FieldError::invalid(path.child(field), value, why));
        }
    }
    for (at, it) in tree::list(spec, "imagePullSecrets").iter().enumerate() {
        if tree::text(it, "name").is_empty() {
            let path = path.child("imagePullSecrets").index(at).child("name");
            errors.push(FieldError::required(path, ""));
        }
    }
    for (at, it) in tree::list(spec, "hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(at);
        let ip = tree::text(it, "ip");
        for why in names::ip(ip) {
            errors.push(FieldError::invalid(path.child("ip"), ip, why));
        }
        for name in tree::list(it, "hostnames").iter().filter_map(Value::as_str) {
            for why in names::dns1123_subdomain(name) {
                errors.push(FieldError::invalid(path.child("hostnames"), name, why));
            }
        }
    }
    errors
}

fn validate_tolerations(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, it) in tree::list(spec, "tolerations").iter().enumerate() {
        let path = path.child("tolerations").index(at);
        let text = |field| tree::text(it, field);
        let (key, operator, value, effect) =
            (text("key"), text("operator"), text("value"), text("effect"));
        for why in names::qualified_name(key).into_iter().filter(|_| !key.is_empty()) {
            errors.push(FieldError::invalid(path.child("key"), key, why));
        }
        if key.is_empty() && operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(path.child("operator"), operator, why));
        }
        if !tree::at(it, "tolerationSeconds").is_null() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(path.child("effect"), effect, why));
        }
        match operator {
            "" | "Equal" => {
                for why in names::label_value(value) {
                    errors.push(FieldError::invalid(path.child("operator"), value, why));
                }
            }
            "Exists" if !value.is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(path.child("operator"), value, why));
            }
            "Exists" => {}
            other => {
                let known = ["Equal", "Exists"];
                errors.push(FieldError::not_supported(path.child("operator"), other, &known));
            }
        }
        if !effect.is_empty() && !crate::kinds::node::TAINT_EFFECTS.contains(&effect) {
            let known = crate::kinds::node::TAINT_EFFECTS;
            errors.push(FieldError::not_supported(path.child("effect"), effect, known));
        }
    }
    errors
}

fn validate_host_access(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if tree::is_true(spec, "hostPID") && tree::is_true(spec, "shareProcessNamespace") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        let path = path.child("shareProcessNamespace");
        errors.push(FieldError::invalid(path, true, why));
    }
    if !tree::is_true(spec, "hostNetwork") {
        return errors;
    }
    for list in ["containers", "initContainers"] {
        for (at, container) in tree::list(spec, list).iter().enumerate() {
            for (port_at, port) in tree::list(container, "ports").iter().enumerate() {
                let of = |field| tree::integer(port, field).unwrap_or(0);
                if of("hostPort") != of("containerPort") {
                    let path = path.child(list).index(at).child("ports").index(port_at);
                    let why = "must match `hostPort` when `hostNetwork` is true";
                    let path = path.child("containerPort");
                    errors.push(FieldError::invalid(path, of("containerPort"), why));
                }
            }
        }
    }
    errors
}
