//! The way of one request to the kubelet's API: who asks, may they, what does the path name, answer, count.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kactor_agent::perform::Host;
use kactor_agent::ports::{Duplex, KubeletDoor, PodDialer};
use kactor_runtime::env::Lane;
use kactor_streams::query::Query;
use kactor_streams::{ContainerTarget, NodeStreams, PodTarget, StreamError};

use crate::access::{Access, Client, Denied};
use crate::local_streams::LocalStreams;
use crate::machine::Machine;
use crate::metrics::{self, ProbeRow};
use crate::reply::{self, Reply};
use crate::requests::Requests;
use crate::route::{Endpoint, Place, right, route};
use crate::sample::Sampler;
use crate::upgrade::Purpose;
use crate::{configz, logs, pods, summary};

/// What one connection of the control plane holds on its way, in bytes and each direction.
const DOOR_BYTES: usize = 64 * 1024;

/// The pods that this node was given, each as JSON; `Err` when the agent does not say in time.
pub type ListPods = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<Bytes>, String>> + Send + Sync>;

/// What a kubelet's API is made of.
pub struct KubeletParts {
    pub host: Host,
    pub dialer: Arc<dyn PodDialer>,
    pub machine: Arc<dyn Machine>,
    pub pods: ListPods,
    pub listen: SocketAddr,
    /// As the Node shows it.
    pub version: String,
}

/// The kubelet's API. Cheap to share.
#[derive(Clone)]
pub struct Kubelet {
    shared: Arc<Shared>,
}

struct Shared {
    host: Host,
    pods: ListPods,
    listen: SocketAddr,
    version: String,
    machine: Arc<dyn Machine>,
    access: Access,
    sampler: Sampler,
    streams: Arc<dyn NodeStreams>,
    requests: Requests,
}

