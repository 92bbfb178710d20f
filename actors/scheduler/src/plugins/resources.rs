//! Room on a node: enough of everything (filter), much left (LeastAllocated), left in balance.

use crate::columns::Columns;
use crate::framework::{
    Filter, Hint, Plugin, Prepared, Reads, SCORE_MAX, Score, Scored, Seeker, Verdict,
};

/// What the scorers weigh, each equally.
const SCORED: &[&str] = &["cpu", "memory"];
/// Fractions are counted in millionths: integers compare alike everywhere.
const WHOLE: i64 = 1_000_000;

/// `Insufficient …` and `Too many pods`; the less is taken, the better.
pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Filter for NodeResourcesFit {
    fn reads(&self) -> Reads {
        Reads::NodeAndItsPods
    }

    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns) -> Prepared<'a> {
        Prepared::Ask(Box::new(|node| {
            let (allocatable, requested) = (&nodes.allocatable[node], &nodes.requested[node]);
            let mut reasons = Vec::new();
            let n_pods = i64::try_from(nodes.pods[node].len()).unwrap_or(i64::MAX);
            if n_pods + 1 > allocatable.get("pods") {
                reasons.push("Too many pods".to_owned());
            }
            for (name, amount) in pod.spec.requests.iter().filter(|it| it.1 > 0) {
                let left = allocatable.get(name).saturating_sub(requested.get(name));
                if amount > left {
                    reasons.push(format!("Insufficient {name}"));
                }
            }
            if reasons.is_empty() { Verdict::Fits } else { Verdict::Refused(reasons) }
        }))
    }

    fn hints(&self) -> &'static [Hint] {
        &[Hint::NodeAdded, Hint::NodeChanged, Hint::PodLeft]
    }
}

impl Score for NodeResourcesFit {
    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns, _: &'a [usize]) -> Scored<'a> {
        Scored::Ask(Box::new(|node| {
            let left = |name: &&str| {
                let capacity = nodes.allocatable[node].get(name);
                let taken = nodes.scored[node].get(name).saturating_add(pod.spec.scored.get(name));
                if capacity <= 0 {
                    return None;
                }
                let left = i128::from((capacity - taken).max(0));
                Some((left * i128::from(SCORE_MAX) / i128::from(capacity)) as i64)
            };
            average(SCORED.iter().filter_map(left))
        }))
    }
}

/// The nearer to each other the taken fractions of cpu and memory are, the better.
pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Score for NodeResourcesBalancedAllocation {
    fn prepare<'a>(&self, pod: &'a Seeker, nodes: &'a Columns, _: &'a [usize]) -> Scored<'a> {
        if SCORED.iter().all(|it| pod.spec.requests.get(it) == 0) {
            return Scored::Skip; // a Pod that asks for nothing balances nothing
        }
        Scored::Ask(Box::new(|node| {
            let fraction = |name: &&str| {
                let capacity = nodes.allocatable[node].get(name);
                let taken =
                    nodes.requested[node].get(name).saturating_add(pod.spec.requests.get(name));
                if capacity <= 0 {
                    return None;
                }
                let fraction = i128::from(taken) * i128::from(WHOLE) / i128::from(capacity);
                Some(i64::try_from(fraction).unwrap_or(WHOLE).min(WHOLE))
            };
            let fractions: Vec<i64> = SCORED.iter().filter_map(fraction).collect();
            // With two resources the standard deviation is half their distance.
            let deviation = match fractions[..] {
                [a, b] => (a - b).abs() / 2,
                _ => 0,
            };
            (WHOLE - deviation) * SCORE_MAX / WHOLE
        }))
    }
}

fn average(values: impl Iterator<Item = i64>) -> i64 {
    let (sum, n) = values.fold((0, 0), |(sum, n), it| (sum + it, n + 1));
    if n == 0 { 0 } else { sum / n }
}
