//! Probes and lifecycle hooks: exactly one action each, sensible numbers, where they are allowed.

use serde_json::Value;

use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree;

const ACTIONS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Init containers have probes and hooks only when they are sidecars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Init,
}

pub(super) fn validate(container: &Value, role: Role, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let policy = tree::text(container, "restartPolicy");
    let main = role == Role::Main;
    let sidecar = policy == "Always";
    if !main && !policy.is_empty() && !matches!(policy, "Always" | "Never" | "OnFailure") {
        let known = ["Always", "Never", "OnFailure"];
        errors.push(FieldError::not_supported(path.child("restartPolicy"), policy, &known));
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = tree::at(container, field);
        if probe.is_null() {
            continue;
        }
        let path = path.child(field);
        if !main && !sidecar {
            let why = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(path, why));
            continue;
        }
        errors.extend(validate_probe(probe, &path));
        let successes = tree::integer(probe, "successThreshold").unwrap_or(1);
        if field != "readinessProbe" && successes != 1 {
            let why = "must be 1";
            errors.push(FieldError::invalid(path.child("successThreshold"), successes, why));
        }
    }
    let lifecycle = tree::at(container, "lifecycle");
    if !lifecycle.is_null() && !main && !sidecar {
        let why = "may not be set for init containers without restartPolicy=Always";
        errors.push(FieldError::forbidden(path.child("lifecycle"), why));
    }
    for hook in ["postStart", "preStop"] {
        let it = tree::at(lifecycle, hook);
        if !it.is_null() {
            errors.extend(validate_action(it, &path.child("lifecycle").child(hook)));
        }
    }
    errors
}

fn validate_probe(probe: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = validate_action(probe, path);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        let value = tree::integer(probe, field).unwrap_or(0);
        if value < 0 {
            let why = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(path.child(field), value, why));
        }
    }
    if let Some(seconds @ ..=0) = tree::integer(probe, "terminationGracePeriodSeconds") {
        let path = path.child("terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(path, seconds, "must be greater than 0"));
    }
    errors
}

fn validate_action(handler: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let given: Vec<&str> =
        ACTIONS.into_iter().filter(|it| !tree::at(handler, it).is_null()).collect();
    if given.is_empty() {
        errors.push(FieldError::required(path.clone(), "must specify a handler type"));
    }
    for extra in given.iter().skip(1) {
        let why = "may not specify more than 1 handler type";
        errors.push(FieldError::forbidden(path.child(extra), why));
    }
    if let Some(kind) = given.first() {
        errors.extend(validate_target(kind, tree::at(handler, kind), &path.child(kind)));
    }
    errors
}

fn validate_target(kind: &str, action: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match kind {
        "exec" if tree::list(action, "command").is_empty() => {
            errors.push(FieldError::required(path.child("command"), ""));
        }
        "httpGet" => {
            if tree::text(action, "path").is_empty() {
                errors.push(FieldError::required(path.child("path"), ""));
            }
            errors.extend(port(action, path));
            let scheme = tree::text(action, "scheme");
            if !matches!(scheme, "HTTP" | "HTTPS") {
                let known = ["HTTP", "HTTPS"];
                errors.push(FieldError::not_supported(path.child("scheme"), scheme, &known));
            }
            for (at, header) in tree::list(action, "httpHeaders").iter().enumerate() {
                let name = tree::text(header, "name");
                let valid = |it: char| it.is_ascii_alphanumeric() || it == '-';
                if name.is_empty() || !name.chars().all(valid) {
                    let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                    let path = path.child("httpHeaders").index(at);
                    errors.push(FieldError::invalid(path, name, why));
                }
            }
        }
        "tcpSocket" | "grpc" => errors.extend(port(action, path)),
        _ => {}
    }
    errors
}

fn port(action: &Value, path: &Path) -> Vec<FieldError> {
    let (port, path) = (tree::at(action, "port"), path.child("port"));
    let faults = match port {
        Value::String(name) => names::port_name(name),
        other => names::port_number(other.as_i64().unwrap_or(0)),
    };
    faults.into_iter().map(|why| FieldError::invalid(path.clone(), port.clone(), why)).collect()
}
