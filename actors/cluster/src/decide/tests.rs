//! Tables: a cluster in a few lines, and the step that follows.
//!
//! One member or host a line: `1 a voter`, `2 b learner lag=900 silent=5s`, `- c control replica=3` (a record alone).
//! The first line is the leader. Words: `leaving`, `lost` (its record names another replica or is gone), `level=N`, `cluster=ID`.

use std::collections::BTreeMap;

use kactor_protocol::Timestamp;

use super::*;
use crate::host::{HostRole, KeyHash};

const LAST: u64 = 10_000;

struct World {
    hosts: Hosts,
    members: MembersState,
    own: ReplicaId,
}

fn record(role: HostRole, replica: Option<u64>) -> HostRecord {
    HostRecord {
        key_hash: KeyHash([0; 32]),
        role,
        replica: replica.map(ReplicaId),
        cluster: "now".into(),
        address: ([192, 0, 2, 1], 6443).into(),
        version: "0.1.0".into(),
        level: 1,
        joined_at: Timestamp(0),
        started_at: Timestamp(0),
        leaving: false,
    }
}

fn world(text: &str) -> World {
    let mut hosts = Hosts::new();
    let mut members = MembersState { is_committed: true, last_index: LAST, ..Default::default() };
    let (mut voters, mut own) = (BTreeSet::new(), None);
    for line in text.lines().map(str::trim).filter(|it| !it.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |name: &str| words.iter().find_map(|it| it.strip_prefix(name));
        let number = |name: &str| value(name).map(|it| it.trim_end_matches('s').parse().unwrap());
        let host = HostId::new(words[1]).unwrap();
        let id: Option<u64> = words[0].parse().ok();
        let role = if words[2] == "worker" { HostRole::Worker } else { HostRole::Control };
        let mut known = record(role, id.or_else(|| number("replica=")));
        known.leaving = words.contains(&"leaving");
        known.cluster = value("cluster=").unwrap_or("now").to_owned();
        known.level = number("level=").unwrap_or(1) as u32;
        if !words.contains(&"lost") {
            hosts.insert(host.clone(), known);
        }
        let Some(id) = id.map(ReplicaId) else { continue };
        own = own.or(Some(id));
        members.hosts.insert(id, host);
        if words[2] == "voter" {
            voters.insert(id);
        }
        let answered_ago = match value("silent=") {
            Some("ever") => None,
            _ => Some(Duration::from_secs(number("silent=").unwrap_or(0))),
        };
        let matched_index = LAST - number("lag=").unwrap_or(0);
        members.progress.insert(id, MemberProgress { matched_index, answered_ago });
    }
    members.voters = vec![voters];
    World { hosts, members, own: own.unwrap() }
}

