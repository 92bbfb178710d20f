//! Which control host a connection is passed to: pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a host that could not be dialled is tried last.
const SHUNNED: Duration = Duration::from_secs(5);

/// What dials have shown.
#[derive(Debug, Default)]
pub struct Choice {
    turn: usize,
    /// Until when a host is tried last.
    shunned: BTreeMap<SocketAddr, Duration>,
}

impl Choice {
    /// The hosts in the order to try them: each connection begins one further, those that failed lately come last.
    pub fn order(&mut self, targets: &[SocketAddr], now: Duration) -> Vec<SocketAddr> {
        self.shunned.retain(|at, until| *until > now && targets.contains(at));
        if targets.is_empty() {
            return Vec::new();
        }
        let mut out = targets.to_vec();
        out.rotate_left(self.turn % targets.len());
        self.turn = self.turn.wrapping_add(1);
        out.sort_by_key(|it| self.shunned.contains_key(it)); // Stable: the turn is kept.
        out
    }

    pub fn failed(&mut self, target: SocketAddr, now: Duration) {
        self.shunned.insert(target, now + SHUNNED);
    }

    pub fn worked(&mut self, target: SocketAddr) {
        self.shunned.remove(&target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<SocketAddr> {
        ["192.0.2.1:6443", "192.0.2.2:6443", "192.0.2.3:6443"].map(|it| it.parse().unwrap()).into()
    }

    #[test]
    fn connections_take_turns() {
        let (hosts, mut choice) = (hosts(), Choice::default());
        let firsts: Vec<_> = (0..6).map(|_| choice.order(&hosts, Duration::ZERO)[0]).collect();
        assert_eq!(firsts, [hosts.clone(), hosts].concat());
        assert_eq!(choice.order(&[], Duration::ZERO), []);
    }

    #[test]
    fn a_host_that_failed_is_tried_last_for_a_while_only() {
        let (hosts, mut choice) = (hosts(), Choice::default());
        choice.failed(hosts[0], Duration::ZERO);
        for _ in 0..3 {
            let order = choice.order(&hosts, Duration::from_secs(1));
            assert_eq!((order.len(), order[2]), (3, hosts[0]));
        }
        assert_eq!(choice.order(&hosts, SHUNNED)[0], hosts[0], "it has its turn again");
        choice.failed(hosts[1], SHUNNED);
        choice.worked(hosts[1]);
        assert_eq!(choice.order(&hosts, SHUNNED)[0], hosts[1]);
    }
}
