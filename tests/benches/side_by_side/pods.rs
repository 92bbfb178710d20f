//! How long a pod takes from its create's answer to Running: hollow ones, and real containers where they can run.

use std::time::{Duration, Instant};

use kactor_tests::harness::rest::{Access, Call, Connection};
use kactor_tests::harness::{Cluster, Runtime, busybox};
use serde_json::{Value, json};

use crate::load;
use crate::table::Row;
use crate::{answers, length, soon};

const PODS: &str = "/api/v1/namespaces/default/pods";
const GOAL: &str = "under 300 ms, p99 under 1 s; kubelet 643 ms";

pub async fn measure(rows: &mut Vec<Row>) {
    let hollow = Cluster::start(Runtime::Hollow);
    in_a_row("hollow", &hollow, "demo:1", 50, rows).await;
    creates(&hollow, rows).await;
    drop(hollow);
    if !nix::unistd::geteuid().is_root() || !busybox::is_available() {
        println!("containers need root and the package busybox-static; they are left out");
        return;
    }
    let cluster = Cluster::start(Runtime::Embedded);
    let tarball = busybox::tarball(cluster.folder());
    let imported = cluster.kactor(&["image", "import", tarball.to_str().unwrap()]);
    assert!(imported.is_ok(), "{}", imported.both());
    in_a_row("containers", &cluster, "busybox:latest", 30, rows).await;
}

fn pod(name: &str, image: &str) -> Value {
    let container = json!({
        "name": "app",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "100000"],
    });
    json!({
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    })
}

/// One after the other; the first, which unpacks the image, is told apart.
async fn in_a_row(what: &str, cluster: &Cluster, image: &str, n: usize, rows: &mut Vec<Row>) {
    let mut connection = Connection::open(&Access::admin(cluster)).await.unwrap();
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    soon(Instant::now(), || answers(cluster, account, |_| true)).await;
    let node = format!("/api/v1/nodes/{}", kactor_tests::harness::cluster::NODE);
    soon(Instant::now(), || answers(cluster, &node, crate::is_ready)).await;
    let mut took = Vec::new();
    for index in 0..n {
        let name = format!("p{index}");
        let begun = Instant::now();
        connection.send(&Call::post(PODS, &pod(&name, image))).await.unwrap().object();
        loop {
            let it = connection.send(&Call::get(&format!("{PODS}/{name}"))).await.unwrap().object();
            if it["status"]["phase"] == "Running" {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{it}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        took.push(begun.elapsed());
    }
    let first = took.remove(0);
    took.sort();
    let ms = |it: Duration| it.as_secs_f64() * 1e3;
    let (median, slowest) = (ms(took[took.len() / 2]), ms(took[took.len() - 1]));
    let text = format!("median {median:.0} ms, slowest {slowest:.0} ms, first {:.0} ms", ms(first));
    rows.push(Row::of(&format!("pod create to Running, {what}, {n} in a row"), text, GOAL));
}

/// Creates alone, of pods that no node takes.
async fn creates(cluster: &Cluster, rows: &mut Vec<Row>) {
    let access = Access::admin(cluster);
    for (clients, real) in [(1, 203), (64, 560), (512, 740)] {
        let rate = load::measure(&access, clients, length(), move |client, step| {
            let mut pod = pod(&format!("c{clients}-{client}-{step}"), "demo:1");
            pod["spec"]["schedulerName"] = json!("nobody");
            Call::post(PODS, &pod)
        });
        let rate = rate.await;
        let beside =
            format!("the real thing {real}/s; {:.1} of it", rate.per_second / f64::from(real));
        rows.push(Row::of(&format!("Pod creates, {clients} clients"), rate.to_string(), &beside));
    }
}
