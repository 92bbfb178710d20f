//! The handle that everything above the log uses.
//!
//! Cloning shares it. Reads are of this replica's state; `read_index` makes the next read linearizable. A proposal is
//! answered after it was applied here, so that its proposer reads its own write.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{Either, select};
use kactor_protocol::ids::{Reign, Revision};
use kactor_protocol::store::{Committed, Key, Propose, ProposeError};
use kactor_protocol::time::Deadline;
use kactor_runtime::env::Env;
use kactor_state::{Command, Compacted, Outcome, Page, Stored};

use crate::hub::{Interest, LabelOf};
use crate::leadership::Leadership;
use crate::log::{Log, LogStatus, ReadError};
use crate::model_log::ModelLog;
use crate::table::{Reached, Table};
use crate::watch::Watch;

/// Proposals that wait for the log at a time; more are refused `Overloaded`.
const PROPOSALS_MAX: usize = 16_384;

/// The replicated store, as one replica sees it.
#[derive(Clone)]
pub struct Store {
    table: Arc<Table>,
    log: Arc<dyn Log>,
    env: Env,
    n_proposals: Arc<AtomicUsize>,
}

impl Store {
    /// `log` must apply to `table`.
    pub fn new(env: Env, table: Arc<Table>, log: Arc<dyn Log>) -> Self {
        Self { table, log, env, n_proposals: Arc::default() }
    }

    /// A store on the model log: nothing is durable, all else is as in production.
    pub fn in_memory(env: Env) -> Self {
        let log = Arc::new(ModelLog::new(env.clone()));
        Self::new(env, log.table().clone(), log)
    }

    pub async fn propose(
        &self,
        propose: Propose,
        deadline: Deadline,
    ) -> Result<Committed, ProposeError> {
        propose.check()?;
        let command = Command::Transact { now: self.env.wall(), propose };
        match self.submit(command, deadline).await? {
            Outcome::Committed(committed) => Ok(committed),
            Outcome::Refused(error) => Err(error),
            other => unreachable!("a transaction is committed or refused, not {other:?}"),
        }
    }

    /// Any command; what the store's own shells use.
    pub async fn submit(
        &self,
        command: Command,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
        let _waiting = Ticket::take(&self.n_proposals).ok_or(ProposeError::Overloaded)?;
        self.within(deadline, self.log.submit(command, deadline))
            .await
            .unwrap_or(Err(ProposeError::Timeout))
    }

    /// The revision that a linearizable read must see; it is here when this returns.
    pub async fn read_index(&self, deadline: Deadline) -> Result<Revision, ReadError> {
        let confirmed = async {
            let index = self.log.read_index(deadline).await?;
            self.table.reach(Reached::Index(index)).await?;
            Ok(self.revision())
        };
        self.within(deadline, confirmed).await.unwrap_or(Err(ReadError::Timeout))
    }

    /// Waits until `revision` is applied here.
    pub async fn wait_applied(
        &self,
        revision: Revision,
        deadline: Deadline,
    ) -> Result<(), ReadError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let reached = self.table.reach(Reached::Revision(revision));
        self.within(deadline, reached).await.unwrap_or(Err(ReadError::Timeout))
    }

    async fn within<T>(&self, deadline: Deadline, work: impl Future<Output = T>) -> Option<T> {
        let work = std::pin::pin!(work);
        // The work is polled first: what is done at the deadline counts as done.
        match select(work, self.env.clock.sleep_until(deadline.at())).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    pub fn revision(&self) -> Revision {
        self.table.read().revision()
    }

    /// The oldest revision that can be read or watched from.
    pub fn compacted(&self) -> Revision {
        self.table.read().compacted()
    }

    pub fn reign(&self) -> Reign {
        self.table.read().reign()
    }

    pub fn leadership(&self) -> Leadership {
        self.table.leadership()
    }

    pub fn status(&self) -> LogStatus {
        self.log.status()
    }

    /// Proposals that wait for the log.
    pub fn n_proposals(&self) -> usize {
        self.n_proposals.load(Ordering::Relaxed)
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    pub fn get(&self, key: &Key) -> Option<Stored> {
        self.table.read().get(key).cloned()
    }

    pub fn get_at(&self, key: &Key, at: Revision) -> Result<Option<Stored>, Compacted> {
        self.table.read().get_at(key, at).map(|it| it.cloned())
    }

    /// At most `limit` objects under `prefix` behind `after`, all of revision `at` (or of now).
    pub fn range(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Compacted> {
        self.table.read().range(prefix, after, limit, at)
    }

    /// All changes under `prefix` above `after`, such as `//pods/` or `//pods/default/`.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, Compacted> {
        self.watch_interest(Interest { prefix: prefix.into(), label: None }, after)
    }

    /// As `watch`, of those objects only that carry `label` before or after the change. The prefix must have been
    /// given a label with `set_label`; otherwise nothing is ever seen.
    pub fn watch_label(
        &self,
        prefix: &str,
        label: &str,
        after: Revision,
    ) -> Result<Watch, Compacted> {
        let interest = Interest { prefix: prefix.into(), label: Some(label.into()) };
        self.watch_interest(interest, after)
    }

    /// Gives the objects under a resource's prefix a label that changes are routed by, such as a pod's node.
    pub fn set_label(&self, prefix: &str, label_of: LabelOf) {
        self.table.hub().set_label(prefix, label_of);
    }

    fn watch_interest(&self, interest: Interest, after: Revision) -> Result<Watch, Compacted> {
        let floor = self.compacted();
        if after < floor {
            return Err(Compacted { asked: after, floor });
        }
        let label_of = self.table.hub().label_of(&interest.prefix);
        Ok(Watch::new(self.table.clone(), interest, label_of, after))
    }
}

/// One waiting proposal; it leaves when dropped.
struct Ticket<'a>(&'a AtomicUsize);

impl<'a> Ticket<'a> {
    fn take(counter: &'a AtomicUsize) -> Option<Self> {
        let ticket = Self(counter);
        let before = counter.fetch_add(1, Ordering::Relaxed);
        (before < PROPOSALS_MAX).then_some(ticket)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
