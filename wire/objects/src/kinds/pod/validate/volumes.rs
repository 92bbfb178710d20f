//! Volumes of a pod: one source each, unique names, what each source needs.

use serde_json::Value;

use crate::field_error::{FieldError, Path};
use crate::names;
use crate::quantity;
use crate::tree;

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const MODE_MAX: i64 = 0o777;
const TOKEN_SECONDS_MIN: i64 = 600;

pub(super) fn validate(volumes: &[Value], path: &Path) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    for (at, volume) in volumes.iter().enumerate() {
        let path = path.index(at);
        let name = tree::text(volume, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else {
            for why in names::dns1123_label(name) {
                errors.push(FieldError::invalid(path.child("name"), name, why));
            }
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        seen.push(name);
        errors.extend(sources(volume, &path));
    }
    errors
}

fn sources(volume: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let given = tree::entries(volume, "").filter(|(key, _)| *key != "name");
    for (at, (kind, source)) in given.enumerate() {
        let path = path.child(kind);
        if at > 0 {
            let why = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(path, why));
            continue;
        }
        errors.extend(source_of(kind, source, &path));
    }
    errors
}

fn source_of(kind: &str, source: &Value, path: &Path) -> Vec<FieldError> {
    match kind {
        "emptyDir" => empty_dir(source, path),
        "hostPath" => host_path(source, path),
        "secret" => {
            let mut errors = required(source, "secretName", path);
            errors.extend(modes_and_items(source, path));
            errors
        }
        "configMap" => {
            let mut errors = required(source, "name", path);
            errors.extend(modes_and_items(source, path));
            errors
        }
        "downwardAPI" => {
            let mut errors: Vec<FieldError> =
                mode(source, "defaultMode", path).into_iter().collect();
            errors.extend(downward_items(source, path));
            errors
        }
        "projected" => projected(source, path),
        "persistentVolumeClaim" => required(source, "claimName", path),
        "nfs" => {
            let mut errors = required(source, "server", path);
            errors.extend(required(source, "path", path));
            errors
        }
        _ => Vec::new(),
    }
}

fn required(source: &Value, field: &str, path: &Path) -> Vec<FieldError> {
    match tree::text(source, field) {
        "" => vec![FieldError::required(path.child(field), "")],
        _ => Vec::new(),
    }
}

fn empty_dir(source: &Value, path: &Path) -> Vec<FieldError> {
    let limit = tree::at(source, "sizeLimit");
    if limit.is_null() {
        return Vec::new();
    }
    let path = path.child("sizeLimit");
    match quantity::of_json(limit) {
        Ok(it) if it.is_negative() => {
            vec![FieldError::forbidden(path, "SizeLimit field must be a valid resource quantity")]
        }
        Ok(_) => Vec::new(),
        Err(why) => vec![FieldError::invalid(path, limit.clone(), why.to_string())],
    }
}

fn host_path(source: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = required(source, "path", path);
    let given = tree::text(source, "path");
    if given.split('/').any(|it| it == "..") {
        let why = "must not contain '..'";
        errors.push(FieldError::invalid(path.child("path"), given, why));
    }
    let kind = tree::text(source, "type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(path.child("type"), kind, HOST_PATH_TYPES));
    }
    errors
}

fn projected(source: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = mode(source, "defaultMode", path).into_iter().collect();
    for (at, it) in tree::list(source, "sources").iter().enumerate() {
        let path = path.child("sources").index(at);
        for (kind, name) in [("secret", "name"), ("configMap", "name")] {
            let part = tree::at(it, kind);
            if !part.is_null() {
                errors.extend(required(part, name, &path.child(kind)));
                errors.extend(items(part, &path.child(kind)));
            }
        }
        let downward = tree::at(it, "downwardAPI");
        errors.extend(downward_items(downward, &path.child("downwardAPI")));
        let token = tree::at(it, "serviceAccountToken");
        if !token.is_null() {
            errors.extend(token_projection(token, &path.child("serviceAccountToken")));
        }
    }
    errors
}

fn token_projection(token: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = required(token, "path", path);
    let seconds = tree::integer(token, "expirationSeconds").unwrap_or(0);
    if seconds < TOKEN_SECONDS_MIN {
        errors.push(FieldError::invalid(
            path.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 10 minutes",
        ));
    }
    if seconds > 1 << 32 {
        errors.push(FieldError::invalid(
            path.child("expirationSeconds"),
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    errors
}

fn mode(source: &Value, field: &str, path: &Path) -> Option<FieldError> {
    let mode = tree::integer(source, field)?;
    let why = "must be a number between 0 and 0777 (octal), both inclusive";
    (!(0..=MODE_MAX).contains(&mode)).then(|| FieldError::invalid(path.child(field), mode, why))
}

fn modes_and_items(source: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = mode(source, "defaultMode", path).into_iter().collect();
    errors.extend(items(source, path));
    errors
}

fn items(source: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, it) in tree::list(source, "items").iter().enumerate() {
        let path = path.child("items").index(at);
        errors.extend(required(it, "key", &path));
        errors.extend(inside_path(it, &path));
        errors.extend(mode(it, "mode", &path));
    }
    errors
}

fn downward_items(source: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, it) in tree::list(source, "items").iter().enumerate() {
        let path = path.child("items").index(at);
        errors.extend(inside_path(it, &path));
        errors.extend(mode(it, "mode", &path));
        let field = !tree::at(it, "fieldRef").is_null();
        let resource = !tree::at(it, "resourceFieldRef").is_null();
        if field && resource {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(path, "resource", why));
        } else if !field && !resource {
            let why = "one of fieldRef and resourceFieldRef is required";
            errors.push(FieldError::required(path, why));
        }
    }
    errors
}

/// A file's path below the volume: relative, and never out of it.
fn inside_path(item: &Value, path: &Path) -> Vec<FieldError> {
    let (given, path) = (tree::text(item, "path"), path.child("path"));
    if given.is_empty() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = Vec::new();
    if given.starts_with('/') {
        errors.push(FieldError::invalid(path.clone(), given, "must be a relative path"));
    }
    if given.split('/').any(|it| it == "..") {
        errors.push(FieldError::invalid(path.clone(), given, "must not contain '..'"));
    }
    if given.starts_with("..") && !given.starts_with("../") && given != ".." {
        errors.push(FieldError::invalid(path, given, "must not start with '..'"));
    }
    errors
}
