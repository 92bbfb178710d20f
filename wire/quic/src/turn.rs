//! Whose turn it is to be read: streams of one sender on one lane are handed on in the order in which they were begun.
//!
//! Connections come and go, and two may be open at once (both hosts dialed). A stream that follows a finished one waits
//! until that was read to its end; one that follows an abandoned one, or another life of the process, ends it at once.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::hello::{Follows, Hello};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Reading,
    ToldToEnd,
    Ended,
}

/// The last reader of a lane.
struct Last {
    hello: Hello,
    phase: watch::Sender<Phase>,
}

/// One per peer and lane.
#[derive(Default)]
pub(crate) struct Turns {
    last: Mutex<Option<Last>>,
}

/// A reader's turn. Dropped, it lets the next one go on.
pub(crate) struct Turn {
    phase: watch::Sender<Phase>,
}

/// The stream is older than one that was read already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stale;

impl Turns {
    /// Waits for this stream's turn.
    pub async fn take(&self, hello: Hello) -> Result<Turn, Stale> {
        let (phase, _) = watch::channel(Phase::Reading);
        // Made before the first await: a reader that is dropped while it waits lets its successor go on.
        let turn = Turn { phase: phase.clone() };
        let before = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = last.as_ref()
                && last.hello.incarnation == hello.incarnation
                && last.hello.generation >= hello.generation
            {
                return Err(Stale);
            }
            last.replace(Last { hello, phase })
        };
        let Some(before) = before else { return Ok(turn) };
        let is_cut =
            before.hello.incarnation != hello.incarnation || hello.follows == Follows::Abandoned;
        if is_cut {
            before.phase.send_if_modified(|it| {
                let changed = *it == Phase::Reading;
                *it = (*it).max(Phase::ToldToEnd);
                changed
            });
        }
        let mut phase = before.phase.subscribe();
        drop(before);
        let _ = phase.wait_for(|it| *it == Phase::Ended).await;
        Ok(turn)
    }
}

impl Turn {
    /// Completes when what is left of this stream is to be dropped.
    pub async fn told_to_end(&self) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|it| *it != Phase::Reading).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::poll;

    use super::{Stale, Turns};
    use crate::hello::{Follows, Hello};

    fn hello(incarnation: u64, generation: u64, follows: Follows) -> Hello {
        Hello { incarnation, generation, follows }
    }

    #[tokio::test]
    async fn a_stream_after_a_finished_one_waits_for_its_end() {
        let turns = Turns::default();
        let first = turns.take(hello(1, 1, Follows::Abandoned)).await.unwrap();
        let mut second = Box::pin(turns.take(hello(1, 2, Follows::Finished)));
        assert!(matches!(poll!(&mut second), Poll::Pending));
        assert!(matches!(poll!(Box::pin(first.told_to_end())), Poll::Pending), "it is read on");
        drop(first);
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn a_stream_after_an_abandoned_one_or_of_another_life_ends_it() {
        for next in [hello(1, 2, Follows::Abandoned), hello(9, 1, Follows::Finished)] {
            let turns = Turns::default();
            let first = turns.take(hello(1, 1, Follows::Abandoned)).await.unwrap();
            let mut second = Box::pin(turns.take(next));
            assert!(matches!(poll!(&mut second), Poll::Pending), "never two at once");
            first.told_to_end().await;
            drop(first);
            assert!(second.await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_older_stream_is_stale_and_one_that_gave_up_waiting_blocks_nobody() {
        let turns = Turns::default();
        let first = turns.take(hello(1, 5, Follows::Abandoned)).await.unwrap();
        assert_eq!(turns.take(hello(1, 5, Follows::Finished)).await.err(), Some(Stale));
        let mut second = Box::pin(turns.take(hello(1, 6, Follows::Finished)));
        assert!(matches!(poll!(&mut second), Poll::Pending));
        drop(second);
        drop(first);
        assert!(turns.take(hello(1, 7, Follows::Finished)).await.is_ok());
    }
}
