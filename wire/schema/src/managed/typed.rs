//! What structured-merge-diff does with typed values: which fields a value has, merge, comparison, removal.
//!
//! Scalars and everything atomic are one field. Structs and maps are walked by name, set and map lists by the
//! identity of their elements. A list whose elements cannot be told apart (a key is missing, two are equal) is treated
//! as atomic where it is the server's, and refused where it is an applied configuration.

use super::field_set::{Element, Entry, FieldSet};
use crate::schema::{Field, List, ListType, Node, Shape};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The children of a value that are fields of their own.
enum Parts<'a, 'v> {
    /// A scalar, or something owned whole.
    Leaf,
    Fields(&'v Map<String, Value>),
    Items(List<'a>, &'v [Value]),
}

fn parts<'a, 'v>(node: Option<Node<'a>>, value: &'v Value) -> Parts<'a, 'v> {
    let Some(node) = node.filter(|node| !node.is_atomic()) else { return Parts::Leaf };
    match (node.shape(), value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(fields)) => Parts::Fields(fields),
        (Shape::List(list), Value::Array(items)) => Parts::Items(list, items),
        _ => Parts::Leaf,
    }
}

/// The identity of one element of a set or map list.
fn identify(list: List<'_>, item: &Value) -> Result<Element, String> {
    if list.list_type != ListType::Map {
        return Ok(Element::value(item));
    }
    let mut keys = Map::new();
    for key in list.keys {
        let default = || match list.items.shape() {
            Shape::Struct(fields) => fields.field(key).and_then(Field::default),
            _ => None,
        };
        let found = item.get(&**key).filter(|value| !value.is_null()).cloned();
        let value = found.or_else(default).ok_or_else(|| {
            format!("associative list with keys has an element that omits key field {key:?} (and doesn't have default value)")
        })?;
        keys.insert(key.to_string(), value);
    }
    Ok(Element::key(&keys))
}

/// The elements of a list by identity, in order; an error names a double or a missing key.
fn identified<'v>(
    list: List<'_>,
    items: &'v [Value],
) -> Result<(Vec<Element>, BTreeMap<Element, &'v Value>), String> {
    let mut order = Vec::with_capacity(items.len());
    let mut by_identity = BTreeMap::new();
    for item in items {
        let element = identify(list, item)?;
        if by_identity.insert(element.clone(), item).is_some() {
            return Err(format!("duplicate entries for key {element}"));
        }
        order.push(element);
    }
    Ok((order, by_identity))
}

/// The fields that an applied configuration names. The error says where and why its lists are not sets.
pub(super) fn fields_of(node: Node<'_>, value: &Value) -> Result<FieldSet, String> {
    let mut entry = Entry::default();
    collect(Some(node), value, &mut entry)?;
    Ok(entry.children)
}

fn collect(node: Option<Node<'_>>, value: &Value, entry: &mut Entry) -> Result<(), String> {
    match parts(node, value) {
        Parts::Leaf => entry.member = true,
        Parts::Fields(fields) => {
            let in_map = matches!(node.map(Node::shape), Some(Shape::Map(_)));
            for (name, value) in fields {
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let mut child = Entry { member: in_map || empty, ..Entry::default() };
                collect(node.and_then(|node| node.child(name)), value, &mut child)
                    .map_err(|why| format!(".{name}{}", separated(&why)))?;
                entry.children.insert(Element::field(name), child);
            }
        }
        Parts::Items(list, items) => {
            for (element, item) in identified(list, items)?.1 {
                let mut child = Entry { member: true, ..Entry::default() };
                collect(Some(list.items), item, &mut child)
                    .map_err(|why| format!("{element}{}", separated(&why)))?;
                entry.children.insert(element, child);
            }
        }
    }
    Ok(())
}

/// Paths grow to the left of the reason: `.spec.containers: duplicate …`.
fn separated(why: &str) -> String {
    match why.starts_with(['.', '[']) {
        true => why.to_owned(),
        false => format!(": {why}"),
    }
}

