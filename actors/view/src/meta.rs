//! `metadata` of any object, parsed once: the part of every kind that the garbage collector and the shells read.

use std::collections::BTreeMap;

use kactor_protocol::store::Key;
use kactor_protocol::{Revision, Timestamp, Uid};
use serde_json::Value;

use crate::json;

/// Labels or annotations, sorted.
pub type Labels = BTreeMap<String, String>;

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRef {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: Uid,
    pub is_controller: bool,
    pub blocks_deletion: bool,
}

/// What every object has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub key: Key,
    /// As the body says it; empty when the body could not be read.
    pub api_version: String,
    pub kind: String,
    pub uid: Uid,
    /// The object's `resourceVersion`.
    pub revision: Revision,
    pub generation: i64,
    pub created: Timestamp,
    /// `deletionTimestamp`: by when it should be gone.
    pub deleting: Option<Timestamp>,
    pub labels: Labels,
    pub annotations: Labels,
    pub owners: Vec<OwnerRef>,
    pub finalizers: Vec<String>,
    /// Whether `generateName` made the name.
    pub generate_name: String,
}

impl Meta {
    pub fn parse(key: Key, uid: Uid, revision: Revision, body: &Value) -> Self {
        let at = |pointer| json::time(body, pointer);
        Self {
            key,
            api_version: json::text(body, "/apiVersion").to_owned(),
            kind: json::text(body, "/kind").to_owned(),
            uid,
            revision,
            generation: json::int(body, "/metadata/generation").unwrap_or(0),
            created: at("/metadata/creationTimestamp").unwrap_or(Timestamp::EPOCH),
            deleting: at("/metadata/deletionTimestamp"),
            labels: json::text_map(body, "/metadata/labels"),
            annotations: json::text_map(body, "/metadata/annotations"),
            owners: json::list(body, "/metadata/ownerReferences").iter().map(owner_ref).collect(),
            finalizers: json::texts(body, "/metadata/finalizers"),
            generate_name: json::text(body, "/metadata/generateName").to_owned(),
        }
    }

    pub fn namespace(&self) -> &str {
        self.key.namespace()
    }

    pub fn name(&self) -> &str {
        self.key.name()
    }

    pub fn is_terminating(&self) -> bool {
        self.deleting.is_some()
    }

    /// The one owner that manages it.
    pub fn controller(&self) -> Option<&OwnerRef> {
        self.owners.iter().find(|it| it.is_controller)
    }

    pub fn is_controlled_by(&self, uid: &Uid) -> bool {
        self.controller().is_some_and(|it| it.uid == *uid)
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|it| it == name)
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }
}

fn owner_ref(entry: &Value) -> OwnerRef {
    OwnerRef {
        api_version: json::text(entry, "/apiVersion").to_owned(),
        kind: json::text(entry, "/kind").to_owned(),
        name: json::text(entry, "/name").to_owned(),
        uid: Uid::from(json::text(entry, "/uid")),
        is_controller: json::is_true(entry, "/controller"),
        blocks_deletion: json::is_true(entry, "/blockOwnerDeletion"),
    }
}

/// One entry of a status' `conditions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition: Option<Timestamp>,
    pub last_update: Option<Timestamp>,
    pub last_heartbeat: Option<Timestamp>,
}

impl Condition {
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// All entries of the list at `at`.
    pub fn parse_all(body: &Value, at: &str) -> Vec<Condition> {
        json::list(body, at).iter().map(Condition::parse).collect()
    }

    fn parse(entry: &Value) -> Condition {
        Condition {
            kind: json::text(entry, "/type").to_owned(),
            status: json::text(entry, "/status").to_owned(),
            reason: json::text(entry, "/reason").to_owned(),
            message: json::text(entry, "/message").to_owned(),
            last_transition: json::time(entry, "/lastTransitionTime"),
            last_update: json::time(entry, "/lastUpdateTime"),
            last_heartbeat: json::time(entry, "/lastHeartbeatTime"),
        }
    }

    pub fn find<'a>(all: &'a [Condition], kind: &str) -> Option<&'a Condition> {
        all.iter().find(|it| it.kind == kind)
    }
}
