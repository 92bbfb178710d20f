//! Strategic merge: a merge patch that knows which lists are sets and by which key their elements are found.
//!
//! The rules and their corners are those of k8s.io/apimachinery/pkg/util/strategicpatch on the server: new elements
//! without an order directive stand before the server's; a `$patch: delete` inside a map leaves an empty map; nulls
//! that match nothing vanish. Directives: `$patch` (replace, delete), `$retainKeys`, `$deleteFromPrimitiveList/x`,
//! `$setElementOrder/x`.

mod order;

use super::PatchError;
use crate::schema::{Field, Node, PatchStrategy, Schema, Shape};
use order::Elements;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Merges `patch` into `document`, both objects of the schema's kind.
pub fn strategic_merge(
    schema: &Schema,
    document: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (document.clone(), patch.clone()) else {
        return Err(malformed("a strategic merge patch must be a JSON object"));
    };
    merge_object(original, patch, Some(schema.root())).map(Value::Object)
}

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

fn inapplicable(message: impl Into<String>) -> PatchError {
    PatchError::Inapplicable(message.into())
}

fn merge_object(
    mut original: Object,
    mut patch: Object,
    node: Option<Node<'_>>,
) -> Result<Object, PatchError> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => return Ok(patch),
        Some(Value::String(directive)) if directive == "delete" => return Ok(Object::new()),
        Some(other) => return Err(unknown_directive(&other)),
    }
    retain_keys(&mut original, &mut patch)?;
    order_lists(&mut original, &mut patch, node)?;
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_PREFIX) {
            delete_from_list(&mut original, list, value)?;
        } else if value.is_null() {
            original.remove(&name);
        } else {
            let merged = match original.remove(&name) {
                Some(old) => merge_value(old, value, Context::of(node, &name))?,
                None => without_directives(value),
            };
            original.insert(name, merged);
        }
    }
    Ok(original)
}

/// What the schema says about one field of an object.
#[derive(Clone, Copy)]
struct Context<'a> {
    node: Option<Node<'a>>,
    strategy: PatchStrategy,
    merge_key: Option<&'a str>,
}

impl<'a> Context<'a> {
    fn of(node: Option<Node<'a>>, name: &str) -> Context<'a> {
        let field: Option<Field<'a>> = match node.map(Node::shape) {
            Some(Shape::Struct(fields)) => fields.field(name),
            _ => None,
        };
        Context {
            node: node.and_then(|node| node.child(name)),
            strategy: field.map(Field::strategy).unwrap_or_default(),
            merge_key: field.and_then(Field::merge_key),
        }
    }

    fn items(self) -> Option<Node<'a>> {
        Some(self.node?.list()?.items)
    }
}

fn merge_value(old: Value, patch: Value, context: Context<'_>) -> Result<Value, PatchError> {
    match (old, patch) {
        (Value::Object(old), Value::Object(patch)) if !context.strategy.replace => {
            merge_object(old, patch, context.node).map(Value::Object)
        }
        (Value::Array(old), Value::Array(patch)) if context.strategy.merge => {
            merge_list(old, patch, context).map(Value::Array)
        }
        (_, patch) => Ok(without_directives(patch)),
    }
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    context: Context<'_>,
) -> Result<Vec<Value>, PatchError> {
    let Some(key) = context.merge_key else {
        return merge_scalars(original, patch);
    };
    let elements = Elements::Keyed(key);
    let server_order = original.clone();
    let mut wanted = Vec::with_capacity(patch.len());
    let (mut replace, mut gone) = (false, BTreeSet::new());
    for item in patch {
        match element_directive(&item)? {
            ElementDirective::None => wanted.push(item),
            ElementDirective::Replace => replace = true,
            ElementDirective::Delete => {
                elements.identity(&item)?;
                gone.insert(elements.name(&item));
            }
        }
    }
    if replace {
        return Ok(wanted.into_iter().map(without_directives).collect());
    }
    elements.check(&original)?;
    elements.check(&wanted)?;
    original.retain(|old| !gone.contains(&elements.name(old)));
    let mut places = elements.places(&original);
    let patch_order = wanted.clone();
    for item in wanted {
        let place = *places.entry(elements.name(&item)).or_insert(original.len());
        match (original.get_mut(place), item) {
            (Some(Value::Object(old)), Value::Object(item)) => {
                *old = merge_object(std::mem::take(old), item, context.items())?;
            }
            (_, item) => original.push(without_directives(item)),
        }
    }
    Ok(elements.arrange(original, &patch_order, &server_order))
}

