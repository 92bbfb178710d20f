//! What a follower does with a write or a consistent read: it asks the leader, then waits until its own state is there.
//!
//! A refusal by somebody who is not the leader, or who was not reached, is no answer: the leader is looked for again until
//! shortly before the deadline. Nobody waits for a leader that another has replaced: a dead host's link is given up only
//! seconds later. A write that may have been taken is sent again only where a second one can't do harm (a create is known
//! again, a write at a revision conflicts with itself), and then a refusal is no news of the first one: its fate stays unknown.

use std::future::Future;
use std::time::Duration;

use futures::future::{Either, select};
use kactor_protocol::HostId;
use kactor_protocol::frame::Refusal;
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::raft::ReadIndexError;
use kactor_protocol::store::{Precondition, Propose, ProposeError, Retry, Write};
use kactor_protocol::time::Deadline;
use kactor_state::{Command, Outcome};
use kactor_store::ReadError;

use crate::raft_log::RaftLog;

/// How long before the deadline one gives up, so that the refusal arrives: it says that nothing was proposed.
const MARGIN: Duration = Duration::from_millis(100);
/// Longest wait for a leader: elections take a second or two, and who waits longer has lost the quorum.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks for the leader.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What an attempt to reach the leader led to.
enum Attempt<T> {
    Done(T),
    /// Nothing was begun: another attempt is safe.
    Again,
    /// It may have been taken by a leader that does not answer.
    Unsure,
}

/// Whether apply would know a second one of these for what it is: only where a write says what it replaces, not where
/// it takes whatever stands there.
fn is_repeatable(propose: &Propose) -> bool {
    let preconditions = propose.writes.iter().filter_map(|it| match it {
        Write::Put { precondition, .. } => Some((precondition, false)),
        Write::Delete { precondition, .. } => Some((precondition, true)),
        Write::Touch { .. } | Write::Add { .. } => None,
    });
    let mut names_itself = false;
    for (precondition, is_delete) in preconditions {
        match precondition {
            Precondition::Absent | Precondition::Revision(_) | Precondition::UidAndRevision(..) => {
                names_itself = true;
            }
            Precondition::Uid(_) if is_delete => names_itself = true,
            Precondition::Uid(_) | Precondition::None => return false,
        }
    }
    names_itself
}

/// What a refusal says of a write that was sent before, to a leader that did not answer.
fn after_unsure(answer: Result<Outcome, ProposeError>) -> Result<Outcome, ProposeError> {
    let refused = match &answer {
        Ok(Outcome::Refused(error)) | Err(error) => error,
        Ok(_) => return answer,
    };
    tracing::debug!(%refused, "a write that was sent twice has an unknown fate");
    Err(ProposeError::Timeout)
}

impl RaftLog {
    pub(crate) async fn submit_anywhere(
        &self,
        command: Command,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
        let last = self.last_attempt(deadline);
        let mut is_unsure = false;
        loop {
            let attempt = self.submit_once(&command, deadline).await;
            match attempt {
                Attempt::Done(answer) if is_unsure => return after_unsure(answer),
                Attempt::Done(answer) => return answer,
                Attempt::Again | Attempt::Unsure if self.env.monotonic() >= last => {
                    let unreached = match attempt {
                        Attempt::Unsure => ProposeError::Timeout,
                        _ => self.unreached(),
                    };
                    return if is_unsure { after_unsure(Err(unreached)) } else { Err(unreached) };
                }
                Attempt::Unsure => is_unsure = true,
                Attempt::Again => {}
            }
            self.env.sleep(LOOK_EVERY).await;
        }
    }

    async fn submit_once(
        &self,
        command: &Command,
        deadline: Deadline,
    ) -> Attempt<Result<Outcome, ProposeError>> {
        match (self.leader(), command) {
            (Some((id, _)), _) if id == self.id => {
                match self.submit_here(command.clone(), deadline).await {
                    Err(ProposeError::NotLeader { .. }) => Attempt::Again,
                    answer => Attempt::Done(answer),
                }
            }
            (Some((id, Some(host))), Command::Transact { propose, .. }) => {
                self.forward((id, &host), propose.clone(), deadline).await
            }
            // What only a leader's own actors propose is not forwarded.
            (Some((id, _)), _) => Attempt::Done(Err(ProposeError::NotLeader { leader: Some(id) })),
            (None, _) => Attempt::Again,
        }
    }

