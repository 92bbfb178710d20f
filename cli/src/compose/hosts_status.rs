//! The hosts of the cluster as `kactor status` shows them, and what is wrong with them, in a sentence.
//!
//! Pure: from the records and the membership as this host knows them. How far others are only the leader knows.

use std::time::Duration;

use kactor_cluster::host::{HostRecord, Hosts};
use kactor_protocol::HostId;
use kactor_protocol::ids::ReplicaId;
use kactor_store::MembersState;
use serde_json::{Value, json};

/// A voter that was silent for so long is worth a word.
const SILENT: Duration = Duration::from_secs(3);
/// A member that lags more than this would hold up writes if it were needed.
const LAG_MAX: u64 = 10_000;

/// What is known where this host runs.
pub(super) struct Seen<'a> {
    pub hosts: &'a Hosts,
    pub members: &'a MembersState,
    pub leader: Option<ReplicaId>,
    /// This replica; `leads` if it is the leader.
    pub leads: bool,
    pub own: ReplicaId,
}

impl Seen<'_> {
    /// One object for each host, by name.
    pub fn rows(&self) -> Vec<Value> {
        self.hosts.iter().map(|(host, it)| self.row(host, it)).collect()
    }

    fn row(&self, host: &HostId, record: &HostRecord) -> Value {
        let progress = record.replica.and_then(|id| self.members.progress.get(&id));
        let progress = progress.filter(|_| self.leads && record.replica != Some(self.own));
        json!({
            "name": host,
            "role": self.role(record),
            "leads": record.replica.is_some() && record.replica == self.leader,
            "replica": record.replica,
            "address": record.address.to_string(),
            "version": record.version,
            "featureLevelMax": record.level,
            "joinedAt": record.joined_at.rfc3339(),
            "startedAt": record.started_at.rfc3339(),
            "leaving": record.leaving,
            "lag": progress.map(|it| self.members.last_index.saturating_sub(it.matched_index)),
            "answeredAgoMs": progress.and_then(|it| it.answered_ago).map(|it| it.as_millis()),
        })
    }

    fn role(&self, record: &HostRecord) -> &'static str {
        match record.replica {
            Some(id) if self.members.is_voter(id) => "voter",
            Some(_) => "learner",
            None => "worker",
        }
    }

    /// The host of a member, by name.
    fn name(&self, id: ReplicaId) -> String {
        self.members.hosts.get(&id).map_or_else(|| format!("replica {id}"), ToString::to_string)
    }

    /// What is wrong with the hosts; the worst first.
    pub fn trouble(&self) -> Option<String> {
        if !self.hosts.is_empty() && !self.hosts.values().any(|it| it.replica == Some(self.own)) {
            return Some("this host is in no record of the cluster: it was taken out, or has not caught up yet".to_owned());
        }
        if !self.leads {
            return None;
        }
        let is_other = |(id, _): &(&ReplicaId, &HostId)| **id != self.own;
        let others = || self.members.hosts.iter().filter(is_other);
        let ago = |id: &ReplicaId| self.members.progress.get(id).and_then(|it| it.answered_ago);
        let silent: Vec<&ReplicaId> =
            others().map(|(id, _)| id).filter(|id| ago(id).is_none_or(|it| it >= SILENT)).collect();
        if let Some(id) = silent.first() {
            let since = ago(id).map_or("since this host leads".to_owned(), |it| {
                format!("for {}", crate::print::span(it.as_secs()))
            });
            let names: Vec<String> = silent.iter().map(|it| self.name(**it)).collect();
            let does = if names.len() == 1 { "does" } else { "do" };
            return Some(format!(
                "{} {does} not answer ({since}){}",
                names.join(", "),
                self.left(&silent)
            ));
        }
        let lag = |id: &ReplicaId| {
            let matched = self.members.progress.get(id).map_or(0, |it| it.matched_index);
            self.members.last_index.saturating_sub(matched)
        };
        let (id, _) = others().find(|(id, _)| lag(id) > LAG_MAX)?;
        Some(format!("{} is {} entries of the log behind and catches up", self.name(*id), lag(id)))
    }

    /// How many voters more may be lost.
    fn left(&self, silent: &[&ReplicaId]) -> String {
        let Some(voters) = self.members.voters.last() else { return String::new() };
        let n_lost = voters.iter().filter(|it| silent.contains(it)).count();
        let n_spare = voters.len().saturating_sub(1) / 2;
        match (n_lost, n_spare.checked_sub(n_lost)) {
            (0, _) => String::new(),
            (_, Some(0)) => "; no further voter may be lost".to_owned(),
            (_, Some(n)) => format!("; {n} more voter(s) may be lost"),
            (_, None) => "; there is no quorum: writes wait".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kactor_cluster::host::{HostRole, KeyHash};
    use kactor_protocol::Timestamp;
    use kactor_store::MemberProgress;

    use super::*;

    /// Hosts a, b, c… with replicas 1, 2, 3…, the first `n_voters` of which vote, and one worker.
    fn world(n_voters: u64, ago: &[Option<u64>]) -> (Hosts, MembersState) {
        let name = |id: u64| HostId::new(char::from(b'`' + id as u8).to_string()).unwrap();
        let record = |replica: Option<u64>| HostRecord {
            key_hash: KeyHash([0; 32]),
            role: if replica.is_some() { HostRole::Control } else { HostRole::Worker },
            replica: replica.map(ReplicaId),
            cluster: "c".into(),
            address: ([192, 0, 2, 1], 6443).into(),
            version: "0.1.0".into(),
            level: 1,
            joined_at: Timestamp(0),
            started_at: Timestamp(0),
            leaving: false,
        };
        let ids = 1..=ago.len() as u64;
        let mut hosts: Hosts = ids.clone().map(|id| (name(id), record(Some(id)))).collect();
        hosts.insert(HostId::new("w").unwrap(), record(None));
        let progress = ids.clone().zip(ago).map(|(id, ago)| {
            let answered_ago = ago.map(Duration::from_secs);
            (ReplicaId(id), MemberProgress { matched_index: 100, answered_ago })
        });
        let members = MembersState {
            voters: vec![(1..=n_voters).map(ReplicaId).collect()],
            hosts: ids.map(|id| (ReplicaId(id), name(id))).collect::<BTreeMap<_, _>>(),
            is_committed: true,
            progress: progress.collect(),
            last_index: 107,
        };
        (hosts, members)
    }

    fn seen<'a>((hosts, members): &'a (Hosts, MembersState)) -> Seen<'a> {
        let own = ReplicaId(1);
        Seen { hosts, members, leader: Some(own), leads: true, own }
    }

    #[test]
    fn each_host_has_a_role_and_the_leader_knows_how_far_the_others_are() {
        let world = world(1, &[Some(0), Some(1)]);
        let rows = seen(&world).rows();
        let words = |field: &str| rows.iter().map(|it| it[field].clone()).collect::<Vec<_>>();
        assert_eq!(words("role"), ["voter", "learner", "worker"]);
        assert_eq!(words("leads"), [true, false, false]);
        assert_eq!(words("lag"), [Value::Null, json!(7), Value::Null]);
        let follower = Seen { leads: false, ..seen(&world) };
        assert_eq!(follower.rows()[1]["lag"], Value::Null, "a follower does not know");
    }

    #[test]
    fn what_is_wrong_names_the_host_and_what_may_still_be_lost() {
        let trouble = |n_voters, ago: &[Option<u64>]| seen(&world(n_voters, ago)).trouble();
        assert_eq!(trouble(3, &[None, Some(0), Some(0)]), None);
        let one = trouble(3, &[None, Some(0), Some(75)]).unwrap();
        assert_eq!(one, "c does not answer (for 1m15s); no further voter may be lost");
        let two = trouble(3, &[None, None, Some(75)]).unwrap();
        assert_eq!(
            two,
            "b, c do not answer (since this host leads); there is no quorum: writes wait"
        );
        let five = trouble(5, &[None, Some(0), Some(9), Some(0), Some(0)]).unwrap();
        assert_eq!(five, "c does not answer (for 9s); 1 more voter(s) may be lost");
        assert_eq!(trouble(1, &[None, Some(9)]).unwrap(), "b does not answer (for 9s)");
    }
}
