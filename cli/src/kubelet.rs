//! The kubelet's API on this machine: which port it gets, its certificate, and the listener that serves it.
//!
//! Port 10250 where it is free, because monitoring expects it; else a port that the system gives, remembered in the
//! data directory so that the next start has the same. The listener is the gateway's: `node/kubelet` is a service
//! without a socket, so TLS stays inside its fence.

use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use kactor_agent::agent_actor::{AgentActor, ListPods};
use kactor_agent::perform::Host;
use kactor_agent::ports::PodDialer;
use kactor_gateway::tls::{ClientCertificates, Peer, ServingCertificate, server_showing};
use kactor_gateway::{Connection, Listener, Pki, ReplyBody, Serve};
use kactor_kubelet::machine::ProcFiles;
use kactor_kubelet::{Certificate, Client, Content, Kubelet, KubeletParts};
use kactor_runtime::ActorSystem;
use kactor_runtime::env::Env;

use crate::compose::{LocalDoor, Plan};
use crate::data_dir::DataDir;

/// Where a kubelet is looked for.
pub const KUBELET_PORT: u16 = 10250;
/// Scrapers, agents and people at once; the API's clients have the greater share of the files.
const KUBELET_CONNECTIONS_MAX: usize = 256;
/// How long the agent may take to name its pods.
const LIST_MAX: Duration = Duration::from_secs(10);

/// Takes the port, before anything is made: a port that was asked for and is in use ends the start.
pub fn bind(
    dir: &DataDir,
    asked: Option<SocketAddr>,
    api: SocketAddr,
) -> anyhow::Result<TcpListener> {
    if let Some(address) = asked {
        return TcpListener::bind(address).with_context(|| {
            format!(
                "cannot listen on {address} for the kubelet's API; choose another with --kubelet-listen IP:PORT"
            )
        });
    }
    let remembered = remembered(dir);
    let wanted = remembered.into_iter().chain([KUBELET_PORT, 0]);
    let mut failed = None;
    for port in wanted {
        match TcpListener::bind((api.ip(), port)) {
            Ok(socket) => {
                let got = socket.local_addr()?.port();
                if got != KUBELET_PORT && remembered != Some(got) {
                    remember(dir, got)?;
                }
                return Ok(socket);
            }
            Err(error) => failed = Some(error),
        }
    }
    let error = failed.expect("at least two ports were tried");
    Err(error).with_context(|| {
        format!(
            "cannot listen on {} for the kubelet's API; choose an address with --kubelet-listen IP:PORT",
            api.ip()
        )
    })
}

/// The port of the last start, where it was not the usual one.
pub fn remembered(dir: &DataDir) -> Option<u16> {
    std::fs::read_to_string(dir.kubelet_port()).ok()?.trim().parse().ok().filter(|it| *it != 0)
}

fn remember(dir: &DataDir, port: u16) -> anyhow::Result<()> {
    let path = dir.kubelet_port();
    std::fs::create_dir_all(dir.root())
        .and_then(|()| std::fs::write(&path, format!("{port}\n")))
        .with_context(|| format!("remembering the kubelet's port in {}", path.display()))
}

/// Makes the kubelet of a node's host.
pub fn make(
    (system, agent): (&ActorSystem, &str),
    plan: &Plan,
    host: &Host,
    dialer: &Arc<dyn PodDialer>,
    listen: SocketAddr,
) -> Kubelet {
    let (system, agent) = (system.clone(), agent.to_owned());
    let pods = move || {
        let (system, agent) = (system.clone(), agent.clone());
        async move {
            let agent = system.find::<AgentActor>(&agent).ok_or("the node's agent is starting")?;
            let asked = agent.asks::<ListPods>().ask(ListPods, system.deadline(LIST_MAX)).await;
            asked.map_err(|it| format!("the node's agent does not answer: {it}"))
        }
        .boxed()
    };
    Kubelet::new(KubeletParts {
        host: host.clone(),
        dialer: dialer.clone(),
        machine: Arc::new(ProcFiles::new(plan.dir.root())),
        pods: Arc::new(pods),
        listen,
        version: kactor_gateway::version::GIT_VERSION.to_owned(),
    })
}

/// Where the kubelet's API is; it is served once the node has begun.
#[derive(Clone)]
pub struct Served {
    address: SocketAddr,
    listener: Arc<OnceLock<Listener>>,
}

impl Served {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As `Listener::drain`; at once when nothing was served yet.
    pub async fn drain(&self, grace: Duration) {
        if let Some(listener) = self.listener.get() {
            listener.drain(grace).await;
        }
    }
}

