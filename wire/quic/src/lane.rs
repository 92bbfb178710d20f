//! Which of a pair's two connections a frame takes.

/// A lane is a connection of its own: its own congestion control, its own queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft, heartbeats, control: short and urgent.
    Latency,
    /// Snapshots, logs, exec: long and patient.
    Bulk,
}

impl Lane {
    pub const ALL: [Lane; 2] = [Lane::Latency, Lane::Bulk];

    /// The protocol that the handshake agrees on: a version that the other side lacks fails there, by name.
    pub(crate) fn protocol(self) -> &'static [u8] {
        match self {
            Lane::Latency => b"kactor/1/latency",
            Lane::Bulk => b"kactor/1/bulk",
        }
    }

    pub(crate) fn of_protocol(protocol: &[u8]) -> Option<Lane> {
        Self::ALL.into_iter().find(|it| it.protocol() == protocol)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lane::Latency => "latency",
            Lane::Bulk => "bulk",
        })
    }
}
