//! The entries of metadata.managedFields: their identity, order, number, and what is never owned.
//!
//! An entry is a manager with an operation, a version (Update only) and a subresource; time is not identity. Update
//! entries are capped as upstream: above ten, the oldest of a version melt into `ancient-changes`.

use super::field_set::FieldSet;
use super::{Change, Conflict, Writer, typed};
use crate::schema::Schema;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

pub(super) const UPDATE_MANAGERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that belong to the system and are nobody's.
static STRIPPED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

pub(super) fn without_stripped(fields: &FieldSet) -> FieldSet {
    fields.difference(&STRIPPED)
}

/// Takes managedFields out of an object.
pub(super) fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    operation: Operation,
    manager: String,
    /// Empty for Apply, whose version may change without making another owner.
    api_version: String,
    subresource: String,
}

impl Identity {
    pub fn of(writer: &Writer<'_>, operation: Operation) -> Identity {
        Identity {
            operation,
            manager: writer.manager.to_owned(),
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => writer.api_version.to_owned(),
            },
            subresource: writer.subresource.to_owned(),
        }
    }

    fn printed(&self) -> String {
        let mut printed = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            printed += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            printed += &format!(" using {}", self.api_version);
        }
        printed
    }
}

#[derive(Debug, Clone)]
struct Owned {
    fields: FieldSet,
    api_version: String,
    time: String,
}

/// All entries of one object.
#[derive(Debug, Clone)]
pub(super) struct Managers {
    entries: BTreeMap<Identity, Owned>,
}

impl Managers {
    fn none() -> Managers {
        Managers { entries: BTreeMap::new() }
    }

    /// Those of the live object; broken ones count as none, as upstream.
    pub fn of(live: Option<&Value>) -> Managers {
        let entries = live.and_then(|live| live.pointer("/metadata/managedFields"));
        entries.and_then(Managers::decode).unwrap_or_else(Managers::none)
    }

    /// Those that the request brings, else those of the live object.
    pub fn requested(live: Option<&Value>, new: &Value, subresource: &str) -> Managers {
        let brought = new.pointer("/metadata/managedFields");
        if !subresource.is_empty() {
            return Managers::of(live);
        }
        if brought == Some(&json!([{}])) {
            return Managers::none();
        }
        let brought = brought.and_then(Managers::decode).filter(|brought| !brought.is_empty());
        brought.unwrap_or_else(|| Managers::of(live))
    }

