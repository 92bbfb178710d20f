//! A full disk: writes stop before it is full, reads go on, everybody is told, and writes go on by themselves when there is
//! space again. Nothing that was acknowledged is lost, also over a SIGKILL while nothing can be written.
//!
//! The data directory is a small file system of its own, so that a full one harms nobody else.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use kactor_tests::harness::rest::{Call, Connection, Reply};
use kactor_tests::harness::{Access, Cluster, Runtime, process, skip, wait_until};
use serde_json::json;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const DISK_MIB: u64 = 300;
/// What a foreign file takes at first: with it the reserve is near.
const FOREIGN_MIB: u64 = 90;
const BODY_BYTES: usize = 700_000;
/// More than fit in any case.
const WRITES_MAX: usize = 400;

/// A kactor whose data directory is a disk of its own.
struct Small {
    cluster: Cluster,
}

impl Small {
    /// `None` when it can't be mounted here.
    fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip::skip("a disk of its own is mounted, which needs root");
            return None;
        }
        let cluster = Cluster::prepared(Runtime::None);
        let dir = cluster.data_dir();
        std::fs::create_dir(&dir).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_MIB}m"), "kactor-test"]).arg(&dir);
        let mounted = process::run(&mut mount, "");
        if !mounted.is_ok() {
            skip::skip(&format!("a disk of its own can't be mounted: {}", mounted.stderr.trim()));
            return None;
        }
        let mut small = Self { cluster };
        small.cluster.restart();
        Some(small)
    }

    fn foreign(&self) -> PathBuf {
        self.cluster.data_dir().join("not-of-kactor")
    }

    /// Writes a foreign file until it has `mib` or nothing fits any more.
    fn fill(&self, mib: u64) {
        let mut file = File::options().create(true).append(true).open(self.foreign()).unwrap();
        let block = vec![7_u8; 1 << 20];
        for _ in 0..mib {
            if file.write_all(&block).is_err() {
                return;
            }
        }
    }

    fn free_bytes(&self) -> u64 {
        let seen = nix::sys::statvfs::statvfs(&self.cluster.data_dir()).unwrap();
        seen.blocks_available() as u64 * seen.fragment_size() as u64
    }

    fn verdict(&self) -> String {
        self.cluster.kactor(&["status"]).stdout
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Detached now, gone when the kactor in it is killed.
        let mut unmount = Command::new("umount");
        process::run(unmount.arg("-l").arg(self.cluster.data_dir()), "");
    }
}

fn name(nth: usize) -> String {
    format!("c{nth}")
}

async fn create(connection: &mut Connection, nth: usize) -> Reply {
    let value = format!("{nth}-{}", "x".repeat(BODY_BYTES));
    let body = json!({"metadata": {"name": name(nth)}, "data": {"value": value}});
    connection.send(&Call::post(CONFIGS, &body)).await.unwrap()
}

/// Every acknowledged one is there, whole.
async fn check(connection: &mut Connection, acknowledged: &[usize]) {
    for nth in acknowledged {
        let path = format!("{CONFIGS}/{}", name(*nth));
        let found = connection.send(&Call::get(&path)).await.unwrap();
        assert!(found.is_ok(), "c{nth} is lost: {}", found.text());
        let object = found.json();
        let value = object["data"]["value"].as_str().unwrap();
        assert!(value.starts_with(&format!("{nth}-")) && value.len() > BODY_BYTES);
    }
}

/// Creates until one is refused; answers the refusal.
async fn create_until_refused(connection: &mut Connection, told: &mut Vec<usize>) -> Reply {
    loop {
        let nth = told.last().map_or(0, |it| it + 1);
        assert!(nth < WRITES_MAX, "the disk took {nth} writes and never said that it is full");
        let reply = create(connection, nth).await;
        if !reply.is_ok() {
            return reply;
        }
        told.push(nth);
    }
}

#[tokio::test]
async fn a_full_disk_stops_writes_before_it_is_full_and_loses_nothing() {
    let Some(mut small) = Small::start() else { return };
    let access = Access::admin(&small.cluster);
    let mut connection = Connection::open(&access).await.unwrap();
    small.fill(FOREIGN_MIB);
    let mut told = Vec::new();
    let refusal = create_until_refused(&mut connection, &mut told).await;
    assert!(!told.is_empty(), "the disk was full from the start");
    let (reason, message) = refusal.refusal();
    assert_eq!(reason, "ServiceUnavailable", "{message}");
    assert!(message.contains("disk is almost full"), "{message}");
    assert!(small.free_bytes() > 32 << 20, "writes stopped too late: {}", small.free_bytes());
    assert!(small.verdict().contains("almost full"), "{}", small.verdict());
    check(&mut connection, &told).await;
    // What makes room is taken: otherwise nobody could make any by way of the API.
    let gone = told.remove(0);
    let deleted = connection.send(&Call::delete(&format!("{CONFIGS}/{}", name(gone)))).await;
    assert!(deleted.as_ref().unwrap().is_ok(), "{}", deleted.unwrap().text());

    // Somebody else takes all that is left; then the power fails.
    small.fill(DISK_MIB);
    check(&mut connection, &told).await;
    small.cluster.kill();
    small.cluster.spawn();
    let ended = wait_until("it serves reads, or says why it can't", || {
        if small.cluster.errors().lines().any(|it| it.starts_with("kactor: ")) {
            return Ok(true);
        }
        let status = small.cluster.kactor(&["status"]);
        if status.stdout.contains("almost full") { Ok(false) } else { Err(status.both()) }
    });
    if ended {
        let said = small.cluster.errors();
        assert!(!small.cluster.wait_end().success());
        assert!(said.contains("No space left"), "{said}");
    } else {
        let mut connection = Connection::open(&access).await.unwrap();
        check(&mut connection, &told).await;
        let refused = create(&mut connection, WRITES_MAX).await;
        assert_eq!(refused.refusal().0, "ServiceUnavailable");
    }

    // There is space again: without a restart, when it had started.
    std::fs::remove_file(small.foreign()).unwrap();
    if ended {
        small.cluster.restart();
    }
    let mut connection = Connection::open(&access).await.unwrap();
    let mut nth = WRITES_MAX + 1;
    loop {
        let reply = create(&mut connection, nth).await;
        if reply.is_ok() {
            break;
        }
        assert_eq!(reply.refusal().0, "ServiceUnavailable", "{}", reply.text());
        assert!(nth < WRITES_MAX + 10_000, "writes do not go on: {}", small.verdict());
        nth += 1;
    }
    told.push(nth);
    check(&mut connection, &told).await;
    let gone = connection.send(&Call::get(&format!("{CONFIGS}/{}", name(gone)))).await.unwrap();
    assert!(!gone.is_ok(), "what was deleted came back");
}
