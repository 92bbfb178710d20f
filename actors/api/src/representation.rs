//! The forms in which objects leave the API: as they are, as Table rows, as metadata alone; and a cache of encodings.
//!
//! A stored body whose version is the asked one is never parsed: the revision is spliced in. What watchers share is
//! encoded once per (key, revision, form), in a cache bounded by bytes. Tables are not cached: their ages
//! depend on the time of asking. Secrets are decrypted here and nowhere else, and never cached.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kactor_objects::registry::{Kind, Stored as KindStored};
use kactor_objects::status::Status;
use kactor_objects::table::{self, Columns};
use kactor_objects::{meta, tree};
use kactor_protocol::ids::Revision;
use kactor_protocol::store::Key;
use kactor_protocol::time::Timestamp;
use kactor_store::Stored;
use serde_json::{Value, json};

use crate::api::Api;
use crate::request::{Form, IncludeObject};
use crate::splice;

/// Kinds whose bodies are stored encrypted, by stored group and resource.
const ENCRYPTED: &[(&str, &str)] = &[("", "secrets")];

pub(crate) fn is_encrypted(stored: &KindStored) -> bool {
    ENCRYPTED.contains(&(stored.group, stored.resource))
}

/// The form of `meta.k8s.io` objects that the gateway names in its answers.
const META: &str = "meta.k8s.io/v1";

impl Api {
    /// The object's canonical JSON in the asked version, with its revision.
    pub(crate) fn encoded(
        &self,
        kind: &Kind,
        stored: &Stored,
        at: Revision,
    ) -> Result<Bytes, Status> {
        let row = stored_row(kind)?;
        if row.api_version == kind.api_version() && row.kind == kind.kind {
            return Ok(splice::with_revision(&self.plain(stored)?, at));
        }
        let tree = self.tree(kind, stored, at)?;
        Ok(Bytes::from(print(&tree)))
    }

    /// The object as a tree in the asked version, with its revision.
    pub(crate) fn tree(&self, kind: &Kind, stored: &Stored, at: Revision) -> Result<Value, Status> {
        let row = stored_row(kind)?;
        let plain = self.plain(stored)?;
        let tree: Value = serde_json::from_slice(&plain).map_err(|error| {
            Status::internal(&format!("{} holds no object: {error}", stored.key))
        })?;
        let mut tree = (row.from_storage)(tree);
        meta::put_resource_version(&mut tree, at);
        Ok(tree)
    }

    /// The object as a tree that all who look at this revision share.
    pub(crate) fn shared_tree(&self, kind: &Kind, stored: &Stored) -> Result<Arc<Value>, Status> {
        let slot = Slot {
            key: stored.key.clone(),
            revision: stored.modified,
            version: kind.version,
            form: Form::Object,
        };
        if let Some(tree) = self.encodings().tree(&slot) {
            return Ok(tree);
        }
        let tree = Arc::new(self.tree(kind, stored, stored.modified)?);
        if !is_encrypted(stored_row(kind)?) {
            self.encodings().put_tree(slot, tree.clone());
        }
        Ok(tree)
    }

    /// The stored bytes, decrypted.
    fn plain(&self, stored: &Stored) -> Result<Bytes, Status> {
        self.cipher()
            .open(&stored.key, stored.value.flags, &stored.value.body)
            .map_err(|error| Status::internal(&error.to_string()))
    }

    /// One object in a form; shared by all who ask for it at this revision.
    pub(crate) fn shared_encoding(
        &self,
        kind: &Kind,
        stored: &Stored,
        at: Revision,
        form: Form,
    ) -> Result<Bytes, Status> {
        let secret = is_encrypted(stored_row(kind)?);
        let slot = Slot { key: stored.key.clone(), revision: at, version: kind.version, form };
        let cached = (!secret).then(|| self.encodings().get(&slot)).flatten();
        if let Some(bytes) = cached {
            return Ok(bytes);
        }
        let bytes = match form {
            Form::Object => self.encoded(kind, stored, at)?,
            Form::Metadata => {
                Bytes::from(print(&table::partial(&self.tree(kind, stored, at)?, META)))
            }
            Form::Table(include) => {
                let tree = self.tree(kind, stored, at)?;
                let now = self.env().wall();
                return Ok(Bytes::from(print(&table_of(
                    kind,
                    &tree,
                    include,
                    now,
                    Columns::Given,
                ))));
            }
        };
        if !secret {
            self.encodings().put(slot, bytes.clone());
        }
        Ok(bytes)
    }

