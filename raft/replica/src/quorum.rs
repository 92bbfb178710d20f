//! Whether a leader may still act: only while a quorum answered it lately.
//!
//! A leader that is cut off does not learn that others elected another. Its proposals cannot commit, but its leader
//! actors would go on planning from old state and waiting on writes; so `ours` is withdrawn once no quorum acknowledged
//! anything for as long as others keep its lease, and given back with the same reign when one answers again
//! in the same term. Pure; `replica.rs` watches. One voter is its own quorum, and needs no clock.

use std::time::Duration;

use kactor_protocol::ids::Reign;

/// So long after a heartbeat nobody gives a vote to another (raft's lease, its longest election timeout). Others begin an
/// election half of it to all of it later: a dead leader is replaced within a second.
pub(crate) const LEASE: Duration = Duration::from_millis(500);
/// How often a leader of several looks at its quorum's age: often enough to stop before another begins.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What raft says of this replica at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub leads: bool,
    pub term: u64,
    pub n_voters: usize,
    /// How long ago a quorum acknowledged something, where one ever did in this term.
    pub acknowledged_ago: Option<Duration>,
}

impl Standing {
    /// The reign that leader actors may work under now, of the one that was begun in a term.
    pub fn ours(&self, begun: Option<(u64, Reign)>) -> Option<Reign> {
        let (term, reign) = begun?;
        (self.leads && term == self.term && self.has_quorum()).then_some(reign)
    }

    fn has_quorum(&self) -> bool {
        let is_recent = |it: Duration| it < LEASE;
        self.n_voters == 1 || self.acknowledged_ago.is_some_and(is_recent)
    }

    /// Whether time alone can end what `ours` said.
    pub fn can_lapse(&self) -> bool {
        self.leads && self.n_voters != 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: Option<(u64, Reign)> = Some((7, Reign(3)));

    fn standing(n_voters: usize, ago_ms: Option<u64>) -> Standing {
        let acknowledged_ago = ago_ms.map(Duration::from_millis);
        Standing { leads: true, term: 7, n_voters, acknowledged_ago }
    }

    #[test]
    fn a_leader_without_a_quorum_for_an_election_timeout_pauses() {
        assert_eq!(standing(3, Some(0)).ours(BEGUN), Some(Reign(3)));
        assert_eq!(standing(3, Some(499)).ours(BEGUN), Some(Reign(3)));
        assert_eq!(standing(3, Some(500)).ours(BEGUN), None);
        assert_eq!(standing(3, None).ours(BEGUN), None, "nobody ever answered");
        assert_eq!(standing(3, Some(40)).ours(BEGUN), Some(Reign(3)), "the same reign goes on");
        assert!(standing(3, Some(0)).can_lapse());
    }

    #[test]
    fn a_single_voter_is_its_own_quorum_and_waits_for_no_clock() {
        assert_eq!(standing(1, None).ours(BEGUN), Some(Reign(3)));
        assert_eq!(standing(1, Some(90_000)).ours(BEGUN), Some(Reign(3)));
        assert!(!standing(1, None).can_lapse(), "an idle host is not woken for this");
    }

    #[test]
    fn a_reign_of_another_term_or_of_a_follower_is_not_ours() {
        let later = Standing { term: 8, ..standing(3, Some(0)) };
        let follower = Standing { leads: false, ..standing(3, Some(0)) };
        assert_eq!((later.ours(BEGUN), follower.ours(BEGUN)), (None, None));
        assert_eq!(standing(1, None).ours(None), None, "it has not begun");
        assert!(!follower.can_lapse());
    }
}
