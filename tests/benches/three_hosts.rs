//! Three control hosts beside a three-member etcd on this machine and disk: `cargo bench -p kactor-tests --bench three_hosts`.
//!
//! Prints one table and asserts nothing. All members of both share two cores and one disk, so the figures say how much
//! work a write is, not what three machines would do. Clients speak to one member that follows: what is measured goes
//! through another one.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench stands outside the cluster and stops at the first surprise"
)]

#[path = "side_by_side/etcd.rs"]
mod etcd;
#[path = "side_by_side/load.rs"]
mod load;
#[path = "side_by_side/table.rs"]
mod table;

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kactor_tests::harness::rest::{Access, Call, Connection};
use kactor_tests::harness::{Cluster, Runtime};
use serde_json::{Value, json};

use crate::etcd::Etcd;
use crate::load::{Rate, measure};
use crate::table::{Row, print};

/// Value bytes of each write, on both sides.
const VALUE_BYTES: usize = 256;
const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
/// How long each load runs; `KACTOR_BENCH_SECONDS` changes it.
const SECONDS: u64 = 5;
/// Leaders that are killed, of each side; `KACTOR_BENCH_KILLS` changes it.
const KILLS: usize = 20;
/// Between two tries of a write while nobody leads.
const TRY_EVERY: Duration = Duration::from_millis(5);

fn main() {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let mut rows = Vec::new();
    threads.unwrap().block_on(async {
        of_etcd(&mut rows).await;
        of_kactor(&mut rows).await;
    });
    print(&rows);
}

fn named(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|it| it.parse().ok()).unwrap_or(otherwise)
}

fn length() -> Duration {
    Duration::from_secs(named("KACTOR_BENCH_SECONDS", SECONDS))
}

fn kills() -> usize {
    named("KACTOR_BENCH_KILLS", KILLS as u64) as usize
}

fn row(rows: &mut Vec<Row>, what: &str, rate: &Rate) {
    rows.push(Row::of(what, rate.to_string(), ""));
}

async fn of_etcd(rows: &mut Vec<Row>) {
    let Some(mut members) = Etcd::cluster(3).await else {
        println!("no etcd on PATH (Debian: etcd-server); it is left out");
        return;
    };
    let leader = leader_of(&members).await;
    let access = Access::clear(&members[(leader + 1) % 3].address);
    for clients in [1, 64, 1000] {
        let rate = measure(&access, clients, length(), etcd::put).await;
        row(rows, &format!("etcd 3.4, three members: puts, {clients} clients"), &rate);
    }
    for clients in [1, 64] {
        let rate = measure(&access, clients, length(), |_, _| get()).await;
        row(rows, &format!("etcd 3.4: linearizable gets by a follower, {clients} clients"), &rate);
    }
    let mut took = Vec::new();
    for round in 0..kills() {
        let leader = leader_of(&members).await;
        members[leader].kill();
        let begun = Instant::now();
        let other = Access::clear(&members[(leader + 1) % 3].address);
        until_written(&other, |nth| etcd::put(1_000_000 + round, nth)).await;
        took.push(begun.elapsed());
        members[leader].spawn().unwrap();
        members[leader].wait().await;
    }
    rows.push(Row::of(
        "etcd 3.4: leader killed to the next write",
        spread(took),
        "1 to 2 s (design)",
    ));
}

/// One linearizable read of a key that is there.
fn get() -> Call {
    Call::post("/v3/kv/range", &json!({"key": STANDARD.encode("/bench/0/0")}))
}

/// Whether a member leads, as it says.
async fn leads(member: &Etcd) -> bool {
    let Ok(mut connection) = Connection::open(&Access::clear(&member.address)).await else {
        return false;
    };
    let asked = connection.send(&Call::post("/v3/maintenance/status", &json!({}))).await;
    let Ok(status) = asked.map(|it| it.json()) else { return false };
    status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
}

