//! Whether all replicas hold the same: the leader asks each for the checksums of its state at one entry.
//!
//! An entry is named that is still to come, so that every replica can look between it and the next; a blank one is written,
//! so that an idle cluster gets there. Where a range's sum differs its objects are compared, and the first one that
//! differs is named. Finds bugs and bad memory; a difference is never mended by itself.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, join_all, select};
use kactor_protocol::HostId;
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::raft::{ObjectSums, RangeSums, StateSums};
use kactor_protocol::time::Deadline;
use kactor_state::{ObjectSum, first_difference};
use kactor_store::Members;

use crate::network::Peer;
use crate::raft_log::RaftLog;

/// How often a leader compares by itself.
const COMPARE_EVERY: Duration = Duration::from_secs(300);
/// How long replicas may take to come to the entry.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The questions should be there before the entry is.
const HEAD_START: Duration = Duration::from_millis(100);
/// How many entries ahead, attempt by attempt: under load they are passed quickly.
const AHEAD: [u64; 4] = [1, 64, 1024, 16_384];

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// The entry at which states were compared.
    pub index: u64,
    pub equal: Vec<ReplicaId>,
    /// What differs, in a sentence each.
    pub differ: Vec<(ReplicaId, String)>,
    /// They did not answer, or were past the entry: nothing is known of them.
    pub unknown: Vec<ReplicaId>,
}

/// Why nothing was compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    #[error("only the leader compares states")]
    NotLeader,
    #[error("no entry was applied here in time")]
    Late,
}

/// Compares now and then, while this replica leads others.
pub(crate) async fn compare_now_and_then(log: Arc<RaftLog>) {
    loop {
        log.env.sleep(COMPARE_EVERY).await;
        if log.table.leadership().current().ours.is_some() && log.peers().next().is_some() {
            let _ = log.compare().await; // What it found stands in the status.
        }
    }
}

/// The sums at one entry: ours, and theirs by replica.
struct Sums {
    index: u64,
    ours: StateSums,
    theirs: Vec<(Peer, Option<StateSums>)>,
}

impl RaftLog {
    fn peers(&self) -> impl Iterator<Item = Peer> {
        let hosts: Vec<(ReplicaId, HostId)> = self.state().hosts.into_iter().collect();
        let (cluster, own) = (self.cluster.clone(), self.id.0);
        hosts.into_iter().filter(move |(id, _)| id.0 != own).map(move |(id, host)| Peer {
            id: id.0,
            host: host.to_string(),
            cluster: cluster.clone(),
            from: own,
        })
    }

    pub(crate) async fn compare(&self) -> Result<Comparison, CompareError> {
        if self.table.leadership().current().ours.is_none() {
            return Err(CompareError::NotLeader);
        }
        let members = self.state().hosts;
        self.findings.keep(|id| members.contains_key(&ReplicaId(id)));
        let sums = self.sums(self.peers().collect(), None).await?;
        let mut comparison = Comparison { index: sums.index, ..Comparison::default() };
        let StateSums::Ranges(ours) = sums.ours else { return Err(CompareError::Late) };
        for (peer, theirs) in sums.theirs {
            let id = ReplicaId(peer.id);
            match theirs {
                Some(StateSums::Ranges(theirs)) => match differing(&ours, &theirs) {
                    None => {
                        comparison.equal.push(id);
                        self.findings.compared(peer.id, None);
                    }
                    Some(range) => {
                        let text = self.describe(&peer, range).await;
                        self.findings.compared(peer.id, Some(text.clone()));
                        comparison.differ.push((id, text));
                    }
                },
                _ => comparison.unknown.push(id),
            }
        }
        Ok(comparison)
    }

    /// Names the object in which a replica differs, if it still does.
    async fn describe(&self, peer: &Peer, range: String) -> String {
        let subject =
            format!("the state of replica {} on {} differs from the leader's", peer.id, peer.host);
        let cure = "one of them is wrong: save a snapshot, then remove that host's data directory and let it join again";
        let sums = self.sums(vec![peer.clone()], Some(range.clone())).await;
        let object = sums.ok().and_then(|sums| {
            let theirs = sums.theirs.into_iter().next()?.1?;
            match (sums.ours, theirs) {
                (StateSums::Objects(ours), StateSums::Objects(theirs)) => {
                    first_difference(&objects(ours), &objects(theirs))
                }
                _ => None,
            }
        });
        match object {
            Some(it) => format!("{subject} in {}; {cure}", it.key),
            None => format!("{subject} in {range}; {cure}"),
        }
    }

    async fn sums(&self, peers: Vec<Peer>, range: Option<String>) -> Result<Sums, CompareError> {
        let mut last = Err(CompareError::Late);
        for ahead in AHEAD {
            let index = self.state().last_index + ahead;
            let ours = self.machine.probes.ask(&self.table, index, range.clone());
            let deadline = Deadline::after(self.env.monotonic(), ANSWER_MAX);
            let asked = peers.iter().map(|peer| {
                let asked = self.transport.compare(peer, index, range.clone(), deadline);
                async move { (peer.clone(), asked.await.ok()) }
            });
            let arrive = async {
                self.env.sleep(HEAD_START).await;
                // So that an idle cluster comes there; that it fails is seen by the missing answers.
                for _ in self.state().last_index..index.min(self.state().last_index + AHEAD[1]) {
                    let _ = self.raft.write_blank().await;
                }
                ours.await
            };
            let both = futures::future::join(arrive, join_all(asked));
            let late = self.env.clock.sleep_until(deadline.at());
            let Either::Left(((Ok(ours), theirs), _)) = select(std::pin::pin!(both), late).await
            else {
                return Err(CompareError::Late);
            };
            let is_passed = |it: &StateSums| matches!(it, StateSums::Passed { .. });
            let passed =
                is_passed(&ours) || theirs.iter().any(|(_, it)| it.as_ref().is_some_and(is_passed));
            last = Ok(Sums { index, ours, theirs });
            if !passed {
                break;
            }
        }
        last
    }
}

/// The first range whose sums differ.
fn differing(ours: &[RangeSums], theirs: &[RangeSums]) -> Option<String> {
    let is_in = |it: &&RangeSums, list: &[RangeSums]| list.contains(it);
    let more = ours.iter().find(|it| !is_in(it, theirs));
    more.or_else(|| theirs.iter().find(|it| !is_in(it, ours))).map(|it| it.range.clone())
}

fn objects(sums: Vec<ObjectSums>) -> Vec<ObjectSum> {
    let sum = |it: ObjectSums| ObjectSum { key: it.key, modified: it.modified, hash: it.hash };
    sums.into_iter().map(sum).collect()
}
