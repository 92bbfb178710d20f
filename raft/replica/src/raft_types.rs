//! openraft with our types, and the conversions between its types and the frozen records.
//!
//! Standard leader ids: one leader per term, so a log id is (term, index). The runtime is tokio's with a generator of
//! randomness that is seeded from `Env` on each thread that runs raft.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use kactor_state::{Command, Outcome};
use openraft::impls::{BasicNode, leader_id_std};
use openraft::vote::RaftLeaderId;
use openraft::{AsyncRuntime, EntryPayload, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::record::{EntryRecord, LogIdRecord, MembershipRecord, PayloadRecord, VoteRecord};

/// A command as openraft carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal(pub Command);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Command::Transact { propose, .. } => {
                return write!(f, "{} writes", propose.writes.len());
            }
            Command::BeginReign { .. } => "BeginReign",
            Command::Compact { .. } => "Compact",
            Command::SetFeatureLevel { .. } => "SetFeatureLevel",
            Command::BeginEpoch { .. } => "BeginEpoch",
        };
        f.write_str(kind)
    }
}

/// What applying said; `None` for entries that hold no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(pub Option<Outcome>);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

pub type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub type Committed = <LeaderId as RaftLeaderId>::Committed;
pub type LogId = openraft::LogId<Committed>;
pub type Vote = openraft::impls::Vote<LeaderId>;
pub type Membership = openraft::Membership<u64, BasicNode>;
pub type StoredMembership = openraft::StoredMembership<Committed, u64, BasicNode>;
pub type Payload = EntryPayload<Proposal, u64, BasicNode>;
pub type Entry = openraft::Entry<Committed, Payload>;

openraft::declare_raft_types!(
    /// openraft's parameters.
    pub Types:
        D = Proposal,
        R = Answer,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = SeededTokio,
);

// --- frozen records

impl From<LogId> for LogIdRecord {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(id: LogIdRecord) -> Self {
        LogId { leader_id: Committed::new(id.term), index: id.index }
    }
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        let leader = vote.leader_id();
        Self { term: leader.term, voted_for: leader.voted_for, committed: vote.is_committed() }
    }
}

impl From<VoteRecord> for Vote {
    fn from(vote: VoteRecord) -> Self {
        match vote.committed {
            true => Vote::new_committed(vote.term, vote.voted_for),
            false => Vote::new(vote.term, vote.voted_for),
        }
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            addresses: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        }
    }
}

impl From<MembershipRecord> for Membership {
    fn from(record: MembershipRecord) -> Self {
        let nodes: std::collections::BTreeMap<u64, BasicNode> =
            record.addresses.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
        // Only memberships that openraft itself accepted are ever recorded; one without members is the initial one.
        Membership::new(record.voters, nodes).unwrap_or_default()
    }
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadRecord::Blank,
            EntryPayload::Normal(proposal) => PayloadRecord::Command(proposal.0.clone()),
            EntryPayload::Membership(it) => PayloadRecord::Membership(it.into()),
        };
        Self { id: entry.log_id.into(), payload }
    }
}

impl From<EntryRecord> for Entry {
    fn from(record: EntryRecord) -> Self {
        let payload = match record.payload {
            PayloadRecord::Blank => EntryPayload::Blank,
            PayloadRecord::Command(command) => EntryPayload::Normal(Proposal(command)),
            PayloadRecord::Membership(it) => EntryPayload::Membership(it.into()),
        };
        Entry { log_id: record.id.into(), payload }
    }
}

// --- the runtime

thread_local! {
    static CHANCE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Seeds raft's randomness (election timeouts) on this thread.
pub fn seed_thread(seed: u64) {
    CHANCE.with(|it| *it.borrow_mut() = Some(StdRng::seed_from_u64(seed)));
}

/// tokio, with randomness from `seed_thread`.
#[derive(Debug)]
pub struct SeededTokio(TokioRuntime);

impl AsyncRuntime for SeededTokio {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = StdRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    /// A generator drawn from this thread's; one that `seed_thread` never saw is the same every time.
    fn thread_rng() -> StdRng {
        CHANCE.with(|it| {
            StdRng::from_rng(it.borrow_mut().get_or_insert_with(|| StdRng::seed_from_u64(0)))
        })
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
