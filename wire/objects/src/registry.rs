//! The kinds that are served: one row each, and how to find a row.
//!
//! The api, discovery, RBAC and the controllers know a kind only through its row. A row names what discovery
//! says (resource, verbs, short names, subresources), where the object is stored, and the pure functions of its
//! life: defaults, preparation, validation, table cells. A kind that another group or version serves over the
//! same storage (events.k8s.io) has a row of its own with converters. Rows follow the discovery document of
//! Kubernetes 1.36.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::field_error::FieldError;
use crate::fields::SelectableField;
use crate::table::Printer;

mod apps;
mod core;
mod others;
mod reviews;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Cluster,
    Namespaced,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Namespaced => "Namespaced",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// All eight, in discovery's order.
    pub const ALL: &[Verb] = &[
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];
    pub const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
    pub const CREATE: &[Verb] = &[Verb::Create];
    pub const CHANGE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// One served kind. Rows are static and complete: what is not in one is not served.
#[derive(Debug)]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub resource: &'static str,
    pub singular: &'static str,
    pub scope: Scope,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub verbs: &'static [Verb],
    pub subresources: &'static [Subresource],
    pub storage: Storage,
    pub strategy: Strategy,
    /// Beyond `metadata.name` and `metadata.namespace`, which every kind has.
    pub fields: &'static [SelectableField],
    pub printer: Printer,
}

/// Where objects of a row live.
#[derive(Debug, Clone, Copy)]
pub enum Storage {
    Stored(Stored),
    /// Answered at once and never stored: reviews, bindings.
    Virtual,
}

/// `group` and `resource` make the store's keys; several rows may share them.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    pub group: &'static str,
    pub resource: &'static str,
    /// The `apiVersion` and `kind` inside stored bodies.
    pub api_version: &'static str,
    pub kind: &'static str,
    /// Goes into `Value::storage_version`; raised when the stored shape changes.
    pub version: u16,
    pub from_storage: fn(Value) -> Value,
    pub to_storage: fn(Value) -> Value,
}

/// A converter that changes nothing.
pub fn as_stored(object: Value) -> Value {
    object
}

/// Something below an object: `/pods/web/status`.
#[derive(Debug)]
pub struct Subresource {
    pub name: &'static str,
    /// The body's group, version and kind; often not the parent's (Scale, Eviction, TokenRequest).
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [Verb],
    pub access: Access,
}

/// How a subresource is served.
#[derive(Debug, Clone, Copy)]
pub enum Access {
    /// Reads and writes the parent object, through its own strategy (`status`, `finalize`, …).
    Object(SubresourceStrategy),
    /// A projection of the parent; see `crate::scale`.
    Scale,
    /// Takes a body of another kind and acts on the parent (`binding`, `eviction`, `token`).
    Action,
    /// A stream or proxied request (`log`, `exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

#[derive(Debug, Clone, Copy)]
pub struct SubresourceStrategy {
    /// Makes `new` the old object but for what this subresource may change.
    pub prepare: fn(new: &mut Value, old: &Value),
    pub validate: fn(new: &Value, old: &Value) -> Vec<FieldError>,
}

/// What an update of the main resource may do besides changing an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOfAbsent {
    Refuse,
    Create,
}

/// Whether a PUT without `metadata.resourceVersion` overwrites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutWithoutRevision {
    Refuse,
    Overwrite,
}

/// The pure functions of a kind's life. `writes` calls them in upstream's order.
#[derive(Debug, Clone, Copy)]
pub struct Strategy {
    /// Fills in what the client left out; idempotent; also run when reading a patch's result.
    pub default: fn(&mut Value),
    /// Clears what only the system sets, sets what is set once (status, generation).
    pub prepare_create: fn(&mut Value),
    /// Keeps what the main resource may not change (status), bumps the generation.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    /// Checks the whole object without its metadata; run on create and on update.
    pub validate: fn(&Value) -> Vec<FieldError>,
    /// Checks what may change; run on update after `validate`.
    pub validate_update: fn(new: &Value, old: &Value) -> Vec<FieldError>,
    /// What is wrong with a name; empty when it is right.
    pub name: fn(&str) -> Vec<String>,
    /// The grace period of a delete, given the one asked for. `None`: the kind is deleted at once.
    pub grace_period_seconds: Option<fn(&Value, Option<i64>) -> i64>,
    pub put_of_absent: PutOfAbsent,
    pub put_without_revision: PutWithoutRevision,
}

impl Strategy {
    /// No defaults, no rules of its own, DNS-1123 subdomain names.
    pub const PLAIN: Strategy = Strategy {
        default: |_| {},
        prepare_create: |_| {},
        prepare_update: |_, _| {},
        validate: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        name: crate::names::dns1123_subdomain,
        grace_period_seconds: None,
        put_of_absent: PutOfAbsent::Refuse,
        put_without_revision: PutWithoutRevision::Overwrite,
    };
}

impl Kind {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn stored(&self) -> Option<&Stored> {
        match &self.storage {
            Storage::Stored(stored) => Some(stored),
            Storage::Virtual => None,
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|it| it.name == name)
    }

    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }
}

/// All rows, found by resource or by kind.
#[derive(Debug)]
pub struct Registry {
    rows: Vec<&'static Kind>,
    by_resource: BTreeMap<(&'static str, &'static str, &'static str), &'static Kind>,
    by_kind: BTreeMap<(&'static str, &'static str, &'static str), &'static Kind>,
}

impl Registry {
    fn new(rows: Vec<&'static Kind>) -> Self {
        let by_resource =
            rows.iter().map(|it| ((it.group, it.version, it.resource), *it)).collect();
        let by_kind = rows.iter().map(|it| ((it.group, it.version, it.kind), *it)).collect();
        Self { rows, by_resource, by_kind }
    }

    pub fn by_resource(&self, group: &str, version: &str, resource: &str) -> Option<&'static Kind> {
        self.by_resource.get(&(group, version, resource)).copied()
    }

    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
        self.by_kind.get(&(group, version, kind)).copied()
    }

    /// By an object's own `apiVersion` and `kind`.
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = split_api_version(api_version);
        self.by_kind(group, version, kind)
    }

    /// The row whose version is preferred in its group, for callers that know no version (RBAC, garbage collection).
    pub fn by_group_resource(&self, group: &str, resource: &str) -> Option<&'static Kind> {
        self.iter().find(|it| it.group == group && it.resource == resource)
    }

    /// In discovery's order: core first, then by group; within a group by resource.
    pub fn iter(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        self.rows.iter().copied()
    }

    /// The groups and versions that are served, in order, without repeats.
    pub fn group_versions(&self) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        for it in self.iter() {
            if !found.contains(&(it.group, it.version)) {
                found.push((it.group, it.version));
            }
        }
        found
    }
}

/// `apps/v1` → (`apps`, `v1`); `v1` → (``, `v1`).
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let tables = [core::KINDS, apps::KINDS, reviews::KINDS, others::KINDS];
    Registry::new(tables.into_iter().flatten().collect())
});

pub fn registry() -> &'static Registry {
    &REGISTRY
}

#[cfg(test)]
mod tests;
