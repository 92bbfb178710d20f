//! Where a node's feed stands: what is taken, what is too old, what a complete picture shows to be gone. Pure.
//!
//! A feed comes from any control host, one after the other, and never goes back: a change below the position held is
//! refused. A feed that begins anew has no place to resume from until its picture is complete, and a picture of before
//! what was seen ends nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use kactor_protocol::node::{Begin, FeedPosition, ObjectsChanged};

/// A feed that is silent for so long is followed again: one that lives says every minute where it stands.
const SILENT_MAX: Duration = Duration::from_secs(180);

#[derive(Debug, Default)]
pub struct FeedState {
    /// Nothing below it is taken.
    position: Option<FeedPosition>,
    /// Where the feed goes on; nowhere while it begins anew.
    resume: Option<FeedPosition>,
    /// While a feed begins anew: what it has named so far.
    named: Option<BTreeSet<String>>,
    /// On the monotonic clock.
    heard_at: Duration,
    n_asked: u64,
}

/// What a batch means for what the node holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It is older than what the node holds.
    Refused,
    /// Its changes are taken; `begins` says that a picture begins with it.
    Taken { begins: bool },
    /// Its changes are taken, and with them these uids are all that exist.
    Complete { named: BTreeSet<String> },
    /// A picture of a time before what the node has seen: it shows nothing to be gone.
    Stale,
}

impl FeedState {
    /// The feed is asked for now: which time that is, and from where.
    pub fn ask(&mut self, now: Duration) -> (u64, Option<FeedPosition>) {
        (self.heard_at, self.n_asked) = (now, self.n_asked + 1);
        (self.n_asked, self.resume)
    }

    /// Whether nobody asked since the nth time.
    pub fn is_latest(&self, nth: u64) -> bool {
        self.n_asked == nth
    }

    pub fn is_silent(&self, now: Duration) -> bool {
        self.n_asked > 0 && now.saturating_sub(self.heard_at) > SILENT_MAX
    }

    /// What the node knows of this feed is complete up to here.
    pub fn position(&self) -> Option<FeedPosition> {
        self.position
    }

    pub fn is_complete(&self) -> bool {
        self.named.is_none() && self.position.is_some()
    }

    pub fn take(&mut self, batch: &ObjectsChanged, now: Duration) -> Step {
        self.heard_at = now;
        let is_old = self.position.is_some_and(|held| batch.position < held);
        if is_old && batch.begin == Begin::Continue {
            return Step::Refused;
        }
        // An empty batch begins: what a beginning before it named is void.
        let begins =
            batch.begin == Begin::Anew && (batch.changes.is_empty() || self.named.is_none());
        if begins {
            (self.named, self.resume) = (Some(BTreeSet::new()), None);
        }
        if let Some(named) = &mut self.named {
            named.extend(batch.changes.iter().map(|it| it.uid.as_str().to_owned()));
        }
        let named = if batch.begin == Begin::Complete { self.named.take() } else { None };
        if self.named.is_none() && is_old {
            return Step::Stale;
        }
        // Only a complete picture can be resumed from.
        if self.named.is_none() {
            (self.position, self.resume) = (Some(batch.position), Some(batch.position));
        }
        match named {
            Some(named) => Step::Complete { named },
            None => Step::Taken { begins },
        }
    }
}

#[cfg(test)]
mod tests {
    use kactor_protocol::Revision;
    use kactor_protocol::node::{Feed, ObjectChange};

    use super::*;

    fn at(incarnation: u64, revision: u64) -> FeedPosition {
        FeedPosition { incarnation, revision: Revision(revision) }
    }

    fn batch(begin: Begin, position: FeedPosition, uids: &[&str]) -> ObjectsChanged {
        let change = |uid: &&str| ObjectChange {
            namespace: "default".to_owned(),
            name: (*uid).to_owned(),
            uid: (*uid).into(),
            revision: position.revision,
            object: None,
        };
        ObjectsChanged {
            feed: Feed::Pods,
            begin,
            position,
            changes: uids.iter().map(change).collect(),
        }
    }

    fn take(state: &mut FeedState, begin: Begin, position: FeedPosition, uids: &[&str]) -> Step {
        state.take(&batch(begin, position, uids), Duration::ZERO)
    }

    fn complete(uids: &[&str]) -> Step {
        Step::Complete { named: uids.iter().map(|it| (*it).to_owned()).collect() }
    }

    #[test]
    fn a_feed_goes_on_where_it_stands_and_never_back() {
        let mut state = FeedState::default();
        assert_eq!(state.ask(Duration::ZERO).1, None);
        assert_eq!(take(&mut state, Begin::Anew, at(0, 0), &[]), Step::Taken { begins: true });
        assert_eq!(take(&mut state, Begin::Anew, at(0, 0), &["a"]), Step::Taken { begins: false });
        assert!(!state.is_complete());
        assert_eq!(take(&mut state, Begin::Complete, at(0, 9), &["b"]), complete(&["a", "b"]));
        assert_eq!(
            take(&mut state, Begin::Continue, at(0, 12), &["c"]),
            Step::Taken { begins: false }
        );
        assert_eq!(take(&mut state, Begin::Continue, at(0, 11), &["b"]), Step::Refused);
        assert_eq!(state.ask(Duration::ZERO).1, Some(at(0, 12)));
        let restored = take(&mut state, Begin::Continue, at(1, 3), &["b"]);
        assert_eq!(restored, Step::Taken { begins: false }, "a later epoch's revisions count anew");
    }

    #[test]
    fn a_beginning_that_was_cut_off_names_nothing() {
        let mut state = FeedState::default();
        take(&mut state, Begin::Anew, at(0, 0), &[]);
        take(&mut state, Begin::Anew, at(0, 0), &["deleted-meanwhile"]);
        take(&mut state, Begin::Anew, at(0, 0), &[]);
        assert_eq!(take(&mut state, Begin::Complete, at(0, 9), &["a"]), complete(&["a"]));
    }

    #[test]
    fn while_a_feed_begins_anew_it_is_resumed_from_nowhere() {
        let mut state = FeedState::default();
        take(&mut state, Begin::Continue, at(0, 12), &["c"]);
        take(&mut state, Begin::Anew, at(0, 0), &[]);
        assert_eq!(state.ask(Duration::ZERO).1, None, "what it took since is newer than that");
        let stale = take(&mut state, Begin::Complete, at(0, 11), &[]);
        assert_eq!(stale, Step::Stale, "c came after this picture and is not gone");
        assert_eq!(state.position(), Some(at(0, 12)));
    }

    #[test]
    fn a_batch_that_comes_twice_changes_nothing() {
        let mut state = FeedState::default();
        for step in [Step::Taken { begins: true }, Step::Taken { begins: true }] {
            assert_eq!(take(&mut state, Begin::Anew, at(0, 0), &[]), step);
        }
        assert_eq!(take(&mut state, Begin::Complete, at(0, 9), &["a"]), complete(&["a"]));
        let again = take(&mut state, Begin::Complete, at(0, 9), &["a"]);
        assert_eq!(again, Step::Taken { begins: false });
        assert_eq!(state.ask(Duration::ZERO).1, Some(at(0, 9)));
    }

    #[test]
    fn a_feed_that_nobody_asked_for_is_not_silent() {
        let mut state = FeedState::default();
        assert!(!state.is_silent(Duration::from_secs(9999)));
        state.ask(Duration::from_secs(10));
        assert!(!state.is_silent(Duration::from_secs(190)));
        assert!(state.is_silent(Duration::from_secs(191)));
    }
}
