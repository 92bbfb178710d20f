//! The scheduling framework: the points at which a plugin may speak, as traits.
//!
//! Kubernetes' points with two turned into values: pre-filter and pre-score prepare a closure that is asked for each
//! node, so that what they computed needs no shared state to travel in. Plugins are pure; their order is the profile's.

use std::cmp::Ordering;
use std::sync::Arc;

use kactor_protocol::Timestamp;
use kactor_protocol::store::Key;
use kactor_view::{Labels, Pod, PodSpec, Selector};
use serde_json::Value;

use crate::columns::Columns;

/// Highest score that a plugin gives a node after normalising.
pub const SCORE_MAX: i64 = 100;

/// The Pod that a node is sought for.
#[derive(Debug, Clone)]
pub struct Seeker {
    pub key: Key,
    pub uid: String,
    pub labels: Arc<Labels>,
    pub spec: Arc<PodSpec>,
    /// Since when it waits.
    pub created: Timestamp,
    /// What the Services and owners that select it select: default spreading counts those Pods.
    pub kin: Vec<Selector>,
}

impl Seeker {
    pub fn new(pod: &Pod, kin: Vec<Selector>) -> Self {
        Self {
            key: pod.meta.key.clone(),
            uid: pod.meta.uid.to_string(),
            labels: Arc::new(pod.meta.labels.clone()),
            spec: pod.spec.clone(),
            created: pod.meta.created,
            kin,
        }
    }
}

/// What a filter says of one node. A plugin may have several reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// Why not, in the words that kube-scheduler prints.
    Refused(Vec<String>),
}

impl Verdict {
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(vec![reason.into()])
    }

    pub fn fits_if(fits: bool, reason: &str) -> Self {
        if fits { Self::Fits } else { Self::refused(reason) }
    }
}

/// How far a filter looks, and so for how long its verdict on a node is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// The Node object alone.
    Node,
    /// And what runs on it.
    NodeAndItsPods,
    /// Other nodes too: asked anew each time.
    Cluster,
}

/// What pre-filter prepared.
pub enum Prepared<'a> {
    /// The plugin has nothing to say about this Pod.
    Skip,
    Ask(Box<dyn Fn(usize) -> Verdict + 'a>),
}

/// What pre-score prepared.
pub enum Scored<'a> {
    Skip,
    Ask(Box<dyn Fn(usize) -> i64 + 'a>),
}

/// Something that happened which may let a refused Pod fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    NodeAdded,
    NodeChanged,
    /// A Pod left a node, or ended there.
    PodLeft,
    /// A Pod came to a node, or its labels changed.
    PodPlaced,
}

/// Registered by name; says at which points it speaks.
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    fn filter(&self) -> Option<&dyn Filter> {
        None
    }

    fn score(&self) -> Option<&dyn Score> {
        None
    }

    fn queue_sort(&self) -> Option<&dyn QueueSort> {
        None
    }

    fn post_filter(&self) -> Option<&dyn PostFilter> {
        None
    }

    fn reserve(&self) -> Option<&dyn Reserve> {
        None
    }

    fn permit(&self) -> Option<&dyn Permit> {
        None
    }

    fn bind(&self) -> Option<&dyn Bind> {
        None
    }
}

/// Which of two waiting Pods goes first.
pub trait QueueSort {
    fn compare(&self, a: &Seeker, b: &Seeker) -> Ordering;
}

/// Pre-filter and filter.
pub trait Filter {
    fn reads(&self) -> Reads;
    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns) -> Prepared<'a>;
    /// What may undo a refusal of this plugin.
    fn hints(&self) -> &'static [Hint];
}

/// Pre-score, score and normalise.
pub trait Score {
    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns, fitting: &'a [usize]) -> Scored<'a>;

    /// Brings the scores of all fitting nodes into 0..=100; they are there already unless a plugin says otherwise.
    fn normalise(&self, scores: &mut [i64]) {
        debug_assert!(scores.iter().all(|it| (0..=SCORE_MAX).contains(it)));
    }
}

/// What may be done when no node fits (preemption): names the node that will fit later.
pub trait PostFilter {
    fn nominate(&self, pod: &Seeker, nodes: &Columns) -> Option<usize>;
}

/// Takes what the Pod will use beside the node's room, and gives it back when the Pod is not bound.
pub trait Reserve {
    fn reserve(&self, pod: &Seeker, node: &str) -> Verdict;
    fn unreserve(&self, pod: &Seeker, node: &str);
}

/// The last word before binding.
pub trait Permit {
    fn permit(&self, pod: &Seeker, node: &str) -> Verdict;
}

/// Pre-bind, bind and post-bind: what is asked of the API, and who hears of it.
pub trait Bind {
    /// Requests that must succeed before the binding.
    fn pre_bind(&self, _: &Seeker, _: &str) -> Vec<Value> {
        Vec::new()
    }

    /// The body for `pods/binding`; `None` leaves it to the next plugin.
    fn bind(&self, pod: &Seeker, node: &str) -> Option<Value>;

    fn post_bind(&self, _: &Seeker, _: &str) {}
}

/// Scales to 0..=100 by the largest; reversed, the largest gets 0 (framework helper, DefaultNormalizeScore).
pub fn normalise_by_largest(scores: &mut [i64], most: Most) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if largest == 0 { 0 } else { SCORE_MAX * *score / largest };
        *score = if most == Most::Worst { SCORE_MAX - scaled } else { scaled };
    }
}

/// What the largest raw score means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    Best,
    Worst,
}
