//! One scheduling cycle: which of all nodes is best for a Pod, or why none will do.
//!
//! Every node is looked at. Verdicts that depend on one node alone are kept by template and reused until that node
//! changes, so a thousand Pods of one Deployment cost little more than one. Among equally good nodes a hash of seed, Pod
//! and node decides: spread out like chance, the same in every run.

use std::collections::{BTreeMap, VecDeque};

use kactor_view::json::fingerprint;

use crate::columns::Columns;
use crate::framework::{Filter, Prepared, Reads, Scored, Seeker, Verdict};
use crate::profile::Profile;
use crate::refusal::{Refusal, Refusals};

/// Templates whose verdicts are kept.
const TEMPLATES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Node { node: usize, score: i64 },
    Nowhere(Refusals),
}

/// (static version, load version) of a node when its verdict was found, and the verdict.
type Kept = BTreeMap<usize, ((u64, u64), Verdict)>;

/// Verdicts by template and plugin.
#[derive(Default)]
pub struct Evaluations {
    by_template: BTreeMap<u64, BTreeMap<&'static str, Kept>>,
    order: VecDeque<u64>,
    /// Verdicts that had to be found.
    pub n_found: u64,
    /// Verdicts that stood already.
    pub n_reused: u64,
}

impl Evaluations {
    fn of(&mut self, template: u64) -> &mut BTreeMap<&'static str, Kept> {
        if !self.by_template.contains_key(&template) {
            if self.order.len() == TEMPLATES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_template.remove(&oldest);
            }
            self.order.push_back(template);
        }
        self.by_template.entry(template).or_default()
    }
}

/// The best node, or every node's refusal.
pub fn choose(
    profile: &Profile,
    pod: &Seeker,
    nodes: &Columns,
    evaluations: &mut Evaluations,
    seed: u64,
) -> Choice {
    let mut refusals = Refusals::default();
    let fitting = filter(profile, pod, nodes, evaluations, &mut refusals);
    if fitting.is_empty() {
        assert_eq!(refusals.by_node.len(), nodes.n_nodes(), "each node has its reason");
        return Choice::Nowhere(refusals);
    }
    let scores = score(profile, pod, nodes, &fitting);
    let tie =
        |node: usize| fingerprint(format!("{seed}/{}/{}", pod.uid, nodes.name(node)).as_bytes());
    let best = fitting
        .iter()
        .zip(scores)
        .max_by_key(|(node, score)| (*score, tie(**node)))
        .expect("some node fits");
    Choice::Node { node: *best.0, score: best.1 }
}

/// What all filters say of one node alone, without what was kept.
pub fn verdict_on(profile: &Profile, pod: &Seeker, nodes: &Columns, node: usize) -> Verdict {
    for (_, filter) in profile.filters() {
        if let Prepared::Ask(ask) = filter.prepare(pod, nodes) {
            let verdict = ask(node);
            if verdict != Verdict::Fits {
                return verdict;
            }
        }
    }
    Verdict::Fits
}

fn filter(
    profile: &Profile,
    pod: &Seeker,
    nodes: &Columns,
    evaluations: &mut Evaluations,
    refusals: &mut Refusals,
) -> Vec<usize> {
    let mut left: Vec<usize> = nodes.nodes().collect();
    for (name, filter) in profile.filters() {
        let Prepared::Ask(ask) = filter.prepare(pod, nodes) else { continue };
        let mut fitting = Vec::with_capacity(left.len());
        for node in left {
            let verdict = kept_or(filter, (name, pod, nodes, node), evaluations, &ask);
            match verdict {
                Verdict::Fits => fitting.push(node),
                Verdict::Refused(reasons) => {
                    let node = nodes.name(node).clone();
                    refusals.by_node.push(Refusal { node, plugin: name, reasons });
                    refusals.plugins.insert(name);
                }
            }
        }
        left = fitting;
    }
    refusals.by_node.sort_by(|a, b| a.node.cmp(&b.node));
    left
}

fn kept_or(
    filter: &dyn Filter,
    (name, pod, nodes, node): (&'static str, &Seeker, &Columns, usize),
    evaluations: &mut Evaluations,
    ask: &dyn Fn(usize) -> Verdict,
) -> Verdict {
    let version = match filter.reads() {
        Reads::Node => (nodes.static_version(node), 0),
        Reads::NodeAndItsPods => (nodes.static_version(node), nodes.load_version(node)),
        Reads::Cluster => return ask(node),
    };
    let kept = evaluations.of(pod.spec.fingerprint).entry(name).or_default();
    if let Some((at, verdict)) = kept.get(&node)
        && *at == version
    {
        let verdict = verdict.clone();
        evaluations.n_reused += 1;
        return verdict;
    }
    let verdict = ask(node);
    kept.insert(node, (version, verdict.clone()));
    evaluations.n_found += 1;
    verdict
}

fn score(profile: &Profile, pod: &Seeker, nodes: &Columns, fitting: &[usize]) -> Vec<i64> {
    let mut total = vec![0_i64; fitting.len()];
    if fitting.len() == 1 {
        return total;
    }
    for (plugin, weight) in profile.scores() {
        let Scored::Ask(ask) = plugin.prepare(pod, nodes, fitting) else { continue };
        let mut scores: Vec<i64> = fitting.iter().map(|it| ask(*it)).collect();
        plugin.normalise(&mut scores);
        for (sum, score) in total.iter_mut().zip(scores) {
            *sum += score * weight;
        }
    }
    total
}

#[cfg(test)]
mod tests;
