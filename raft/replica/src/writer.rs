//! The journal's one writer: what arrives while it syncs shares its next sync.
//!
//! It runs on `Lane::Journal`, because a sync blocks. Votes and entries wait in one bounded queue, in order. After a
//! failure every answer is an error and `fatal` names the first one: the shell ends the process.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use kactor_runtime::env::{Env, Lane};
use kactor_store::SyncLatency;
use openraft::storage::IOFlushed;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::journal::{Journal, JournalError};
use crate::raft_types::Types;
use crate::record::{LogIdRecord, Record};

/// Requests that wait for the writer before who appends waits too.
const QUEUE_LEN: usize = 4096;
/// Records that share one sync at most.
const RECORDS_PER_SYNC_MAX: usize = 8192;
/// How often a segment is tried to be made while the disk is full.
const SPARE_EVERY: Duration = Duration::from_secs(1);
/// Syncs that percentiles are taken over.
const SYNCS_REMEMBERED: usize = 1024;

/// Whom to tell when the records are durable.
pub(crate) enum Done {
    Raft(IOFlushed<Types>),
    Oneshot(oneshot::Sender<Result<(), Arc<JournalError>>>),
}

pub(crate) enum Request {
    Write { records: Vec<Record>, done: Done },
    Purge { id: LogIdRecord, done: oneshot::Sender<Result<(), Arc<JournalError>>> },
}

/// What the writer counts; read by status and inspection.
#[derive(Debug, Default)]
pub struct WriterStats {
    pub n_syncs: AtomicU64,
    pub sync_us_last: AtomicU64,
    pub sync_us_max: AtomicU64,
    /// When the sync that is under way began, on the monotonic clock; 0 when none is.
    pub syncing_since_us: AtomicU64,
    /// The last ones, newest last.
    recent_us: Mutex<VecDeque<u64>>,
    pub journal_bytes: AtomicU64,
    pub journal_segments: AtomicU64,
    /// No spare segment could be made: the disk is full.
    pub is_full: AtomicBool,
    /// Segments that only a checkpoint can free.
    pub n_sealed: AtomicU64,
    /// Told when some were freed.
    pub freed: Notify,
}

impl WriterStats {
    fn synced(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.n_syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_us_last.store(us, Ordering::Relaxed);
        self.sync_us_max.fetch_max(us, Ordering::Relaxed);
        let mut recent = self.recent_us.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == SYNCS_REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(us);
    }

    /// How long the sync takes that is under way, or took that was the last.
    pub fn sync_time(&self, now: Duration) -> Duration {
        match self.syncing_since_us.load(Ordering::Relaxed) {
            0 => Duration::from_micros(self.sync_us_last.load(Ordering::Relaxed)),
            since => now.saturating_sub(Duration::from_micros(since)),
        }
    }

    fn size(&self, journal: &Journal) {
        self.journal_bytes.store(journal.bytes(), Ordering::Relaxed);
        self.journal_segments.store(journal.n_segments(), Ordering::Relaxed);
        self.n_sealed.store(journal.n_sealed(), Ordering::Relaxed);
    }

    pub fn latency(&self) -> SyncLatency {
        let recent = self.recent_us.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<u64> = recent.iter().copied().collect();
        drop(recent);
        sorted.sort_unstable();
        // Nearest rank: the least value that so many per cent are not above.
        let percentile = |n: usize| match sorted.len() {
            0 => 0,
            len => sorted[(len * n).div_ceil(100) - 1],
        };
        SyncLatency {
            n_recent: sorted.len() as u64,
            us_p50: percentile(50),
            us_p99: percentile(99),
        }
    }
}

/// The sending side.
#[derive(Clone)]
pub(crate) struct Writer {
    requests: mpsc::Sender<Request>,
    pub stats: Arc<WriterStats>,
    pub fatal: watch::Receiver<Option<Arc<JournalError>>>,
}

impl Writer {
    pub fn start(env: &Env, journal: Journal) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE_LEN);
        let stats = Arc::new(WriterStats::default());
        stats.size(&journal);
        let (report, fatal) = watch::channel(None);
        let shell = Shell { env: env.clone(), journal, queue, stats: stats.clone(), report };
        env.spawn(Lane::Journal, shell.run());
        Self { requests, stats, fatal }
    }

    pub async fn send(&self, request: Request) -> Result<(), Arc<JournalError>> {
        self.requests.send(request).await.map_err(|_| self.why_ended())
    }

    /// Makes the records durable before it returns.
    pub async fn write(&self, records: Vec<Record>) -> Result<(), Arc<JournalError>> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Write { records, done: Done::Oneshot(done) }).await?;
        answer.await.unwrap_or_else(|_| Err(self.why_ended()))
    }

    pub async fn purge(&self, id: LogIdRecord) -> Result<(), Arc<JournalError>> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Purge { id, done }).await?;
        answer.await.unwrap_or_else(|_| Err(self.why_ended()))
    }

    fn why_ended(&self) -> Arc<JournalError> {
        self.fatal.borrow().clone().unwrap_or_else(|| Arc::new(JournalError::Ended))
    }
}

