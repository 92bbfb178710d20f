//! A snapshot that arrives: pieces in order, decoded as they come on a lane that may block, checked whole at the end.
//!
//! One transfer at a time; a later one ends the earlier, unless it is of an earlier leader. A transfer whose sender went
//! silent is dropped. Nothing here touches the state: who asked installs what came out whole.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use kactor_protocol::raft::{InstallSnapshot, SnapshotEnd};
use kactor_runtime::env::{Env, Lane};
use kactor_state::{ClusterState, SnapshotReader};
use tokio::sync::{mpsc, oneshot};

/// Longest snapshot that is taken: it is held in memory, as the state that it becomes will be.
const SNAPSHOT_BYTES_MAX: u64 = 8 << 30;
/// How long the next piece may take before what came is dropped.
const IDLE_MAX: Duration = Duration::from_secs(60);

pub(crate) struct SnapshotIntake {
    env: Env,
    current: Mutex<Option<Transfer>>,
}

struct Transfer {
    name: (u64, u64),
    term: u64,
    /// Where the next piece begins.
    offset: u64,
    pieces: mpsc::Sender<Piece>,
}

struct Piece {
    chunk: Bytes,
    is_last: bool,
    done: oneshot::Sender<Result<Option<Box<ClusterState>>, String>>,
}

/// What a piece led to.
#[derive(Debug)]
pub(crate) enum Taken {
    Next { offset: u64 },
    Whole { state: Box<ClusterState>, end: SnapshotEnd },
    Unknown,
    Damaged { reason: String },
}

impl SnapshotIntake {
    pub fn new(env: Env) -> Self {
        Self { env, current: Mutex::new(None) }
    }

    pub async fn take(&self, letter: InstallSnapshot) -> Taken {
        let next = letter.offset.saturating_add(letter.chunk.len() as u64);
        if next > SNAPSHOT_BYTES_MAX {
            let reason = format!("it has more than {SNAPSHOT_BYTES_MAX} bytes");
            return Taken::Damaged { reason };
        }
        let Some(pieces) = self.expect(&letter, next) else { return Taken::Unknown };
        let (done, answer) = oneshot::channel();
        let piece = Piece { chunk: letter.chunk, is_last: letter.end.is_some(), done };
        if pieces.send(piece).await.is_err() {
            return Taken::Unknown;
        }
        match (answer.await, letter.end) {
            (Ok(Ok(None)), None) => Taken::Next { offset: next },
            (Ok(Ok(Some(state))), Some(end)) => Taken::Whole { state, end },
            (Ok(Err(reason)), _) => Taken::Damaged { reason },
            _ => Taken::Unknown,
        }
    }

    /// The way to the reader of this piece's transfer, if the piece is the next one.
    fn expect(&self, letter: &InstallSnapshot, next: u64) -> Option<mpsc::Sender<Piece>> {
        let name = (letter.head.from.0, letter.transfer);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if letter.offset == 0 {
            let is_late = current.as_ref().is_some_and(|it| it.term > letter.vote.term);
            if is_late {
                return None;
            }
            let (pieces, queue) = mpsc::channel(1);
            self.env.spawn(Lane::Blocking, read(self.env.clone(), queue));
            *current = Some(Transfer { name, term: letter.vote.term, offset: 0, pieces });
        }
        let transfer = current.as_mut()?;
        if transfer.name != name || transfer.offset != letter.offset {
            return None;
        }
        transfer.offset = next;
        let pieces = transfer.pieces.clone();
        if letter.end.is_some() {
            *current = None;
        }
        Some(pieces)
    }
}

/// Reads one transfer to its end, to its first damage, or until nobody sends any more.
async fn read(env: Env, mut queue: mpsc::Receiver<Piece>) {
    let mut reader = SnapshotReader::default();
    loop {
        let next = std::pin::pin!(queue.recv());
        let Either::Left((Some(piece), _)) = select(next, env.sleep(IDLE_MAX)).await else {
            return;
        };
        if let Err(error) = reader.push(&piece.chunk) {
            let _ = piece.done.send(Err(error.to_string()));
            return;
        }
        if piece.is_last {
            let state = reader.finish().map(|it| Some(Box::new(it)));
            let _ = piece.done.send(state.map_err(|error| error.to_string()));
            return;
        }
        let _ = piece.done.send(Ok(None));
    }
}
