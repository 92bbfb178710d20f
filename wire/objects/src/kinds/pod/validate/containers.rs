//! Containers: names, images, ports, environment, mounts, probes, resources.

use serde_json::Value;

use crate::field_error::{FieldError, Path};
use crate::names;
use crate::quantity;
use crate::tree;

mod probes;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// All three lists of a spec: names are unique across them, mounts name the spec's volumes.
pub(super) fn validate_all(spec: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes: Vec<&str> =
        tree::list(spec, "volumes").iter().map(|it| tree::text(it, "name")).collect();
    if tree::list(spec, "containers").is_empty() {
        errors.push(FieldError::required(path.child("containers"), ""));
    }
    let mut seen: Vec<&str> = Vec::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (at, container) in tree::list(spec, list).iter().enumerate() {
            let path = path.child(list).index(at);
            let name = tree::text(container, "name");
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
            seen.push(name);
            errors.extend(validate_container(container, &volumes, &path));
            if list == "ephemeralContainers" {
                errors.extend(only_for_real_containers(container, &path));
            } else {
                let role = match list {
                    "containers" => probes::Role::Main,
                    _ => probes::Role::Init,
                };
                errors.extend(probes::validate(container, role, &path));
            }
        }
    }
    errors.extend(host_port_conflicts(spec, path));
    errors
}

/// Ephemeral containers have no ports, probes, lifecycle or resources.
fn only_for_real_containers(container: &Value, path: &Path) -> Vec<FieldError> {
    ["lifecycle", "livenessProbe", "ports", "readinessProbe", "startupProbe"]
        .iter()
        .filter(|it| !tree::is_empty(tree::at(container, it)))
        .map(|it| {
            let why = "cannot be set for an Ephemeral Container";
            FieldError::forbidden(path.child(it), why)
        })
        .collect()
}

fn validate_container(container: &Value, volumes: &[&str], path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = tree::text(container, "name");
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else {
        for why in names::dns1123_label(name) {
            errors.push(FieldError::invalid(path.child("name"), name, why));
        }
    }
    let image = tree::text(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(path.child("image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(path.child("image"), image, why));
    }
    for (field, known) in [
        ("imagePullPolicy", PULL_POLICIES),
        ("terminationMessagePolicy", &["FallbackToLogsOnError", "File"]),
    ] {
        match tree::text(container, field) {
            "" => errors.push(FieldError::required(path.child(field), "")),
            it if known.contains(&it) => {}
            it => errors.push(FieldError::not_supported(path.child(field), it, known)),
        }
    }
    errors.extend(ports(container, &path.child("ports")));
    errors.extend(environment(container, path));
    errors.extend(mounts(container, volumes, &path.child("volumeMounts")));
    errors.extend(validate_resources(tree::at(container, "resources"), &path.child("resources")));
    errors
}

fn ports(container: &Value, path: &Path) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    for (at, port) in tree::list(container, "ports").iter().enumerate() {
        let path = path.index(at);
        let name = tree::text(port, "name");
        if !name.is_empty() {
            let faults = names::port_name(name);
            if faults.is_empty() && seen.contains(&name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            }
            seen.push(name);
            for why in faults {
                errors.push(FieldError::invalid(path.child("name"), name, why));
            }
        }
        let number = tree::integer(port, "containerPort").unwrap_or(0);
        if number == 0 {
            errors.push(FieldError::required(path.child("containerPort"), ""));
        } else {
            for why in names::port_number(number) {
                errors.push(FieldError::invalid(path.child("containerPort"), number, why));
            }
        }
        let host_port = tree::integer(port, "hostPort").unwrap_or(0);
        for why in names::port_number(host_port).into_iter().filter(|_| host_port != 0) {
            errors.push(FieldError::invalid(path.child("hostPort"), host_port, why));
        }
        errors.extend(crate::kinds::service::validate_protocol(port, &path));
        let host_ip = tree::text(port, "hostIP");
        for why in names::ip(host_ip).into_iter().filter(|_| !host_ip.is_empty()) {
            errors.push(FieldError::invalid(path.child("hostIP"), host_ip, why));
        }
    }
    errors
}

/// Two containers of one pod cannot take the same port of the host.
fn host_port_conflicts(spec: &Value, path: &Path) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    for (at, container) in tree::list(spec, "containers").iter().enumerate() {
        for (port_at, port) in tree::list(container, "ports").iter().enumerate() {
            let Some(number @ 1..) = tree::integer(port, "hostPort") else {
                continue;
            };
            let taken = (number, tree::text(port, "hostIP"), tree::text(port, "protocol"));
            if seen.contains(&taken) {
                let path = path.child("containers").index(at).child("ports").index(port_at);
                let shown = format!("{}/{}/{number}", taken.2, taken.1);
                errors.push(FieldError::duplicate(path.child("hostPort"), shown));
            }
            seen.push(taken);
        }
    }
    errors
}

