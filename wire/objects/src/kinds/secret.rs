//! Secrets: `stringData` folded into `data`, a type that never changes, required keys per type, `immutable`.

use base64::Engine as _;
use serde_json::{Value, json};

use super::config_map::{DATA_BYTES_MAX, decoded, immutable_data};
use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::names;
use crate::registry::Strategy;
use crate::table::{self, Column, Printer};
use crate::tree;

pub const OPAQUE: &str = "Opaque";
pub const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub const STRATEGY: Strategy = Strategy { default, validate, validate_update, ..Strategy::PLAIN };

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Type", "What the data is, to programs."),
        Column::integer("Data", "Number of entries in data."),
        Column::AGE,
    ],
    cells: |secret, now| {
        vec![
            json!(meta::name(secret)),
            json!(tree::text(secret, "type")),
            json!(tree::entries(secret, "data").count()),
            table::age(secret, now),
        ]
    },
};

fn default(secret: &mut Value) {
    tree::fill(secret, "type", OPAQUE);
    let Some(Value::Object(texts)) = tree::remove(secret, "stringData") else {
        return;
    };
    for (key, value) in texts {
        let bytes = value.as_str().unwrap_or("").as_bytes();
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        tree::object(tree::place(secret, "data")).insert(key, json!(encoded));
    }
}

fn validate(secret: &Value) -> Vec<FieldError> {
    let (mut errors, mut bytes) = (Vec::new(), 0);
    for (key, value) in tree::entries(secret, "data") {
        let path = Path::new("data").key(key);
        for why in names::config_key(key) {
            errors.push(FieldError::invalid(path.clone(), key, why));
        }
        bytes += decoded(value, path, &mut errors);
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long(Path::new("data"), DATA_BYTES_MAX));
    }
    errors.extend(validate_type(secret));
    errors
}

/// The keys that a type promises.
fn validate_type(secret: &Value) -> Vec<FieldError> {
    let data = tree::at(secret, "data");
    let missing = |key: &str| data.get(key).is_none();
    let require = |key: &str| FieldError::required(Path::new("data").key(key), "");
    match tree::text(secret, "type") {
        SERVICE_ACCOUNT_TOKEN => {
            let path = Path::new("metadata.annotations").key(SERVICE_ACCOUNT_NAME);
            match meta::annotation(secret, SERVICE_ACCOUNT_NAME) {
                None | Some("") => vec![FieldError::required(path, "")],
                Some(_) => Vec::new(),
            }
        }
        "kubernetes.io/dockercfg" => json_under(data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_under(data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if missing("username") && missing("password") => {
            vec![require("username"), require("password")]
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(tree::is_empty) => {
            vec![require("ssh-privatekey")]
        }
        "kubernetes.io/tls" => {
            ["tls.crt", "tls.key"].into_iter().filter(|it| missing(it)).map(require).collect()
        }
        _ => Vec::new(),
    }
}

fn json_under(data: &Value, key: &str) -> Vec<FieldError> {
    let path = Path::new("data").key(key);
    let Some(encoded) = data.get(key).and_then(Value::as_str) else {
        return vec![FieldError::required(path, "")];
    };
    let parsed = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()
        .and_then(|it| serde_json::from_slice::<Value>(&it).ok());
    match parsed {
        Some(_) => Vec::new(),
        // The value itself stays out of the message: it is a secret.
        None => vec![FieldError::invalid(path, "<secret contents redacted>", "must be valid JSON")],
    }
}

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    errors.extend(meta::validate::immutable(new, old, "type", &Path::new("type")));
    errors.extend(immutable_data(new, old, &["data"]));
    errors
}
