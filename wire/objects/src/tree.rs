//! Reading and writing a JSON tree by dotted path: `at(pod, "spec.nodeName")`.
//!
//! Objects are `serde_json::Value` trees, not structs, because one pipeline serves every kind. Reading what is
//! absent gives `Null`, an empty list or an empty text, as a Go struct's zero value does, so that the code over
//! it reads like upstream's. Keys that contain dots (labels, annotations) are never reached through here.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The value at `path`; `Null` where anything on the way is absent. An empty path is the value itself.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    if path.is_empty() {
        return value;
    }
    path.split('.').try_fold(value, |it, key| it.get(key)).unwrap_or(&NULL)
}

/// The text at `path`, empty when absent or no text.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or("")
}

pub fn integer(value: &Value, path: &str) -> Option<i64> {
    at(value, path).as_i64()
}

/// Whether `path` holds `true`; absent counts as false.
pub fn is_true(value: &Value, path: &str) -> bool {
    at(value, path).as_bool().unwrap_or(false)
}

/// The list at `path`, empty when absent.
pub fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The entries of the map at `path`, in key order; none when absent.
pub fn entries<'a>(
    value: &'a Value,
    path: &str,
) -> impl DoubleEndedIterator<Item = (&'a str, &'a Value)> + use<'a> {
    at(value, path)
        .as_object()
        .into_iter()
        .flat_map(|it| it.iter().map(|(key, value)| (key.as_str(), value)))
}

/// Absent, `null`, `""`, `[]` and `{}`: what a Go struct with `omitempty` would not print.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(it) => it.is_empty(),
        Value::Array(it) => it.is_empty(),
        Value::Object(it) => it.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The place at `path`, to write into. Absent maps on the way are made; a non-map on the way is replaced.
pub fn place<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    let mut here = value;
    for key in path.split('.') {
        here = object(here).entry(key).or_insert(Value::Null);
    }
    here
}

/// The place at `path` if it is there; makes nothing.
pub fn find_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').try_fold(value, |it, key| it.get_mut(key)).filter(|it| !it.is_null())
}

pub fn put(value: &mut Value, path: &str, new: impl Into<Value>) {
    *place(value, path) = new.into();
}

/// Writes `new` where nothing or `""` stands: how upstream fills in defaults.
pub fn fill(value: &mut Value, path: &str, new: impl Into<Value>) {
    if matches!(at(value, path), Value::Null) || at(value, path).as_str() == Some("") {
        put(value, path, new);
    }
}

/// Takes the last key of `path` out of the tree; nothing happens when it is not there.
pub fn remove(value: &mut Value, path: &str) -> Option<Value> {
    match path.rsplit_once('.') {
        None => value.as_object_mut()?.remove(path),
        Some((parent, key)) => find_mut(value, parent)?.as_object_mut()?.remove(key),
    }
}

/// Makes `path` in `value` what it is in `source`, absent where it is absent there.
pub fn copy(value: &mut Value, source: &Value, path: &str) {
    match at(source, path) {
        Value::Null => drop(remove(value, path)),
        it => put(value, path, it.clone()),
    }
}

/// The elements of the list at `path`, to change in place.
pub fn each_mut<'a>(value: &'a mut Value, path: &str) -> impl Iterator<Item = &'a mut Value> {
    find_mut(value, path).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The map itself; what is no map becomes an empty one.
pub fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("was made an object above")
}

/// Drops `null` members of maps at every depth: Go never prints a nil field back.
pub fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, it| !it.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reading_what_is_absent_gives_empty_values() {
        let pod = json!({"spec": {"nodeName": "n1", "x": 3}});
        assert_eq!(text(&pod, "spec.nodeName"), "n1");
        assert_eq!(text(&pod, "spec.x"), "");
        assert_eq!(text(&pod, "status.phase"), "");
        assert!(list(&pod, "spec.containers").is_empty());
        assert_eq!(at(&pod, ""), &pod);
    }

    #[test]
    fn filling_keeps_what_is_there_and_makes_the_maps_on_the_way() {
        let mut it = json!({"spec": {"a": "x", "b": ""}});
        fill(&mut it, "spec.a", "y");
        fill(&mut it, "spec.b", "y");
        fill(&mut it, "spec.c.d", 1);
        assert_eq!(it, json!({"spec": {"a": "x", "b": "y", "c": {"d": 1}}}));
    }

    #[test]
    fn copying_an_absent_path_removes_it() {
        let mut new = json!({"status": {"a": 1}, "spec": {}});
        copy(&mut new, &json!({}), "status");
        assert_eq!(new, json!({"spec": {}}));
    }

    #[test]
    fn nulls_are_pruned_inside_lists_too() {
        let mut it = json!({"a": null, "b": [{"c": null, "d": 0}]});
        prune_nulls(&mut it);
        assert_eq!(it, json!({"b": [{"d": 0}]}));
    }
}
