//! Flow control of a byte stream between two actors: a sender may have so much under way, and no more.
//!
//! The receiver grants what it has passed on (`StreamCredit`), so a slow reader slows the writer at the other end and
//! nothing is stored between beyond one window. A chunk costs at least `COST_MIN`, so that the number of chunks is
//! bounded too and a receiver's queue of `CHUNKS_MAX` can never overflow unless the sender cheats.

use std::sync::Arc;

use kactor_protocol::node::STREAM_WINDOW_BYTES;
use tokio::sync::Semaphore;

/// What the smallest chunk counts for.
pub const COST_MIN: u32 = 4096;
/// Most chunks of one channel that can be under way.
pub const CHUNKS_MAX: usize = (STREAM_WINDOW_BYTES / COST_MIN) as usize;

/// What a chunk takes of the window; the receiver grants the same again.
pub fn cost(chunk_bytes: usize) -> u32 {
    u32::try_from(chunk_bytes).unwrap_or(u32::MAX).clamp(COST_MIN, STREAM_WINDOW_BYTES)
}

/// The sender's side of one channel.
#[derive(Debug, Clone)]
pub struct Window {
    room: Arc<Semaphore>,
}

/// The stream is over; nothing more may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is over")]
pub struct StreamOver;

impl Default for Window {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(STREAM_WINDOW_BYTES as usize)) }
    }
}

impl Window {
    /// Waits until the chunk may be sent.
    pub async fn take(&self, chunk_bytes: usize) -> Result<(), StreamOver> {
        let permit = self.room.acquire_many(cost(chunk_bytes)).await.map_err(|_| StreamOver)?;
        permit.forget();
        Ok(())
    }

    /// The receiver granted this much; more than a whole window is a mistake of the peer's and is cut.
    pub fn grant(&self, bytes: u32) {
        let missing = (STREAM_WINDOW_BYTES as usize).saturating_sub(self.room.available_permits());
        self.room.add_permits((bytes as usize).min(missing));
    }

    /// Ends all waits.
    pub fn close(&self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_sender_waits_for_credit_and_grants_are_bounded() {
        let window = Window::default();
        for _ in 0..CHUNKS_MAX {
            assert_eq!(window.take(1).now_or_never(), Some(Ok(())));
        }
        assert_eq!(window.take(1).now_or_never(), None, "the window is full");
        window.grant(u32::MAX);
        assert_eq!(window.take(STREAM_WINDOW_BYTES as usize).now_or_never(), Some(Ok(())));
        assert_eq!(window.take(1).now_or_never(), None, "no more than one window was granted");
        window.close();
        assert_eq!(window.take(1).now_or_never(), Some(Err(StreamOver)));
    }
}