/// The live value with the configuration laid over it. Lists keep the live order around the configuration's.
pub(super) fn merge(node: Option<Node<'_>>, live: &Value, config: &Value) -> Value {
    match (parts(node, live), parts(node, config)) {
        (Parts::Fields(live), Parts::Fields(config)) => {
            let mut merged = live.clone();
            for (name, value) in config {
                let below = node.and_then(|node| node.child(name));
                let value = match live.get(name) {
                    Some(live) => merge(below, live, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Parts::Items(list, live), Parts::Items(_, config)) => {
            match (identified(list, live), identified(list, config)) {
                (Ok((left, live)), Ok((right, config))) => {
                    let merged =
                        interleave(&left, &right).into_iter().filter_map(|element| {
                            match (live.get(element), config.get(element)) {
                                (Some(live), Some(config)) => {
                                    Some(merge(Some(list.items), live, config))
                                }
                                (one, other) => one.or(other).map(|&value| value.clone()),
                            }
                        });
                    Value::Array(merged.collect())
                }
                _ => Value::Array(config.to_vec()),
            }
        }
        _ => config.clone(),
    }
}

/// The right order, with left-only elements near the shared ones that they stood by.
///
/// A shared element on the left that is not the next one on the right is passed over; the right brings it in its turn.
fn interleave<'a>(left: &'a [Element], right: &'a [Element]) -> Vec<&'a Element> {
    let in_left: BTreeSet<&Element> = left.iter().collect();
    let in_right: BTreeSet<&Element> = right.iter().collect();
    let mut shared = right.iter().filter(|element| in_left.contains(element)).peekable();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let mut placed: BTreeSet<&Element> = BTreeSet::new();
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    loop {
        let here = match (left.peek().copied(), right.peek().copied()) {
            (None, None) => return merged,
            (Some(l), _) if !in_right.contains(l) => {
                left.next();
                l
            }
            (Some(l), Some(r)) if l != r && (placed.contains(l) || shared.peek() != Some(&l)) => {
                left.next();
                continue;
            }
            (Some(l), Some(r)) => {
                left.next_if(|_| l == r);
                right.next();
                r
            }
            (Some(_), None) => {
                left.next();
                continue;
            }
            (None, Some(r)) => {
                right.next();
                r
            }
        };
        shared.next_if_eq(&here);
        placed.insert(here);
        merged.push(here);
    }
}

/// The value without the fields of the set; `None` when nothing of it is left.
pub(super) fn remove(node: Option<Node<'_>>, value: &Value, gone: &FieldSet) -> Option<Value> {
    let keep = |element: &Element, below: Option<Node<'_>>, value: &Value| match gone.get(element) {
        None => Some(value.clone()),
        Some(entry) if entry.member => None,
        Some(entry) => remove(below, value, &entry.children),
    };
    match parts(node, value) {
        Parts::Leaf => Some(value.clone()),
        Parts::Fields(fields) => {
            let kept: Map<String, Value> = fields
                .iter()
                .filter_map(|(name, value)| {
                    let below = node.and_then(|node| node.child(name));
                    Some((name.clone(), keep(&Element::field(name), below, value)?))
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Parts::Items(list, items) => {
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| match identify(list, item) {
                    Ok(element) => keep(&element, Some(list.items), item),
                    Err(_) => Some(item.clone()),
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
    }
}

/// What became of each field between two values.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub added: Entry,
    pub modified: Entry,
    pub removed: Entry,
}

pub(super) fn compare(node: Node<'_>, old: &Value, new: &Value) -> Comparison {
    compare_parts(Some(node), Presence::Optional, Some(old), Some(new))
}

/// Whether a struct or list is always there in Kubernetes' Go types, even when nothing was set.
#[derive(Clone, Copy, PartialEq)]
enum Presence {
    Always,
    Optional,
}

/// Structs that are not pointers: their being there is nobody's doing.
const ALWAYS_THERE: [&str; 8] = [
    "metadata",
    "spec",
    "status",
    "template",
    "strategy",
    "updateStrategy",
    "resources",
    "jobTemplate",
];

impl Presence {
    fn of(node: Option<Node<'_>>, name: &str) -> Presence {
        let field = match node.map(Node::shape) {
            Some(Shape::Struct(fields)) => fields.field(name),
            _ => None,
        };
        match field {
            Some(field) if field.required() || ALWAYS_THERE.contains(&name) => Presence::Always,
            _ => Presence::Optional,
        }
    }
}

fn compare_parts(
    node: Option<Node<'_>>,
    presence: Presence,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Comparison {
    let (old, new) = (old.filter(|old| !old.is_null()), new.filter(|new| !new.is_null()));
    let mut comparison = Comparison::default();
    let children = match (old.map(|old| parts(node, old)), new.map(|new| parts(node, new))) {
        (Some(Parts::Fields(old)), Some(Parts::Fields(new))) => named_children(node, old, new),
        (None, Some(Parts::Fields(new))) => named_children(node, &Map::new(), new),
        (Some(Parts::Fields(old)), None) => named_children(node, old, &Map::new()),
        (Some(Parts::Items(list, old)), Some(Parts::Items(_, new))) => items(list, old, new),
        (None, Some(Parts::Items(list, new))) => items(list, &[], new),
        (Some(Parts::Items(list, old)), None) => items(list, old, &[]),
        _ => None,
    };
    let whole = match (old.is_some(), new.is_some()) {
        (false, true) => &mut comparison.added,
        (true, false) => &mut comparison.removed,
        _ => &mut comparison.modified,
    };
    match children {
        None => whole.member = old != new,
        Some(children) => {
            whole.member = old.is_some() != new.is_some() && presence == Presence::Optional;
            for (element, below) in children {
                comparison.added.children.insert(element.clone(), below.added);
                comparison.modified.children.insert(element.clone(), below.modified);
                comparison.removed.children.insert(element, below.removed);
            }
        }
    }
    comparison
}

/// `None` when both are empty: then being there at all is the field.
fn named_children(
    node: Option<Node<'_>>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Option<Vec<(Element, Comparison)>> {
    if old.is_empty() && new.is_empty() {
        return None;
    }
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let compared = names.into_iter().map(|name| {
        let below = node.and_then(|node| node.child(name));
        let presence = Presence::of(node, name);
        (Element::field(name), compare_parts(below, presence, old.get(name), new.get(name)))
    });
    Some(compared.collect())
}

/// `None` when the elements of either cannot be told apart.
fn items(list: List<'_>, old: &[Value], new: &[Value]) -> Option<Vec<(Element, Comparison)>> {
    let (old, new) = (identified(list, old).ok()?.1, identified(list, new).ok()?.1);
    if old.is_empty() && new.is_empty() {
        return None;
    }
    let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
    let compared = elements.into_iter().map(|element| {
        let (old, new) = (old.get(element).copied(), new.get(element).copied());
        (element.clone(), compare_parts(Some(list.items), Presence::Optional, old, new))
    });
    Some(compared.collect())
}
