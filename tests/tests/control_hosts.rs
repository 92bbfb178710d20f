//! Three control hosts on one machine, by the real binary: joined by the printed line, and none of them needed.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use kactor_tests::harness::cluster::Cluster;
use kactor_tests::harness::{Access, Call, Connection, Runtime, wait_until};
use serde_json::{Value, json};

fn status(host: &Cluster) -> Result<Value, String> {
    let answer = host.kactor(&["status", "-o", "json"]);
    serde_json::from_str(&answer.stdout).map_err(|_| answer.both())
}

/// The words of `kactor token create` behind `kactor up`.
fn token(host: &Cluster, flags: &[&str]) -> Vec<String> {
    let answer = host.kactor(&[&["token", "create", "-o", "json"], flags].concat());
    assert!(answer.is_ok(), "{}", answer.both());
    let token: Value = serde_json::from_str(&answer.stdout).unwrap();
    let line = token["line"].as_str().unwrap();
    line.strip_prefix("kactor up ").unwrap().split(' ').map(str::to_owned).collect()
}

fn join(name: &str, words: &[String]) -> Cluster {
    let mut host = Cluster::prepared(Runtime::None).named(name);
    host.spawn_with(&words.iter().map(String::as_str).collect::<Vec<_>>());
    host
}

/// Hosts by role, as a host sees them.
fn roles(host: &Cluster, role: &str) -> Result<Vec<String>, String> {
    let status = status(host)?;
    let hosts = status["hosts"].as_array().ok_or_else(|| status.to_string())?;
    let of_role = hosts.iter().filter(|it| it["role"] == role);
    Ok(of_role.map(|it| it["name"].as_str().unwrap().to_owned()).collect())
}

#[track_caller]
fn wait_for_voters(host: &Cluster, n: usize) {
    wait_until(&format!("{n} voters"), || match roles(host, "voter") {
        Ok(voters) if voters.len() == n => Ok(()),
        other => Err(format!("{other:?} {:?}", status(host))),
    });
}

fn three() -> [Cluster; 3] {
    let a = Cluster::start(Runtime::None);
    let words = token(&a, &[]);
    let mut b = join("host-b", &words);
    b.wait_ready();
    assert_eq!(
        roles(&a, "learner").unwrap(),
        ["host-b"],
        "the second learns until a third has caught up"
    );
    let mut c = join("host-c", &words);
    c.wait_ready();
    for host in [&a, &b, &c] {
        wait_for_voters(host, 3);
    }
    [a, b, c]
}

fn config_map(name: &str) -> Call {
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
    Call::post("/api/v1/namespaces/default/configmaps", &body)
}

/// Sends it until it is taken. A name that exists after an unknown outcome was written by the try before.
async fn write(host: &Cluster, name: &str) -> Result<(), String> {
    let told = |it: anyhow::Error| format!("{it:#}");
    let mut connection = Connection::open(&Access::admin(host)).await.map_err(told)?;
    let reply = connection.send(&config_map(name)).await.map_err(told)?;
    match reply.code {
        201 | 409 => Ok(()),
        _ => Err(reply.text()),
    }
}