/// A port that is taken, with a certificate for the node's name and addresses. Clients wait in the kernel's queue.
pub struct Seat {
    pub served: Served,
    socket: TcpListener,
    tls: (Arc<rustls::ServerConfig>, ClientCertificates),
}

impl Seat {
    pub fn new(
        env: &Env,
        pki: &Arc<Pki>,
        plan: &Plan,
        addresses: &[IpAddr],
        socket: TcpListener,
    ) -> anyhow::Result<Self> {
        let address = socket.local_addr().context("the kubelet's address")?;
        let mut names = addresses.to_vec();
        names.extend([IpAddr::from([127, 0, 0, 1]), plan.listen.ip(), address.ip()]);
        names.retain(|it| !it.is_unspecified());
        names.sort();
        names.dedup();
        let (on, authority, node) = (env.clone(), pki.clone(), plan.node_name.clone());
        let issue = Arc::new(move || authority.issue_node_serving(&on, &node, &names));
        let tls = kactor_gateway::rotation::server(env, pki.ca_pem(), issue)
            .context("TLS of the kubelet's API")?;
        Ok(Self { served: Served { address, listener: Arc::default() }, socket, tls })
    }

    /// Of a worker, whose certificate is the host's own; whoever renews that sets it.
    pub fn showing(
        serving: &Arc<ServingCertificate>,
        ca_pem: &str,
        socket: TcpListener,
    ) -> anyhow::Result<Self> {
        let address = socket.local_addr().context("the kubelet's address")?;
        let tls = server_showing(serving, ca_pem).context("TLS of the kubelet's API")?;
        Ok(Self { served: Served { address, listener: Arc::default() }, socket, tls })
    }

    /// From now on requests are answered.
    pub fn serve(self, env: &Env, kubelet: Kubelet) -> anyhow::Result<()> {
        self.answer(env, OnNetwork { kubelet, door: None })
    }

    /// As `serve`, and a worker's own commands too.
    pub fn serve_with(
        self,
        env: &Env,
        kubelet: Kubelet,
        door: Arc<LocalDoor>,
    ) -> anyhow::Result<()> {
        self.answer(env, OnNetwork { kubelet, door: Some(door) })
    }

    fn answer(self, env: &Env, serve: OnNetwork) -> anyhow::Result<()> {
        let serve = Arc::new(serve);
        let served = Listener::serve_on(env, self.socket, self.tls, serve, KUBELET_CONNECTIONS_MAX);
        // A seat is served once: the listener was not set before.
        let _ = self.served.listener.set(served.context("serving the kubelet's API")?);
        Ok(())
    }
}

/// The kubelet behind the gateway's listener.
struct OnNetwork {
    kubelet: Kubelet,
    /// On a worker.
    door: Option<Arc<LocalDoor>>,
}

impl Serve for OnNetwork {
    fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>> {
        Box::pin(async move {
            if let Some(door) = &self.door
                && door.is_for(request.uri().path(), &connection.peer)
            {
                return door.answer(request).await;
            }
            let client = Client::Network(certificate(&connection.peer));
            let reply = self.kubelet.answer(request, &client).await;
            reply.map(|content| match content {
                Content::Bytes(bytes) => ReplyBody::of([bytes]),
                Content::Stream(stream) => ReplyBody::stream(stream),
            })
        })
    }
}

fn certificate(peer: &Peer) -> Certificate {
    match peer {
        Peer::Unidentified => Certificate::None,
        Peer::Verified { subject, .. } => {
            Certificate::Verified { user: subject.user.clone(), groups: subject.groups.clone() }
        }
        Peer::Refused(why) => Certificate::Refused(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_remembered_and_had_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::find(Some(temp.path())).unwrap();
        // An address of this machine's that no other test uses.
        let api = "127.63.21.7:6443".parse().unwrap();
        let usual = bind(&dir, None, api).unwrap();
        assert_eq!(usual.local_addr().unwrap().port(), KUBELET_PORT);
        assert!(!dir.kubelet_port().exists(), "the usual port needs no remembering");

        let second = bind(&dir, None, api).unwrap();
        let port = second.local_addr().unwrap().port();
        assert_ne!(port, KUBELET_PORT);
        drop((usual, second));
        let again = bind(&dir, None, api).unwrap();
        assert_eq!(again.local_addr().unwrap().port(), port, "the same at the next start");
    }

    #[test]
    fn a_port_that_was_asked_for_and_is_in_use_is_named_with_the_way_out() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::find(Some(temp.path())).unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(&dir, Some(address), address).unwrap_err().to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--kubelet-listen"),
            "{error}"
        );
    }
}
