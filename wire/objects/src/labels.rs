//! Label selectors: the query text `app=web,tier in (a,b),!old` and the objects inside specs.
//!
//! Both become the same list of requirements, all of which must hold. Syntax, precedence of operators and the
//! printed form follow apimachinery's pkg/labels. An absent LabelSelector object selects nothing, an empty one
//! everything.

use std::fmt;

use serde_json::Value;

use crate::field_error::{FieldError, Path};
use crate::names;
use crate::tree;

/// Longest selector text that is parsed, and most requirements in it.
const SELECTOR_BYTES_MAX: usize = 64 * 1024;
const REQUIREMENTS_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    NotExists,
    GreaterThan,
    LessThan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without repeats.
    pub values: Vec<String>,
}

/// A conjunction of requirements, or nothing at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selector {
    #[default]
    Nothing,
    /// Empty selects everything.
    All(Vec<Requirement>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    #[error("found '{found}', expected: {expected}")]
    Syntax { found: String, expected: &'static str },
    #[error(
        "the selector is longer than {SELECTOR_BYTES_MAX} bytes or has over {REQUIREMENTS_MAX} terms"
    )]
    TooLong,
}

impl Selector {
    pub const EVERYTHING: Selector = Selector::All(Vec::new());

    /// Parses the query form. An empty text selects everything.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::TooLong);
        }
        parse::Parser::new(text).selector().map(Selector::All)
    }

    /// Reads a `LabelSelector` object; `Null` selects nothing. Faults are those that `validate` words.
    pub fn from_object(selector: &Value) -> Result<Selector, SelectorError> {
        if selector.is_null() {
            return Ok(Selector::Nothing);
        }
        let mut requirements: Vec<Requirement> = tree::entries(selector, "matchLabels")
            .map(|(key, value)| {
                let value = value.as_str().unwrap_or("").to_owned();
                Requirement::new(key, Operator::Equals, vec![value])
            })
            .collect();
        for it in tree::list(selector, "matchExpressions") {
            let operator = match tree::text(it, "operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::NotExists,
                other => {
                    let why = format!("\"{other}\" is not a valid label selector operator");
                    return Err(SelectorError::Requirement(why));
                }
            };
            let values = texts(tree::list(it, "values"));
            requirements.push(Requirement::new(tree::text(it, "key"), operator, values));
        }
        Ok(Selector::All(requirements))
    }

    /// A plain map of labels, as Services and node selectors have. Empty selects everything.
    pub fn from_map(labels: &Value) -> Selector {
        Selector::All(
            tree::entries(labels, "")
                .map(|(key, value)| {
                    let value = value.as_str().unwrap_or("").to_owned();
                    Requirement::new(key, Operator::Equals, vec![value])
                })
                .collect(),
        )
    }

    /// `labels` is an object's `metadata.labels`, or `Null`.
    pub fn matches(&self, labels: &Value) -> bool {
        match self {
            Selector::Nothing => false,
            Selector::All(requirements) => requirements.iter().all(|it| it.matches(labels)),
        }
    }

    pub fn is_everything(&self) -> bool {
        matches!(self, Selector::All(it) if it.is_empty())
    }

    pub fn requirements(&self) -> &[Requirement] {
        match self {
            Selector::Nothing => &[],
            Selector::All(it) => it,
        }
    }
}

impl Requirement {
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Self {
        values.sort();
        values.dedup();
        Self { key: key.to_owned(), operator, values }
    }

    /// `NotEquals` and `NotIn` hold for absent labels too.
    pub fn matches(&self, labels: &Value) -> bool {
        let value = labels.get(&self.key).and_then(Value::as_str);
        let listed = |it: &str| self.values.iter().any(|value| value == it);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::NotExists => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|(a, b)| a > b),
            Operator::LessThan => self.compare(value).is_some_and(|(a, b)| a < b),
        }
    }

    /// The label and the bound as numbers; `None` unless both are.
    fn compare(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::NotExists => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// The query form, sorted by key; parsing it gives the same selector.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms: Vec<&Requirement> = self.requirements().iter().collect();
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        for (at, term) in terms.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{term}")?;
        }
        Ok(())
    }
}

/// How tables print a LabelSelector object: `app=web,tier in (a,b)`; `<none>` when it selects nothing or everything.
pub fn print_object(selector: &Value) -> String {
    match Selector::from_object(selector) {
        Err(_) => "<error>".to_owned(),
        Ok(it) if it.requirements().is_empty() => "<none>".to_owned(),
        Ok(it) => it.to_string(),
    }
}

/// What is wrong with a LabelSelector object, in upstream's words.
pub fn validate(selector: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = validate_labels(tree::at(selector, "matchLabels"), &path.child("matchLabels"));
    for (at, it) in tree::list(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(at);
        let (key, operator) = (tree::text(it, "key"), tree::text(it, "operator"));
        let values = tree::list(it, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                path.child("operator"),
                other,
                "not a valid selector operator",
            )),
        }
        for why in names::qualified_name(key) {
            errors.push(FieldError::invalid(path.child("key"), key, why));
        }
        for (at, value) in texts(values).into_iter().enumerate() {
            for why in names::label_value(&value) {
                errors.push(FieldError::invalid(
                    path.child("values").index(at),
                    value.as_str(),
                    why,
                ));
            }
        }
    }
    errors
}

/// What is wrong with a map of labels.
pub fn validate_labels(labels: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in tree::entries(labels, "") {
        for why in names::qualified_name(key) {
            errors.push(FieldError::invalid(path.clone(), key, why));
        }
        let value = value.as_str().unwrap_or("");
        for why in names::label_value(value) {
            errors.push(FieldError::invalid(path.key(key), value, why));
        }
    }
    errors
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

mod parse;

#[cfg(test)]
mod tests;
