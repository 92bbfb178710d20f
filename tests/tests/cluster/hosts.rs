//! The harness itself, on single hosts: cuts, frozen processes and disks, full disks and clocks do what they say.

use std::net::TcpStream;
use std::time::Duration;

use kactor_tests::harness::{Hosts, wait_until};

/// Whether a connection from one host to another's API comes about.
fn hears(hosts: &Hosts, from: usize, to: usize) -> bool {
    let server = hosts.all()[to].server().parse().unwrap();
    let dial = || TcpStream::connect_timeout(&server, Duration::from_secs(1)).is_ok();
    hosts.all()[from].inside(dial)
}

#[test]
fn wires_are_cut_one_way_and_healed() {
    let Some(mut hosts) = Hosts::new(2) else { return };
    hosts.host(0).start();
    hosts.host(1).start(); // A cluster of its own: only its wires matter here.
    let both = |hosts: &Hosts| [hears(hosts, 0, 1), hears(hosts, 1, 0)];
    assert_eq!(both(&hosts), [true, true]);
    // A connection needs both directions, so one cut ends both; what one way lets through is seen by a datagram.
    hosts.cut(0, 1);
    assert_eq!(both(&hosts), [false, false]);
    assert!(hosts.all()[1].tells(&hosts.all()[0]), "the other direction stays");
    assert!(!hosts.all()[0].tells(&hosts.all()[1]), "this one does not");
    let outside = TcpStream::connect_timeout(
        &hosts.all()[1].server().parse().unwrap(),
        Duration::from_secs(5),
    );
    assert!(outside.is_ok(), "clients outside still reach it: {outside:?}");
    hosts.heal();
    assert_eq!(both(&hosts), [true, true]);
}

#[test]
fn a_frozen_host_and_a_killed_one_go_on_where_they_were() {
    let Some(mut hosts) = Hosts::new(1) else { return };
    hosts.host(0).start();
    let status = hosts.status(0).unwrap();
    hosts.host(0).freeze();
    assert!(hosts.running().next().is_none());
    hosts.host(0).thaw();
    assert_eq!(hosts.status(0).unwrap()["cluster"], status["cluster"]);
    hosts.host(0).kill();
    hosts.host(0).start();
    assert_eq!(hosts.status(0).unwrap()["cluster"], status["cluster"]);
    assert!(hosts.host(0).stop().success());
}

#[test]
fn a_disk_of_its_own_fills_and_hangs() {
    let Some(mut hosts) = Hosts::new(1) else { return };
    hosts.host(0).give_disk(1024);
    hosts.host(0).start();
    let write = |hosts: &Hosts| hosts.all()[0].kactor(&["status"]).is_ok();
    assert!(write(&hosts));
    hosts.host(0).disk().freeze();
    let data = hosts.host(0).data_dir();
    let file = data.join("probe");
    let (said, hears) = std::sync::mpsc::sync_channel(1);
    #[expect(clippy::disallowed_methods, reason = "it waits for the disk")]
    let waits = std::thread::spawn(move || {
        std::fs::write(file, "x").unwrap();
        said.send(()).unwrap();
    });
    assert!(hears.recv_timeout(Duration::from_millis(300)).is_err(), "the disk hangs");
    hosts.host(0).disk().thaw();
    waits.join().unwrap();
    hosts.host(0).disk().fill();
    assert!(std::fs::write(data.join("more"), vec![0; 1 << 20]).is_err(), "the disk is full");
    hosts.host(0).disk().relieve();
    std::fs::write(data.join("more"), vec![0; 1 << 20]).unwrap();
    std::fs::remove_file(data.join("more")).unwrap();
    std::fs::remove_file(data.join("probe")).unwrap();
}

#[test]
fn a_hosts_clock_jumps_and_no_other() {
    let Some(mut hosts) = Hosts::new(1) else { return };
    hosts.host(0).give_clock();
    hosts.host(0).start();
    let year = |hosts: &Hosts| {
        let answer = hosts.all()[0].date();
        answer.trim().parse::<i32>().map_err(|it| format!("{it}: {answer}"))
    };
    let before = year(&hosts).unwrap();
    hosts.host(0).clock().jump(2 * 366 * 24 * 3600);
    let after = wait_until("the clock jumps", || {
        year(&hosts).and_then(|it| if it > before { Ok(it) } else { Err(format!("{it}")) })
    });
    assert!(after - before >= 2);
    let answer = hosts.host(0).kactor(&["status"]);
    assert!(answer.is_ok(), "it serves on: {}", answer.both());
}
