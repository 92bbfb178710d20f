//! Whether a transaction may be committed, decided before any of it is written.
//!
//! A retry of what is committed already is recognised as a whole: when every write that names what it makes or removes finds
//! its own result there (a create by its uid), the transaction was applied before, and its counters and touches are not applied again.
//! Otherwise order is: reign, guards, then each write's own precondition; the first refusal wins.

use kactor_protocol::ids::{Reign, Revision, Uid};
use kactor_protocol::store::Changed;
use kactor_protocol::store::{
    Guard, GuardFailure, Key, Precondition, Propose, ProposeError, Value, Write, WriteOutcome,
};
use kactor_protocol::time::Timestamp;

use crate::object::{History, Stored, counter_of, counter_value};
use crate::state::ClusterState;

/// What a permitted transaction will do.
pub(crate) enum Verdict {
    /// It was committed before: these are its results.
    Retried(Vec<WriteOutcome>),
    Fresh(Vec<Step>),
}

/// What one write will do; it takes a revision unless it keeps what is there.
pub(crate) enum Step {
    Keep(Revision),
    Put { key: Key, value: Value, expires_at: Option<Timestamp> },
    Delete { key: Key },
}

pub(crate) fn judge(state: &ClusterState, propose: &Propose) -> Result<Verdict, ProposeError> {
    propose.check()?;
    if let Some(outcomes) = recognise_retry(state, &propose.writes) {
        return Ok(Verdict::Retried(outcomes));
    }
    check_reign(state.reign(), propose.reign)?;
    for guard in &propose.guards {
        check_guard(state, guard)?;
    }
    propose
        .writes
        .iter()
        .map(|it| judge_write(state, it))
        .collect::<Result<_, _>>()
        .map(Verdict::Fresh)
}

fn check_reign(current: Reign, reign: Option<Reign>) -> Result<(), ProposeError> {
    match reign {
        Some(reign) if reign != current => Err(ProposeError::Deposed { reign, current }),
        _ => Ok(()),
    }
}

fn check_guard(state: &ClusterState, guard: &Guard) -> Result<(), ProposeError> {
    let current = state.live(guard.key());
    let failure = match guard {
        Guard::Revision { revision, .. } => {
            let found = current.map(|it| it.modified);
            (found != Some(*revision))
                .then_some(GuardFailure::Revision { assumed: *revision, current: found })
        }
        Guard::Absent { .. } => current.map(|_| GuardFailure::Present),
        Guard::Present { .. } => current.is_none().then_some(GuardFailure::Absent),
        Guard::AtMost { key, value } => {
            let count = count_under(key, current)?;
            (count > *value).then_some(GuardFailure::AboveBound { current: count, at_most: *value })
        }
    };
    match failure {
        Some(failure) => Err(ProposeError::GuardFailed { key: guard.key().clone(), failure }),
        None => Ok(()),
    }
}

fn count_under(key: &Key, current: Option<&Stored>) -> Result<i64, ProposeError> {
    match current {
        None => Ok(0),
        Some(object) => {
            counter_of(&object.value).ok_or_else(|| ProposeError::NotCounter { key: key.clone() })
        }
    }
}

fn judge_write(state: &ClusterState, write: &Write) -> Result<Step, ProposeError> {
    let key = write.key();
    let current = state.live(key);
    match write {
        Write::Put { precondition, value, expires_at, .. } => {
            check_precondition(key, precondition, current)?;
            if let Some(same) =
                current.filter(|it| it.value == *value && it.expires_at == *expires_at)
            {
                return Ok(Step::Keep(same.modified));
            }
            Ok(Step::Put { key: key.clone(), value: value.clone(), expires_at: *expires_at })
        }
        Write::Delete { precondition, .. } => {
            check_precondition(key, precondition, current)?;
            match current {
                Some(_) => Ok(Step::Delete { key: key.clone() }),
                None => Err(ProposeError::NotFound { key: key.clone() }),
            }
        }
        Write::Touch { .. } => Ok(match current {
            Some(object) => Step::Put {
                key: key.clone(),
                value: object.value.clone(),
                expires_at: object.expires_at,
            },
            None => Step::Put { key: key.clone(), value: counter_value(0), expires_at: None },
        }),
        Write::Add { delta, at_most, .. } => judge_add(key, current, *delta, *at_most),
    }
}

