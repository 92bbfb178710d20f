//! Three control hosts under load while something goes wrong. Each ends with the judgement of `workload`.

use std::time::Duration;

use kactor_tests::harness::Hosts;

use crate::workload::Workload;

const CLIENTS: usize = 6;

/// How often a fault is repeated: a few times in every run, `full` times with `KACTOR_CLUSTER_FULL=1`.
fn times(full: usize) -> usize {
    if std::env::var("KACTOR_CLUSTER_FULL").is_ok_and(|it| it == "1") { full } else { full.min(3) }
}

#[track_caller]
fn judged(what: &str, load: Workload) {
    let outcome = load.end();
    println!("{what}: {outcome}");
    assert!(outcome.acknowledged > 0);
}

#[test]
fn three_hosts_join_and_each_serves_what_another_took() {
    let Some(hosts) = Hosts::cluster(3) else { return };
    let load = Workload::start(&hosts, CLIENTS);
    load.wait_for(200);
    judged("no fault", load);
}

#[test]
fn a_leader_that_is_killed_again_and_again_loses_no_write() {
    let Some(mut hosts) = Hosts::cluster(3) else { return };
    let load = Workload::start(&hosts, CLIENTS);
    for _ in 0..times(20) {
        load.wait_for(50);
        let leader = hosts.leader();
        hosts.host(leader).kill();
        load.wait_for(50);
        hosts.host(leader).start();
        hosts.wait_voters(3);
    }
    judged("leader killed", load);
}

#[test]
fn a_rolling_restart_of_all_hosts_loses_no_write() {
    let Some(mut hosts) = Hosts::cluster(3) else { return };
    let load = Workload::start(&hosts, CLIENTS);
    for index in 0..hosts.len() {
        load.wait_for(50);
        assert!(hosts.host(index).stop().success());
        load.wait_for(50);
        hosts.host(index).start();
        hosts.wait_voters(3);
    }
    judged("rolling restart", load);
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_comes_back_by_itself() {
    let Some(mut hosts) = Hosts::cluster(3) else { return };
    let load = Workload::start(&hosts, CLIENTS);
    for _ in 0..times(5) {
        load.wait_for(50);
        let leader = hosts.leader();
        hosts.isolate(leader);
        load.wait_for(50);
        hosts.heal();
        hosts.host(leader).wait_ready();
        hosts.wait_voters(3);
    }
    judged("leader cut off", load);
}

#[test]
fn a_leader_that_is_heard_but_does_not_hear_is_replaced() {
    let Some(mut hosts) = Hosts::cluster(3) else { return };
    let load = Workload::start(&hosts, CLIENTS);
    for _ in 0..times(5) {
        load.wait_for(50);
        let leader = hosts.leader();
        for other in (0..hosts.len()).filter(|it| *it != leader) {
            hosts.cut(other, leader);
        }
        load.wait_for(50);
        hosts.heal();
        hosts.host(leader).wait_ready();
        hosts.wait_voters(3);
    }
    judged("one way", load);
}

#[test]
fn a_frozen_leader_wakes_up_deposed() {
    let Some(mut hosts) = Hosts::cluster(3) else { return };
    let load = Workload::start(&hosts, CLIENTS);
    for _ in 0..times(5) {
        load.wait_for(50);
        let leader = hosts.leader();
        hosts.host(leader).freeze();
        load.wait_for(50);
        hosts.host(leader).thaw();
        hosts.host(leader).wait_ready();
        hosts.wait_voters(3);
    }
    judged("frozen leader", load);
}

#[test]
fn a_full_disk_of_one_host_stops_no_other() {
    let Some(mut hosts) = Hosts::new(3) else { return };
    hosts.host(2).give_disk(1024);
    hosts.host(0).start();
    hosts.join(1, "any");
    hosts.join(2, "any");
    hosts.wait_voters(3);
    let load = Workload::start(&hosts, CLIENTS);
    load.wait_for(50);
    hosts.host(2).disk().fill();
    load.wait_for(200);
    hosts.host(2).disk().relieve();
    hosts.host(2).wait_ready();
    load.wait_for(50);
    judged("full disk", load);
}

#[test]
fn a_disk_that_hangs_makes_one_host_slow_and_not_the_cluster() {
    let Some(mut hosts) = Hosts::new(3) else { return };
    for index in 0..3 {
        hosts.host(index).give_disk(1024);
    }
    hosts.host(0).start();
    hosts.join(1, "any");
    hosts.join(2, "any");
    hosts.wait_voters(3);
    let load = Workload::start(&hosts, CLIENTS);
    for _ in 0..times(5) {
        load.wait_for(50);
        let leader = hosts.leader();
        hosts.host(leader).disk().freeze();
        load.wait_for(50);
        hosts.host(leader).disk().thaw();
        hosts.host(leader).wait_ready();
        hosts.wait_voters(3);
    }
    judged("slow disk", load);
}

#[test]
fn a_clock_that_jumps_moves_no_leader_and_loses_no_write() {
    let Some(mut hosts) = Hosts::new(3) else { return };
    hosts.host(1).give_clock();
    hosts.host(0).start();
    hosts.join(1, "any");
    hosts.join(2, "any");
    hosts.wait_voters(3);
    let load = Workload::start(&hosts, CLIENTS);
    for seconds in [1800, -1800, 0] {
        load.wait_for(50);
        hosts.host(1).clock().jump(seconds);
        hosts.endure(Duration::from_secs(2));
    }
    load.wait_for(50);
    judged("clock jump", load);
}

#[test]
fn hosts_join_while_clients_write() {
    let Some(mut hosts) = Hosts::new(3) else { return };
    hosts.host(0).start();
    let load = Workload::start(&hosts, CLIENTS);
    load.wait_for(50);
    hosts.join(1, "any");
    hosts.join(2, "any");
    hosts.wait_voters(3);
    load.wait_for(50);
    judged("join during load", load);
}
