//! One bounded queue of notes for a host's leader actors, and the task that writes them as Events, one after the other.
//!
//! Saying something never waits: when the queue is full the note is dropped and counted. How a write reaches the API is
//! given by who starts it, because this crate does not know the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kactor_runtime::env::{BoxFuture, Env, Lane};
use tokio::sync::mpsc;

use super::{EventLog, EventWrite, Note, Regarding, Severity};
use crate::feed::SharedView;

const QUEUE_LEN_MAX: usize = 1024;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Yes,
    /// The Event to count up is not there any more.
    Gone,
    Refused,
}

/// Sends one write to the API as this reporter.
pub type Write = Arc<dyn Fn(Arc<str>, EventWrite) -> BoxFuture<Written> + Send + Sync>;

struct Said {
    reporter: Arc<str>,
    note: Note,
    regarding: Regarding,
}

/// A clone speaks into the same queue.
#[derive(Clone)]
pub struct EventWriter {
    view: SharedView,
    queue: mpsc::Sender<Said>,
    n_dropped: Arc<AtomicU64>,
}

impl EventWriter {
    /// Its task ends with the last clone.
    pub fn start(env: &Env, view: SharedView, write: Write) -> Self {
        let (queue, said) = mpsc::channel(QUEUE_LEN_MAX);
        env.spawn(Lane::Control, write_all(env.clone(), said, write));
        Self { view, queue, n_dropped: Arc::default() }
    }

    /// Becomes an Event soon, unless it is a trace, or about nothing that exists.
    pub fn say(&self, reporter: &Arc<str>, note: &Note) {
        if note.severity == Severity::Trace {
            return;
        }
        let Some(meta) = self.view.snapshot().meta(&note.about).cloned() else { return };
        let regarding = Regarding {
            api_version: meta.api_version.clone(),
            kind: meta.kind.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.revision.to_string(),
        };
        let said = Said { reporter: reporter.clone(), note: note.clone(), regarding };
        if self.queue.try_send(said).is_err() {
            self.n_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that found no room.
    pub fn n_dropped(&self) -> u64 {
        self.n_dropped.load(Ordering::Relaxed)
    }
}

async fn write_all(env: Env, mut said: mpsc::Receiver<Said>, write: Write) {
    let mut log = EventLog::default();
    while let Some(Said { reporter, note, regarding }) = said.recv().await {
        let Some(event) = log.record(&reporter, &note, &regarding, env.wall()) else { continue };
        let key = match &event {
            EventWrite::Create { key, .. } | EventWrite::CountUp { key, .. } => key.clone(),
        };
        match write(reporter.clone(), event).await {
            Written::Yes => {}
            Written::Refused => log.lost(&key),
            Written::Gone => {
                log.lost(&key);
                if let Some(anew) = log.record(&reporter, &note, &regarding, env.wall()) {
                    write(reporter, anew).await;
                }
            }
        }
    }
}