    /// A tree that is answered, in a form.
    pub(crate) fn formed(&self, kind: &Kind, tree: &Value, form: Form) -> Bytes {
        let bytes = match form {
            Form::Object => print(tree),
            Form::Metadata => print(&table::partial(tree, META)),
            Form::Table(include) => {
                print(&table_of(kind, tree, include, self.env().wall(), Columns::Given))
            }
        };
        Bytes::from(bytes)
    }
}

/// A Table of one object.
pub(crate) fn table_of(
    kind: &Kind,
    object: &Value,
    include: IncludeObject,
    now: Timestamp,
    columns: Columns,
) -> Value {
    let rows = vec![table::row(&kind.printer, object, include_of(include), now)];
    let metadata = json!({"resourceVersion": tree::text(object, "metadata.resourceVersion")});
    table::table(&kind.printer, metadata, rows, columns)
}

pub(crate) fn include_of(include: IncludeObject) -> table::IncludeObject {
    match include {
        IncludeObject::None => table::IncludeObject::None,
        IncludeObject::Metadata => table::IncludeObject::Metadata,
        IncludeObject::Object => table::IncludeObject::Object,
    }
}

pub(crate) fn print(tree: &Value) -> Vec<u8> {
    serde_json::to_vec(tree).expect("a tree has string keys only, so it always prints")
}

/// The row's storage; virtual kinds are never read.
pub(crate) fn stored_row(kind: &Kind) -> Result<&KindStored, Status> {
    kind.stored().ok_or_else(|| Status::method_not_allowed(kind, "get"))
}

/// What an encoding is kept under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    key: Key,
    revision: Revision,
    version: &'static str,
    form: Form,
}

/// Most bytes of encodings that are kept.
const CACHE_BYTES_MAX: usize = 32 << 20;
/// Most decoded objects that are kept.
const TREES_MAX: usize = 512;

/// Encodings and decoded trees of recent revisions; the oldest go first.
#[derive(Default)]
pub(crate) struct Encodings {
    inner: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    bytes: BTreeMap<Slot, Bytes>,
    order: VecDeque<Slot>,
    size: usize,
    trees: BTreeMap<Slot, Arc<Value>>,
    tree_order: VecDeque<Slot>,
}

impl Encodings {
    fn tree(&self, slot: &Slot) -> Option<Arc<Value>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).trees.get(slot).cloned()
    }

    fn put_tree(&self, slot: Slot, tree: Arc<Value>) {
        let mut cache = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.trees.insert(slot.clone(), tree).is_none() {
            cache.tree_order.push_back(slot);
        }
        while cache.tree_order.len() > TREES_MAX {
            let oldest = cache.tree_order.pop_front().expect("the length was just asked");
            cache.trees.remove(&oldest);
        }
    }

    fn get(&self, slot: &Slot) -> Option<Bytes> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).bytes.get(slot).cloned()
    }

    fn put(&self, slot: Slot, bytes: Bytes) {
        let mut cache = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let len = bytes.len();
        if len > CACHE_BYTES_MAX / 8 || cache.bytes.insert(slot.clone(), bytes).is_some() {
            return;
        }
        cache.size += len;
        cache.order.push_back(slot);
        while cache.size > CACHE_BYTES_MAX {
            let oldest = cache.order.pop_front().expect("what is counted is in the order");
            let gone = cache.bytes.remove(&oldest).expect("what is in the order is kept");
            cache.size -= gone.len();
        }
    }
}
