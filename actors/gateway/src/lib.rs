//! The Kubernetes REST API over HTTPS: connections, who asks, what a path names, and HTTP around kactor-api.
//!
//! `listener` owns sockets and TLS, `gateway` the way of one request, `resources` the verbs; `route`, `query`,
//! `options` and `negotiate` are pure and tested by tables. Nothing here knows a kind or writes state: that is
//! kactor-api's. rustls stands only in `listener` and `tls`.

mod actor_metrics;
mod authn;
mod containers;
mod documents;
mod door;
mod gateway;
pub mod health;
mod in_flight;
mod insight;
pub mod kubeconfig;
mod listener;
mod logs;
mod metrics;
pub mod negotiate;
mod node_proxy;
pub mod options;
pub mod pki;
mod protobuf;
pub use kactor_streams::query;
mod reply;
mod resources;
pub mod rotation;
pub mod route;
pub mod tls;
mod upgrade;
pub mod version;

pub use door::{ClusterDoor, ClusterOrder};
pub use gateway::{BODY_BYTES_MAX, Gateway, GatewayConfig};
pub use health::{Asked as CheckAsked, Check};
pub use in_flight::Limits;
pub use insight::{ALL_HOSTS, ByteStream, ImageOrder, InsightSource};
pub use listener::{Connection, ListenError, Listener, Serve};
pub use pki::{Identity, Pki, PkiError, ServingNames, Subject};
pub use reply::ReplyBody;
