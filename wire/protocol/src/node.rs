//! What a node and its `NodeSession` say to each other.
//!
//! The session is a node's only door: each `CallApi` becomes an API request as `system:node:NAME`, with its
//! authorization, restriction and audit. Objects travel as the JSON that the API would serve. A feed resumes by
//! (incarnation, revision) and never goes back in time; `kactor down`, a lost host and a new leader look the
//! same to a node: its feed ends and it follows again.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::address::Incarnation;
use crate::ids::{Revision, Uid};
use crate::time::Timestamp;

/// Most changes in one `ObjectsChanged`, so that a frame stays small whatever the cluster's size.
pub const CHANGES_PER_BATCH_MAX: usize = 64;
/// Most nodes in one `Pulses`.
pub const NODES_PER_PULSES_MAX: usize = 16_384;
/// Most bytes in one `StreamData`.
pub const STREAM_CHUNK_BYTES_MAX: usize = 32 * 1024;
/// What a receiver lets a sender have under way on one channel before it grants more.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Begin a session with this control host, or say that the one that runs is still wanted.
///
/// From: `worker:self`. To: `sessions` of a control host. Overload: shed with an error, and the node asks another
/// host. Asked again and again: an answer says that the session lives, silence ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// The authenticated host's own name, or the session is refused.
    pub node: String,
    /// This life of the node's process; another one ends the session of the life before.
    pub incarnation: Incarnation,
}

/// A session is open: requests go to `session/NODE` of the host that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The life of the session's actor. Another one than before has no feeds yet.
    pub session: Incarnation,
}

/// Why a control host opens no session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SessionRefused {
    #[error(
        "host {host} asked for a session of node {node}; a host has the session of its own node alone"
    )]
    OtherNode { host: String, node: String },
    /// Another control host may; if none does, a session that runs already goes on.
    #[error("this control host does not serve now: {why}")]
    NotServing { why: String },
    #[error("this control host has {limit} sessions already")]
    Full { limit: u32 },
}

/// Nodes that were heard of on a control host since it told last.
///
/// From: `control`. To: `pulses` of the leader. The sender gathers for a second; what is not answered is told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulses {
    /// At most `NODES_PER_PULSES_MAX`.
    pub heard: Vec<HeardNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardNode {
    pub node: String,
    /// How long ago by the sender's clock: two hosts' clocks are never compared.
    pub ago_ms: u64,
}

/// Do one API request as the node that sends it.
///
/// From: `worker:self`. To: the node's session. Overload: the sender waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallApi {
    pub verb: ApiVerb,
    pub target: ApiTarget,
    /// Options as in a query string, `fieldManager` among them.
    pub options: Vec<(String, String)>,
    /// JSON; empty for reads and plain deletes.
    pub body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVerb {
    Get,
    List,
    Create,
    Update,
    /// RFC 7386.
    MergePatch,
    /// Kubernetes' strategic merge patch.
    StrategicPatch,
    Delete,
}

/// Which object or collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiTarget {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
}

/// The answer to `CallApi`: an object, or a `Status` when `code` says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiReply {
    /// As over HTTP.
    pub code: u16,
    /// JSON.
    pub body: Bytes,
}

/// The session could not ask the API; whether the request was carried out is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the API did not answer in time: {why}")]
pub struct CallError {
    pub why: String,
}

/// What a node follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Feed {
    /// The pods that are bound to this node.
    Pods,
    Services,
    EndpointSlices,
    /// Pod CIDRs and addresses of the other nodes.
    Nodes,
}

/// Where a feed stands. A smaller incarnation, or a smaller revision of the same one, is refused by the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct FeedPosition {
    /// Grows when the cluster was restored from a snapshot.
    pub incarnation: u64,
    pub revision: Revision,
}

/// Send this feed's changes from `resume` on, or everything first.
///
/// From: `worker:self`. To: the node's session. Overload: the sender waits. The reply says whether the feed
/// resumes; if not, an `ObjectsChanged` with `Begin::Anew` comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    pub feed: Feed,
    pub resume: Option<FeedPosition>,
}

