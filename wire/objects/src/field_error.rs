//! What is wrong with one field, worded exactly as Kubernetes' `field.Error` prints it.
//!
//! Clients and tests switch on these texts, so the wording is upstream's (apimachinery, util/validation/field).
//! `Path` builds the field's path the same way: `spec.containers[0].ports[1].hostPort`, `data[a.b]`.

use std::fmt;

use serde_json::Value;

/// Where a field is. Printed into an error, never parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    pub const ROOT: Path = Path(String::new());

    pub fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// One or several dotted names below this one.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Self::new(name);
        }
        Self(format!("{}.{name}", self.0))
    }

    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of a map.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The kind of a problem; `reason()` is the cause that a `Status` carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl FieldErrorKind {
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    pub path: Path,
    /// What stands there; not printed for kinds that never show it.
    pub value: Value,
    pub detail: String,
}

impl FieldError {
    pub fn required(path: Path, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, Value::Null, detail)
    }

    pub fn invalid(path: Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, value, detail)
    }

    pub fn type_invalid(path: Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, value, detail)
    }

    pub fn duplicate(path: Path, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, value, "")
    }

    pub fn not_found(path: Path, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, value, "")
    }

    pub fn forbidden(path: Path, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, Value::Null, detail)
    }

    /// The supported values are listed sorted, as upstream sorts its sets.
    pub fn not_supported(path: Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut supported: Vec<String> = supported.iter().map(|it| quote(it)).collect();
        supported.sort();
        let detail = match supported.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", supported.join(", ")),
        };
        Self::new(FieldErrorKind::NotSupported, path, value, detail)
    }

    pub fn too_long(path: Path, bytes_max: usize) -> Self {
        let detail = format!("may not be more than {bytes_max} bytes");
        Self::new(FieldErrorKind::TooLong, path, Value::Null, detail)
    }

    pub fn too_many(path: Path, len: usize, len_max: usize) -> Self {
        let detail = format!("must have at most {len_max} items");
        Self::new(FieldErrorKind::TooMany, path, len, detail)
    }

    fn new(
        kind: FieldErrorKind,
        path: Path,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, path, value: value.into(), detail: detail.into() }
    }

    /// The message without the field's path: what a `Status` cause carries.
    pub fn body(&self) -> String {
        use FieldErrorKind::{Forbidden, Internal, Required, TooLong};
        let mut body = self.kind.words().to_owned();
        if !matches!(self.kind, Required | Forbidden | TooLong | Internal) {
            body.push_str(": ");
            match &self.value {
                Value::String(it) => body.push_str(&quote(it)),
                Value::Null => body.push_str("null"),
                it => body.push_str(&it.to_string()),
            }
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "<nil>: {}", self.body()),
            path => write!(f, "{path}: {}", self.body()),
        }
    }
}

/// A text in double quotes as Go's `%q` prints it.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for it in text.chars() {
        match it {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            it if it.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", it as u32)),
            it if it.is_control() => quoted.push_str(&format!("\\u{:04x}", it as u32)),
            it => quoted.push(it),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_prints_as_upstream_does() {
        let path = || Path::new("spec").child("ports").index(0).key("a.b");
        let errors = [
            FieldError::required(path(), ""),
            FieldError::required(path(), "must be there"),
            FieldError::invalid(path(), 70000, "must be between 1 and 65535, inclusive"),
            FieldError::invalid(path(), "x\n\"", ""),
            FieldError::invalid(Path::ROOT, Value::Null, "bad"),
            FieldError::duplicate(path(), "web"),
            FieldError::not_found(path(), "vol"),
            FieldError::not_supported(path(), "Sometimes", &["Never", "Always"]),
            FieldError::forbidden(path(), "may not change"),
            FieldError::too_long(path(), 63),
            FieldError::too_many(path(), 5, 3),
        ];
        let printed: Vec<String> = errors.iter().map(ToString::to_string).collect();
        expect_test::expect![[r#"
            spec.ports[0][a.b]: Required value
            spec.ports[0][a.b]: Required value: must be there
            spec.ports[0][a.b]: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.ports[0][a.b]: Invalid value: "x\n\""
            <nil>: Invalid value: null: bad
            spec.ports[0][a.b]: Duplicate value: "web"
            spec.ports[0][a.b]: Not found: "vol"
            spec.ports[0][a.b]: Unsupported value: "Sometimes": supported values: "Always", "Never"
            spec.ports[0][a.b]: Forbidden: may not change
            spec.ports[0][a.b]: Too long: may not be more than 63 bytes
            spec.ports[0][a.b]: Too many: 5: must have at most 3 items"#]]
        .assert_eq(&printed.join("\n"));
    }
}
