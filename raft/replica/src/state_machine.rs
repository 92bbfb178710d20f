//! openraft's state machine on the table: applies entries, and checkpoints what changed into the applied store.
//!
//! A checkpoint is openraft's "snapshot": once it is durable, openraft purges the log below it. What changed since the
//! last one is collected while applying, so a checkpoint costs what changed, not what there is.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use kactor_runtime::env::{Env, Lane};
use kactor_state::{Applied, ClusterState, RangeSum, SnapshotWriter, VersionRecord};
use kactor_store::{CheckpointStatus, StoppedAt, Table};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::applied::{APPLIED_FORMAT, AppliedError, AppliedMeta, AppliedStore, Rows};
use crate::network::Chunks;
use crate::probes::Probes;
use crate::raft_types::{Answer, Committed, Entry, LogId, StoredMembership, Types};
use crate::space::Space;

/// Changed bytes after which a checkpoint is due.
pub const CHECKPOINT_BYTES: u64 = 8 << 20;
/// Garbage in the applied store that is never worth a rewrite; above it and three times the state it is rewritten.
const SLACK_BYTES: u64 = 32 << 20;
/// Checkpoints that wait for the disk.
const DISK_WORK_LEN: usize = 4;
/// What a row takes beside its key and body.
const ROW_BYTES: u64 = 128;
/// What sled may take beside what it is given: half-filled segments, and pages that it moves.
const SLED_BYTES: u64 = 8 << 20;

pub type Snapshot = openraft::Snapshot<Committed, u64, openraft::impls::BasicNode, SnapshotBody>;
pub type SnapshotMeta = openraft::SnapshotMeta<Committed, u64, openraft::impls::BasicNode>;

/// A whole state on its way to another replica.
#[derive(Debug)]
pub enum SnapshotBody {
    /// Here: encoded when it is sent. It shares its bytes with the table.
    State(Box<ClusterState>),
    /// What a checkpoint hands to openraft, which drops it: the table as it is when this is opened.
    Table(TableAtOpen),
}

/// A table behind a snapshot that nobody is expected to send.
pub struct TableAtOpen(Arc<Table>);

impl std::fmt::Debug for TableAtOpen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TableAtOpen")
    }
}

impl SnapshotBody {
    /// Its bytes, made one chunk after the other.
    pub fn into_chunks(self) -> Chunks {
        Box::new(match self {
            SnapshotBody::State(state) => SnapshotWriter::new(&state),
            SnapshotBody::Table(table) => SnapshotWriter::new(&table.0.read()),
        })
    }

    fn into_state(self) -> ClusterState {
        match self {
            SnapshotBody::State(state) => *state,
            SnapshotBody::Table(table) => table.0.read().clone(),
        }
    }
}

/// What installing this state may take on the disk, the old one beside it.
pub(crate) fn install_bytes(state: &ClusterState) -> u64 {
    whole_bytes(state).saturating_mul(2).saturating_add(SLED_BYTES)
}

type Work = Box<dyn FnOnce(&mut dyn AppliedStore) -> Result<(), AppliedError> + Send>;
type Done = oneshot::Sender<Result<(), AppliedError>>;

#[derive(Clone)]
pub struct StateMachine {
    table: Arc<Table>,
    disk_work: mpsc::Sender<(Work, Done)>,
    position: Arc<Mutex<Position>>,
    /// Woken when a checkpoint is due.
    pub(crate) due: Arc<Notify>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) probes: Arc<Probes>,
    env: Env,
    /// Why the applied store takes nothing more; raft ends then, and so must the process.
    pub(crate) broken: watch::Sender<Option<Arc<AppliedError>>>,
    applied_store: watch::Sender<AppliedStoreIs>,
    space: Space,
}

/// Whether the applied store is there to be worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AppliedStoreIs {
    Open,
    Closing,
    Closed,
}

