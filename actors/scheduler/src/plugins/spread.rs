//! PodTopologySpread: kin in as many places as there are; hard constraints filter, soft ones score.
//!
//! Follows kubernetes plugins/podtopologyspread. A Pod without constraints of its own is spread softly over hosts and
//! zones with the Pods that the same Services and owners select (system defaulting).

use std::collections::BTreeMap;

use kactor_view::Selector;
use kactor_view::scheduling::{SpreadConstraint, Unsatisfiable};

use super::node::untolerated;
use crate::columns::{Columns, Placed};
use crate::framework::{
    Filter, Hint, Plugin, Prepared, Reads, SCORE_MAX, Score, Scored, Seeker, Verdict,
};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";

pub struct PodTopologySpread;

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// One constraint with what was counted for it.
struct Counted<'a> {
    constraint: &'a SpreadConstraint,
    /// Kin by the place's name; places without kin stand with 0.
    by_place: BTreeMap<&'a str, i64>,
    counts_itself: bool,
}

impl Counted<'_> {
    fn fewest(&self) -> i64 {
        let n_places = i64::try_from(self.by_place.len()).unwrap_or(i64::MAX);
        if n_places < self.constraint.min_domains {
            return 0;
        }
        self.by_place.values().copied().min().unwrap_or(0)
    }
}

impl Filter for PodTopologySpread {
    fn reads(&self) -> Reads {
        Reads::Cluster
    }

    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns) -> Prepared<'a> {
        let hard: Vec<&SpreadConstraint> = pod
            .spec
            .spread
            .iter()
            .filter(|it| it.when_unsatisfiable == Unsatisfiable::DoNotSchedule)
            .collect();
        if hard.is_empty() {
            return Prepared::Skip;
        }
        let counted: Vec<(Counted<'a>, i64)> = hard
            .iter()
            .map(|constraint| {
                let counted = count_hard(pod, nodes, constraint, &hard);
                let fewest = counted.fewest();
                (counted, fewest)
            })
            .collect();
        Prepared::Ask(Box::new(move |node| {
            for (counted, fewest) in &counted {
                let Some(place) = nodes.labels[node].get(&counted.constraint.topology_key) else {
                    return Verdict::refused(MISSING_LABEL);
                };
                let here = counted.by_place.get(place.as_str()).copied().unwrap_or(0);
                let skew = here + i64::from(counted.counts_itself) - fewest;
                if skew > counted.constraint.max_skew {
                    return Verdict::refused(MISMATCH);
                }
            }
            Verdict::Fits
        }))
    }

    fn hints(&self) -> &'static [Hint] {
        &[Hint::NodeAdded, Hint::NodeChanged, Hint::PodLeft, Hint::PodPlaced]
    }
}

/// Counts on nodes that have all the keys of the hard constraints and that the constraint's policies include.
fn count_hard<'a>(
    pod: &'a Seeker,
    nodes: &'a Columns,
    constraint: &'a SpreadConstraint,
    all: &[&SpreadConstraint],
) -> Counted<'a> {
    let mut by_place = BTreeMap::new();
    for node in nodes.nodes() {
        let labels = &nodes.labels[node];
        let has_all = all.iter().all(|it| labels.contains_key(&it.topology_key));
        let is_in = has_all && includes(pod, nodes, constraint, node);
        let Some(place) = labels.get(&constraint.topology_key).filter(|_| is_in) else { continue };
        *by_place.entry(place.as_str()).or_insert(0) +=
            n_kin(pod, nodes, node, |it| constraint.selector.matches(&it.labels));
    }
    let counts_itself = constraint.selector.matches(&pod.labels);
    Counted { constraint, by_place, counts_itself }
}

fn includes(pod: &Seeker, nodes: &Columns, constraint: &SpreadConstraint, node: usize) -> bool {
    let accepts =
        !constraint.honors_affinity || pod.spec.accepts_node(nodes.name(node), &nodes.labels[node]);
    accepts && (!constraint.honors_taints || untolerated(&pod.spec, &nodes.taints[node]).is_none())
}