impl World {
    fn decide(&self, led_for: u64) -> Option<Change> {
        decide(Picture {
            hosts: &self.hosts,
            members: &self.members,
            own: self.own,
            led_for: Duration::from_secs(led_for),
            level: 1,
            cluster: "now",
        })
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let step = world(text).decide(3600);
    assert_eq!(step.map_or("nothing".to_owned(), |it| it.to_string()), expected, "{text}");
}

#[test]
fn a_new_control_host_learns_first_and_a_worker_never() {
    check("1 a voter", "nothing");
    check("1 a voter\n- b control replica=2", "replica 2 on b begins to learn");
    check("1 a voter\n- w worker", "nothing");
}

#[test]
fn the_second_host_votes_only_together_with_the_third() {
    check("1 a voter\n2 b learner", "nothing");
    check("1 a voter\n2 b learner\n3 c learner lag=513", "nothing");
    check("1 a voter\n2 b learner\n3 c learner silent=3s", "nothing");
    check("1 a voter\n2 b learner\n3 c learner silent=ever", "nothing");
    check(
        "1 a voter\n2 b learner\n3 c learner lag=512",
        "voters become 1, 2, 3: 3 hosts have the whole log",
    );
}

#[test]
fn three_voters_become_five_when_two_more_wait_and_never_more() {
    let three = "1 a voter\n2 b voter\n3 c voter\n";
    check(&format!("{three}4 d learner"), "nothing");
    check(
        &format!("{three}4 d learner\n5 e learner"),
        "voters become 1, 2, 3, 4, 5: 5 hosts have the whole log",
    );
    let five = format!("{three}4 d voter\n5 e voter\n");
    check(&format!("{five}6 f learner\n7 g learner"), "nothing");
    let hurt = "1 a voter\n2 b voter silent=9s\n3 c voter\n4 d learner\n5 e learner";
    check(hurt, "nothing");
}

#[test]
fn a_voter_gone_for_ten_minutes_is_replaced_while_the_others_answer() {
    let cluster = |b: &str, c: &str, d: &str| {
        format!("1 a voter\n2 b voter silent={b}\n3 c voter silent={c}\n4 d learner lag={d}")
    };
    let replaced = "voters become 1, 3, 4: replica 2 did not answer for 10 minutes";
    check(&cluster("600s", "0s", "0"), replaced);
    check(&cluster("599s", "0s", "0"), "nothing");
    check(&cluster("600s", "3s", "0"), "nothing");
    check(&cluster("600s", "0s", "9000"), "nothing");
    check("1 a voter\n2 b voter silent=900s\n3 c voter", "nothing");
}

#[test]
fn a_new_leader_waits_ten_minutes_of_its_own_for_a_voter_that_it_never_heard() {
    let world = world("1 a voter\n2 b voter silent=ever\n3 c voter\n4 d learner");
    assert_eq!(world.decide(599), None);
    assert!(matches!(world.decide(600), Some(Change::SetVoters { .. })));
}

#[test]
fn only_one_voter_is_replaced_at_a_time() {
    let both = "1 a voter\n2 b voter silent=900s\n3 c voter silent=900s\n4 d learner\n5 e learner";
    check(both, "nothing");
    let mut world = world("1 a voter\n2 b voter silent=900s\n3 c voter\n4 d learner");
    world.members.is_committed = false;
    assert_eq!(world.decide(3600), None, "a change is under way");
    world.members.is_committed = true;
    let joint = world.members.voters[0].clone();
    world.members.voters.push(joint);
    assert_eq!(world.decide(3600), None, "two sets: a change is under way");
}

#[test]
fn a_leaving_voter_goes_out_by_way_of_an_odd_count() {
    check("1 a voter\n2 b voter\n3 c voter leaving", "voters become 1: replica 3 leaves");
    check(
        "1 a voter\n2 b voter\n3 c voter leaving\n4 d learner",
        "voters become 1, 2, 4: replica 3 leaves",
    );
    check("1 a voter\n2 b voter\n3 c voter leaving\n4 d learner lag=9000", "nothing");
    check(
        "1 a voter\n2 b voter\n3 c voter leaving\n4 d learner silent=60s",
        "voters become 1: replica 3 leaves",
    );
    check("1 a voter\n2 b learner\n3 c learner leaving", "replica 3 is taken out");
    check("1 a voter\n2 b learner\n- c control leaving replica=3", "c left");
    check("1 a voter\n- w worker leaving", "w left");
}

#[test]
fn a_leading_host_that_leaves_hands_over_first() {
    check(
        "1 a voter leaving\n2 b voter lag=4\n3 c voter lag=2",
        "replica 3 takes over: this host leaves",
    );
    check("1 a voter leaving\n2 b voter silent=30s\n3 c voter silent=30s", "nothing");
    check(
        "1 a voter leaving\n2 b learner",
        "voters become 1, 2: the leader leaves and needs an heir",
    );
    check("1 a voter leaving\n2 b voter", "replica 2 takes over: this host leaves");
    check("2 b voter\n1 a voter leaving", "voters become 2: replica 1 leaves");
    check("1 a voter leaving", "nothing");
}

#[test]
fn a_host_that_lost_its_disk_learns_under_its_new_id_before_the_old_one_goes() {
    let mut world = world("1 a voter\n2 b voter\n3 c voter silent=60s lost");
    let host = HostId::new("c").unwrap();
    world.hosts.insert(host.clone(), record(HostRole::Control, Some(4)));
    let step = |world: &World| world.decide(3600).unwrap().to_string();
    assert_eq!(step(&world), "replica 4 on c begins to learn");
    world.members.hosts.insert(ReplicaId(4), host);
    let behind = MemberProgress { matched_index: 0, answered_ago: Some(Duration::ZERO) };
    world.members.progress.insert(ReplicaId(4), behind);
    assert_eq!(world.decide(3600), None, "it catches up first");
    let caught_up = MemberProgress { matched_index: LAST, ..behind };
    world.members.progress.insert(ReplicaId(4), caught_up);
    assert_eq!(step(&world), "voters become 1, 2, 4: replica 3 leaves");
    world.members.voters = vec![[1, 2, 4].map(ReplicaId).into()];
    assert_eq!(step(&world), "replica 3 is taken out");
}

#[test]
fn control_hosts_of_the_cluster_before_a_restore_are_forgotten_and_workers_stay() {
    check("1 a voter\n- b control replica=2 cluster=before\n- w worker cluster=before", "b left");
    // The restored host has the id that another one had.
    check("1 a voter\n- b control replica=1 cluster=before", "b left");
    check("1 a voter\n- w worker cluster=before", "nothing");
}

#[test]
fn the_feature_level_rises_when_the_last_host_knows_the_next() {
    check("1 a voter level=2\n2 b learner level=2\n- w worker level=1", "nothing");
    check(
        "1 a voter level=2\n2 b learner level=3\n- w worker level=2",
        "the feature level becomes 2",
    );
}

/// Every state of a small cluster: no step leads to an even count of voters, or to a majority that does not answer.
#[test]
fn voters_are_odd_after_every_step_and_most_of_them_answer() {
    let states = [
        "voter",
        "voter silent=900s",
        "voter leaving",
        "learner",
        "learner lag=9000",
        "learner leaving",
        "learner silent=900s",
    ];
    let mut n_steps = 0;
    for b in states {
        for c in states {
            for d in states {
                for e in states {
                    let world = world(&format!("1 a voter\n2 b {b}\n3 c {c}\n4 d {d}\n5 e {e}"));
                    if world.members.voters[0].len().is_multiple_of(2) {
                        continue; // No step leads there.
                    }
                    let Some(Change::SetVoters { voters, .. }) = world.decide(3600) else {
                        continue;
                    };
                    n_steps += 1;
                    assert_eq!(voters.len() % 2, 1, "{b}, {c}, {d}, {e}: {voters:?}");
                    assert!(voters.contains(&world.own), "{b}, {c}, {d}, {e}: {voters:?}");
                    let alive = voters.iter().filter(|it| {
                        let seen: &BTreeMap<_, _> = &world.members.progress;
                        seen[it].answered_ago == Some(Duration::ZERO)
                    });
                    assert!(alive.count() * 2 > voters.len(), "{b}, {c}, {d}, {e}: {voters:?}");
                }
            }
        }
    }
    assert!(n_steps > 200, "{n_steps}");
}