async fn leader_of(members: &[Etcd]) -> usize {
    loop {
        for (nth, member) in members.iter().enumerate() {
            if leads(member).await {
                return nth;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn of_kactor(rows: &mut Vec<Row>) {
    let mut hosts = three();
    let leader = leader(&hosts);
    let access = Access::admin(&hosts[(leader + 1) % 3]);
    for clients in [1, 64, 1000] {
        // Names of one load must not meet those of the next.
        let rate = measure(&access, clients, length(), move |client, step| {
            config(client, step + clients as u64 * 1_000_000)
        });
        let rate = rate.await;
        row(rows, &format!("kactor, three hosts: ConfigMap creates, {clients} clients"), &rate);
    }
    Connection::open(&access).await.unwrap().send(&config(0, 0)).await.unwrap().object();
    let one = format!("{CONFIGS}/b0-0");
    for clients in [1, 64] {
        let path = one.clone();
        let rate = measure(&access, clients, length(), move |_, _| Call::get(&path)).await;
        row(rows, &format!("kactor: consistent gets by a follower, {clients} clients"), &rate);
    }
    let mut took = Vec::new();
    for round in 0..kills() {
        let at = self::leader(&hosts);
        hosts[at].kill();
        let begun = Instant::now();
        let other = Access::admin(&hosts[(at + 1) % 3]);
        until_written(&other, |nth| config(1_000_000 + round, nth)).await;
        took.push(begun.elapsed());
        hosts[at].spawn();
        hosts[at].wait_ready();
    }
    rows.push(Row::of("kactor: leader killed to the next write", spread(took), "goal: under 1 s"));
}

fn config(client: usize, step: u64) -> Call {
    let name = format!("b{client}-{step}");
    Call::post(
        CONFIGS,
        &json!({"metadata": {"name": name}, "data": {"x": "v".repeat(VALUE_BYTES)}}),
    )
}

/// Tries new names until one is acknowledged, each try on a connection of its own and no longer than a second.
async fn until_written(access: &Access, call: impl Fn(u64) -> Call) {
    for nth in 0.. {
        let one = async {
            let mut connection = Connection::open(access).await.ok()?;
            connection.send(&call(nth)).await.ok().filter(|it| it.is_ok())
        };
        let answer = tokio::time::timeout(Duration::from_secs(1), one).await;
        if matches!(answer, Ok(Some(_))) {
            return;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

fn spread(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_millis();
    format!("median {} ms, 90 % {} ms, worst of {} {} ms", at(0.5), at(0.9), took.len(), at(1.0))
}

fn status(host: &Cluster) -> Value {
    serde_json::from_str(&host.kactor(&["status", "-o", "json"]).stdout).unwrap_or_default()
}

/// Which of them leads, once one does.
fn leader(hosts: &[Cluster]) -> usize {
    loop {
        let told = hosts.iter().map(status).find_map(|it| it["leader"].as_str().map(str::to_owned));
        let at = told.and_then(|name| hosts.iter().position(|it| it.node() == name));
        match at {
            Some(at) => return at,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn three() -> Vec<Cluster> {
    let first = Cluster::start(Runtime::None);
    let token: Value =
        serde_json::from_str(&first.kactor(&["token", "create", "-o", "json"]).stdout).unwrap();
    let line = token["line"].as_str().unwrap().strip_prefix("kactor up ").unwrap().to_owned();
    let words: Vec<&str> = line.split(' ').collect();
    let mut hosts = vec![first];
    for name in ["host-b", "host-c"] {
        let mut host = Cluster::prepared(Runtime::None).named(name);
        host.spawn_with(&words);
        host.wait_ready();
        hosts.push(host);
    }
    let voters = || {
        let seen = status(&hosts[0]);
        let hosts = seen["hosts"].as_array().cloned().unwrap_or_default();
        hosts.iter().filter(|it| it["role"] == "voter").count()
    };
    while voters() < 3 {
        std::thread::sleep(Duration::from_millis(50));
    }
    hosts
}
