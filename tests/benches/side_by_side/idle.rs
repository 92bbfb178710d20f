//! What a host costs that does nothing: memory, processor, disk writes, read from /proc.

use std::thread::sleep;
use std::time::Duration;

use kactor_tests::harness::{Cluster, Runtime};

use crate::table::Row;

/// Settling time after the start, then the time that is measured.
const SETTLE: Duration = Duration::from_secs(10);
const WATCHED: Duration = Duration::from_secs(20);

pub fn measure(rows: &mut Vec<Row>) {
    for (what, n_nodes) in [("one hollow node", 1), ("100 hollow nodes", 100)] {
        let mut cluster = Cluster::prepared(Runtime::Hollow);
        cluster.spawn_with(&["--hollow-nodes", &n_nodes.to_string()]);
        cluster.wait_ready();
        sleep(SETTLE);
        one(what, cluster.pid(), rows);
    }
}

fn one(what: &str, pid: u32, rows: &mut Vec<Row>) {
    let (cpu, written) = (cpu_ticks(pid), written_bytes(pid));
    sleep(WATCHED);
    let ticks_per_second = 100.0; // USER_HZ, which the kernel shows to all programs
    let seconds = WATCHED.as_secs_f64();
    let busy = (cpu_ticks(pid) - cpu) as f64 / ticks_per_second / seconds * 100.0;
    let disk = (written_bytes(pid) - written) as f64 / seconds / 1024.0;
    rows.push(Row::of(
        &format!("idle, {what}: resident memory"),
        format!("{:.0} MB", resident_kib(pid) as f64 / 1024.0),
        "one node: under 60 MB; the real thing 670 MB",
    ));
    let of_one = "one node: under 1 %; the real thing 4.8 %";
    rows.push(Row::of(
        &format!("idle, {what}: processor"),
        format!("{busy:.2} % of a core"),
        of_one,
    ));
    let written = format!("{disk:.2} KiB/s");
    rows.push(Row::of(&format!("idle, {what}: written to disk"), written, "one sync in 10 s"));
}

/// User and system time.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(") ").next().unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn written_bytes(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn resident_kib(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|it| it.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