/// The answer to `Follow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Following {
    /// The feed goes on behind the position that the node named.
    Resumed,
    /// Everything comes anew.
    Anew,
    /// The session cannot serve the feed now; the node follows again after a while.
    Unavailable { why: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begin {
    /// These changes follow on what was sent.
    Continue,
    /// Everything that exists comes in this and the following batches up to `Complete`; what is not among it
    /// no longer exists.
    Anew,
    /// As `Continue`, and with this batch the node has everything up to `position`.
    Complete,
}

/// Changes of one feed, in order.
///
/// From: `control`. To: the node's agent. Asked, not told: the next batch waits for the answer, and what was not
/// answered is sent again, so that a full mailbox or a broken link leaves no gap. A node that follows another
/// host by now does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectsChanged {
    pub feed: Feed,
    pub begin: Begin,
    pub position: FeedPosition,
    pub changes: Vec<ObjectChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectChange {
    pub namespace: String,
    pub name: String,
    pub uid: Uid,
    pub revision: Revision,
    /// The object's JSON; `None` when it is gone.
    pub object: Option<Bytes>,
}

/// The node is alive. Liveness is not state: sessions renew the nodes' leases together.
///
/// From: `worker:self`. To: the node's session. Overload: coalesced, the newest stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub at: Timestamp,
    /// Counts a node's heartbeats since its agent started.
    pub sequence: u64,
}

/// One exec, attach, port-forward or log request between a client and a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// Begin a stream. The reply comes when it is open, or says why it cannot be.
///
/// From: `control`. To: the node's agent. Overload: shed with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStream {
    pub stream: StreamId,
    pub namespace: String,
    pub pod: String,
    pub uid: Option<Uid>,
    pub purpose: StreamPurpose,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamPurpose {
    Exec {
        container: String,
        command: Vec<String>,
        channels: Channels,
    },
    Attach {
        container: String,
        channels: Channels,
    },
    /// One connection to one port of the pod's network namespace.
    Connect {
        port: u16,
    },
    Logs {
        container: String,
        options: LogOptions,
    },
    /// One HTTP/1.1 connection to the node's kubelet API, in the name of the control plane; `namespace` and `pod`
    /// are empty.
    Kubelet,
}

/// Which channels the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// `PodLogOptions`, as far as the node serves them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
}

/// Why a stream could not be opened; the gateway turns it into a `Status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum OpenStreamError {
    #[error("pod {namespace}/{pod} is not on this node")]
    NoPod { namespace: String, pod: String },
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer { pod: String, container: String },
    #[error("container {container} in pod {pod} is waiting to start: {reason}")]
    NotStarted { pod: String, container: String, reason: String },
    #[error("previous terminated container {container} in pod {pod} not found")]
    NoPrevious { pod: String, container: String },
    #[error("{0}")]
    Failed(String),
    #[error("this node serves {limit} streams already; end some and try again")]
    Overloaded { limit: u32 },
}

/// Which way and what: 0 stdin, 1 stdout, 2 stderr, as on Kubernetes' WebSocket channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StreamChannel {
    Stdin,
    Stdout,
    Stderr,
}

/// Bytes of a stream, in order, within the window that the receiver granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamData {
    pub stream: StreamId,
    pub channel: StreamChannel,
    /// At most `STREAM_CHUNK_BYTES_MAX`; empty means that this channel ends.
    pub data: Bytes,
}

/// The receiver has passed on this many bytes; the sender may send as many more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamCredit {
    pub stream: StreamId,
    pub channel: StreamChannel,
    pub bytes: u32,
}

/// The client's terminal has a new size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamResize {
    pub stream: StreamId,
    pub columns: u16,
    pub rows: u16,
}

/// The stream is over on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnded {
    pub stream: StreamId,
    pub end: StreamEnd,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamEnd {
    /// A command's exit code; 0 for everything that just ended.
    Exit(i32),
    Failed(String),
    /// The client went away.
    Cancelled,
}
