//! What a message is: a type, a row in the table (`table.rs`), a reply.
//!
//! The row says who may send it and what happens when its receiver's mailbox is full. Remoting reads the row by the
//! id in the frame's header and refuses before it decodes the body.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::HostId;
use crate::codec::{CodecError, decode, encode};
use crate::frame::{PROTOCOL_VERSION, Refusal};
use crate::ids::MessageId;
use crate::table;

/// A message that may cross hosts. Implemented by the table's macro, with its row.
pub trait Message: Serialize + DeserializeOwned + Send + fmt::Debug + 'static {
    type Reply: Serialize + DeserializeOwned + Send + fmt::Debug + 'static;
    const ROW: Row;
    const ID: MessageId = Self::ROW.id;
}

/// What a peer is, as the cluster's own records say; its certificate only says which host it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A member of the raft group.
    Replica,
    /// A control host: its gateway, controllers, scheduler.
    Control,
    /// A worker host.
    Worker,
    /// A person or tool with the permission to look inside.
    Operator,
}

/// Who may send a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Replica,
    Control,
    /// A worker, in a message about itself: the sender's address must be on the worker's own host.
    WorkerSelf,
    Operator,
}

/// What a full mailbox does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// A local sender waits; a remote one gets `Overloaded`.
    Wait,
    /// A newer one replaces one that still waits, so it takes no room.
    Coalesce,
    /// The sender gets `Overloaded` at once.
    Shed,
}

/// Which of a pair's two connections a message takes. Order is kept within a lane only: what must stay in order takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft, heartbeats, control: short and urgent.
    Latency,
    /// Snapshots, feeds, logs, exec: long and patient.
    Bulk,
}

impl Lane {
    pub const ALL: [Lane; 2] = [Lane::Latency, Lane::Bulk];
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Latency => "latency",
            Lane::Bulk => "bulk",
        })
    }
}

/// The authenticated other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub host: HostId,
    pub roles: Vec<Role>,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub id: MessageId,
    pub name: &'static str,
    pub senders: &'static [Sender],
    pub overload: Overload,
    pub lane: Lane,
    /// Decodes and encodes again: golden files and fuzzing walk the table with these.
    pub reencode_request: fn(&[u8]) -> Result<Bytes, CodecError>,
    pub reencode_reply: fn(&[u8]) -> Result<Bytes, CodecError>,
}

impl Row {
    /// Finds the row of a frame's message id; else what to answer, by both versions.
    pub fn of(message: MessageId, theirs: u16) -> Result<&'static Row, Refusal> {
        table::MESSAGES.iter().find(|it| it.id == message).ok_or(Refusal::Unsupported {
            message,
            theirs,
            ours: PROTOCOL_VERSION,
        })
    }

    /// Whether `peer` may send this message. `claimed_host` is the host that the message speaks for.
    pub fn permit(&self, peer: &Peer, claimed_host: &HostId) -> Result<(), Refusal> {
        let permitted = self.senders.iter().any(|sender| match sender {
            Sender::Replica => peer.roles.contains(&Role::Replica),
            Sender::Control => peer.roles.contains(&Role::Control),
            Sender::Operator => peer.roles.contains(&Role::Operator),
            Sender::WorkerSelf => peer.roles.contains(&Role::Worker) && peer.host == *claimed_host,
        });
        if permitted {
            return Ok(());
        }
        Err(Refusal::NotPermitted {
            message: self.name.into(),
            permitted: format!("{:?}", self.senders),
        })
    }
}

/// For the table's macro alone.
pub(crate) fn reencode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Bytes, CodecError> {
    encode(&decode::<T>(bytes)?)
}
