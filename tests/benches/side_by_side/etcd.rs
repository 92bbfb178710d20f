//! Debian's etcd with its data beside kactor's, driven over its v3 JSON gateway.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kactor_tests::harness::port::Port;
use kactor_tests::harness::rest::{Access, Call, Connection};
use serde_json::json;
use tempfile::TempDir;

/// A running etcd of one member; killed and removed when dropped.
pub struct Etcd {
    pub address: String,
    child: Child,
    _folder: TempDir,
    _ports: [Port; 2],
}

impl Etcd {
    /// `None` where no etcd is installed.
    pub async fn start() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("kactor-bench-etcd-").tempdir().unwrap();
        let ports = [Port::free(), Port::free()];
        let address = format!("127.0.0.1:{}", ports[0].number);
        let (client, peer) =
            (format!("http://{address}"), format!("http://127.0.0.1:{}", ports[1].number));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let etcd = Self { address, child, _folder: folder, _ports: ports };
        let begun = Instant::now();
        while !etcd.answers().await {
            assert!(begun.elapsed() < Duration::from_secs(60), "etcd does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(etcd)
    }

    async fn answers(&self) -> bool {
        let Ok(mut connection) = Connection::open(&Access::clear(&self.address)).await else {
            return false;
        };
        connection.send(&put(0, 0)).await.is_ok_and(|it| it.is_ok())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One put of a fresh key.
pub fn put(client: usize, step: u64) -> Call {
    let key = STANDARD.encode(format!("/bench/{client}/{step}"));
    let value = STANDARD.encode("v".repeat(crate::VALUE_BYTES));
    Call::post("/v3/kv/put", &json!({"key": key, "value": value}))
}
