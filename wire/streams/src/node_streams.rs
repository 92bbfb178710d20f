//! `NodeStreams`: what the gateway, and the kubelet's API, ask of the node that runs a pod.
//!
//! Every channel is bounded, so a slow reader slows the container's writer and nothing is stored between. An end
//! that is dropped says "closed" to the other: a client that went away ends the exec, a container that ended ends
//! the connection. Implemented on the node by the driver and on control hosts by the sessions' messages.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use serde::{Deserialize, Serialize};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Chunks that wait in one channel.
pub const CHANNEL_CHUNKS_MAX: usize = 16;
/// Largest chunk that either side puts into a channel; readers may rely on it.
pub const CHUNK_BYTES_MAX: usize = 32 * 1024;

/// A pod, on the node that runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodTarget {
    pub node: String,
    pub namespace: String,
    pub pod: String,
    pub uid: String,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerTarget {
    pub pod: PodTarget,
    pub container: String,
}

/// Which standard streams are connected. With `tty`, stderr is part of stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StdStreams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Run a command in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    pub target: ContainerTarget,
    pub command: Vec<String>,
    pub streams: StdStreams,
}

/// Connect to the main process of a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    pub target: ContainerTarget,
    pub streams: StdStreams,
}

/// Connect to a port inside a pod's network namespace; one request for each connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwardRequest {
    pub target: PodTarget,
    pub port: u16,
}

/// Read a container's log, as `PodLogOptions` asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    pub target: ContainerTarget,
    pub follow: bool,
    /// Of the container's last run before this one.
    pub previous: bool,
    /// Each line begins with its RFC 3339 time and a space.
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// Only lines of this instant or later: milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    pub lines: LogLines,
}

/// `PodLogOptions.stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LogLines {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// The width and height of the client's terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    #[serde(rename = "Width")]
    pub width: u16,
    #[serde(rename = "Height")]
    pub height: u16,
}

/// What a container wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// How an exec or attach ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The process's exit code; 0 is success. An attach that was detached is 0 too.
    Exited(i32),
    /// It could not be run or was lost; the text says what, where and why.
    Failed(String),
}

/// The client's end of a running exec or attach. Dropping it ends an exec and detaches an attach.
#[derive(Debug)]
pub struct ContainerStreams {
    /// Dropping the sender closes the process's stdin.
    pub stdin: mpsc::Sender<Bytes>,
    pub resize: mpsc::Sender<TerminalSize>,
    /// Ends when stdout and stderr have ended.
    pub output: mpsc::Receiver<Output>,
    /// Sent once, after all output was put into `output`.
    pub outcome: oneshot::Receiver<Outcome>,
}

/// The container's end of the same.
#[derive(Debug)]
pub struct ContainerEnd {
    pub stdin: mpsc::Receiver<Bytes>,
    pub resize: mpsc::Receiver<TerminalSize>,
    pub output: mpsc::Sender<Output>,
    pub outcome: oneshot::Sender<Outcome>,
}

impl ContainerStreams {
    pub fn pair() -> (ContainerStreams, ContainerEnd) {
        let (stdin, stdin_end) = mpsc::channel(CHANNEL_CHUNKS_MAX);
        let (resize, resize_end) = mpsc::channel(1);
        let (output_end, output) = mpsc::channel(CHANNEL_CHUNKS_MAX);
        let (outcome_end, outcome) = oneshot::channel();
        (
            ContainerStreams { stdin, resize, output, outcome },
            ContainerEnd {
                stdin: stdin_end,
                resize: resize_end,
                output: output_end,
                outcome: outcome_end,
            },
        )
    }
}

/// The client's end of one forwarded connection. A dropped sender is a half close.
#[derive(Debug)]
pub struct PortConnection {
    pub to_pod: mpsc::Sender<Bytes>,
    /// An error ends the connection; its text is told to the client.
    pub from_pod: mpsc::Receiver<Result<Bytes, StreamError>>,
}

/// The pod's end of the same.
#[derive(Debug)]
pub struct PortEnd {
    pub from_client: mpsc::Receiver<Bytes>,
    pub to_client: mpsc::Sender<Result<Bytes, StreamError>>,
}

impl PortConnection {
    pub fn pair() -> (PortConnection, PortEnd) {
        let (to_pod, from_client) = mpsc::channel(CHANNEL_CHUNKS_MAX);
        let (to_client, from_pod) = mpsc::channel(CHANNEL_CHUNKS_MAX);
        (PortConnection { to_pod, from_pod }, PortEnd { from_client, to_client })
    }
}

/// Why a stream could not be opened, or broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StreamError {
    #[error("node {node:?} cannot be reached: {why}")]
    NodeUnreachable { node: String, why: String },
    #[error("{what} is not there: {why}")]
    NotFound { what: String, why: String },
    /// The request is understood and cannot be served: 400.
    #[error("{0}")]
    BadRequest(String),
    /// Everything else: 500.
    #[error("{0}")]
    Failed(String),
}

/// Opens byte streams to the containers of a node. Each future ends with the opened stream, or says why not.
pub trait NodeStreams: Send + Sync {
    fn open_exec(
        &self,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ContainerStreams, StreamError>>;

    fn open_attach(
        &self,
        request: AttachRequest,
    ) -> BoxFuture<'_, Result<ContainerStreams, StreamError>>;

    fn open_port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'_, Result<PortConnection, StreamError>>;

    /// The log's bytes; the receiver ends where the log ends (with `follow`: when the container's run is over).
    fn open_logs(
        &self,
        request: LogRequest,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Result<Bytes, StreamError>>, StreamError>>;

    /// One HTTP/1.1 connection to the kubelet's API of a node, in the name of the control plane.
    fn open_kubelet(&self, node: String) -> BoxFuture<'_, Result<PortConnection, StreamError>>;
}