/// What status and inspection see of applying and of checkpoints.
#[derive(Default)]
pub(crate) struct Progress {
    disk_bytes: AtomicU64,
    pending_bytes: AtomicU64,
    checkpoint: Mutex<CheckpointMade>,
    stopped: Mutex<Option<StoppedAt>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct CheckpointMade {
    index: Option<u64>,
    /// On the monotonic clock; `None` when an earlier process made it.
    at: Option<Duration>,
}

impl Progress {
    pub fn checkpoint(&self, now: Duration) -> CheckpointStatus {
        let made = *self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        CheckpointStatus {
            index: made.index,
            age: made.at.map(|at| now.saturating_sub(at)),
            pending_bytes: self.pending_bytes.load(Ordering::Relaxed),
            disk_bytes: self.disk_bytes.load(Ordering::Relaxed),
        }
    }

    /// Why nothing more is applied here, if so.
    pub fn stopped(&self) -> Option<StoppedAt> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn made(&self, index: Option<u64>, at: Option<Duration>) {
        let mut made = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        *made = CheckpointMade { index, at };
    }
}

/// Where in the log the table is, and what no checkpoint holds yet.
#[derive(Default)]
struct Position {
    last: Option<LogId>,
    membership: StoredMembership,
    rows: Rows,
    rows_bytes: u64,
}

impl StateMachine {
    pub fn new(
        env: &Env,
        table: Arc<Table>,
        store: Box<dyn AppliedStore>,
        loaded: Option<&AppliedMeta>,
        space: Space,
    ) -> Self {
        let position = loaded.map_or_else(Position::default, |meta| Position {
            last: meta.applied.map(LogId::from),
            membership: StoredMembership::new(
                meta.membership_id.map(LogId::from),
                meta.membership.clone().into(),
            ),
            ..Position::default()
        });
        let progress = Arc::new(Progress::default());
        progress.disk_bytes.store(store.bytes_on_disk(), Ordering::Relaxed);
        progress.made(position.last.map(|it| it.index), None);
        let (disk_work, queue) = mpsc::channel(DISK_WORK_LEN);
        let applied_store = watch::Sender::new(AppliedStoreIs::Open);
        env.spawn(
            Lane::Blocking,
            work_on_disk(store, queue, progress.clone(), applied_store.clone()),
        );
        Self {
            table,
            disk_work,
            position: Arc::new(Mutex::new(position)),
            due: Arc::default(),
            progress,
            probes: Arc::default(),
            env: env.clone(),
            broken: watch::Sender::new(None),
            applied_store,
            space,
        }
    }

    /// Lets the applied store go, whoever still holds this machine: the replica itself, or a snapshot on its way. Otherwise
    /// its files stay locked until the last of them is dropped.
    pub(crate) async fn close(&self) {
        self.applied_store.send_if_modified(|it| {
            let is_open = *it == AppliedStoreIs::Open;
            if is_open {
                *it = AppliedStoreIs::Closing;
            }
            is_open
        });
        let mut is = self.applied_store.subscribe();
        let _ = is.wait_for(|it| *it == AppliedStoreIs::Closed).await;
    }

    fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies one entry. One that can't be applied ends this replica's part before it: what is here stays readable,
    /// and status names the entry.
    fn apply_one(&self, entry: Entry) -> Result<Answer, io::Error> {
        let index = entry.log_id.index;
        catch_unwind(AssertUnwindSafe(|| self.apply_checked(entry))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let cause = text.unwrap_or("it panicked").to_owned();
            let error = format!("applying entry {index} failed: {cause}");
            tracing::error!(
                index,
                cause,
                "an entry can't be applied; this replica stops before it"
            );
            let mut stopped = self.progress.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            stopped.get_or_insert(StoppedAt { index, cause });
            io::Error::other(error)
        })
    }

    fn apply_checked(&self, entry: Entry) -> Answer {
        let (id, index) = (entry.log_id, entry.log_id.index);
        let mut position = self.position();
        let answer = match entry.payload {
            EntryPayload::Blank => {
                self.table.skip(index);
                Answer(None)
            }
            EntryPayload::Membership(membership) => {
                position.membership = StoredMembership::new(Some(id), membership);
                self.table.skip(index);
                Answer(None)
            }
            EntryPayload::Normal(proposal) => {
                let applied = self.table.apply(index, proposal.0);
                position.collect(&applied);
                self.progress.pending_bytes.store(position.rows_bytes, Ordering::Relaxed);
                if position.rows_bytes > CHECKPOINT_BYTES {
                    self.due.notify_one();
                }
                Answer(Some(applied.outcome))
            }
        };
        // Not before: a checkpoint must never claim an entry that was not applied.
        position.last = Some(id);
        self.probes.applied(&self.table, index);
        answer
    }

