//! Talking to a container through an upgraded HTTP connection: exec, attach, port-forward, and logs.
//!
//! Clients of Kubernetes speak SPDY/3.1 or WebSocket after the upgrade. Both are here as machines without IO:
//! bytes in, events out, bytes out. `serve` is the one thin loop that moves them between a socket and the node,
//! over the `futures` traits, so that the gateway and the kubelet's API share it. What the node offers is the
//! trait [`NodeStreams`]. References: SPDY protocol draft 3.1, RFC 6455, kubernetes KEP-4006 (WebSockets).
//! Invariant: a peer can neither make a decoder panic nor make a buffer grow beyond the constants named `*_MAX`.

pub mod handshake;
pub mod node_streams;
pub mod port_forward;
pub mod query;
pub mod remote_command;
pub mod serve;
pub mod spdy;
pub mod websocket;

pub use node_streams::{
    AttachRequest, BoxFuture, ContainerEnd, ContainerStreams, ContainerTarget, ExecRequest,
    LogLines, LogRequest, NodeStreams, Outcome, Output, PodTarget, PortConnection, PortEnd,
    PortForwardRequest, StdStreams, StreamError, TerminalSize,
};
