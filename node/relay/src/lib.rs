//! A worker's door to the API: who connects here is passed on, byte by byte, to a live control host.
//!
//! So a kubeconfig or a pod may name any host of the cluster, and goes on when a control host is lost. The relay
//! holds no key and reads nothing: TLS is between the client and the control host. Which hosts are alive is told by
//! its owner, in the order in which they shall be tried (links know sooner than a dial does); a host that is taken
//! out of the list loses its connections at once, so that a watch through a frozen host begins again elsewhere
//! instead of hanging. A host that could not be dialled is tried last for a while.

pub mod choice;
mod pass;
pub mod relay;

pub use relay::{Counts, Relay, RelayLimits};