    /// What a checkpoint made now would write. Called between two entries.
    fn take_checkpoint(&self) -> Checkpoint {
        let mut position = self.position();
        let rows_bytes = std::mem::take(&mut position.rows_bytes);
        self.progress.pending_bytes.store(0, Ordering::Relaxed);
        Checkpoint {
            rows: std::mem::take(&mut position.rows),
            rows_bytes,
            sum: self.table.read().checksum(),
            meta: self.meta(&position),
            last: position.last,
            membership: position.membership.clone(),
            whole: None,
            machine: self.clone(),
        }
    }

    fn meta(&self, position: &Position) -> AppliedMeta {
        AppliedMeta {
            format: APPLIED_FORMAT,
            applied: position.last.map(Into::into),
            membership_id: position.membership.log_id().map(Into::into),
            membership: position.membership.membership().into(),
            state: self.table.read().meta_record(),
        }
    }

    /// Runs disk work where it may block.
    async fn on_disk(&self, work: Work) -> Result<(), AppliedError> {
        let (done, answer) = oneshot::channel();
        self.disk_work.send((work, done)).await.map_err(|_| AppliedError::Ended)?;
        answer.await.map_err(|_| AppliedError::Ended)?
    }

    /// Tells the shell first: what raft makes of the error ends raft only.
    fn fail(&self, error: AppliedError) -> io::Error {
        let error = Arc::new(error);
        self.broken.send_replace(Some(error.clone()));
        io::Error::other(error)
    }
}

/// The applied store's one user. Raft's own tasks only send to it: where they run is openraft's business.
async fn work_on_disk(
    store: Box<dyn AppliedStore>,
    mut queue: mpsc::Receiver<(Work, Done)>,
    progress: Arc<Progress>,
    applied_store: watch::Sender<AppliedStoreIs>,
) {
    let mut is = applied_store.subscribe();
    let _closed = Closed(applied_store);
    let mut store = store; // Let go before that is told, also by a panic.
    loop {
        let next = tokio::select! {
            biased;
            _ = is.wait_for(|it| *it != AppliedStoreIs::Open) => break,
            next = queue.recv() => next,
        };
        let Some((work, done)) = next else { break };
        let result = work(store.as_mut());
        progress.disk_bytes.store(store.bytes_on_disk(), Ordering::Relaxed);
        let _ = done.send(result);
    }
}

/// Says that the applied store was let go.
struct Closed(watch::Sender<AppliedStoreIs>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.send_replace(AppliedStoreIs::Closed);
    }
}

impl Position {
    fn collect(&mut self, applied: &Applied) {
        for change in &applied.changes {
            let record =
                VersionRecord::of(change.key.clone(), change.revision, change.current.as_ref());
            let body = change.current.as_ref().map_or(0, |it| it.value.body.len());
            self.rows_bytes += (change.key.as_str().len() + body) as u64 + ROW_BYTES;
            self.rows.insert((change.key.clone(), change.revision), Some(record));
        }
        for at in &applied.forgotten {
            self.rows_bytes += at.0.as_str().len() as u64;
            self.rows.insert(at.clone(), None);
        }
    }
}

/// A checkpoint that is being made.
pub struct Checkpoint {
    rows: Rows,
    rows_bytes: u64,
    sum: RangeSum,
    meta: AppliedMeta,
    last: Option<LogId>,
    membership: StoredMembership,
    /// The state, for one that rewrites everything.
    whole: Option<ClusterState>,
    machine: StateMachine,
}