    fn decode(entries: &Value) -> Option<Managers> {
        let mut managers = Managers::none();
        for entry in entries.as_array()? {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let operation = match entry["operation"].as_str()? {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            if entry["fieldsType"]
                .as_str()
                .is_some_and(|kind| kind != "FieldsV1" && !kind.is_empty())
            {
                return None;
            }
            let api_version = text("apiVersion");
            let identity = Identity {
                operation,
                manager: text("manager"),
                api_version: match operation {
                    Operation::Apply => String::new(),
                    Operation::Update => api_version.clone(),
                },
                subresource: text("subresource"),
            };
            let fields = match &entry["fieldsV1"] {
                Value::Null => FieldSet::default(),
                fields => FieldSet::decode(fields).ok()?,
            };
            managers.entries.insert(identity, Owned { fields, api_version, time: text("time") });
        }
        Some(managers)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn fields(&self, identity: &Identity) -> FieldSet {
        self.entries.get(identity).map(|owned| owned.fields.clone()).unwrap_or_default()
    }

    pub fn all_fields(&self) -> FieldSet {
        self.entries.values().fold(FieldSet::default(), |all, owned| all.union(&owned.fields))
    }

    /// An applier owns exactly this.
    pub fn set(&mut self, identity: Identity, fields: FieldSet, writer: &Writer<'_>) {
        let owned = Owned {
            fields,
            api_version: writer.api_version.to_owned(),
            time: writer.time.to_owned(),
        };
        self.entries.insert(identity, owned);
    }

    /// An updater owns this too; its time moves only when it took something.
    pub fn take_over(&mut self, identity: Identity, taken: FieldSet, writer: &Writer<'_>) {
        if !taken.is_empty() {
            let fields = self.fields(&identity).union(&taken);
            self.set(identity, fields, writer);
        }
    }

    /// Everybody but the applier loses what was changed; everybody what was removed.
    pub fn lose(&mut self, change: &Change, applier: Option<&Identity>) {
        for (identity, owned) in &mut self.entries {
            if Some(identity) != applier {
                owned.fields = owned.fields.difference(&change.taken);
            }
            owned.fields = owned.fields.difference(&change.removed);
        }
        self.entries.retain(|_, owned| !owned.fields.is_empty());
    }

    pub fn conflicts(&self, change: &Change, applier: &Identity) -> Vec<Conflict> {
        let others = self.entries.iter().filter(|(identity, _)| *identity != applier);
        let mut conflicts: Vec<Conflict> = others
            .flat_map(|(identity, owned)| {
                let fields = owned.fields.intersection(&change.taken).paths();
                fields.into_iter().map(|field| Conflict { manager: identity.printed(), field })
            })
            .collect();
        conflicts.sort_by(|a, b| (&a.manager, &a.field).cmp(&(&b.manager, &b.field)));
        conflicts
    }

    /// An object that nobody owned belongs to whoever made it, before the first apply decides about it.
    pub fn claim_before_first_apply(&mut self, schema: &Schema, old: &Value, writer: &Writer<'_>) {
        let everything = typed::compare(schema.root(), &Value::Object(Map::new()), old);
        let writer = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..*writer };
        let identity = Identity::of(&writer, Operation::Update);
        self.take_over(identity, without_stripped(&everything.added.children), &writer);
    }

    /// Whether the same managers own the same fields, whenever they took them.
    pub fn same_owners(&self, other: &Managers) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|((a, x), (b, y))| {
                a == b && x.fields == y.fields && x.api_version == y.api_version
            })
    }

    /// Melts the oldest Update entries of one version together until few are left.
    pub fn cap(&mut self) {
        let mut updaters: Vec<(String, Identity)> = self
            .entries
            .iter()
            .filter(|(identity, _)| identity.operation == Operation::Update)
            .map(|(identity, owned)| (owned.time.clone(), identity.clone()))
            .collect();
        updaters.sort();
        let mut excess = updaters.len().saturating_sub(UPDATE_MANAGERS_MAX);
        let mut oldest_of: BTreeMap<String, Identity> = BTreeMap::new();
        for (_, identity) in updaters {
            if excess == 0 {
                return;
            }
            let version = identity.api_version.clone();
            match oldest_of.remove(&version) {
                None => {
                    oldest_of.insert(version, identity);
                }
                Some(oldest) => {
                    oldest_of.insert(version, self.melt(&oldest, &identity));
                    excess -= 1;
                }
            }
        }
    }

    fn melt(&mut self, older: &Identity, newer: &Identity) -> Identity {
        let bucket =
            Identity { manager: ANCIENT.to_owned(), subresource: String::new(), ..newer.clone() };
        let parts: Vec<Owned> = [older, newer, &bucket]
            .into_iter()
            .filter_map(|identity| self.entries.remove(identity))
            .collect();
        let melted = parts.into_iter().reduce(|a, b| Owned {
            fields: a.fields.union(&b.fields),
            time: a.time.max(b.time),
            api_version: a.api_version,
        });
        if let Some(melted) = melted {
            self.entries.insert(bucket.clone(), melted);
        }
        bucket
    }

    /// Writes the entries into an object: appliers first, then by time.
    pub fn write(&self, object: &mut Value) {
        let mut entries: Vec<(&Identity, &Owned)> =
            self.entries.iter().filter(|(_, owned)| !owned.fields.is_empty()).collect();
        entries.sort_by(|(a, x), (b, y)| {
            (a.operation, &x.time, &a.manager, &x.api_version, &a.subresource).cmp(&(
                b.operation,
                &y.time,
                &b.manager,
                &y.api_version,
                &b.subresource,
            ))
        });
        let written: Vec<Value> =
            entries.into_iter().map(|(identity, owned)| owned.encode(identity)).collect();
        if written.is_empty() {
            return;
        }
        let Some(fields) = object.as_object_mut() else { return };
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("managedFields".to_owned(), Value::Array(written));
        }
    }
}

impl Owned {
    fn encode(&self, identity: &Identity) -> Value {
        let mut entry = json!({
            "manager": identity.manager,
            "operation": match identity.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.encode(),
        });
        if !self.time.is_empty() {
            entry["time"] = json!(self.time);
        }
        if !identity.subresource.is_empty() {
            entry["subresource"] = json!(identity.subresource);
        }
        entry
    }
}
