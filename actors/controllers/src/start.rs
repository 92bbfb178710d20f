//! Which controllers there are: the supervision table, and what they must be told.

use std::sync::Arc;

use kactor_api::Api;
use kactor_protocol::TraceId;
use kactor_runtime::env::{BoxFuture, Lane};
use kactor_runtime::{ActorSystem, Child, StartError};
use kactor_store::Stored;
use kactor_view::events::EventWrite;
use kactor_view::events::writer::{EventWriter, Written};
use kactor_view::feed::{Open, SharedView};
use serde_json::Value;

use crate::cluster_dns::ClusterDns;
use crate::controller::Controller;
use crate::controller_actor::ControllerActor;
pub use crate::controller_actor::{BeforePass, Host, Liveness};
use crate::deployment::DeploymentController;
use crate::endpoints::EndpointsController;
use crate::endpointslice::EndpointSliceController;
use crate::garbage_collector::GarbageCollector;
use crate::namespace::NamespaceController;
use crate::node_ipam::{CidrRange, NodeIpam};
use crate::node_lifecycle::{GRACE_PERIOD, NodeLifecycle};
use crate::pod_gc::PodGarbageCollector;
use crate::replicaset::ReplicaSetController;
use crate::root_ca::RootCaPublisher;
use crate::send::Sender;
use crate::service_account::ServiceAccountController;
use crate::taint_eviction::TaintEviction;

/// kube-controller-manager, --terminated-pod-gc-threshold.
const TERMINATED_PODS_MAX: usize = 12_500;
/// What the Event writer is known as in its own requests' trace.
const UNTRACED: TraceId = TraceId::NONE;

/// What the controllers must be told.
#[derive(Clone)]
pub struct ControllersConfig {
    /// Pods' addresses; `None` leaves ranges to others.
    pub pod_cidr: Option<CidrRange>,
    pub node_prefix: u8,
    /// PEM of the certificates that sign the API's own.
    pub root_ca: String,
    pub liveness: Option<Arc<dyn Liveness>>,
    /// `None` leaves the nameserver's Service to others.
    pub cluster_dns: Option<ClusterDns>,
    pub before_pass: Option<BeforePass>,
}

/// Starts to follow the store into a view that all of this host share. It ends with the store.
///
/// Encrypted objects are opened for their metadata, without annotations: kubectl keeps whole Secrets in one.
pub fn start_view(system: &ActorSystem, api: &Api) -> SharedView {
    let view = SharedView::default();
    system.env().spawn(Lane::Control, view.clone().follow(api.store().clone(), open_with(api)));
    view
}

fn open_with(api: &Api) -> Open {
    let api = api.clone();
    Arc::new(move |stored: &Stored| {
        let value = &stored.value;
        if stored.key.resource() != "secrets" || !stored.key.group().is_empty() {
            return serde_json::from_slice(&value.body).ok();
        }
        let plain = api.open_stored(stored)?;
        let mut secret: Value = serde_json::from_slice(&plain).ok()?;
        let secret = secret.as_object_mut()?;
        secret.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata"));
        secret.get_mut("metadata")?.as_object_mut()?.remove("annotations");
        Some(Value::Object(std::mem::take(secret)))
    })
}

/// Starts every controller. Each works while this host leads.
pub fn start_all(
    system: &ActorSystem,
    api: &Api,
    view: &SharedView,
    config: &ControllersConfig,
) -> Result<(), StartError> {
    let mut host = Host::new(system, api, view, config.liveness.clone());
    host.before_pass = config.before_pass.clone();
    // The supervision table: each row always runs, on the control lane, and escalates to the host when it cannot.
    start(&host, "controller/namespace", NamespaceController)?;
    start(&host, "controller/deployment", DeploymentController)?;
    start(&host, "controller/replicaset", ReplicaSetController)?;
    start(&host, "controller/endpointslice", EndpointSliceController)?;
    start(&host, "controller/endpoints", EndpointsController)?;
    start(&host, "controller/garbage-collector", GarbageCollector)?;
    start(&host, "controller/service-account", ServiceAccountController)?;
    start(&host, "controller/root-ca", RootCaPublisher { bundle: config.root_ca.clone() })?;
    start(&host, "controller/node-lifecycle", NodeLifecycle { grace_period: GRACE_PERIOD })?;
    start(&host, "controller/taint-eviction", TaintEviction)?;
    let pod_gc = PodGarbageCollector { terminated_max: TERMINATED_PODS_MAX };
    start(&host, "controller/pod-gc", pod_gc)?;
    if let Some(dns) = config.cluster_dns {
        start(&host, "controller/cluster-dns", dns)?;
    }
    if let Some(cluster) = config.pod_cidr {
        let ipam = NodeIpam { cluster, node_prefix: config.node_prefix };
        start(&host, "controller/node-ipam", ipam)?;
    }
    Ok(())
}

impl Host {
    pub fn new(
        system: &ActorSystem,
        api: &Api,
        view: &SharedView,
        liveness: Option<Arc<dyn Liveness>>,
    ) -> Self {
        Self {
            system: system.clone(),
            api: api.clone(),
            view: view.clone(),
            events: EventWriter::start(system.env(), view.clone(), write_events(api)),
            liveness,
            before_pass: None,
        }
    }
}

/// Starts one controller under the name of its row.
pub fn start<C: Controller>(
    host: &Host,
    name: &'static str,
    controller: C,
) -> Result<(), StartError> {
    let (controller, lives) = (Arc::new(controller), host.clone());
    let child = Child::new(name, Lane::Control);
    host.system.start(child, move || ControllerActor::new(controller.clone(), lives.clone()))?;
    Ok(())
}

/// Events are written as the controller that reports them, without a reign: a late one does no harm.
fn write_events(api: &Api) -> kactor_view::events::writer::Write {
    let api = api.clone();
    Arc::new(move |reporter: Arc<str>, event: EventWrite| -> BoxFuture<Written> {
        let name = NAMES.iter().find(|it| ***it == *reporter).copied().unwrap_or("controller");
        let sender = Sender { api: api.clone(), name, reign: None, trace: UNTRACED };
        Box::pin(async move { sender.write_event(event).await })
    })
}

/// The accounts that controllers act as.
pub const NAMES: &[&str] = &[
    NamespaceController::NAME,
    DeploymentController::NAME,
    ReplicaSetController::NAME,
    EndpointSliceController::NAME,
    EndpointsController::NAME,
    GarbageCollector::NAME,
    ServiceAccountController::NAME,
    RootCaPublisher::NAME,
    NodeLifecycle::NAME,
    PodGarbageCollector::NAME,
    ClusterDns::NAME,
];
