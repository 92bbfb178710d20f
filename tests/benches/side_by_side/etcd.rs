//! Debian's etcd with its data beside kactor's, one member or several, driven over its v3 JSON gateway.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kactor_tests::harness::port::Port;
use kactor_tests::harness::rest::{Access, Call, Connection};
use serde_json::json;
use tempfile::TempDir;

/// A running member; killed and removed when dropped.
pub struct Etcd {
    pub address: String,
    name: String,
    peer: String,
    /// All members, as `--initial-cluster` names them.
    cluster: String,
    child: Option<Child>,
    folder: TempDir,
    _ports: [Port; 2],
}

impl Etcd {
    /// So many members of one cluster; `None` where no etcd is installed.
    pub async fn cluster(n: usize) -> Option<Vec<Self>> {
        let mut members: Vec<Self> = (0..n).map(Self::prepared).collect();
        let named = members.iter().map(|it| format!("{}={}", it.name, it.peer));
        let cluster = named.collect::<Vec<_>>().join(",");
        for member in &mut members {
            member.cluster.clone_from(&cluster);
            member.spawn()?;
        }
        for member in &members {
            member.wait().await;
        }
        Some(members)
    }

    fn prepared(nth: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("kactor-bench-etcd-").tempdir().unwrap();
        let ports = [Port::free(), Port::free()];
        Self {
            address: format!("127.0.0.1:{}", ports[0].number),
            name: format!("m{nth}"),
            peer: format!("http://127.0.0.1:{}", ports[1].number),
            cluster: String::new(),
            child: None,
            folder,
            _ports: ports,
        }
    }

    /// Starts it on what its folder holds; `None` where no etcd is installed.
    pub fn spawn(&mut self) -> Option<()> {
        let client = format!("http://{}", self.address);
        let child = Command::new("etcd")
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.folder.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", &self.cluster])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.ok()?);
        Some(())
    }

    /// Until it takes a write.
    pub async fn wait(&self) {
        let begun = Instant::now();
        while !self.answers().await {
            assert!(begun.elapsed() < Duration::from_secs(60), "etcd does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn answers(&self) -> bool {
        let Ok(mut connection) = Connection::open(&Access::clear(&self.address)).await else {
            return false;
        };
        connection.send(&put(0, 0)).await.is_ok_and(|it| it.is_ok())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One put of a fresh key.
pub fn put(client: usize, step: u64) -> Call {
    let key = STANDARD.encode(format!("/bench/{client}/{step}"));
    let value = STANDARD.encode("v".repeat(crate::VALUE_BYTES));
    Call::post("/v3/kv/put", &json!({"key": key, "value": value}))
}
