//! The small kinds of a namespace's life: Namespace, ConfigMap (its metadata and a fingerprint), Lease.

use std::sync::Arc;

use kactor_protocol::Timestamp;
use serde_json::Value;

use crate::json;
use crate::meta::{Condition, Meta};
use crate::table::Projected;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    pub meta: Arc<Meta>,
    /// `spec.finalizers`: a Namespace is gone when they and the metadata's are empty.
    pub spec_finalizers: Vec<String>,
    pub phase: String,
    pub conditions: Vec<Condition>,
}

impl Namespace {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        Self {
            meta,
            spec_finalizers: json::texts(body, "/spec/finalizers"),
            phase: json::text(body, "/status/phase").to_owned(),
            conditions: Condition::parse_all(body, "/status/conditions"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMap {
    pub meta: Arc<Meta>,
    /// Of the canonical bytes of `data`; the data itself stays in the store.
    pub content: u64,
}

impl ConfigMap {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        let data = body.get("data").unwrap_or(&Value::Null);
        Self { meta, content: json::fingerprint(&json::canonical(data)) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub meta: Arc<Meta>,
    pub holder: String,
    pub renewed: Option<Timestamp>,
}

impl Lease {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        Self {
            meta,
            holder: json::text(body, "/spec/holderIdentity").to_owned(),
            renewed: json::time(body, "/spec/renewTime"),
        }
    }
}

macro_rules! projected {
    ($($kind:ty),*) => {$(
        impl Projected for $kind {
            fn meta(&self) -> &Arc<Meta> {
                &self.meta
            }
        }
    )*};
}

projected!(Namespace, ConfigMap, Lease);
