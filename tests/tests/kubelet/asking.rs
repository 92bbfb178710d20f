//! Asking a kubelet, as whom one likes.

use kactor_tests::harness::cluster::NODE;
use kactor_tests::harness::exposition::Page;
use kactor_tests::harness::rest::Reply;
use kactor_tests::harness::{Access, Call, Cluster, Connection, Kubectl, wait_until};
use serde_json::Value;

/// Where the node says that its kubelet listens.
pub fn port(kubectl: &Kubectl) -> String {
    let path = "{.status.daemonEndpoints.kubeletEndpoint.Port}";
    wait_until("the node names its kubelet's port", || {
        let answer = kubectl.run(&["get", "node", NODE, "-o", &format!("jsonpath={path}")]);
        match answer.is_ok() && answer.stdout != "0" && !answer.stdout.is_empty() {
            true => Ok(answer.stdout.trim().to_owned()),
            false => Err(answer.both()),
        }
    })
}

pub struct Kubelet {
    pub address: String,
    runtime: tokio::runtime::Runtime,
}

impl Kubelet {
    pub fn of(kubectl: &Kubectl) -> Self {
        let address = format!("127.0.0.1:{}", port(kubectl));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { address, runtime }
    }

    /// The certificate is checked for the node's name.
    pub fn ask(&self, access: Access, path: &str) -> Reply {
        let access = access.at(&self.address, NODE);
        self.runtime.block_on(async {
            let mut connection = Connection::open(&access).await.unwrap();
            connection.send(&Call::get(path)).await.unwrap()
        })
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
