//! The typed view of the cluster that controllers and the scheduler decide on.
//!
//! One `ClusterView` per control host: small structs, parsed once from each object's JSON and shared as `Arc`s,
//! in tables indexed by owner, node, namespace and label, consistent at one revision. It holds what decisions
//! read and no more; whole bodies stay in the store. Pure: no clock, no IO. Only the feature `feed` knows the
//! store and waits for it.

pub mod events;
#[cfg(feature = "feed")]
pub mod feed;
pub mod fixture;
pub mod json;
pub mod kinds;
pub mod meta;
pub mod namespaces;
pub mod nodes;
pub mod pods;
pub mod quantity;
pub mod scheduling;
pub mod selector;
pub mod services;
pub mod table;
mod view;
pub mod workloads;

pub use kactor_protocol::store::Key;
pub use kactor_protocol::{Reign, Revision, Timestamp, Uid};
pub use meta::{Condition, Labels, Meta, OwnerRef};
pub use namespaces::{ConfigMap, Lease, Namespace};
pub use nodes::{Node, Taint, TaintEffect};
pub use pods::{Phase, Pod, PodSpec};
pub use quantity::Resources;
pub use selector::Selector;
pub use services::{EndpointSlice, Endpoints, Service, ServicePort};
pub use table::{Projected, Table};
pub use view::{Changed, ClusterView, Object};
pub use workloads::{Deployment, PodTemplate, ReplicaSet};