impl Checkpoint {
    /// What it may take while it is written.
    fn bytes_needed(&self) -> u64 {
        let rows = match &self.whole {
            Some(state) => whole_bytes(state),
            None => self.rows_bytes,
        };
        rows.saturating_mul(2).saturating_add(SLED_BYTES)
    }

    async fn write(&mut self) -> Result<(), AppliedError> {
        let (meta, sum) = (self.meta.clone(), self.sum);
        let work: Work = match self.whole.take() {
            Some(state) => Box::new(move |store| store.replace(&state, &meta)),
            None => {
                let rows = std::mem::take(&mut self.rows);
                Box::new(move |store| store.checkpoint(&rows, &meta, sum))
            }
        };
        self.machine.on_disk(work).await
    }

    /// The disk became full meanwhile. The table has everything: all of it is written anew, as it is now. What was collected
    /// since stays collected, and is written twice at worst.
    fn begin_again(&mut self) {
        let position = self.machine.position();
        let state = self.machine.table.read().clone();
        self.meta = self.machine.meta(&position);
        self.last = position.last;
        self.membership = position.membership.clone();
        self.whole = Some(state);
    }
}

impl RaftSnapshotBuilder<Types> for Checkpoint {
    type SnapshotData = SnapshotBody;

    /// Waits for space as long as it takes: meanwhile the journal keeps everything, and takes only so much.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        loop {
            self.machine.space.until_free(self.bytes_needed()).await;
            match self.write().await {
                Ok(()) => break,
                Err(error) if error.is_full() => {
                    tracing::warn!(%error, "a checkpoint waits for space");
                    self.begin_again();
                }
                Err(error) => return Err(self.machine.fail(error)),
            }
        }
        let machine = &self.machine;
        machine.progress.made(self.last.map(|it| it.index), Some(machine.env.monotonic()));
        let meta =
            SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() };
        let table = TableAtOpen(self.machine.table.clone());
        Ok(Snapshot { meta, snapshot: SnapshotBody::Table(table) })
    }
}

/// Keys and bodies of all versions, with what a row adds.
fn whole_bytes(state: &ClusterState) -> u64 {
    let rows = state.n_objects().saturating_mul(ROW_BYTES);
    state.live_bytes().saturating_add(state.past_bytes()).saturating_add(rows)
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotBody;
    type SnapshotBuilder = Checkpoint;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.position();
        Ok((position.last, position.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let answer = self.apply_one(entry)?;
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Checkpoint {
        let mut checkpoint = self.take_checkpoint();
        let state = self.table.read();
        let live_bytes = whole_bytes(&state);
        let bytes_max = live_bytes.saturating_mul(3).saturating_add(SLACK_BYTES);
        let has_room = self.space.free_bytes() > live_bytes.saturating_mul(2) + SLED_BYTES;
        if has_room && self.progress.disk_bytes.load(Ordering::Relaxed) > bytes_max {
            // What is collected meanwhile is above it: nothing is applied between the two looks.
            checkpoint.whole = Some(state.clone());
        }
        checkpoint
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        body: SnapshotBody,
    ) -> Result<(), io::Error> {
        let state = body.into_state();
        let record = AppliedMeta {
            format: APPLIED_FORMAT,
            applied: meta.last_log_id.map(Into::into),
            membership_id: meta.last_membership.log_id().map(Into::into),
            membership: meta.last_membership.membership().into(),
            state: state.meta_record(),
        };
        let copy = state.clone();
        let written = self.on_disk(Box::new(move |store| store.replace(&copy, &record))).await;
        written.map_err(|error| self.fail(error))?;
        let index = meta.last_log_id.map(|it| it.index);
        self.progress.made(index, Some(self.env.monotonic()));
        let mut position = self.position();
        *position = Position {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            ..Position::default()
        };
        self.table.install(state);
        self.probes.applied(&self.table, index.unwrap_or(0));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let position = self.position();
        let Some(last) = position.last else { return Ok(None) };
        let meta =
            SnapshotMeta { last_log_id: Some(last), last_membership: position.membership.clone() };
        let state = self.table.read().clone();
        Ok(Some(Snapshot { meta, snapshot: SnapshotBody::State(Box::new(state)) }))
    }
}
