//! Boots an API on a store in memory behind a gateway on a free port; the one place that knows how.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kactor_api::{Api, ApiConfig, Discard, EncryptionKey, Endpoint, Reason, Status};
use kactor_gateway::{
    ClusterDoor, ClusterOrder, Gateway, GatewayConfig, InsightSource, Limits, Listener, Pki,
    ServingNames, Subject, kubeconfig, tls,
};
use kactor_protocol::insight::{Insight, InsightReply};
use kactor_protocol::time::Deadline;
use kactor_runtime::env::Machine;
use kactor_store::Store;
use kactor_streams::BoxFuture;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::node::PretendNode;

pub struct World {
    pub address: SocketAddr,
    pub pki: Pki,
    pub serving: Arc<tls::ServingCertificate>,
    pub names: ServingNames,
    pub gateway: Arc<Gateway>,
    pub listener: Arc<Listener>,
    pub machine: Machine,
    pub dir: TempDir,
}

struct NoInsight;

impl InsightSource for NoInsight {
    fn ask(&self, question: Insight) -> BoxFuture<'_, InsightReply> {
        Box::pin(async move { InsightReply::NotFound { what: format!("{question:?}") } })
    }

    fn status(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { json!({"ready": true}) })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<kactor_gateway::ByteStream, String>> {
        let chunks = ["whole ", "cluster"].map(|it| bytes::Bytes::from_static(it.as_bytes()));
        Box::pin(async {
            Ok(Box::pin(futures::stream::iter(chunks)) as kactor_gateway::ByteStream)
        })
    }

    fn images(
        &self,
        _: kactor_gateway::ImageOrder,
    ) -> kactor_streams::BoxFuture<'_, Result<Value, String>> {
        Box::pin(std::future::ready(Err("no node runs here".to_owned())))
    }
}

/// Lets in whoever brings the word, and does what it is told.
struct OpenDoor;

impl ClusterDoor for OpenDoor {
    fn authority(&self) -> String {
        "CERTIFICATE".to_owned()
    }

    fn join(&self, body: bytes::Bytes, _: Deadline) -> BoxFuture<'_, Result<Value, Status>> {
        Box::pin(async move {
            match &*body {
                b"the word" => Ok(json!({"welcome": true})),
                _ => Err(Status::new(Reason::Forbidden, "the token is not known")),
            }
        })
    }

    fn order(&self, order: ClusterOrder, _: Deadline) -> BoxFuture<'_, Result<Value, Status>> {
        Box::pin(async move { Ok(json!({"done": order})) })
    }
}

impl World {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let machine = Machine::with_gateway_lanes(2);
        let env = machine.env().clone();
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pki");
        let pki = machine.block_on(Pki::open(&env, &folder)).unwrap().unwrap();
        let local = IpAddr::from([127, 0, 0, 1]);
        let config = ApiConfig {
            service_range: "10.96.0.0/24".parse().unwrap(),
            node_ports: 30000..=32767,
            encryption_keys: vec![EncryptionKey::generate(&env, 1)],
            token_keys: vec![pki.token_key_pkcs8()],
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            audiences: vec!["https://kubernetes.default.svc.cluster.local".to_owned()],
            endpoint: Endpoint { address: [192, 0, 2, 1].into(), port: 6443 },
            notes: Arc::new(Discard),
            audit: Arc::new(Discard),
        };
        let api = Api::new(Store::in_memory(env.clone()), env.clone(), config).unwrap();
        let deadline = Deadline::after(env.monotonic(), Duration::from_secs(20));
        machine.block_on(api.bootstrap(deadline)).unwrap().unwrap();
        let gateway = Gateway::new(GatewayConfig {
            api,
            env: env.clone(),
            nodes: Arc::new(PretendNode { env: env.clone() }),
            insight: Arc::new(NoInsight),
            door: Arc::new(OpenDoor),
            checks: Vec::new(),
            limits,
            advertised: "127.0.0.1:6443".to_owned(),
        });
        let names = ServingNames {
            host: "test".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            addresses: vec![local],
        };
        let serving = pki.issue_serving(&env, &names).unwrap();
        let serving = Arc::new(tls::ServingCertificate::new(&serving).unwrap());
        let tls = tls::server_showing(&serving, pki.ca_pem()).unwrap();
        let listener =
            Listener::start(&env, SocketAddr::from((local, 0)), tls, gateway.clone(), 64).unwrap();
        let listener = Arc::new(listener);
        gateway.watch_listener(&listener);
        Self { address: listener.address(), pki, serving, names, gateway, listener, machine, dir }
    }

    /// A kubeconfig file of this subject.
    pub fn kubeconfig(&self, subject: &Subject) -> PathBuf {
        let client = self.pki.issue_client(self.machine.env(), subject).unwrap();
        let server = format!("https://{}", self.address);
        let document = kubeconfig::document("test", &server, self.pki.ca_pem(), &client);
        let path = self.dir.path().join(format!("{}.kubeconfig", subject.user));
        std::fs::write(&path, kubeconfig::yaml(&document)).unwrap();
        path
    }
}
