//! What a lane is in QUIC: a connection of its own, with its own congestion control and queue, told apart by its protocol.

use kactor_protocol::message::Lane;

/// The protocol that the handshake agrees on: a version that the other side lacks fails there, by name.
pub(crate) fn protocol(lane: Lane) -> &'static [u8] {
    match lane {
        Lane::Latency => b"kactor/1/latency",
        Lane::Bulk => b"kactor/1/bulk",
    }
}

pub(crate) fn of_protocol(protocol_name: &[u8]) -> Option<Lane> {
    Lane::ALL.into_iter().find(|it| protocol(*it) == protocol_name)
}

pub(crate) fn index(lane: Lane) -> usize {
    lane as usize
}
