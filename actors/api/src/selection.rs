//! Which objects a list or watch selects: labels, fields, and a name.

use std::sync::Arc;

use kactor_objects::fields::FieldSelector;
use kactor_objects::labels::Selector;
use kactor_objects::meta;
use kactor_objects::registry::Kind;
use kactor_objects::status::Status;
use kactor_protocol::ids::Revision;
use kactor_protocol::store::Key;
use kactor_store::{Compacted, Store, Stored, Watch};
use serde::Deserialize;
use serde_json::Value;

use crate::request::Resource;

/// What the keys of all Pods begin with.
pub(crate) const PODS_PREFIX: &str = "//pods/";

#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// What the keys begin with.
    pub prefix: String,
    /// The one object that can match.
    pub key: Option<Key>,
    /// The node whose Pods alone can match: changes of others need not be looked at.
    pub node: Option<String>,
    labels: Selector,
    fields: FieldSelector,
}

impl Selection {
    pub fn of(
        kind: &Kind,
        resource: &Resource,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, Status> {
        let stored = kind.stored().ok_or_else(|| Status::method_not_allowed(kind, "list"))?;
        let labels = Selector::parse(labels.unwrap_or_default()).map_err(|error| {
            Status::bad_request(format!("unable to parse requirement: {error}"))
        })?;
        let fields = FieldSelector::parse(kind, fields.unwrap_or_default())?;
        let namespace = resource.namespace.as_deref().unwrap_or_default();
        let required_namespace = fields.required("metadata.namespace").unwrap_or(namespace);
        let prefix = if kind.is_namespaced() && !required_namespace.is_empty() {
            Key::namespace_prefix(stored.group, stored.resource, required_namespace)
        } else {
            Key::resource_prefix(stored.group, stored.resource)
        };
        let name = resource.name.as_deref().or(fields.required("metadata.name"));
        let one_place = !kind.is_namespaced() || !required_namespace.is_empty();
        let key = match name {
            Some(name) if one_place => {
                Some(Key::new(stored.group, stored.resource, required_namespace, name).map_err(
                    |error| {
                        Status::bad_request(format!("the field selector names no object: {error}"))
                    },
                )?)
            }
            _ => None,
        };
        let is_all_pods = prefix == PODS_PREFIX && key.is_none();
        let node = fields.required("spec.nodeName").filter(|it| is_all_pods && !it.is_empty());
        let node = node.map(str::to_owned);
        Ok(Self { prefix, key, node, labels, fields })
    }

    /// Whether every object under the prefix (or the key) is selected without looking into it.
    pub fn is_everything(&self) -> bool {
        let by_key = |label: &str| label == "metadata.name" || label == "metadata.namespace";
        let fields = self.fields.terms.iter().all(|it| {
            self.key.is_some()
                && by_key(it.label())
                && it.comparison == kactor_objects::fields::Comparison::Equal
        });
        self.labels.is_everything() && fields
    }

    /// Whether the client gave any selector.
    pub fn has_terms(&self) -> bool {
        !self.labels.is_everything() || !self.fields.is_everything()
    }

    /// The feed of what this selection may see.
    pub fn feed(&self, store: &Store, after: Revision) -> Result<Watch, Compacted> {
        match &self.node {
            Some(node) => store.watch_label(&self.prefix, node, after),
            None => store.watch(&self.prefix, after),
        }
    }

    pub fn has_key(&self, key: &Key) -> bool {
        self.key.as_ref().is_none_or(|it| it == key)
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(meta::labels(object)) && self.fields.matches(object)
    }
}

/// The node of a stored Pod: what the store routes the changes of Pods by.
pub(crate) fn node_of(pod: &Stored) -> Option<Arc<str>> {
    #[derive(Deserialize)]
    struct Pod {
        spec: Spec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        node_name: Option<Arc<str>>,
    }
    let pod: Pod = serde_json::from_slice(&pod.value.body).ok()?;
    pod.spec.node_name.filter(|it| !it.is_empty())
}
