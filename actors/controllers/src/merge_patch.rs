//! RFC 7386: the one kind of patch that plans carry.

use serde_json::{Map, Value};

/// Changes `target` as the patch says: maps merge, `null` removes, everything else replaces.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        unreachable!("it was made a map above");
    };
    for (field, value) in fields {
        if value.is_null() {
            target.remove(field);
        } else {
            merge(target.entry(field.as_str()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_merge_nulls_remove_and_lists_are_replaced() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(&mut target, &json!({"a": {"b": null, "d": {"e": null}}, "l": [3]}));
        assert_eq!(target, json!({"a": {"c": 2, "d": {}}, "l": [3]}));
    }
}