async fn read(host: &Cluster, name: &str) -> Result<(), String> {
    let told = |it: anyhow::Error| format!("{it:#}");
    let mut connection = Connection::open(&Access::admin(host)).await.map_err(told)?;
    let path = format!("/api/v1/namespaces/default/configmaps/{name}");
    let reply = connection.send(&Call::get(&path)).await.map_err(told)?;
    if reply.code == 200 { Ok(()) } else { Err(reply.text()) }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn three_hosts_lose_their_leader_and_no_acknowledged_write() {
    let mut hosts = three();
    let mut written = Vec::new();
    for round in 0..2 {
        for (nth, host) in hosts.iter().enumerate() {
            let name = format!("before-{round}-{nth}");
            block_on(write(host, &name)).unwrap();
            written.push(name);
        }
        let leader = status(&hosts[0]).unwrap()["leader"].as_str().unwrap().to_owned();
        let at = hosts.iter().position(|it| it.node() == leader).unwrap();
        hosts[at].kill();
        let left: Vec<&Cluster> = hosts.iter().filter(|it| it.node() != leader).collect();
        for (nth, host) in left.iter().enumerate() {
            let name = format!("after-{round}-{nth}");
            wait_until("a write without the leader", || block_on(write(host, &name)));
            written.push(name);
        }
        let other = wait_until("another leads", || match status(left[0])?["leader"].as_str() {
            Some(it) if it != leader => Ok(it.to_owned()),
            other => Err(format!("{other:?}")),
        });
        assert_ne!(other, leader);
        for name in &written {
            for host in &left {
                wait_until("an acknowledged write is read", || block_on(read(host, name)));
            }
        }
        // Without a flag of how it joined.
        hosts[at].spawn();
        hosts[at].wait_ready();
        for name in &written {
            block_on(read(&hosts[at], name)).unwrap();
        }
        wait_until("it is well again", || match status(&hosts[at])? {
            it if it["wrong"].is_null() => Ok(()),
            other => Err(other["wrong"].to_string()),
        });
    }
}

#[test]
fn a_host_is_let_in_only_by_a_good_token_of_this_very_cluster() {
    let a = Cluster::start(Runtime::None);
    let refused = |name: &str, words: &[String]| {
        let host = Cluster::prepared(Runtime::None).named(name);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = kactor_tests::harness::process::run(host.up().args(words), "");
        assert!(!answer.is_ok(), "{}", answer.both());
        answer.stderr
    };
    let once = token(&a, &["--uses", "1"]);
    let mut b = join("host-b", &once);
    b.wait_ready();
    let used = refused("host-c", &once);
    assert!(used.contains("let in host-b") && used.contains("kactor token create"), "{used}");

    let good = token(&a, &[]);
    let taken = refused("host-b", &good);
    assert!(taken.contains("host-b belongs to a host with another key"), "{taken}");
    let id = good[3].split('.').next().unwrap().to_owned();
    assert!(a.kactor(&["token", "revoke", &id]).is_ok());
    let revoked = refused("host-c", &good);
    assert!(revoked.contains("revoked"), "{revoked}");

    let short = token(&a, &["--ttl", "1s"]);
    wait_until("the token expires", || {
        let list = a.kactor(&["token", "list"]).stdout;
        if list.contains("expired") { Ok(()) } else { Err(list) }
    });
    let expired = refused("host-c", &short);
    assert!(expired.contains("expired"), "{expired}");

    let other = Cluster::start(Runtime::None);
    let mut foreign = token(&other, &[]);
    foreign[1] = good[1].clone();
    let wrong = refused("host-c", &foreign);
    assert!(wrong.contains("another cluster than the token"), "{wrong}");
    let mut guess = token(&a, &[]);
    guess[3].replace_range(9..13, "0000");
    let unknown = refused("host-c", &guess);
    assert!(unknown.contains("not known to this cluster"), "{unknown}");
    assert_eq!(status(&a).unwrap()["hosts"].as_array().unwrap().len(), 2, "nobody else came in");
}

#[test]
fn hosts_leave_one_after_the_other_the_leader_too_and_the_last_one_stays() {
    let hosts = three();
    let leader = status(&hosts[0]).unwrap()["leader"].as_str().unwrap().to_owned();
    let (first, rest): (Vec<&Cluster>, Vec<&Cluster>) =
        hosts.iter().partition(|it| it.node() == leader);
    block_on(write(first[0], "kept")).unwrap();
    let asked = first[0].kactor(&["leave"]);
    assert!(!asked.is_ok() && asked.both().contains("--yes"), "{}", asked.both());
    let left = first[0].kactor(&["leave", "--yes"]);
    assert!(left.is_ok(), "{}", left.both());
    // Two would be an even count: one votes, the other learns.
    for host in &rest {
        wait_for_voters(host, 1);
        assert_eq!(status(host).unwrap()["hosts"].as_array().unwrap().len(), 2);
    }
    let again = kactor_tests::harness::process::run(&mut first[0].up(), "");
    assert!(!again.is_ok() && again.stderr.contains("left its cluster"), "{}", again.both());
    // The leader of two, so that it needs an heir.
    let leader = status(rest[0]).unwrap()["leader"].as_str().unwrap().to_owned();
    let (second, last): (Vec<&Cluster>, Vec<&Cluster>) =
        rest.iter().partition(|it| it.node() == leader);
    let left = second[0].kactor(&["leave", "--yes"]);
    assert!(left.is_ok(), "{}", left.both());
    wait_for_voters(last[0], 1);
    wait_until("the last host writes alone", || block_on(write(last[0], "alone")));
    block_on(read(last[0], "kept")).unwrap();
    let only = last[0].kactor(&["leave", "--yes"]);
    assert!(!only.is_ok() && only.stderr.contains("only control host"), "{}", only.both());
}

#[test]
fn a_snapshot_is_restored_on_one_host_of_three_which_goes_on_alone() {
    let mut hosts = three();
    block_on(write(&hosts[2], "kept")).unwrap();
    let file = hosts[2].folder().join("all.snapshot");
    let file = file.to_str().unwrap();
    let saved = hosts[2].kactor(&["snapshot", "save", file]);
    assert!(saved.is_ok(), "{}", saved.both());
    hosts.iter_mut().for_each(Cluster::kill);
    let stopped = hosts[2].kactor(&["snapshot", "save", file, "--force"]);
    assert!(!stopped.is_ok() && stopped.stderr.contains("may be old"), "{}", stopped.both());
    let restored = hosts[2].kactor(&["snapshot", "restore", file, "--force", "--yes"]);
    assert!(restored.is_ok(), "{}", restored.both());
    hosts[2].spawn();
    hosts[2].wait_ready();
    block_on(read(&hosts[2], "kept")).unwrap();
    block_on(write(&hosts[2], "after")).unwrap();
    wait_until("the control hosts from before are forgotten", || match roles(&hosts[2], "voter") {
        Ok(voters)
            if voters == ["host-c"]
                && status(&hosts[2])?["hosts"].as_array().map(Vec::len) == Some(1) =>
        {
            Ok(())
        }
        other => Err(format!("{other:?} {:?}", status(&hosts[2]))),
    });
}
