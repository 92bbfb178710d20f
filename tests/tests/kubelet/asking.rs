//! Asking a kubelet, as whom one likes.

use kactor_tests::harness::cluster::NODE;
use kactor_tests::harness::exposition::Page;
use kactor_tests::harness::rest::Reply;
use kactor_tests::harness::{Access, Call, Cluster, Connection, wait_until};
use serde_json::Value;

/// Where the node says that its kubelet listens.
pub fn port_of(cluster: &Cluster) -> u16 {
    let access = Access::admin(cluster);
    wait_until("the node names its kubelet's port", || {
        let node = ask(&access, &format!("/api/v1/nodes/{NODE}"));
        let port = node.json()["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        port.and_then(|it| u16::try_from(it).ok()).ok_or_else(|| node.text())
    })
}

fn ask(access: &Access, path: &str) -> Reply {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(access).await.unwrap();
        connection.send(&Call::get(path)).await.unwrap()
    })
}

pub struct Kubelet {
    pub address: String,
}

impl Kubelet {
    pub fn of(cluster: &Cluster) -> Self {
        Self::at(port_of(cluster))
    }

    pub fn at(port: u16) -> Self {
        Self { address: format!("127.0.0.1:{port}") }
    }

    /// The certificate is checked for the node's name.
    pub fn ask(&self, access: Access, path: &str) -> Reply {
        ask(&access.at(&self.address, NODE), path)
    }

    pub fn text(&self, cluster: &Cluster, path: &str) -> String {
        let reply = self.ask(Access::admin(cluster), path);
        assert_eq!(reply.code, 200, "{path}: {}", reply.text());
        reply.text()
    }

    pub fn json(&self, cluster: &Cluster, path: &str) -> Value {
        serde_json::from_str(&self.text(cluster, path)).unwrap()
    }

    pub fn page(&self, cluster: &Cluster, path: &str) -> Page {
        read(&self.text(cluster, path))
    }
}

/// A page that strict scrapers take.
#[track_caller]
pub fn read(text: &str) -> Page {
    Page::parse(text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}
