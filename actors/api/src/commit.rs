//! From a decision to a commit: decide on the local state, propose, and decide again when somebody was faster.
//!
//! A write is a function from the present state to a `Plan` or a refusal. Two things make it be decided anew, a bounded
//! number of times: a precondition or guard that failed in the log, and a refusal while this host was behind the
//! leader. A plan that pinned the client's own resourceVersion is judged again like any other: the fresh decision
//! refuses it with the right 409. Invariant: whatever is answered as written is committed.

use std::time::Duration;

use kactor_objects::registry::Kind;
use kactor_objects::status::{Reason, Status};
use kactor_protocol::ids::Revision;
use kactor_protocol::store::{Changed, Guard, Propose, ProposeError, Retry, Write};
use kactor_protocol::time::Deadline;
use kactor_store::ReadError;

use crate::api::Api;
use crate::request::{DryRun, Request};

/// How often a write is decided before the client is told to come back.
const ATTEMPTS_MAX: u32 = 12;
/// The first pause before the same proposal is tried again; doubled each time.
const PAUSE: Duration = Duration::from_millis(20);

/// What a write will do to the store.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub guards: Vec<Guard>,
    /// Empty: nothing changes.
    pub writes: Vec<Write>,
}

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Revisions of the writes, in order.
    Committed { revisions: Vec<Revision>, changed: Changed },
    /// `dryRun`, or nothing to write.
    NotWritten,
}

impl Fate {
    /// The revision of the first write: the object's own.
    pub fn first_revision(&self) -> Option<Revision> {
        match self {
            Self::Committed { revisions, .. } => revisions.first().copied(),
            Self::NotWritten => None,
        }
    }
}

impl Api {
    /// Runs `decide` until its plan is committed or it refuses on confirmed state.
    pub(crate) async fn commit<T>(
        &self,
        request: &Request,
        kind: &Kind,
        decide: impl Fn() -> Result<(Plan, T), Status>,
    ) -> Result<(T, Fate), Status> {
        let mut pause = PAUSE;
        for _ in 0..ATTEMPTS_MAX {
            let seen = self.store().revision();
            let (plan, decided) = match decide() {
                Ok(it) => it,
                Err(status) => {
                    if depends_on_state(&status) && self.is_behind(seen, request.deadline).await? {
                        continue;
                    }
                    return Err(status);
                }
            };
            if request.options.dry_run == DryRun::All || plan.writes.is_empty() {
                return Ok((decided, Fate::NotWritten));
            }
            let error = match self.propose(request, plan).await {
                Ok(fate) => return Ok((decided, fate)),
                Err(error) => error,
            };
            match error.retry() {
                Retry::Replan if error.outcome_is_unknown() => return Err(unknown_outcome(&error)),
                Retry::Replan => self.catch_up(request.deadline).await?,
                Retry::Now => {}
                Retry::After { ms }
                    if matches!(
                        error,
                        ProposeError::NotLeader { .. } | ProposeError::Overloaded
                    ) =>
                {
                    let wait = pause.max(Duration::from_millis(ms.min(200)));
                    pause *= 2;
                    if request.deadline.remaining(self.env().monotonic()) <= wait {
                        return Err(refused(kind, &error));
                    }
                    self.env().sleep(wait).await;
                }
                Retry::After { .. } | Retry::Never => return Err(refused(kind, &error)),
            }
        }
        let why =
            "the object was changed by others faster than this request could follow; try again";
        Err(Status::conflict(kind, request.resource.name.as_deref().unwrap_or_default(), why))
    }

    pub(crate) async fn propose(
        &self,
        request: &Request,
        plan: Plan,
    ) -> Result<Fate, ProposeError> {
        let proposal = Propose {
            reign: request.caller.reign,
            guards: plan.guards,
            writes: plan.writes,
            trace: request.caller.trace,
        };
        let committed = self.store().propose(proposal, request.deadline).await?;
        let any = committed.outcomes.iter().any(|it| it.changed == Changed::Yes);
        let revisions = committed.outcomes.iter().map(|it| it.revision).collect();
        let changed = if any { Changed::Yes } else { Changed::Unchanged };
        Ok(Fate::Committed { revisions, changed })
    }

    /// Waits for the leader's revision; true when `seen` was older.
    async fn is_behind(&self, seen: Revision, deadline: Deadline) -> Result<bool, Status> {
        let current = self.store().read_index(deadline).await.map_err(read_refused)?;
        Ok(current > seen)
    }

    /// After a lost race: waits until what won it is here.
    pub(crate) async fn catch_up(&self, deadline: Deadline) -> Result<(), Status> {
        self.store().read_index(deadline).await.map(drop).map_err(read_refused)
    }
}

/// Whether newer state might have led to another answer.
fn depends_on_state(status: &Status) -> bool {
    matches!(
        status.reason,
        Reason::NotFound
            | Reason::AlreadyExists
            | Reason::Conflict
            | Reason::Forbidden
            | Reason::Invalid
    )
}

fn unknown_outcome(error: &ProposeError) -> Status {
    Status::timeout(&format!("{error}; read the object to see whether it was written"), 1)
}

/// What the log refused for good, as clients are told it.
pub(crate) fn refused(kind: &Kind, error: &ProposeError) -> Status {
    match error {
        ProposeError::TooLarge { .. } => {
            Status::request_too_large(kactor_protocol::store::OBJECT_BYTES_MAX)
        }
        ProposeError::Deposed { .. } => Status::conflict(kind, "", &error.to_string()),
        ProposeError::Overloaded => Status::too_many_requests(error.to_string(), 1),
        ProposeError::Full => Status::service_unavailable(error.to_string()).retry_after(5),
        ProposeError::NotLeader { .. } | ProposeError::NoQuorum => {
            Status::service_unavailable(format!("the write was not accepted: {error}"))
                .retry_after(1)
        }
        other => Status::internal(&other.to_string()),
    }
}

/// Why a read could not be confirmed.
pub(crate) fn read_refused(error: ReadError) -> Status {
    Status::service_unavailable(format!("the read could not be confirmed: {error}")).retry_after(1)
}