fn n_kin(pod: &Seeker, nodes: &Columns, node: usize, is_kin: impl Fn(&Placed) -> bool) -> i64 {
    let kin = nodes.pods[node]
        .values()
        .filter(|it| !it.is_terminating && it.key.namespace() == pod.key.namespace() && is_kin(it));
    i64::try_from(kin.count()).unwrap_or(i64::MAX)
}

/// What is softly asked for: the Pod's own soft constraints, or the system's.
struct Soft<'a> {
    topology_key: &'a str,
    max_skew: i64,
    selectors: Vec<&'a Selector>,
    /// Own constraints leave out nodes that lack the label; the system's do not.
    is_own: bool,
}

impl Soft<'_> {
    fn matches(&self, pod: &Placed) -> bool {
        self.selectors.iter().all(|it| it.matches(&pod.labels))
    }
}

fn soft_constraints(pod: &Seeker) -> Vec<Soft<'_>> {
    if !pod.spec.spread.is_empty() {
        return pod
            .spec
            .spread
            .iter()
            .filter(|it| it.when_unsatisfiable == Unsatisfiable::ScheduleAnyway)
            .map(|it| Soft {
                topology_key: &it.topology_key,
                max_skew: it.max_skew,
                selectors: vec![&it.selector],
                is_own: true,
            })
            .collect();
    }
    if pod.kin.is_empty() {
        return Vec::new();
    }
    [(HOSTNAME, 3), (ZONE, 5)]
        .into_iter()
        .map(|(topology_key, max_skew)| Soft {
            topology_key,
            max_skew,
            selectors: pod.kin.iter().collect(),
            is_own: false,
        })
        .collect()
}

impl Score for PodTopologySpread {
    /// A raw score is the crowd of kin, weighed by how many places there are; `normalise` turns it around.
    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns, fitting: &'a [usize]) -> Scored<'a> {
        let soft = soft_constraints(pod);
        if soft.is_empty() {
            return Scored::Skip;
        }
        let mut counted: Vec<(Soft<'a>, BTreeMap<&'a str, i64>, i64)> = Vec::new();
        for constraint in soft {
            let mut by_place: BTreeMap<&str, i64> = BTreeMap::new();
            for &node in fitting {
                if let Some(place) = nodes.labels[node].get(constraint.topology_key) {
                    by_place.entry(place).or_insert(0);
                }
            }
            for node in nodes.nodes() {
                let place = nodes.labels[node].get(constraint.topology_key);
                if let Some(kin) = place.and_then(|it| by_place.get_mut(it.as_str())) {
                    *kin += n_kin(pod, nodes, node, |it| constraint.matches(it));
                }
            }
            let weight = weight_of(by_place.len());
            counted.push((constraint, by_place, weight));
        }
        Scored::Ask(Box::new(move |node| {
            let mut score = 0;
            for (constraint, by_place, weight) in &counted {
                match nodes.labels[node].get(constraint.topology_key) {
                    Some(place) => {
                        let kin = by_place.get(place.as_str()).copied().unwrap_or(0);
                        score += kin * weight + (constraint.max_skew - 1) * 1000;
                    }
                    None if constraint.is_own => return IGNORED,
                    None => {}
                }
            }
            score
        }))
    }

    fn normalise(&self, scores: &mut [i64]) {
        let counted = || scores.iter().copied().filter(|it| *it != IGNORED);
        let (least, most) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for score in scores {
            *score = match *score {
                IGNORED => 0,
                _ if most == 0 => SCORE_MAX,
                it => SCORE_MAX * (most + least - it) / most,
            };
        }
    }
}

/// The node lacks a label that the Pod's own soft constraint names: it gets nothing.
const IGNORED: i64 = i64::MIN;

/// ln(places + 2) in thousandths: more places weigh more, because crowding one of many is worse.
fn weight_of(n_places: usize) -> i64 {
    ((n_places as f64 + 2.0).ln() * 1000.0).round() as i64
}
