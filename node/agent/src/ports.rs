//! What the agent needs of the world besides its driver: the control plane, the pod network, volumes.
//!
//! Each is a trait, so that hollow nodes, the simulator and tests put something else in its place. Messages of
//! the session's protocol, kernel calls and files stay behind these.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kactor_drivers::spec::ContainerId;
use kactor_protocol::HostId;
use kactor_protocol::node::{ApiReply, CallApi, Feed, Follow, Following, Heartbeat};
use kactor_volumes::content::Files;
use kactor_volumes::plan::Volume;
use serde_json::Value;

use crate::probes::ProbeOutcome;
use crate::spec::{Container, Pod, Probe};

/// The control plane did not answer; the request may or may not have been carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the control plane does not answer: {why}")]
pub struct Unanswered {
    pub why: String,
}

/// The node's session.
#[async_trait]
pub trait ControlPlane: Send + Sync {
    /// One API request as this node. A refusal is an `ApiReply` with its code, never an error here.
    async fn call(&self, call: CallApi) -> Result<ApiReply, Unanswered>;
}

/// What the agent itself needs of its session beyond single requests.
#[async_trait]
pub trait Session: ControlPlane {
    /// Asks the session of now for a feed.
    async fn follow(&self, follow: Follow) -> Result<Following, Unanswered>;
    /// The host that the session is with; `None` when it is this one, or there is no session.
    fn host(&self) -> Option<HostId>;
    /// Says that the node lives. Nobody answers; the next one says it again.
    async fn beat(&self, beat: Heartbeat);
}

/// Why a sandbox could not be connected.
#[derive(Debug, thiserror::Error)]
#[error("connecting the pod to the network: {why}")]
pub struct PlumbingError {
    pub why: String,
}

/// A port of the host that leads to a container's (`hostPort`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub host_address: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: String,
}

/// The pod network of this host.
#[async_trait]
pub trait Plumbing: Send + Sync {
    /// Connects a namespace and gives its addresses; again for a connected one gives the same.
    async fn attach(
        &self,
        pod_uid: &str,
        netns: &Path,
        ports: &[HostPort],
    ) -> Result<Vec<IpAddr>, PlumbingError>;
    /// Takes everything back that `attach` made. Doing it again does nothing.
    async fn detach(&self, pod_uid: &str) -> Result<(), PlumbingError>;
    /// The nameserver for `ClusterFirst` pods, if this host has one.
    fn cluster_dns(&self) -> Option<IpAddr>;
}

/// Why a pod's files could not be made; the text is what the pod's event says.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct VolumeFailure {
    pub why: String,
}

/// A pod's volumes and the files that the agent writes for its containers.
#[async_trait]
pub trait VolumeHost: Send + Sync {
    /// Makes every volume, brings projected ones up to date with `contents` (by volume name), and says where each
    /// is on the host. `stamp` names this set of files.
    async fn mount(
        &self,
        pod: &Pod,
        volumes: &[Volume],
        contents: BTreeMap<String, Files>,
        stamp: &str,
    ) -> Result<BTreeMap<String, PathBuf>, VolumeFailure>;
    async fn unmount(&self, pod_uid: &str) -> Result<(), VolumeFailure>;
    /// Writes a file of the agent's own (`etc-hosts`, `resolv.conf`, `CONTAINER/termination-log`).
    async fn write_file(
        &self,
        pod_uid: &str,
        name: &str,
        content: Vec<u8>,
    ) -> Result<PathBuf, VolumeFailure>;
    /// The first `bytes_max` bytes of such a file; empty if there is none.
    async fn read_file(&self, pod_uid: &str, name: &str, bytes_max: usize) -> Vec<u8>;
}

/// Asks a container whether it is well.
#[async_trait]
pub trait Prober: Send + Sync {
    /// Runs the probe once, within its timeout. `address` is the pod's.
    async fn probe(
        &self,
        id: &ContainerId,
        container: &Container,
        probe: &Probe,
        address: Option<&str>,
    ) -> ProbeOutcome;
}

/// The services, endpoints and nodes that the host's proxy, DNS and routes are made of.
pub trait NetworkFeed: Send + Sync {
    /// The node was given this pod CIDR. `Err` says why the pod network cannot be set up.
    fn configure(&self, pod_cidr: &str) -> Result<(), String>;
    /// The feed comes anew: what is not named from here to `complete` no longer exists.
    fn begin(&self, _feed: Feed) {}
    /// An object of the feed has this state now; `None` when it is gone.
    fn changed(&self, feed: Feed, namespace: &str, name: &str, object: Option<&Value>);
    /// Everything that exists has been named; what was not is gone.
    fn complete(&self, feed: Feed);
}

/// A connection into a pod.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects to ports inside a pod's network namespace.
#[async_trait]
pub trait PodDialer: Send + Sync {
    /// `netns` is `None` for pods of the host's network. The error's text is for the client.
    async fn connect(&self, netns: Option<&Path>, port: u16) -> Result<Box<dyn Duplex>, String>;
}

/// The kubelet's API of this node, as the control plane reaches it: through the session instead of the network.
pub trait KubeletDoor: Send + Sync {
    /// One HTTP/1.1 connection. Whoever holds it speaks for the control plane.
    fn connect(&self) -> Box<dyn Duplex>;
}
