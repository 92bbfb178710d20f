//! kactor beside Debian's etcd on this machine, in this run, on the same disk: `cargo bench -p kactor-tests`.
//!
//! Prints one table; asserts nothing, because a timing says more about the machine than about a change. Both sides
//! are driven by the same client: HTTP/1.1 with as many kept connections as clients, one request at a time on each,
//! the same value size, a sync before each answer. etcd speaks its v3 JSON gateway in clear, kactor its Kubernetes
//! API over TLS with everything that a write costs there (authorization, admission, validation, managedFields).

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench stands outside the cluster and stops at the first surprise"
)]

#[path = "side_by_side/etcd.rs"]
mod etcd;
#[path = "side_by_side/idle.rs"]
mod idle;
#[path = "side_by_side/load.rs"]
mod load;
#[path = "side_by_side/pods.rs"]
mod pods;
#[path = "side_by_side/table.rs"]
mod table;

use std::time::{Duration, Instant};

use kactor_tests::harness::rest::{Call, Connection};
use kactor_tests::harness::{Access, Cluster, Runtime, binary};
use serde_json::{Value, json};

use crate::load::{Rate, measure};
use crate::table::{Row, print};

/// Value bytes of each write, on both sides.
const VALUE_BYTES: usize = 256;
const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
/// How long each load runs; `KACTOR_BENCH_SECONDS` changes it.
const SECONDS: u64 = 5;
const CLIENTS: [usize; 3] = [1, 64, 1000];

fn main() {
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let rows = threads.unwrap().block_on(all());
    print(&rows);
}

fn length() -> Duration {
    let named = std::env::var("KACTOR_BENCH_SECONDS").ok().and_then(|it| it.parse().ok());
    Duration::from_secs(named.unwrap_or(SECONDS))
}

async fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    starts(&mut rows).await;
    let peers = peer_writes().await;
    let cluster = Cluster::start(Runtime::None);
    let access = Access::admin(&cluster);
    writes(&access, &peers, &mut rows).await;
    reads(&access, &mut rows).await;
    drop(cluster);
    pods::measure(&mut rows).await;
    idle::measure(&mut rows);
    in_process(&mut rows);
    let bytes = std::fs::metadata(binary::kactor()).unwrap().len();
    let text = format!("{:.1} MB ({})", bytes as f64 / 1e6, binary::kactor().display());
    rows.push(Row::of("binary as built here", text, "dist, stripped: under 40 MB"));
    rows
}

/// Time from `up` to the API and to a Ready node, and of a second start on the same data.
async fn starts(rows: &mut Vec<Row>) {
    let mut cluster = Cluster::prepared(Runtime::Hollow);
    for name in ["first start", "second start"] {
        let begun = Instant::now();
        cluster.spawn();
        let api = soon(begun, || answers(&cluster, "/readyz", |it| it == "ok")).await;
        let path = format!("/api/v1/nodes/{}", kactor_tests::harness::cluster::NODE);
        let node = soon(begun, || answers(&cluster, &path, is_ready)).await;
        rows.push(Row::of(
            &format!("{name}: `up` to API ready / node Ready"),
            format!("{} / {}", seconds(api), seconds(node)),
            "under 1 s; the real thing 11.5 s",
        ));
        cluster.kill();
    }
}

fn seconds(it: Duration) -> String {
    format!("{:.2} s", it.as_secs_f64())
}

