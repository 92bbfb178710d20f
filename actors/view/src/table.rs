//! One kind's objects with their indexes: by key (so by namespace), owner, node and label.
//!
//! Everything is ordered, so that a plan made from it is the same on every host.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use kactor_protocol::Uid;
use kactor_protocol::store::Key;

use crate::meta::Meta;
use crate::selector::Selector;

/// What a table keeps.
pub trait Projected {
    /// Whether `selected` may use an index; it costs memory per label.
    const INDEXES_LABELS: bool = false;

    fn meta(&self) -> &Arc<Meta>;

    /// The node that it is bound to.
    fn node(&self) -> Option<&str> {
        None
    }
}

/// (namespace, label, value)
type LabelAt = (Box<str>, Box<str>, Box<str>);

#[derive(Debug, Clone)]
pub struct Table<T> {
    by_key: BTreeMap<Key, Arc<T>>,
    by_owner: BTreeMap<Uid, BTreeSet<Key>>,
    by_node: BTreeMap<Box<str>, BTreeSet<Key>>,
    by_label: BTreeMap<LabelAt, BTreeSet<Key>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            by_node: BTreeMap::new(),
            by_label: BTreeMap::new(),
        }
    }
}

impl<T: Projected> Table<T> {
    pub fn get(&self, key: &Key) -> Option<&Arc<T>> {
        self.by_key.get(key)
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.by_key.values()
    }

    /// Those of one namespace, by name.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        // A table holds one resource, so its first key tells every key's prefix.
        let start = self.by_key.keys().next().map_or_else(String::new, |first| {
            Key::namespace_prefix(first.group(), first.resource(), namespace)
        });
        self.by_key
            .range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded))
            .map(|(_, it)| it)
            .take_while(move |it| it.meta().namespace() == namespace)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Those with an owner reference (of a controller or not) to `uid`.
    pub fn owned_by(&self, uid: &Uid) -> impl Iterator<Item = &Arc<T>> {
        self.at(self.by_owner.get(uid))
    }

    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Arc<T>> {
        self.at(self.by_node.get(node))
    }

    /// Names of nodes that something is bound to, whether or not the Node exists.
    pub fn bound_nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(AsRef::as_ref)
    }

    /// Those of one namespace that the selector matches, by name.
    pub fn selected<'a>(&'a self, namespace: &'a str, selector: &'a Selector) -> Vec<&'a Arc<T>> {
        if selector.is_nothing() {
            return Vec::new();
        }
        let matches = |it: &&Arc<T>| selector.matches(&it.meta().labels);
        if !T::INDEXES_LABELS || selector.equalities().is_empty() {
            return self.in_namespace(namespace).filter(matches).collect();
        }
        let nothing = BTreeSet::new();
        let rarest = selector
            .equalities()
            .iter()
            .map(|(label, value)| {
                let at = (namespace.into(), label.as_str().into(), value.as_str().into());
                self.by_label.get(&at).unwrap_or(&nothing)
            })
            .min_by_key(|it| it.len())
            .unwrap_or(&nothing);
        rarest.iter().filter_map(|it| self.by_key.get(it)).filter(matches).collect()
    }

    fn at<'a>(&'a self, keys: Option<&'a BTreeSet<Key>>) -> impl Iterator<Item = &'a Arc<T>> {
        keys.into_iter().flatten().filter_map(|it| self.by_key.get(it))
    }

    /// Puts the object in place of what stood under its key.
    pub fn insert(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        let key = object.meta().key.clone();
        let before = self.remove(&key);
        for owner in &object.meta().owners {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        if let Some(node) = object.node() {
            self.by_node.entry(node.into()).or_default().insert(key.clone());
        }
        for at in label_keys(&*object) {
            self.by_label.entry(at).or_default().insert(key.clone());
        }
        self.by_key.insert(key, object);
        before
    }

    pub fn remove(&mut self, key: &Key) -> Option<Arc<T>> {
        let object = self.by_key.remove(key)?;
        for owner in &object.meta().owners {
            unindex(&mut self.by_owner, &owner.uid, key);
        }
        if let Some(node) = object.node() {
            unindex(&mut self.by_node, &node.into(), key);
        }
        for at in label_keys(&*object) {
            unindex(&mut self.by_label, &at, key);
        }
        Some(object)
    }
}

fn label_keys<T: Projected>(object: &T) -> Vec<LabelAt> {
    if !T::INDEXES_LABELS {
        return Vec::new();
    }
    let meta = object.meta();
    let at = |(label, value): (&String, &String)| {
        (meta.namespace().into(), label.as_str().into(), value.as_str().into())
    };
    meta.labels.iter().map(at).collect()
}

fn unindex<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Key>>, at: &K, key: &Key) {
    if let Some(keys) = index.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}