fn environment(container: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, it) in tree::list(container, "env").iter().enumerate() {
        let path = path.child("env").index(at);
        let name = tree::text(it, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            for why in names::environment_variable(name) {
                errors.push(FieldError::invalid(path.child("name"), name, why));
            }
        }
        errors.extend(value_source(it, &path.child("valueFrom")));
    }
    for (at, it) in tree::list(container, "envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(at);
        let sources = ["configMapRef", "secretRef"];
        let given: Vec<&&str> = sources.iter().filter(|key| it.get(**key).is_some()).collect();
        match given.as_slice() {
            [] => errors.push(FieldError::invalid(
                path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            [one] => {
                let name = tree::text(tree::at(it, one), "name");
                if name.is_empty() {
                    errors.push(FieldError::required(path.child(one).child("name"), ""));
                }
            }
            _ => errors.push(FieldError::invalid(
                path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
    errors
}

fn value_source(variable: &Value, path: &Path) -> Vec<FieldError> {
    let source = tree::at(variable, "valueFrom");
    if source.is_null() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let n_sources = tree::entries(source, "").count();
    if n_sources == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(FieldError::invalid(path.clone(), "", why));
    } else if !tree::text(variable, "value").is_empty() {
        let why = "may not be specified when `value` is not empty";
        errors.push(FieldError::invalid(path.clone(), "", why));
    } else if n_sources > 1 {
        let why = "may not have more than one field specified at a time";
        errors.push(FieldError::invalid(path.clone(), "", why));
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        let reference = tree::at(source, kind);
        if reference.is_null() {
            continue;
        }
        let path = path.child(kind);
        if tree::text(reference, "name").is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        }
        let key = tree::text(reference, "key");
        if key.is_empty() {
            errors.push(FieldError::required(path.child("key"), ""));
        } else {
            for why in names::config_key(key) {
                errors.push(FieldError::invalid(path.child("key"), key, why));
            }
        }
    }
    let field = tree::at(source, "fieldRef");
    if !field.is_null() && tree::text(field, "fieldPath").is_empty() {
        let path = path.child("fieldRef.fieldPath");
        errors.push(FieldError::required(path, ""));
    }
    let resource = tree::at(source, "resourceFieldRef");
    if !resource.is_null() && tree::text(resource, "resource").is_empty() {
        let path = path.child("resourceFieldRef.resource");
        errors.push(FieldError::required(path, ""));
    }
    errors
}

fn mounts(container: &Value, volumes: &[&str], path: &Path) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    for (at, mount) in tree::list(container, "volumeMounts").iter().enumerate() {
        let path = path.index(at);
        let name = tree::text(mount, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        }
        if !volumes.contains(&name) {
            errors.push(FieldError::not_found(path.child("name"), name));
        }
        let target = tree::text(mount, "mountPath");
        if target.is_empty() {
            errors.push(FieldError::required(path.child("mountPath"), ""));
        }
        if seen.contains(&target) {
            let why = "must be unique";
            errors.push(FieldError::invalid(path.child("mountPath"), target, why));
        }
        seen.push(target);
        let sub_path = tree::text(mount, "subPath");
        if sub_path.starts_with('/') {
            let why = "must be a relative path";
            errors.push(FieldError::invalid(path.child("subPath"), sub_path, why));
        }
        if sub_path.split('/').any(|it| it == "..") {
            let why = "must not contain '..'";
            errors.push(FieldError::invalid(path.child("subPath"), sub_path, why));
        }
        if !sub_path.is_empty() && !tree::text(mount, "subPathExpr").is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            let shown = tree::text(mount, "subPathExpr");
            errors.push(FieldError::invalid(path.child("subPathExpr"), shown, why));
        }
    }
    errors
}

/// Requests and limits: quantities, not negative, requests within limits.
pub(in crate::kinds::pod) fn validate_resources(resources: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["limits", "requests"] {
        for (name, value) in tree::entries(resources, list) {
            let path = path.child(list).key(name);
            errors.extend(validate_resource(name, value, &path));
        }
    }
    for (name, request) in tree::entries(resources, "requests") {
        let limit = tree::at(resources, "limits").get(name);
        let path = path.child("requests");
        let (Ok(request), limit) = (quantity::of_json(request), limit.map(quantity::of_json))
        else {
            continue;
        };
        match limit {
            Some(Ok(limit)) if request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(path, request.to_string(), why));
            }
            Some(Ok(limit)) if !may_overcommit(name) && request != limit => {
                let why = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(path, request.to_string(), why));
            }
            None if !may_overcommit(name) => {
                let why = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(path.key(name), why));
            }
            _ => {}
        }
    }
    errors
}

fn validate_resource(name: &str, value: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for why in names::qualified_name(name) {
        errors.push(FieldError::invalid(path.clone(), name, why));
    }
    let standard =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard && errors.is_empty() {
        let why = "must be a standard resource for containers";
        errors.push(FieldError::invalid(path.clone(), name, why));
    }
    match quantity::of_json(value) {
        Err(why) => errors.push(FieldError::invalid(path.clone(), value.clone(), why.to_string())),
        Ok(it) if it.is_negative() => {
            let why = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(path.clone(), it.to_string(), why));
        }
        Ok(it) if is_counted(name) && !it.is_whole() => {
            errors.push(FieldError::invalid(path.clone(), it.to_string(), "must be an integer"));
        }
        Ok(_) => {}
    }
    errors
}

/// Extended resources come in whole pieces.
fn is_counted(name: &str) -> bool {
    name.contains('/') && !name.starts_with("kubernetes.io/")
}

fn may_overcommit(name: &str) -> bool {
    !is_counted(name) && !name.starts_with("hugepages-")
}
