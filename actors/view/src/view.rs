//! `ClusterView`: all tables at one revision, cheap to hold and cheap to change.
//!
//! Each table stands behind its own `Arc` and is copied on write (`Arc::make_mut`). Deciders read the view within
//! one turn of their lane, so at the next change nobody holds it and the write happens in place; who does hold a
//! snapshot across turns costs one copy of the pointers of the tables that changed meanwhile, never of an object.
//! A persistent tree would make every read and write slower to make that rare case faster.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use kactor_protocol::store::Key;
use kactor_protocol::{Revision, Uid};
use serde_json::Value;

use crate::kinds;
use crate::meta::{Meta, OwnerRef};
use crate::namespaces::{ConfigMap, Lease, Namespace};
use crate::nodes::Node;
use crate::pods::Pod;
use crate::services::{EndpointSlice, Endpoints, Service};
use crate::table::Table;
use crate::workloads::{Deployment, ReplicaSet};

/// One object, as far as decisions read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Namespace(Arc<Namespace>),
    Node(Arc<Node>),
    Pod(Arc<Pod>),
    Deployment(Arc<Deployment>),
    ReplicaSet(Arc<ReplicaSet>),
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Endpoints(Arc<Endpoints>),
    ConfigMap(Arc<ConfigMap>),
    Lease(Arc<Lease>),
    /// Metadata alone: every other kind, Secrets and ServiceAccounts among them.
    Other(Arc<Meta>),
}

impl Object {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        match (meta.key.group(), meta.key.resource()) {
            ("", "namespaces") => Self::Namespace(Arc::new(Namespace::parse(meta, body))),
            ("", "nodes") => Self::Node(Arc::new(Node::parse(meta, body))),
            ("", "pods") => Self::Pod(Arc::new(Pod::parse(meta, body))),
            ("apps", "deployments") => Self::Deployment(Arc::new(Deployment::parse(meta, body))),
            ("apps", "replicasets") => Self::ReplicaSet(Arc::new(ReplicaSet::parse(meta, body))),
            ("", "services") => Self::Service(Arc::new(Service::parse(meta, body))),
            ("discovery.k8s.io", "endpointslices") => {
                Self::EndpointSlice(Arc::new(EndpointSlice::parse(meta, body)))
            }
            ("", "endpoints") => Self::Endpoints(Arc::new(Endpoints::parse(meta, body))),
            ("", "configmaps") => Self::ConfigMap(Arc::new(ConfigMap::parse(meta, body))),
            ("coordination.k8s.io", "leases") => Self::Lease(Arc::new(Lease::parse(meta, body))),
            _ => Self::Other(meta),
        }
    }

    pub fn meta(&self) -> &Arc<Meta> {
        match self {
            Self::Namespace(it) => &it.meta,
            Self::Node(it) => &it.meta,
            Self::Pod(it) => &it.meta,
            Self::Deployment(it) => &it.meta,
            Self::ReplicaSet(it) => &it.meta,
            Self::Service(it) => &it.meta,
            Self::EndpointSlice(it) => &it.meta,
            Self::Endpoints(it) => &it.meta,
            Self::ConfigMap(it) => &it.meta,
            Self::Lease(it) => &it.meta,
            Self::Other(it) => it,
        }
    }

    pub fn as_pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Self::Pod(pod) => Some(pod),
            _ => None,
        }
    }
}

/// What one write changed: who must wake is read from both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub revision: Revision,
    pub key: Key,
    pub before: Option<Object>,
    pub after: Option<Object>,
}

impl Changed {
    /// An object as it stands, as if it had just been made: how everything wakes at the beginning of a reign.
    pub fn appeared(object: Object) -> Self {
        let meta = object.meta();
        Self { revision: meta.revision, key: meta.key.clone(), before: None, after: Some(object) }
    }

    /// The new state, or else the last one.
    pub fn object(&self) -> Option<&Object> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// Both sides that exist.
    pub fn sides(&self) -> impl Iterator<Item = &Object> {
        self.before.iter().chain(&self.after)
    }
}

#[derive(Debug, Clone, Default)]
struct Graph {
    objects: BTreeMap<Key, Object>,
    by_uid: BTreeMap<Uid, Key>,
    dependents: BTreeMap<Uid, BTreeSet<Key>>,
    /// (group, kind) → (resource, version), of what has been seen.
    resources: BTreeMap<(String, String), (String, String)>,
}

impl Graph {
    fn insert(&mut self, object: Object) -> Option<Object> {
        let meta = object.meta().clone();
        let before = self.remove(&meta.key);
        for owner in &meta.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(meta.key.clone());
        }
        self.by_uid.insert(meta.uid.clone(), meta.key.clone());
        if !meta.kind.is_empty() && kinds::by_kind(meta.key.group(), &meta.kind).is_none() {
            let kind = (meta.key.group().to_owned(), meta.kind.clone());
            let version = kinds::version_of(&meta.api_version).to_owned();
            self.resources.insert(kind, (meta.key.resource().to_owned(), version));
        }
        self.objects.insert(meta.key.clone(), object);
        before
    }

    fn remove(&mut self, key: &Key) -> Option<Object> {
        let object = self.objects.remove(key)?;
        let meta = object.meta();
        for owner in &meta.owners {
            if let Some(keys) = self.dependents.get_mut(&owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        if self.by_uid.get(&meta.uid) == Some(key) {
            self.by_uid.remove(&meta.uid);
        }
        Some(object)
    }
}

/// What stands under a key now.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    pub uid: &'a Uid,
    pub modified: Revision,
    pub body: &'a Value,
}

