//! ConfigMaps: keys that may be file names, 1 MiB in all, and `immutable`.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::names;
use crate::registry::Strategy;
use crate::table::{self, Column, Printer};
use crate::tree;

/// Most bytes of data in one ConfigMap or Secret.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;

pub const STRATEGY: Strategy = Strategy { validate, validate_update, ..Strategy::PLAIN };

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::integer("Data", "Number of entries in data and binaryData."),
        Column::AGE,
    ],
    cells: |map, now| {
        let n_entries =
            tree::entries(map, "data").count() + tree::entries(map, "binaryData").count();
        vec![json!(meta::name(map)), json!(n_entries), table::age(map, now)]
    },
};

fn validate(map: &Value) -> Vec<FieldError> {
    let (mut errors, mut bytes) = (Vec::new(), 0);
    for (key, value) in tree::entries(map, "data") {
        let path = Path::new("data").key(key);
        for why in names::config_key(key) {
            errors.push(FieldError::invalid(path.clone(), key, why));
        }
        if tree::at(map, "binaryData").get(key).is_some() {
            errors.push(FieldError::invalid(path, key, "duplicate of key present in binaryData"));
        }
        bytes += value.as_str().map_or(0, str::len);
    }
    for (key, value) in tree::entries(map, "binaryData") {
        let path = Path::new("binaryData").key(key);
        for why in names::config_key(key) {
            errors.push(FieldError::invalid(path.clone(), key, why));
        }
        bytes += decoded(value, path, &mut errors);
    }
    if bytes > DATA_BYTES_MAX {
        // Upstream names the empty path here, and people search for these words.
        errors.push(FieldError::too_long(Path::new("[]"), DATA_BYTES_MAX));
    }
    errors
}

/// How many bytes a base64 text stands for; an error when it is none.
pub(crate) fn decoded(value: &Value, path: Path, errors: &mut Vec<FieldError>) -> usize {
    let text = value.as_str().unwrap_or("");
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(bytes) => bytes.len(),
        Err(_) => {
            let why = "must be base64, with padding, of the standard alphabet";
            errors.push(FieldError::invalid(path, Value::Null, why));
            0
        }
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    immutable_data(new, old, &["data", "binaryData"])
}

/// Once `immutable` is set, it and the data stay.
pub(crate) fn immutable_data(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !tree::is_true(old, "immutable") {
        return errors;
    }
    let why = "field is immutable when `immutable` is set";
    if !tree::is_true(new, "immutable") {
        errors.push(FieldError::forbidden(Path::new("immutable"), why));
    }
    for field in fields {
        let (new, old) = (tree::at(new, field), tree::at(old, field));
        if new != old && !(tree::is_empty(new) && tree::is_empty(old)) {
            errors.push(FieldError::forbidden(Path::new(field), why));
        }
    }
    errors
}