struct Shell {
    env: Env,
    journal: Journal,
    queue: mpsc::Receiver<Request>,
    stats: Arc<WriterStats>,
    report: watch::Sender<Option<Arc<JournalError>>>,
}

impl Shell {
    async fn run(mut self) {
        while let Some(first) = self.next().await {
            self.turn(first).await;
            self.prepare();
        }
    }

    /// The next request. On a full disk nobody may send one, because writes are refused: so it looks by itself.
    async fn next(&mut self) -> Option<Request> {
        while self.stats.is_full.load(Ordering::Relaxed) {
            let pause = pin!(self.env.clock.sleep_until(self.env.monotonic() + SPARE_EVERY));
            match select(pin!(self.queue.recv()), pause).await {
                Either::Left((request, _)) => return request,
                Either::Right(_) => {}
            }
            self.prepare();
        }
        self.queue.recv().await
    }

    /// Takes what waits, makes it durable together, then answers.
    async fn turn(&mut self, first: Request) {
        let mut records = Vec::new();
        let mut waiting = Vec::new();
        let mut purge = None;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Write { records: more, done } => {
                    records.extend(more);
                    waiting.push(done);
                }
                Request::Purge { id, done } => {
                    purge = Some((id, done));
                    break;
                }
            }
            if records.len() >= RECORDS_PER_SYNC_MAX {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        if !waiting.is_empty() {
            let written = self.write(&records).await;
            waiting.into_iter().for_each(|it| answer(it, &written));
        }
        if let Some((id, done)) = purge {
            let purged = self.journal.purge(id).await.map_err(|error| self.fail(error));
            self.stats.n_sealed.store(self.journal.n_sealed(), Ordering::Relaxed);
            self.stats.freed.notify_waiters();
            let _ = done.send(purged);
        }
    }

    async fn write(&mut self, records: &[Record]) -> Result<(), Arc<JournalError>> {
        let start = self.env.monotonic();
        let start_us = u64::try_from(start.as_micros()).unwrap_or(u64::MAX).max(1);
        self.stats.syncing_since_us.store(start_us, Ordering::Relaxed);
        let written = self.journal.write(records).await;
        self.stats.syncing_since_us.store(0, Ordering::Relaxed);
        self.stats.synced(self.env.monotonic().saturating_sub(start));
        written.map_err(|error| self.fail(error))
    }

    fn fail(&self, error: JournalError) -> Arc<JournalError> {
        let error = Arc::new(error);
        self.report.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| error.clone());
            is_first
        });
        error
    }

    /// After the answers: the next segment, so that nobody waits for it. Refusal means a full disk, not a failure.
    fn prepare(&mut self) {
        if self.journal.needs_spare() {
            let is_full = self.journal.prepare_spare().is_err();
            self.stats.is_full.store(is_full, Ordering::Relaxed);
        }
        self.stats.size(&self.journal);
    }
}

fn answer(done: Done, written: &Result<(), Arc<JournalError>>) {
    match done {
        Done::Raft(flushed) => {
            flushed.io_completed(written.clone().map_err(std::io::Error::other));
        }
        Done::Oneshot(waiting) => {
            let _ = waiting.send(written.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_syncs_and_forget_older_ones() {
        let stats = WriterStats::default();
        assert_eq!(stats.latency(), SyncLatency::default());
        stats.synced(Duration::from_micros(7));
        assert_eq!(stats.latency(), SyncLatency { n_recent: 1, us_p50: 7, us_p99: 7 });
        stats.synced(Duration::from_secs(9));
        for us in 1..=SYNCS_REMEMBERED as u64 {
            stats.synced(Duration::from_micros(us));
        }
        let kept = SYNCS_REMEMBERED as u64;
        assert_eq!(stats.latency(), SyncLatency { n_recent: kept, us_p50: 512, us_p99: 1014 });
        assert_eq!(stats.sync_us_max.load(Ordering::Relaxed), 9_000_000, "the worst is kept");
    }
}