fn is_ready(object: &str) -> bool {
    let node: Value = serde_json::from_str(object).unwrap_or_default();
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// Asks once; whether the answer is a success that `holds`.
async fn answers(cluster: &Cluster, path: &str, holds: impl Fn(&str) -> bool) -> bool {
    let Ok(access) = Access::of(&cluster.kubeconfig()) else {
        return false;
    };
    let Ok(mut connection) = Connection::open(&access).await else {
        return false;
    };
    let reply = connection.send(&Call::get(path)).await;
    reply.is_ok_and(|it| it.is_ok() && holds(&it.text()))
}

/// Looks every few milliseconds until it holds; answers how long after `begun` that was.
async fn soon<F: Future<Output = bool>>(begun: Instant, look: impl Fn() -> F) -> Duration {
    while !look().await {
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// etcd's durable writes at each number of clients; nothing where there is no etcd.
async fn peer_writes() -> Vec<Option<Rate>> {
    let Some(etcd) = etcd::Etcd::cluster(1).await.and_then(|mut it| it.pop()) else {
        println!("no etcd on PATH (Debian: etcd-server); ratios to it are left out");
        return vec![None; CLIENTS.len()];
    };
    let access = Access::clear(&etcd.address);
    let mut rates = Vec::new();
    for clients in CLIENTS {
        rates.push(Some(measure(&access, clients, length(), etcd::put).await));
    }
    rates
}

fn config(client: usize, step: u64) -> Call {
    let name = format!("b{client}-{step}-{}", std::process::id());
    Call::post(
        CONFIGS,
        &json!({"metadata": {"name": name}, "data": {"x": "v".repeat(VALUE_BYTES)}}),
    )
}

async fn writes(access: &Access, peers: &[Option<Rate>], rows: &mut Vec<Row>) {
    // etcd 3.5 on such a machine, design section 12.
    let newer = [1397.0, 13637.0, 18842.0];
    for ((clients, peer), newer) in CLIENTS.into_iter().zip(peers).zip(newer) {
        // Names of one load must not meet those of the next.
        let rate = measure(access, clients, length(), move |client, step| {
            config(client, step + clients as u64 * 1_000_000)
        })
        .await;
        if let Some(peer) = peer {
            rows.push(Row::of(&format!("etcd 3.4 puts, {clients} clients"), peer.to_string(), ""));
        }
        let beside = match peer {
            Some(peer) => format!("{:.2} of etcd 3.4, ", rate.per_second / peer.per_second),
            None => String::new(),
        };
        let ratio =
            format!("{beside}{:.2} of etcd 3.5's {newer} (design)", rate.per_second / newer);
        rows.push(Row::of(
            &format!("ConfigMap creates, {clients} clients"),
            rate.to_string(),
            &ratio,
        ));
    }
}

async fn reads(access: &Access, rows: &mut Vec<Row>) {
    let mut connection = Connection::open(access).await.unwrap();
    connection
        .send(&Call::post(CONFIGS, &json!({"metadata": {"name": "one"}})))
        .await
        .unwrap()
        .object();
    for clients in [1, 64] {
        let rate =
            measure(access, clients, length(), |_, _| Call::get(&format!("{CONFIGS}/one"))).await;
        rows.push(Row::of(
            &format!("gets, {clients} clients"),
            rate.to_string(),
            "the real thing 2,399/s at 64",
        ));
    }
    let begun = Instant::now();
    let list = connection.send(&Call::get(CONFIGS)).await.unwrap();
    let took = begun.elapsed();
    let n_items = list.object()["items"].as_array().map_or(0, Vec::len);
    let text =
        format!("{} for {n_items} objects, {:.1} MB", seconds(took), list.body.len() as f64 / 1e6);
    rows.push(Row::of(
        "list of all ConfigMaps",
        text,
        "the real thing 1.04 s for 10,000 pods, 25 MB",
    ));
    let page = format!("{CONFIGS}?limit=500");
    let rate = measure(access, 1, length(), move |_, _| Call::get(&page)).await;
    rows.push(Row::of("lists of 500, 1 client", rate.to_string(), ""));
}

/// The store without a network, where its example was built beside the binary (`cargo build --release -p
/// kactor-replica --example writes`).
fn in_process(rows: &mut Vec<Row>) {
    let program = binary::kactor().with_file_name("examples").join("writes");
    if !program.is_file() {
        println!("no {}; the in-process figures are left out", program.display());
        return;
    }
    let folder = tempfile::Builder::new().prefix("kactor-bench-writes-").tempdir().unwrap();
    let output = std::process::Command::new(program).arg(folder.path()).output().unwrap();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((clients, measured)) = line.trim().split_once(':') else { continue };
        rows.push(Row::of(
            &format!("in process, no network: {clients}"),
            measured.trim().to_owned(),
            "",
        ));
    }
}
