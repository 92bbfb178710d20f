//! What happened to containers without being asked: a hint to look again, never the state itself.
//!
//! The feed is bounded; who falls behind is told `Resync` and lists. Events may repeat.

use tokio::sync::broadcast;

use crate::spec::{ContainerId, SandboxId};

/// Most events that wait for a slow reader before it is told to resync.
pub const EVENTS_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverEvent {
    ContainerStarted(ContainerId),
    ContainerExited(ContainerId),
    SandboxLost(SandboxId),
    /// Events were lost: `list` tells the truth.
    Resync,
}

/// The driver's end.
#[derive(Debug, Clone)]
pub struct EventFeed {
    sender: broadcast::Sender<DriverEvent>,
}

/// A reader's end, from the moment it was made.
pub struct Events {
    receiver: broadcast::Receiver<DriverEvent>,
}

impl Default for EventFeed {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(EVENTS_MAX) }
    }
}

impl EventFeed {
    pub fn publish(&self, event: DriverEvent) {
        let _ = self.sender.send(event); // Nobody listens: nothing to tell.
    }

    pub fn subscribe(&self) -> Events {
        Events { receiver: self.sender.subscribe() }
    }
}

impl Events {
    /// Waits for the next event; `None` once the driver is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<DriverEvent> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(DriverEvent::Resync),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
