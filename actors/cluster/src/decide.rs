//! Who shall be a member of the log: pure, one step at a time.
//!
//! The leader asks again after each step, so a new leader goes on where the old one ended. The rules:
//! - Voter counts stay odd: a second host learns until a third has caught up, then both vote by one change (Raft §6).
//! - A voter that was silent for ten minutes is replaced by a learner that has caught up, one at a time and only while
//!   all other voters answer.
//! - A host that leaves, or came back with an empty disk under another id, goes out of the membership; a leader that
//!   leaves hands over first.
//!
//! Two voters happen only while the one leader of a one-voter cluster leaves.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use kactor_protocol::HostId;
use kactor_protocol::ids::ReplicaId;
use kactor_store::{MemberProgress, MembersState};

use crate::host::{HostRecord, Hosts};

/// Silent for so long, a voter is gone for good.
pub const GONE_AFTER: Duration = Duration::from_secs(600);
/// Heartbeats are answered several times a second.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// A member that lags by no more than this takes part in the next commit.
const LAG_MAX: u64 = 512;
/// More voters make writes slower and no cluster safer in practice.
const VOTERS_MAX: usize = 5;

/// What is known where the leader runs.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    pub hosts: &'a Hosts,
    pub members: &'a MembersState,
    /// The leader itself.
    pub own: ReplicaId,
    /// How long it leads: of a member that never answered, nothing older is known.
    pub led_for: Duration,
    /// The feature level of the log.
    pub level: u32,
    /// The id of this cluster: hosts of the log before a restore are no hosts of this one.
    pub cluster: &'a str,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    AddLearner {
        id: ReplicaId,
        host: HostId,
    },
    SetVoters {
        voters: BTreeSet<ReplicaId>,
        why: String,
    },
    RemoveLearner {
        id: ReplicaId,
    },
    /// This leader leaves; the other takes over and goes on.
    HandOver {
        to: ReplicaId,
    },
    /// Its host left, or was one of the cluster before a restore: the record goes.
    Forget {
        host: HostId,
    },
    /// Every host knows it now.
    RaiseLevel {
        level: u32,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddLearner { id, host } => write!(f, "replica {id} on {host} begins to learn"),
            Change::SetVoters { voters, why } => {
                let voters: Vec<String> = voters.iter().map(ToString::to_string).collect();
                write!(f, "voters become {}: {why}", voters.join(", "))
            }
            Change::RemoveLearner { id } => write!(f, "replica {id} is taken out"),
            Change::HandOver { to } => write!(f, "replica {to} takes over: this host leaves"),
            Change::Forget { host } => write!(f, "{host} left"),
            Change::RaiseLevel { level } => write!(f, "the feature level becomes {level}"),
        }
    }
}

/// The next step, if any is due.
pub fn decide(picture: Picture<'_>) -> Option<Change> {
    let voters = match picture.members.voters.as_slice() {
        [voters] if picture.members.is_committed => voters,
        _ => return None, // A change is under way.
    };
    picture
        .add_learner()
        .or_else(|| picture.let_go(voters))
        .or_else(|| picture.grow(voters))
        .or_else(|| picture.replace(voters))
        .or_else(|| picture.remove_learner(voters))
        .or_else(|| picture.forget())
        .or_else(|| picture.raise_level())
}