    /// Completes when another replica is known to lead than this one.
    async fn replaced(&self, leader: ReplicaId) {
        while self.leader().is_none_or(|(id, _)| id == leader) {
            self.env.sleep(LOOK_EVERY).await;
        }
    }

    fn last_attempt(&self, deadline: Deadline) -> Duration {
        let patience = self.env.monotonic() + LEADER_WAIT_MAX;
        deadline.at().saturating_sub(MARGIN).min(patience)
    }

    fn unreached(&self) -> ProposeError {
        match self.writer.fatal.borrow().is_some() {
            true => ProposeError::Stopped,
            false => ProposeError::NoQuorum,
        }
    }

    async fn forward(
        &self,
        (leader, host): (ReplicaId, &HostId),
        propose: Propose,
        deadline: Deadline,
    ) -> Attempt<Result<Outcome, ProposeError>> {
        let unsure = match is_repeatable(&propose) {
            true => Attempt::Unsure,
            false => Attempt::Done(Err(ProposeError::Timeout)),
        };
        let asked = self.transport.propose(host, propose, deadline);
        let answer = match select(asked, std::pin::pin!(self.replaced(leader))).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => return unsure,
        };
        match answer {
            Ok(Ok(committed)) => {
                // Whoever wrote reads its own write here.
                let applied = self.table.until_applied(committed.revision).await;
                let outcome = applied.map(|()| Outcome::Committed(committed));
                Attempt::Done(outcome.map_err(|_| ProposeError::Stopped))
            }
            Ok(Err(ProposeError::NotLeader { .. })) => Attempt::Again,
            Ok(Err(refused)) => {
                if refused.retry() == Retry::Replan && !refused.outcome_is_unknown() {
                    self.catch_up(deadline).await;
                }
                Attempt::Done(Err(refused))
            }
            Err(refusal) => match refusal.retry() {
                Retry::Now | Retry::After { .. } => Attempt::Again,
                Retry::Replan if matches!(refusal, Refusal::Lost { .. }) => unsure,
                Retry::Replan => Attempt::Done(Err(ProposeError::Timeout)),
                Retry::Never => {
                    tracing::warn!(%host, %refusal, "the leader does not take our writes");
                    Attempt::Done(Err(ProposeError::NoQuorum))
                }
            },
        }
    }

    /// Who was refused decides anew: on a state that holds what it was refused for.
    async fn catch_up(&self, deadline: Deadline) {
        let caught_up = async {
            if let Ok(index) = self.read_index_anywhere(deadline).await {
                let _ = self.table.until_index(index).await;
            }
        };
        let last = self.env.clock.sleep_until(deadline.at().saturating_sub(MARGIN));
        select(std::pin::pin!(caught_up), last).await;
    }

    pub(crate) async fn read_index_anywhere(&self, deadline: Deadline) -> Result<u64, ReadError> {
        let last = self.last_attempt(deadline);
        loop {
            let leader = self.leader();
            let answer = match &leader {
                Some((id, _)) if *id == self.id => self
                    .until(last, self.read_index_here())
                    .await
                    .unwrap_or(Ok(Err(ReadIndexError::NoQuorum))),
                Some((id, Some(host))) => {
                    let asked = self.transport.read_index(host, deadline);
                    match select(asked, std::pin::pin!(self.replaced(*id))).await {
                        Either::Left((answer, _)) => answer,
                        Either::Right(_) => Ok(Err(ReadIndexError::NotLeader { leader: None })),
                    }
                }
                _ => Ok(Err(ReadIndexError::NotLeader { leader: None })),
            };
            match answer {
                Ok(Ok(index)) => return Ok(index),
                Ok(Err(ReadIndexError::Stopped)) if self.is_own(&leader) => {
                    return Err(ReadError::Stopped);
                }
                _ if self.env.monotonic() >= last => {
                    return Err(ReadError::NoLeader { leader: leader.map(|(id, _)| id) });
                }
                // A read changes nothing: it may be asked again whatever became of the first.
                _ => self.env.sleep(LOOK_EVERY).await,
            }
        }
    }

    fn is_own(&self, leader: &Option<(ReplicaId, Option<HostId>)>) -> bool {
        leader.as_ref().is_some_and(|(id, _)| *id == self.id)
    }

    async fn until<T>(
        &self,
        at: Duration,
        work: impl Future<Output = T>,
    ) -> Option<Result<T, Refusal>> {
        match select(std::pin::pin!(work), self.env.clock.sleep_until(at)).await {
            Either::Left((done, _)) => Some(Ok(done)),
            Either::Right(_) => None,
        }
    }
}