fn merge_scalars(original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
    if original.iter().chain(&patch).any(|item| item.is_object() || item.is_array()) {
        return Err(inapplicable("cannot merge lists without merge key"));
    }
    let mut seen = BTreeSet::new();
    let both = original.iter().chain(&patch);
    let merged = both.filter(|item| seen.insert(Elements::Scalars.name(item))).cloned().collect();
    Ok(Elements::Scalars.arrange(merged, &patch, &original))
}

enum ElementDirective {
    None,
    Replace,
    Delete,
}

fn element_directive(item: &Value) -> Result<ElementDirective, PatchError> {
    match item.get(PATCH) {
        None => Ok(ElementDirective::None),
        Some(Value::String(directive)) if directive == "replace" => Ok(ElementDirective::Replace),
        Some(Value::String(directive)) if directive == "delete" => Ok(ElementDirective::Delete),
        Some(Value::String(directive)) if directive == "merge" => {
            Err(inapplicable("merging lists cannot yet be specified in the patch"))
        }
        Some(other) => Err(unknown_directive(other)),
    }
}

fn unknown_directive(directive: &Value) -> PatchError {
    inapplicable(format!("unknown patch type {directive} in {PATCH}; it is replace or delete"))
}

/// `$retainKeys` names every field that may stay; the patch may set no other.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || malformed("invalid patch format of retainKeys");
    let Value::Array(names) = directive else { return Err(bad()) };
    let kept: BTreeSet<&str> = names.iter().filter_map(Value::as_str).collect();
    let retained = |name: &String| kept.contains(name.as_str());
    if names.iter().any(|name| !name.is_string())
        || !patch.keys().filter(|name| !name.starts_with('$')).all(retained)
    {
        return Err(bad());
    }
    original.retain(|name, _| retained(name));
    Ok(())
}

/// Merges each list that has a `$setElementOrder` and puts it in that order.
fn order_lists(
    original: &mut Object,
    patch: &mut Object,
    node: Option<Node<'_>>,
) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|name| name.starts_with(ORDER_PREFIX)).cloned().collect();
    for directive in directives {
        let name = directive[ORDER_PREFIX.len()..].to_owned();
        let order = list_of(patch.remove(&directive), &directive)?.unwrap_or_default();
        let context = Context::of(node, &name);
        let elements = context.merge_key.map_or(Elements::Scalars, Elements::Keyed);
        if matches!(patch.get(&name), Some(Value::Null)) {
            continue; // the list is removed by the patch
        }
        let old = list_of(original.get(&name).cloned(), &name)?;
        let new = list_of(patch.get(&name).cloned(), &name)?;
        elements.check_order(new.as_deref().unwrap_or_default(), &order, &directive)?;
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => match without_directives(Value::Array(new)) {
                Value::Array(new) => new,
                other => return Err(inapplicable(format!("{name} is not a list: {other}"))),
            },
            (Some(old), Some(new)) => {
                list_of(Some(merge_value(old.into(), new.into(), context)?), &name)?
                    .unwrap_or_default()
            }
        };
        elements.check(&merged)?;
        patch.remove(&name);
        let arranged = elements.arrange(merged, &order, &server_order);
        original.insert(name, Value::Array(arranged));
    }
    Ok(())
}

fn list_of(value: Option<Value>, name: &str) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(malformed(format!("{name:?} is not a list"))),
    }
}

fn delete_from_list(original: &mut Object, name: &str, gone: Value) -> Result<(), PatchError> {
    let gone = list_of(Some(gone), &format!("{DELETE_PREFIX}{name}"))?.unwrap_or_default();
    if gone.iter().any(|item| item.is_object() || item.is_array()) {
        return Err(malformed("invalid patch format of primitive list"));
    }
    if let Some(Value::Array(items)) = original.get_mut(name) {
        let gone: BTreeSet<String> = gone.iter().map(Value::to_string).collect();
        items.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

/// What a part of a patch is where the document had nothing: itself, without directives and nulls.
fn without_directives(patch: Value) -> Value {
    match patch {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(name, value)| !value.is_null() && !is_directive(name))
                .map(|(name, value)| (name, without_directives(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(
            items
                .into_iter()
                .filter(|item| item.get(PATCH).is_none())
                .map(without_directives)
                .collect(),
        ),
        scalar => scalar,
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH
        || name == RETAIN_KEYS
        || name.starts_with(DELETE_PREFIX)
        || name.starts_with(ORDER_PREFIX)
}