/// Why a permitted request is not answered as asked; the text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotFound(String),
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    fn code(&self) -> StatusCode {
        match self {
            Refusal::BadRequest(_) => StatusCode::BAD_REQUEST,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<StreamError> for Refusal {
    fn from(error: StreamError) -> Self {
        let why = error.to_string();
        match error {
            StreamError::NotFound { .. } => Refusal::NotFound(why),
            StreamError::BadRequest(_) => Refusal::BadRequest(why),
            StreamError::NodeUnreachable { .. } | StreamError::Failed(_) => Refusal::Failed(why),
        }
    }
}

impl Place {
    pub(crate) fn pod_target(&self) -> PodTarget {
        PodTarget {
            node: String::new(), // This one.
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            uid: self.uid.clone(),
        }
    }

    pub(crate) fn container_target(&self) -> ContainerTarget {
        ContainerTarget { pod: self.pod_target(), container: self.container.clone() }
    }
}

impl Kubelet {
    pub fn new(parts: KubeletParts) -> Self {
        let KubeletParts { host, dialer, machine, pods, listen, version } = parts;
        let node = host.config.node_name.clone();
        let shared = Shared {
            access: Access::new(host.env.clone(), node, host.control.clone()),
            sampler: Sampler::new(host.clone(), machine.clone()),
            streams: Arc::new(LocalStreams { host: host.clone(), dialer }),
            requests: Requests::default(),
            host,
            pods,
            listen,
            version,
            machine,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Answers one request. It never fails: what goes wrong is an answer too.
    pub async fn answer(&self, request: Request<Incoming>, client: &Client) -> Reply {
        let endpoint = route(request.uri().path());
        let method = request.method().clone();
        let work = self.admit(request, client, endpoint.clone());
        let reply = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(reply) => reply,
            Err(_) => {
                tracing::error!(?endpoint, "answering a request to the kubelet's API panicked");
                let why = "the request made the kubelet's API panic; its log names the path";
                reply::text(StatusCode::INTERNAL_SERVER_ERROR, why)
            }
        };
        self.shared.requests.answered(method.as_str(), &endpoint, reply.status().as_u16());
        reply
    }

    async fn admit(
        &self,
        request: Request<Incoming>,
        client: &Client,
        endpoint: Endpoint,
    ) -> Reply {
        let right = right(request.method(), request.uri().path());
        if let Err(denied) = self.shared.access.admit(client, request.headers(), &right).await {
            tracing::debug!(?endpoint, ?denied, "a request to the kubelet's API was refused");
            let code = match &denied {
                Denied::Unauthorized(_) => StatusCode::UNAUTHORIZED,
                Denied::Forbidden { .. } => StatusCode::FORBIDDEN,
                Denied::Unasked(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            return reply::text(code, denied.to_string());
        }
        match self.serve(request, endpoint).await {
            Ok(reply) => reply,
            Err(refusal) => reply::text(refusal.code(), refusal.to_string()),
        }
    }

    async fn serve(
        &self,
        request: Request<Incoming>,
        endpoint: Endpoint,
    ) -> Result<Reply, Refusal> {
        let purpose = match endpoint {
            Endpoint::Exec(place) => Purpose::Exec(place),
            Endpoint::Attach(place) => Purpose::Attach(place),
            Endpoint::PortForward(place) => Purpose::PortForward(place),
            other => return self.read(&request, &other).await,
        };
        let it = &*self.shared;
        crate::upgrade::serve(&it.host.env, &it.streams, request, purpose).await
    }

    async fn read(
        &self,
        request: &Request<Incoming>,
        endpoint: &Endpoint,
    ) -> Result<Reply, Refusal> {
        let not_found = || Refusal::NotFound("404 page not found".to_owned());
        if *endpoint == Endpoint::Unknown {
            return Err(not_found());
        }
        if !matches!(request.method().as_str(), "GET" | "HEAD") {
            return Err(Refusal::MethodNotAllowed);
        }
        let it = &*self.shared;
        Ok(match endpoint {
            Endpoint::Healthz => reply::text(StatusCode::OK, "ok"),
            Endpoint::Pods => {
                reply::json_bytes(pods::list(&(it.pods)().await.map_err(Refusal::Failed)?))
            }
            Endpoint::RunningPods => reply::json(&pods::running(&self.sandboxes().await?)),
            Endpoint::Metrics => {
                let (node, own) = (&it.host.config.node_name, it.machine.own());
                let sandboxes = self.sandboxes().await?;
                reply::metrics(it.requests.page(node, &it.version, &own, &sandboxes))
            }
            Endpoint::Cadvisor => reply::metrics(metrics::cadvisor(&*it.sampler.sample().await)),
            Endpoint::Resource => reply::metrics(metrics::resource(&*it.sampler.sample().await)),
            Endpoint::Probes => reply::metrics(metrics::probes(&self.probe_rows().await?)),
            Endpoint::Summary => {
                let sample = it.sampler.sample().await;
                reply::json(&summary::summary(&it.host.config.node_name, &sample))
            }
            Endpoint::Configz => {
                let dns = it.host.plumbing.cluster_dns().map(|it| it.to_string());
                let domain = &it.host.config.domain;
                reply::json(&configz::configz(it.listen, domain, dns.as_deref()))
            }
            Endpoint::Logs(place) => {
                let query = Query::parse(request.uri().query().unwrap_or_default());
                let now = it.host.env.wall();
                logs::serve(it.streams.as_ref(), place.clone(), &query, now).await?
            }
            Endpoint::Exec(_)
            | Endpoint::Attach(_)
            | Endpoint::PortForward(_)
            | Endpoint::Unknown => return Err(not_found()),
        })
    }

    async fn sandboxes(&self) -> Result<Vec<kactor_drivers::SandboxStatus>, Refusal> {
        let listed = self.shared.host.driver.list().await;
        listed.map_err(|it| Refusal::Failed(format!("listing pods: {it}")))
    }

    async fn probe_rows(&self) -> Result<Vec<ProbeRow>, Refusal> {
        let sandboxes = self.sandboxes().await?;
        let find = |uid: &kactor_drivers::SandboxId| sandboxes.iter().find(|it| it.spec.id == *uid);
        let counted = self.shared.host.probe_counts.of(|uid| find(uid).is_some());
        let rows = counted.into_iter().filter_map(|(uid, container, kind, count)| {
            let spec = &find(&uid)?.spec;
            let (namespace, pod) = (spec.namespace.clone(), spec.name.clone());
            Some(ProbeRow { namespace, pod, uid: uid.0, container, kind, count })
        });
        Ok(rows.collect())
    }
}

/// Until when a connection must have sent its request's head.
const HEAD_MAX: Duration = Duration::from_secs(30);

impl KubeletDoor for Kubelet {
    fn connect(&self) -> Box<dyn Duplex> {
        let (ours, theirs) = tokio::io::duplex(DOOR_BYTES);
        let (kubelet, env) = (self.clone(), self.shared.host.env.clone());
        env.spawn(Lane::Node, async move {
            let service = hyper::service::service_fn(move |request| {
                let kubelet = kubelet.clone();
                async move {
                    let reply = kubelet.answer(request, &Client::ControlPlane).await;
                    Ok::<_, std::convert::Infallible>(reply.map(reply::Content::into_body))
                }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .serve_connection(TokioIo::new(ours), service)
                .with_upgrades();
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection of the control plane to the kubelet ended");
            }
        });
        Box::new(theirs)
    }
}
