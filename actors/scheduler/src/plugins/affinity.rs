//! InterPodAffinity: near these Pods, away from those, by topology.
//!
//! Follows kubernetes plugins/interpodaffinity. Required terms filter (also those of Pods that are placed already and
//! keep the newcomer away), preferred terms score. A first Pod of a group that asks to be near itself may go anywhere.

use std::collections::{BTreeMap, BTreeSet};

use kactor_view::Labels;
use kactor_view::scheduling::PodTerm;

use crate::columns::{Columns, Placed};
use crate::framework::{
    Filter, Hint, Plugin, Prepared, Reads, SCORE_MAX, Score, Scored, Seeker, Verdict,
};

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
/// How much a placed Pod's required affinity to the newcomer counts (hardPodAffinityWeight).
const REQUIRED_WEIGHT: i64 = 1;

pub struct InterPodAffinity;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// Topology label and value.
type Place<'a> = (&'a str, &'a str);

fn matches(term: &PodTerm, pod: &Placed) -> bool {
    term.matches(pod.key.namespace(), &pod.labels)
}

fn place<'a>(key: &'a str, labels: &'a Labels) -> Option<Place<'a>> {
    labels.get(key).map(|it| (key, it.as_str()))
}

impl Filter for InterPodAffinity {
    fn reads(&self) -> Reads {
        Reads::Cluster
    }

    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns) -> Prepared<'a> {
        let forbidden = places_that_placed_pods_forbid(pod, nodes);
        let (near, away) = (&pod.spec.required_affinity, &pod.spec.required_anti_affinity);
        if forbidden.is_empty() && near.is_empty() && away.is_empty() {
            return Prepared::Skip;
        }
        let away_from = places_with(nodes, away, |placed, term| matches(term, placed));
        // A Pod must match all affinity terms at once to count for any of them.
        let near_to =
            places_with(nodes, near, |placed, _| near.iter().all(|it| matches(it, placed)));
        let is_first = near_to.is_empty()
            && near.iter().all(|it| it.matches(pod.key.namespace(), &pod.labels));
        Prepared::Ask(Box::new(move |node| {
            let labels = &nodes.labels[node];
            let is_in = |places: &BTreeSet<Place<'_>>, term: &PodTerm| {
                place(&term.topology_key, labels).is_some_and(|it| places.contains(&it))
            };
            let has_label = |term: &PodTerm| labels.contains_key(&term.topology_key);
            if !near.iter().all(|it| is_in(&near_to, it) || (is_first && has_label(it))) {
                return Verdict::refused(AFFINITY);
            }
            if away.iter().any(|it| is_in(&away_from, it)) {
                return Verdict::refused(ANTI_AFFINITY);
            }
            let is_forbidden =
                forbidden.iter().any(|(key, value)| labels.get(*key).is_some_and(|it| it == value));
            Verdict::fits_if(!is_forbidden, EXISTING)
        }))
    }

    fn hints(&self) -> &'static [Hint] {
        &[Hint::NodeAdded, Hint::NodeChanged, Hint::PodLeft, Hint::PodPlaced]
    }
}

fn places_that_placed_pods_forbid<'a>(pod: &Seeker, nodes: &'a Columns) -> BTreeSet<Place<'a>> {
    let mut places = BTreeSet::new();
    for node in nodes.nodes() {
        for placed in nodes.pods[node].values() {
            for term in &placed.spec.required_anti_affinity {
                if term.matches(pod.key.namespace(), &pod.labels) {
                    places.extend(place(&term.topology_key, &nodes.labels[node]));
                }
            }
        }
    }
    places
}

fn places_with<'a>(
    nodes: &'a Columns,
    terms: &'a [PodTerm],
    counts: impl Fn(&Placed, &PodTerm) -> bool,
) -> BTreeSet<Place<'a>> {
    let mut places = BTreeSet::new();
    if terms.is_empty() {
        return places;
    }
    for node in nodes.nodes() {
        for placed in nodes.pods[node].values() {
            for term in terms.iter().filter(|it| counts(placed, it)) {
                places.extend(place(&term.topology_key, &nodes.labels[node]));
            }
        }
    }
    places
}

impl Score for InterPodAffinity {
    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns, _: &'a [usize]) -> Scored<'a> {
        let mut by_place: BTreeMap<Place<'a>, i64> = BTreeMap::new();
        for node in nodes.nodes() {
            let labels = &nodes.labels[node];
            for placed in nodes.pods[node].values() {
                for (term, weight) in wishes(pod, placed) {
                    if let Some(place) = place(&term.topology_key, labels) {
                        *by_place.entry(place).or_insert(0) += weight;
                    }
                }
            }
        }
        if by_place.is_empty() {
            return Scored::Skip;
        }
        Scored::Ask(Box::new(move |node| {
            let labels = &nodes.labels[node];
            by_place
                .iter()
                .filter(|((key, value), _)| labels.get(*key).is_some_and(|it| it == value))
                .map(|(_, weight)| weight)
                .sum()
        }))
    }

    fn normalise(&self, scores: &mut [i64]) {
        let least = scores.iter().copied().min().unwrap_or(0);
        let most = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            *score = if most == least { 0 } else { SCORE_MAX * (*score - least) / (most - least) };
        }
    }
}

/// What the newcomer wishes of the placed Pod, and the placed one of the newcomer, with signs.
fn wishes<'a>(pod: &'a Seeker, placed: &'a Placed) -> Vec<(&'a PodTerm, i64)> {
    let (mine, theirs) = (&pod.spec, &placed.spec);
    let of_me = |it: &&PodTerm| it.matches(pod.key.namespace(), &pod.labels);
    let of_it = |it: &&PodTerm| matches(it, placed);
    let likes = mine.preferred_affinity.iter().filter(of_it).map(|it| (it, it.weight));
    let dislikes = mine.preferred_anti_affinity.iter().filter(of_it).map(|it| (it, -it.weight));
    let liked = theirs.preferred_affinity.iter().filter(of_me).map(|it| (it, it.weight));
    let disliked = theirs.preferred_anti_affinity.iter().filter(of_me).map(|it| (it, -it.weight));
    let needed = theirs.required_affinity.iter().filter(of_me).map(|it| (it, REQUIRED_WEIGHT));
    likes.chain(dislikes).chain(liked).chain(disliked).chain(needed).collect()
}