/// All that deciders read, at `revision()`.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    revision: Revision,
    graph: Arc<Graph>,
    namespaces: Arc<Table<Namespace>>,
    nodes: Arc<Table<Node>>,
    pods: Arc<Table<Pod>>,
    deployments: Arc<Table<Deployment>>,
    replica_sets: Arc<Table<ReplicaSet>>,
    services: Arc<Table<Service>>,
    endpoint_slices: Arc<Table<EndpointSlice>>,
    endpoints: Arc<Table<Endpoints>>,
    config_maps: Arc<Table<ConfigMap>>,
    leases: Arc<Table<Lease>>,
}

macro_rules! tables {
    ($($table:ident: $kind:ident),*) => {
        impl ClusterView {
            $(pub fn $table(&self) -> &Table<$kind> {
                &self.$table
            })*

            fn insert_typed(&mut self, object: &Object) {
                match object {
                    $(Object::$kind(it) => {
                        Arc::make_mut(&mut self.$table).insert(it.clone());
                    })*
                    Object::Other(_) => {}
                }
            }

            fn remove_typed(&mut self, object: &Object) {
                match object {
                    $(Object::$kind(it) => {
                        Arc::make_mut(&mut self.$table).remove(&it.meta.key);
                    })*
                    Object::Other(_) => {}
                }
            }
        }
    };
}

tables!(
    namespaces: Namespace,
    nodes: Node,
    pods: Pod,
    deployments: Deployment,
    replica_sets: ReplicaSet,
    services: Service,
    endpoint_slices: EndpointSlice,
    endpoints: Endpoints,
    config_maps: ConfigMap,
    leases: Lease
);

impl ClusterView {
    /// Everything up to and with this revision is in it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Nothing that this view reads changed up to `revision`.
    pub fn advance(&mut self, revision: Revision) {
        assert!(revision >= self.revision, "a view never goes back");
        self.revision = revision;
    }

    /// Takes over one change. Changes come in the order of their revisions.
    pub fn apply(
        &mut self,
        revision: Revision,
        key: &Key,
        current: Option<Current<'_>>,
    ) -> Changed {
        self.advance(revision);
        let graph = Arc::make_mut(&mut self.graph);
        let (before, after) = match current {
            Some(it) => {
                let meta = Meta::parse(key.clone(), it.uid.clone(), it.modified, it.body);
                let object = Object::parse(Arc::new(meta), it.body);
                (graph.insert(object.clone()), Some(object))
            }
            None => (graph.remove(key), None),
        };
        match (&before, &after) {
            (_, Some(object)) => self.insert_typed(object),
            (Some(object), None) => self.remove_typed(object),
            (None, None) => {}
        }
        Changed { revision, key: key.clone(), before, after }
    }

    /// Any object's metadata.
    pub fn meta(&self, key: &Key) -> Option<&Arc<Meta>> {
        self.graph.objects.get(key).map(Object::meta)
    }

    pub fn object(&self, key: &Key) -> Option<&Object> {
        self.graph.objects.get(key)
    }

    /// Every object, by key.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.graph.objects.values()
    }

    /// Every object of one namespace, by key.
    pub fn contents<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Meta>> {
        self.objects()
            .map(Object::meta)
            .filter(move |it| !it.key.namespace().is_empty() && it.key.namespace() == namespace)
    }

    pub fn by_uid(&self, uid: &Uid) -> Option<&Arc<Meta>> {
        self.meta(self.graph.by_uid.get(uid)?)
    }

    /// Everything with an owner reference to `uid`, whether or not such an owner exists.
    pub fn dependents(&self, uid: &Uid) -> impl Iterator<Item = &Arc<Meta>> {
        self.graph.dependents.get(uid).into_iter().flatten().filter_map(|it| self.meta(it))
    }

    /// Where the named owner of an object in `namespace` would stand, and its version; `None` for a kind that is not known.
    pub fn owner_key(&self, owner: &OwnerRef, namespace: &str) -> Option<(Key, String)> {
        let group = kinds::group_of(&owner.api_version);
        let (resource, version, namespaced) = match kinds::by_kind(group, &owner.kind) {
            Some(row) => (row.resource, row.version, row.namespaced),
            None => {
                let learned = self.graph.resources.get(&(group.to_owned(), owner.kind.clone()))?;
                let prefix = Key::resource_prefix(group, &learned.0);
                let cluster_wide = self
                    .graph
                    .objects
                    .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
                    .next();
                let namespaced = cluster_wide.is_some_and(|(key, _)| !key.namespace().is_empty());
                (learned.0.as_str(), learned.1.as_str(), namespaced)
            }
        };
        let namespace = if namespaced { namespace } else { "" };
        let key = Key::new(group, resource, namespace, &owner.name).ok()?;
        Some((key, version.to_owned()))
    }

    /// The version in which requests for this resource are made.
    pub fn version_of(&self, key: &Key) -> String {
        if let Some(row) = kinds::by_resource(key.group(), key.resource()) {
            return row.version.to_owned();
        }
        match self.meta(key) {
            Some(meta) if !meta.api_version.is_empty() => {
                kinds::version_of(&meta.api_version).to_owned()
            }
            _ => "v1".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
