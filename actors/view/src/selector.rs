//! Label selectors, parsed once and matched often.
//!
//! An empty `LabelSelector` matches everything, an absent one nothing (apimachinery, LabelSelectorAsSelector); a
//! Service's plain map follows `Selector::from_map`. Requirements with an operator that is not known match nothing.

use serde_json::Value;

use crate::json;
use crate::meta::Labels;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// Node affinity only.
    Gt,
    Lt,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// An entry of `matchExpressions`.
    pub fn parse(entry: &Value) -> Self {
        let operator = match json::text(entry, "/operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => Operator::Unknown,
        };
        Self {
            key: json::text(entry, "/key").to_owned(),
            operator,
            values: json::texts(entry, "/values"),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.accepts(labels.get(&self.key).map(String::as_str))
    }

    /// Whether a label with this value (or without one) satisfies the requirement.
    pub fn accepts(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|it| self.lists(it)),
            Operator::NotIn => !value.is_some_and(|it| self.lists(it)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compares(value, |have, bound| have > bound),
            Operator::Lt => self.compares(value, |have, bound| have < bound),
            Operator::Unknown => false,
        }
    }

    fn lists(&self, value: &str) -> bool {
        self.values.iter().any(|it| it == value)
    }

    fn compares(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let have = value.and_then(|it| it.parse().ok());
        let bound = self.values.first().and_then(|it| it.parse().ok());
        matches!((have, bound), (Some(have), Some(bound)) if holds(have, bound))
    }
}

/// All requirements must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    equal: Labels,
    requirements: Vec<Requirement>,
    matches_nothing: bool,
}

impl Selector {
    /// Matches no labels at all.
    pub fn nothing() -> Self {
        Self { matches_nothing: true, ..Self::default() }
    }

    /// `{matchLabels, matchExpressions}`; absent matches nothing.
    pub fn parse(selector: Option<&Value>) -> Self {
        let Some(selector) = selector.filter(|it| it.is_object()) else {
            return Self::nothing();
        };
        Self {
            equal: json::text_map(selector, "/matchLabels"),
            requirements: json::list(selector, "/matchExpressions")
                .iter()
                .map(Requirement::parse)
                .collect(),
            matches_nothing: false,
        }
    }

    /// A Service's or ReplicationController's map: an empty one matches nothing.
    pub fn from_map(equal: Labels) -> Self {
        let matches_nothing = equal.is_empty();
        Self { equal, requirements: Vec::new(), matches_nothing }
    }

    /// Also demands that these labels have these values.
    pub fn and_equal(mut self, equal: &Labels) -> Self {
        self.equal.extend(equal.iter().map(|(key, value)| (key.clone(), value.clone())));
        self
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        !self.matches_nothing
            && self.equal.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.requirements.iter().all(|it| it.matches(labels))
    }

    pub fn is_nothing(&self) -> bool {
        self.matches_nothing
    }

    /// Whether it demands nothing, so that everything matches.
    pub fn is_everything(&self) -> bool {
        !self.matches_nothing && self.equal.is_empty() && self.requirements.is_empty()
    }

    /// The labels whose values it fixes; what an index can answer.
    pub fn equalities(&self) -> &Labels {
        &self.equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: Value, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Selector::parse(Some(&selector)).matches(&labels)
    }

    #[test]
    fn empty_matches_all_and_absent_matches_none() {
        assert!(matches(json!({}), &[("a", "b")]));
        assert!(!Selector::parse(None).matches(&Labels::new()));
        assert!(!Selector::from_map(Labels::new()).matches(&Labels::new()));
    }

    #[test]
    fn expressions_follow_apimachinery() {
        let not_in =
            json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}]});
        assert!(matches(not_in.clone(), &[]), "an absent label is not in the list");
        assert!(!matches(not_in, &[("a", "x")]));
        let gt = json!({"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["3"]}]});
        assert!(matches(gt.clone(), &[("n", "4")]));
        assert!(!matches(gt.clone(), &[("n", "3")]));
        assert!(!matches(gt, &[("n", "many")]), "what is no number compares with nothing");
        let unknown = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        assert!(!matches(unknown, &[("a", "x")]));
    }
}