impl Picture<'_> {
    /// The record of the host that a member runs on, if that host still means to run this very member.
    fn stays(&self, id: ReplicaId) -> Option<&HostRecord> {
        let record = self.hosts.get(self.members.hosts.get(&id)?)?;
        (record.replica == Some(id) && self.is_member(record)).then_some(record)
    }

    fn is_member(&self, record: &HostRecord) -> bool {
        record.is_control() && !record.leaving && record.cluster == self.cluster
    }

    fn progress(&self, id: ReplicaId) -> MemberProgress {
        self.members.progress.get(&id).copied().unwrap_or_default()
    }

    fn answers(&self, id: ReplicaId) -> bool {
        id == self.own || self.progress(id).answered_ago.is_some_and(|it| it <= ANSWERS_WITHIN)
    }

    fn is_gone(&self, id: ReplicaId) -> bool {
        id != self.own && self.progress(id).answered_ago.unwrap_or(self.led_for) >= GONE_AFTER
    }

    fn has_caught_up(&self, id: ReplicaId) -> bool {
        let lag = self.members.last_index.saturating_sub(self.progress(id).matched_index);
        id == self.own || (self.answers(id) && lag <= LAG_MAX)
    }

    /// Learners that could vote at once.
    fn ready(&self) -> Vec<ReplicaId> {
        let learners = self.members.learners().map(|(id, _)| id);
        learners.filter(|id| self.stays(*id).is_some() && self.has_caught_up(*id)).collect()
    }

    /// Whether a learner that is alive only needs time.
    fn somebody_catches_up(&self) -> bool {
        let is_on_its_way =
            |id: ReplicaId| self.stays(id).is_some() && self.answers(id) && !self.has_caught_up(id);
        self.members.learners().any(|(id, _)| is_on_its_way(id))
    }

    fn add_learner(&self) -> Option<Change> {
        let (host, id) = self.hosts.iter().find_map(|(host, it)| {
            let id = it.replica.filter(|_| self.is_member(it))?;
            (!self.members.hosts.contains_key(&id)).then_some((host, id))
        })?;
        Some(Change::AddLearner { id, host: host.clone() })
    }

    /// Voters whose host leaves or became another member.
    fn let_go(&self, voters: &BTreeSet<ReplicaId>) -> Option<Change> {
        let leaves = |it: &&ReplicaId| self.stays(**it).is_none();
        let leaving: Vec<ReplicaId> = voters.iter().filter(leaves).copied().collect();
        if leaving.is_empty() {
            return None;
        }
        let ready = self.ready();
        if leaving.contains(&self.own) {
            return self.let_own_go(voters, &ready);
        }
        let stays = |it: &ReplicaId| !leaving.contains(it) && self.answers(*it);
        // This leader first: it is sure to have everything.
        let mut able: Vec<ReplicaId> = voters.iter().copied().filter(stays).collect();
        able.sort_by_key(|it| *it != self.own);
        able.extend(ready);
        if able.len() < voters.len() && self.somebody_catches_up() {
            return None; // It takes the place; until then nothing is lost by waiting.
        }
        able.truncate(odd_below(able.len().min(voters.len())));
        let why = format!("replica {} leaves", list(&leaving));
        Some(Change::SetVoters { voters: able.into_iter().collect(), why })
    }

    fn let_own_go(&self, voters: &BTreeSet<ReplicaId>, ready: &[ReplicaId]) -> Option<Change> {
        let heir = voters.iter().copied().filter(|it| *it != self.own && self.stays(*it).is_some());
        let heir = heir.filter(|it| self.has_caught_up(*it));
        if let Some(to) = heir.max_by_key(|it| self.progress(*it).matched_index) {
            return Some(Change::HandOver { to });
        }
        let first = *ready.first()?; // Without one it can't leave; the door said so.
        let why = "the leader leaves and needs an heir".to_owned();
        Some(Change::SetVoters { voters: voters.iter().copied().chain([first]).collect(), why })
    }

    /// More voters, when an odd number can be had.
    fn grow(&self, voters: &BTreeSet<ReplicaId>) -> Option<Change> {
        let ready = self.ready();
        let n = odd_below((voters.len() + ready.len()).min(VOTERS_MAX));
        if n <= voters.len() || !voters.iter().all(|it| self.answers(*it)) {
            return None;
        }
        let grown = voters.iter().chain(&ready).copied().take(n).collect();
        let why = format!("{n} hosts have the whole log");
        Some(Change::SetVoters { voters: grown, why })
    }

    /// One voter that is gone for good, by one that waits.
    fn replace(&self, voters: &BTreeSet<ReplicaId>) -> Option<Change> {
        let gone = *voters.iter().find(|it| self.is_gone(**it))?;
        if !voters.iter().all(|it| *it == gone || self.answers(*it)) {
            return None;
        }
        let heir = *self.ready().first()?;
        let others = voters.iter().copied().filter(|it| *it != gone);
        let why =
            format!("replica {gone} did not answer for {} minutes", GONE_AFTER.as_secs() / 60);
        Some(Change::SetVoters { voters: others.chain([heir]).collect(), why })
    }

    fn remove_learner(&self, voters: &BTreeSet<ReplicaId>) -> Option<Change> {
        let mut members = self.members.hosts.keys();
        let id = members.find(|it| !voters.contains(it) && self.stays(**it).is_none())?;
        Some(Change::RemoveLearner { id: *id })
    }

    fn forget(&self) -> Option<Change> {
        let is_of_before = |it: &HostRecord| it.is_control() && it.cluster != self.cluster;
        // After a restore a replica's id may be that of another host's from before: only the member's own host stays.
        let is_out = |host: &HostId, it: &HostRecord| {
            (it.leaving || is_of_before(it))
                && it.replica.is_none_or(|id| self.members.hosts.get(&id) != Some(host))
        };
        let (host, _) = self.hosts.iter().find(|(host, it)| is_out(host, it))?;
        Some(Change::Forget { host: host.clone() })
    }

    /// What every host understands; workers too, because messages branch on it.
    fn raise_level(&self) -> Option<Change> {
        let level = self.hosts.values().map(|it| it.level).min()?;
        (level > self.level && self.level > 0).then_some(Change::RaiseLevel { level })
    }
}

/// The largest odd number that is not above `n`; at least 1.
fn odd_below(n: usize) -> usize {
    n.saturating_sub(1) / 2 * 2 + 1
}

fn list(ids: &[ReplicaId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

#[cfg(test)]
mod tests;