fn judge_add(
    key: &Key,
    current: Option<&Stored>,
    delta: i64,
    at_most: Option<i64>,
) -> Result<Step, ProposeError> {
    let count = count_under(key, current)?;
    let sum = count.saturating_add(delta);
    let at_most = at_most.unwrap_or(i64::MAX);
    // What lowers a counter is always permitted: a lowered bound must not hold its own cure up.
    if delta > 0 && (sum > at_most || count.checked_add(delta).is_none()) {
        return Err(ProposeError::AboveLimit { key: key.clone(), value: sum, at_most });
    }
    match current {
        Some(object) if sum == count => Ok(Step::Keep(object.modified)),
        _ => Ok(Step::Put { key: key.clone(), value: counter_value(sum), expires_at: None }),
    }
}

fn check_precondition(
    key: &Key,
    precondition: &Precondition,
    current: Option<&Stored>,
) -> Result<(), ProposeError> {
    let not_found = || ProposeError::NotFound { key: key.clone() };
    match (precondition, current) {
        (Precondition::None, _) | (Precondition::Absent, None) => Ok(()),
        (Precondition::Absent, Some(_)) => Err(ProposeError::Exists { key: key.clone() }),
        (_, None) => Err(not_found()),
        (Precondition::Revision(revision), Some(it)) => check_revision(key, *revision, it),
        (Precondition::Uid(uid), Some(it)) => check_uid(key, uid, it),
        (Precondition::UidAndRevision(uid, revision), Some(it)) => {
            check_uid(key, uid, it)?;
            check_revision(key, *revision, it)
        }
    }
}

fn check_revision(key: &Key, assumed: Revision, current: &Stored) -> Result<(), ProposeError> {
    if current.modified == assumed {
        return Ok(());
    }
    Err(ProposeError::Conflict { key: key.clone(), assumed, current: current.modified })
}

fn check_uid(key: &Key, assumed: &Uid, current: &Stored) -> Result<(), ProposeError> {
    if current.value.uid == *assumed {
        return Ok(());
    }
    Err(ProposeError::UidMismatch {
        key: key.clone(),
        assumed: assumed.clone(),
        current: current.value.uid.clone(),
    })
}

/// The outcomes of a transaction that was committed before, or `None`.
fn recognise_retry(state: &ClusterState, writes: &[Write]) -> Option<Vec<WriteOutcome>> {
    let names_its_own = |it: &&Write| match it {
        Write::Put { precondition, .. } | Write::Delete { precondition, .. } => {
            *precondition != Precondition::None
        }
        Write::Touch { .. } | Write::Add { .. } => false,
    };
    let mut recognised = writes.iter().filter(names_its_own).peekable();
    recognised.peek()?;
    if !recognised.all(|it| state.history(it.key()).is_some_and(|h| was_applied(it, h))) {
        return None;
    }
    let outcome = |it: &Write| WriteOutcome {
        revision: state.history(it.key()).map_or(state.revision(), |it| it.newest.revision),
        changed: Changed::Unchanged,
    };
    Some(writes.iter().map(outcome).collect())
}

/// Whether the newest version is what this very write made.
fn was_applied(write: &Write, history: &History) -> bool {
    let newest = &history.newest;
    let before = history.before(newest.revision).and_then(|it| it.object.as_ref());
    match (write, &newest.object) {
        (Write::Put { precondition, value, expires_at, .. }, Some(object)) => {
            let same = object.value == *value && object.expires_at == *expires_at;
            let named = match precondition {
                Precondition::None => false,
                Precondition::Absent => {
                    object.created == object.modified && !value.uid.as_str().is_empty()
                }
                Precondition::Uid(_) => false, // It may be written again: equal bytes write nothing.
                // Two writers that saw the same revision may write the same bytes (a counter): the second has lost.
                Precondition::Revision(_) | Precondition::UidAndRevision(..) => false,
            };
            same && named
        }
        (Write::Delete { precondition, .. }, None) => before.is_some_and(|it| match precondition {
            Precondition::None | Precondition::Absent => false,
            Precondition::Revision(revision) => it.modified == *revision,
            Precondition::Uid(uid) => it.value.uid == *uid,
            Precondition::UidAndRevision(uid, revision) => {
                it.value.uid == *uid && it.modified == *revision
            }
        }),
        _ => false,
    }
}
