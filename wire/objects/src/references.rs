//! References between objects: owner references and the object references inside Events and status.

use serde_json::{Value, json};

use crate::meta;
use crate::tree;

/// One entry of `metadata.ownerReferences`, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    /// At most one owner is the controller.
    pub is_controller: bool,
    pub blocks_owner_deletion: bool,
}

pub fn owners(object: &Value) -> Vec<OwnerReference<'_>> {
    tree::list(object, "metadata.ownerReferences")
        .iter()
        .map(|it| OwnerReference {
            api_version: tree::text(it, "apiVersion"),
            kind: tree::text(it, "kind"),
            name: tree::text(it, "name"),
            uid: tree::text(it, "uid"),
            is_controller: tree::is_true(it, "controller"),
            blocks_owner_deletion: tree::is_true(it, "blockOwnerDeletion"),
        })
        .collect()
}

/// The owner that manages the object.
pub fn controller_of(object: &Value) -> Option<OwnerReference<'_>> {
    owners(object).into_iter().find(|it| it.is_controller)
}

pub fn is_controlled_by(object: &Value, owner_uid: &str) -> bool {
    controller_of(object).is_some_and(|it| it.uid == owner_uid)
}

/// The reference that makes `owner` the controller of another object and holds back its foreground deletion.
pub fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": meta::api_version(owner),
        "kind": meta::kind(owner),
        "name": meta::name(owner),
        "uid": meta::uid(owner),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The `ObjectReference` to an object, with what is known of it.
pub fn object_reference(object: &Value) -> Value {
    let mut reference = json!({});
    for (key, path) in [
        ("apiVersion", "apiVersion"),
        ("kind", "kind"),
        ("namespace", "metadata.namespace"),
        ("name", "metadata.name"),
        ("uid", "metadata.uid"),
        ("resourceVersion", "metadata.resourceVersion"),
    ] {
        let value = tree::text(object, path);
        if !value.is_empty() {
            reference[key] = json!(value);
        }
    }
    reference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_reference_is_found_again_by_uid() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "uid": "u1"}});
        let pod = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u0"},
            controller_reference(&owner),
        ]}});
        assert!(is_controlled_by(&pod, "u1"));
        assert!(!is_controlled_by(&pod, "u0"), "an owner that is no controller");
        assert_eq!(controller_of(&pod).map(|it| it.kind), Some("ReplicaSet"));
    }

    #[test]
    fn an_object_reference_leaves_out_what_is_not_known() {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        assert_eq!(
            object_reference(&node),
            json!({"apiVersion": "v1", "kind": "Node", "name": "n1"})
        );
    }
}
