//! Field selectors: `spec.nodeName=n1,status.phase!=Failed`, by the fields that each kind offers.
//!
//! A kind's row lists its selectable fields; every kind has `metadata.name` and `metadata.namespace`. Only `=`,
//! `==` and `!=` exist. An unknown field is refused with upstream's words, never ignored.

use serde_json::Value;

use crate::field_error::quote;
use crate::registry::Kind;
use crate::status::Status;
use crate::tree;

const SELECTOR_BYTES_MAX: usize = 64 * 1024;

/// A field that lists and watches can be narrowed by.
#[derive(Debug, Clone, Copy)]
pub struct SelectableField {
    /// The name that clients use.
    pub label: &'static str,
    /// Where it stands; the first that is not empty counts.
    pub paths: &'static [&'static str],
    /// What it is when absent.
    pub absent: &'static str,
}

impl SelectableField {
    /// A text field whose label is its path.
    pub const fn text(path: &'static [&'static str; 1]) -> Self {
        Self { label: path[0], paths: path, absent: "" }
    }

    /// A field that is never absent: a boolean or number with its zero value.
    pub const fn or(path: &'static [&'static str; 1], absent: &'static str) -> Self {
        Self { label: path[0], paths: path, absent }
    }

    fn value(&self, object: &Value) -> String {
        let found = self.paths.iter().map(|it| tree::at(object, it));
        match found.into_iter().find(|it| !tree::is_empty(it)) {
            Some(Value::String(it)) => it.clone(),
            Some(it) => it.to_string(),
            None => self.absent.to_owned(),
        }
    }
}

const NAME: SelectableField = SelectableField::text(&["metadata.name"]);
const NAMESPACE: SelectableField = SelectableField::text(&["metadata.namespace"]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
}

#[derive(Debug, Clone)]
pub struct Term {
    field: SelectableField,
    pub comparison: Comparison,
    pub value: String,
}

impl Term {
    pub fn label(&self) -> &'static str {
        self.field.label
    }
}

/// All terms must hold; empty selects everything.
#[derive(Debug, Clone, Default)]
pub struct FieldSelector {
    pub terms: Vec<Term>,
}

impl FieldSelector {
    pub fn parse(kind: &Kind, text: &str) -> Result<FieldSelector, Status> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(Status::bad_request("the field selector is too long"));
        }
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let (label, comparison, value) = operator(part).ok_or_else(|| {
                Status::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                ))
            })?;
            let value = unescape(value).ok_or_else(|| {
                Status::bad_request(format!("invalid field selector: invalid escape in '{value}'"))
            })?;
            terms.push(Term { field: field(kind, label)?, comparison, value });
        }
        Ok(FieldSelector { terms })
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|it| {
            let equal = it.field.value(object) == it.value;
            equal == (it.comparison == Comparison::Equal)
        })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `label` must equal, if a term says so: lets a list by name read one key.
    pub fn required(&self, label: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|it| it.label() == label && it.comparison == Comparison::Equal)
            .map(|it| it.value.as_str())
    }
}

fn field(kind: &Kind, label: &str) -> Result<SelectableField, Status> {
    [NAME, NAMESPACE]
        .iter()
        .chain(kind.fields)
        .find(|it| it.label == label)
        .copied()
        .ok_or_else(|| {
            Status::bad_request(match kind.fields {
                [] => format!(
                    "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                    quote(label)
                ),
                _ => format!("field label not supported: {label}"),
            })
        })
}

/// Splits at commas that no backslash escapes.
fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, it) in text.char_indices() {
        match it {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn operator(part: &str) -> Option<(&str, Comparison, &str)> {
    let at = part.find(['=', '!'])?;
    let (label, rest) = part.split_at(at);
    for (sign, comparison) in
        [("!=", Comparison::NotEqual), ("==", Comparison::Equal), ("=", Comparison::Equal)]
    {
        if let Some(value) = rest.strip_prefix(sign) {
            return Some((label, comparison, value));
        }
    }
    None
}

/// Undoes `\\`, `\,` and `\=`; a bare `=`, `,` or any other escape is refused.
fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(it) = chars.next() {
        match it {
            '\\' => match chars.next() {
                Some(it @ ('\\' | ',' | '=')) => plain.push(it),
                _ => return None,
            },
            '=' | ',' => return None,
            it => plain.push(it),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests;
