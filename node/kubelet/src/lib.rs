//! The kubelet's API of a node, as Prometheus, metrics-server and clients of a kubelet expect it on port 10250.
//!
//! An HTTP service without a socket: the composition root serves it over TLS with the listener that the gateway has,
//! and the control plane reaches it through the node's session (`KubeletDoor`). Who may ask what is the control
//! plane's to say (`access`); the numbers come from the driver and from /proc (`sample`, `machine`). Reference:
//! kubernetes pkg/kubelet/server and staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1.

pub mod access;
mod configz;
mod exposition;
pub mod kubelet;
mod local_streams;
mod logs;
pub mod machine;
mod metrics;
mod pods;
mod reply;
mod requests;
mod route;
mod sample;
mod summary;
mod ttl_cache;
mod upgrade;

pub use access::{Certificate, Client};
pub use kubelet::{Kubelet, KubeletParts};
pub use reply::{Content, Reply};
