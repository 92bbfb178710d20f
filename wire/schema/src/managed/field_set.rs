//! Sets of fields, and the JSON form (`fieldsV1`) in which managedFields keeps them.
//!
//! A set is a trie. Each edge is one path element in its encoded form (`f:name`, `k:{"name":"a"}`, `v:"x"`, `i:0`),
//! so that encoding is a walk, order is the order of strings, and no second representation exists. A node may be a
//! member, have children, or both; one that is neither is never kept.

use crate::schema::{Node, Shape};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// A set of field paths, with the operations of structured-merge-diff.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    entries: BTreeMap<Element, Entry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub member: bool,
    pub children: FieldSet,
}

/// One step of a path, encoded as fieldsV1 encodes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element(Box<str>);

/// `fieldsV1` is not a set of fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fieldsV1 is not a set of fields: {0}")]
pub struct FieldSetError(String);

impl Element {
    pub fn field(name: &str) -> Element {
        Element(format!("f:{name}").into())
    }

    /// An element of a map list, by its key fields.
    pub fn key(keys: &Map<String, Value>) -> Element {
        Element(format!("k:{}", Value::Object(keys.clone())).into())
    }

    /// An element of a set list.
    pub fn value(value: &Value) -> Element {
        Element(format!("v:{value}").into())
    }

    /// Canonical, so that two writings of one key are one element.
    fn decode(text: &str) -> Result<Element, FieldSetError> {
        let bad = || FieldSetError(format!("{text:?} is not a path element"));
        let (prefix, rest) = text.split_once(':').ok_or_else(bad)?;
        let json = || serde_json::from_str::<Value>(rest).map_err(|_| bad());
        match prefix {
            "f" => Ok(Element(text.into())),
            "i" if rest.parse::<i64>().is_ok() => Ok(Element(text.into())),
            "v" => Ok(Element::value(&json()?)),
            "k" => match json()? {
                Value::Object(keys) => Ok(Element::key(&keys)),
                _ => Err(bad()),
            },
            _ => Err(bad()),
        }
    }

    fn field_name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }
}

/// As conflicts print it: `.spec`, `[name="a"]`, `[="x"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, rest) = self.0.split_once(':').unwrap_or(("f", &self.0));
        match (prefix, serde_json::from_str::<Map<String, Value>>(rest)) {
            ("k", Ok(keys)) => {
                let shown: Vec<String> =
                    keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", shown.join(","))
            }
            ("v", _) => write!(f, "[={rest}]"),
            ("i", _) => write!(f, "[{rest}]"),
            _ => write!(f, ".{rest}"),
        }
    }
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The set of these fields, each a dotted path: `FieldSet::of(&["status", "metadata.name"])`.
    pub fn of(paths: &[&str]) -> FieldSet {
        let mut set = FieldSet::default();
        for path in paths {
            let mut names = path.split('.').peekable();
            let mut at = &mut set;
            while let Some(name) = names.next() {
                let entry = at.entries.entry(Element::field(name)).or_default();
                entry.member |= names.peek().is_none();
                at = &mut entry.children;
            }
        }
        set
    }

    /// Reads `fieldsV1`.
    pub fn decode(value: &Value) -> Result<FieldSet, FieldSetError> {
        Ok(Entry::decode(value)?.children)
    }

    /// Writes `fieldsV1`.
    pub fn encode(&self) -> Value {
        let fields = self.entries.iter();
        Value::Object(
            fields.map(|(element, entry)| (element.0.to_string(), entry.encode())).collect(),
        )
    }

    pub fn union(&self, other: &FieldSet) -> FieldSet {
        let mut result = self.clone();
        for (element, theirs) in &other.entries {
            let ours = result.entries.entry(element.clone()).or_default();
            ours.member |= theirs.member;
            ours.children = ours.children.union(&theirs.children);
        }
        result
    }

    /// What is in this set and not in the other; a path does not speak for those under it.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.zip(other, |ours, theirs| Entry {
            member: ours.member && !theirs.is_some_and(|theirs| theirs.member),
            children: match theirs {
                Some(theirs) => ours.children.difference(&theirs.children),
                None => ours.children.clone(),
            },
        })
    }

    /// What is in this set and not in the other nor under one of its paths.
    pub fn difference_below(&self, other: &FieldSet) -> FieldSet {
        self.zip(other, |ours, theirs| match theirs {
            None => ours.clone(),
            Some(theirs) if theirs.member => Entry::default(),
            Some(theirs) => Entry {
                member: ours.member,
                children: ours.children.difference_below(&theirs.children),
            },
        })
    }

    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.zip(other, |ours, theirs| match theirs {
            None => Entry::default(),
            Some(theirs) => Entry {
                member: ours.member && theirs.member,
                children: ours.children.intersection(&theirs.children),
            },
        })
    }

    fn zip(&self, other: &FieldSet, keep: impl Fn(&Entry, Option<&Entry>) -> Entry) -> FieldSet {
        let kept = self
            .entries
            .iter()
            .map(|(element, ours)| (element.clone(), keep(ours, other.entries.get(element))));
        FieldSet { entries: kept.filter(|(_, entry)| !entry.is_empty()).collect() }
    }

    /// Every path, printed: `.spec.template.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, above: &str, paths: &mut Vec<String>) {
        for (element, entry) in &self.entries {
            let path = format!("{above}{element}");
            entry.children.collect_paths(&path, paths);
            if entry.member {
                paths.push(path);
            }
        }
    }

    pub(super) fn get(&self, element: &Element) -> Option<&Entry> {
        self.entries.get(element)
    }

    pub(super) fn insert(&mut self, element: Element, entry: Entry) {
        if !entry.is_empty() {
            self.entries.insert(element, entry);
        }
    }

    /// With every struct field on the way a member itself, so that removing all of a struct removes the struct.
    pub(super) fn with_named_fields(&self, node: Option<Node<'_>>) -> FieldSet {
        let entries = self.entries.iter().map(|(element, entry)| {
            let is_field = matches!(node.map(Node::shape), Some(Shape::Struct(_)));
            let below = match (element.field_name(), node.and_then(Node::list)) {
                (Some(name), _) => node.and_then(|node| node.child(name)),
                (None, list) => list.map(|list| list.items),
            };
            let children = entry.children.with_named_fields(below);
            (element.clone(), Entry { member: entry.member || is_field, children })
        });
        FieldSet { entries: entries.collect() }
    }
}

impl Entry {
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    fn decode(value: &Value) -> Result<Entry, FieldSetError> {
        let Value::Object(fields) = value else {
            return Err(FieldSetError(format!("{value} is not an object")));
        };
        let mut entry = Entry { member: fields.is_empty(), ..Entry::default() };
        for (name, value) in fields {
            match name.as_str() {
                "." => entry.member = true,
                name => entry.children.insert(Element::decode(name)?, Entry::decode(value)?),
            }
        }
        Ok(entry)
    }

    fn encode(&self) -> Value {
        let mut value = self.children.encode();
        if let (true, false, Value::Object(fields)) =
            (self.member, self.children.is_empty(), &mut value)
        {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        value
    }
}
