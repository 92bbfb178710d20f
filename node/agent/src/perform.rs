//! Carries out one action of a pod: the only place where the agent touches driver, volumes and network.
//!
//! Decides nothing beyond what its action says; every end, good or bad, comes back as an `Effect`. Cancelling it
//! at an await point is safe: each step may be begun again, which is what the next decision does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kactor_drivers::driver::{Driver, exec_to_end};
use kactor_drivers::error::DriverError;
use kactor_drivers::image::RegistryAuth;
use kactor_drivers::spec::{ContainerId, SandboxId};
use kactor_drivers::status::SandboxStatus;
use kactor_protocol::node::{ApiTarget, ApiVerb, CallApi};
use kactor_runtime::env::Env;
use kactor_volumes::plan;
use serde_json::{Value, json};

use crate::container_spec::{RunInputs, container_spec, hostname, sandbox_spec};
use crate::downward::NodeFacts;
use crate::effect::Effect;
use crate::environment::{LinkedService, environment, service_links};
use crate::machine::{Action, Observed, Sandbox, Subject};
use crate::observe;
use crate::pod_files::{Resolver, hosts, resolver};
use crate::pod_logs::PodLogs;
use crate::ports::{ControlPlane, HostPort, Plumbing, Prober, VolumeHost};
use crate::probe_counts::ProbeCounts;
use crate::references::{self, Fetched, PodReferences, Wanted, config_map_entries, secret_entries};
use crate::spec::{Container, HookAction, ImagePullPolicy, Pod};
use crate::token_cache::TokenCache;

/// How this node is set up; one value for all of its pods.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub node_name: String,
    /// `cluster.local`.
    pub domain: String,
    /// Pod logs: `ROOT/NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log`, `/var/log/pods` on an ordinary host.
    pub pod_logs: PathBuf,
    pub host_resolver: Resolver,
    pub facts: NodeFacts,
    pub memory_bytes: u64,
}

/// What every pod's actor of a node shares.
#[derive(Clone)]
pub struct Host {
    pub env: Env,
    pub driver: Arc<dyn Driver>,
    pub control: Arc<dyn ControlPlane>,
    pub plumbing: Arc<dyn Plumbing>,
    pub volumes: Arc<dyn VolumeHost>,
    pub config: Arc<NodeConfig>,
    pub services: Arc<dyn LinkedServices>,
    pub prober: Arc<dyn Prober>,
    pub tokens: Arc<TokenCache>,
    pub probe_counts: Arc<ProbeCounts>,
}

/// Services whose addresses a new container finds in its environment.
pub trait LinkedServices: Send + Sync {
    /// Those of a namespace, and `kubernetes` of `default`, by name.
    fn of(&self, namespace: &str) -> Vec<LinkedService>;
}

/// What an action starts from.
#[derive(Clone)]
pub struct Task {
    pub pod: Arc<Pod>,
    pub seen: Observed,
    pub action: Action,
}

/// A sentence for people, as the pod's event says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    pub normal: bool,
    pub reason: &'static str,
    pub message: String,
    /// The container it is about, if one.
    pub container: Option<String>,
}

fn normal(reason: &'static str, message: String) -> Happened {
    Happened { normal: true, reason, message, container: None }
}

fn warning(reason: &'static str, message: String) -> Happened {
    Happened { normal: false, reason, message, container: None }
}

/// Does it, and says how it ended and what to tell.
pub async fn perform(host: &Host, task: &Task) -> (Effect, Vec<Happened>) {
    let mut told = Vec::new();
    let effect = match &task.action {
        Action::MountVolumes => mount(host, task, &mut told).await,
        Action::UnmountVolumes => unmount(host, task, &mut told).await,
        Action::CreateSandbox => create_sandbox(host, task, &mut told).await,
        Action::RemoveSandbox => remove_sandbox(host, task, &mut told).await,
        Action::EnsureImage { container } => ensure_image(host, task, container, &mut told).await,
        Action::Start { container, attempt } => {
            start(host, task, container, *attempt, &mut told).await
        }
        Action::Stop { container, grace, why } => {
            stop(host, task, container, (*grace, why), &mut told).await
        }
        Action::GiveUpObject => give_up(host, task).await,
    };
    if let Subject::Container(name) = task.action.subject() {
        told.iter_mut().for_each(|it| it.container = Some(name.clone()));
    }
    (effect, told)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(it) = source {
        out.push_str(": ");
        out.push_str(&it.to_string());
        source = it.source();
    }
    out
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers).find(|it| it.name == name)
}

async fn mount(host: &Host, task: &Task, told: &mut Vec<Happened>) -> Effect {
    match mount_all(host, &task.pod, &task.seen).await {
        Ok(_) => Effect::VolumesReady,
        Err(message) => {
            told.push(warning("FailedMount", message.clone()));
            Effect::VolumesFailed { message }
        }
    }
}

/// Makes the volumes, or brings them up to date, and says where they are.
pub async fn mount_all(
    host: &Host,
    pod: &Pod,
    seen: &Observed,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let volumes = plan::read(&pod.spec.volumes).map_err(|it| it.to_string())?;
    let fetched = fetch(host, pod, &references::of_volumes(&volumes)).await?;
    let facts = facts(host, seen);
    let known = PodReferences { pod, facts: &facts, fetched: &fetched };
    let mut contents = BTreeMap::new();
    for volume in &volumes {
        if let plan::Source::Projected { sources, default_mode } = &volume.source {
            let files =
                kactor_volumes::content::files(sources, *default_mode, &known).map_err(|it| {
                    format!("MountVolume.SetUp failed for volume \"{}\" : {it}", volume.name)
                })?;
            contents.insert(volume.name.clone(), files);
        }
    }
    let stamp = host.env.wall().0.to_string();
    let mounted = host.volumes.mount(pod, &volumes, contents, &stamp).await;
    mounted.map_err(|it| it.to_string())
}

fn facts(host: &Host, seen: &Observed) -> NodeFacts {
    let mut facts = host.config.facts.clone();
    if let Sandbox::Ready { addresses, .. } = &seen.sandbox {
        facts.pod_addresses = addresses.clone();
    }
    facts
}

async fn fetch(host: &Host, pod: &Pod, wanted: &Wanted) -> Result<Fetched, String> {
    let mut out = Fetched::default();
    for name in &wanted.config_maps {
        if let Some(object) = get(host, pod, "configmaps", name).await? {
            out.config_maps.insert(name.clone(), config_map_entries(&object));
        }
    }
    for name in &wanted.secrets {
        if let Some(object) = get(host, pod, "secrets", name).await? {
            out.secrets.insert(name.clone(), secret_entries(&object));
        }
    }
    for token in &wanted.tokens {
        let (uid, now) = (&pod.metadata.uid, host.env.monotonic());
        let jwt = match host.tokens.get(uid, token, now) {
            Some(jwt) => jwt,
            None => {
                let jwt = request_token(host, pod, token).await?;
                host.tokens.put(uid, token, jwt.clone(), now);
                jwt
            }
        };
        out.tokens.insert(token.clone(), jwt);
    }
    Ok(out)
}

fn core(resource: &str, namespace: &str, name: &str) -> ApiTarget {
    ApiTarget {
        group: String::new(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: None,
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
    }
}

/// `None` if the object does not exist; a refusal is the API's own words.
async fn get(host: &Host, pod: &Pod, resource: &str, name: &str) -> Result<Option<Value>, String> {
    let target = core(resource, &pod.metadata.namespace, name);
    let call = CallApi { verb: ApiVerb::Get, target, options: vec![], body: bytes::Bytes::new() };
    let reply = host.control.call(call).await.map_err(|it| it.to_string())?;
    match reply.code {
        200 => Ok(serde_json::from_slice(&reply.body).ok()),
        404 => Ok(None),
        code => Err(refusal(code, &reply.body)),
    }
}

fn refusal(code: u16, body: &[u8]) -> String {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    match status["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("the API answered {code}"),
    }
}

async fn request_token(
    host: &Host,
    pod: &Pod,
    wanted: &references::TokenWanted,
) -> Result<String, String> {
    let account = pod.spec.service_account_name.as_deref().unwrap_or("default");
    let mut target = core("serviceaccounts", &pod.metadata.namespace, account);
    target.subresource = Some("token".to_owned());
    let audiences: Vec<&String> = wanted.audience.iter().collect();
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": wanted.expiration_seconds,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod",
                "name": pod.metadata.name, "uid": pod.metadata.uid,
            },
        },
    });
    let call =
        CallApi { verb: ApiVerb::Create, target, options: vec![], body: body.to_string().into() };
    let reply = host.control.call(call).await.map_err(|it| it.to_string())?;
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    match answer["status"]["token"].as_str() {
        Some(token) if reply.code < 300 => Ok(token.to_owned()),
        _ => Err(refusal(reply.code, &reply.body)),
    }
}

async fn unmount(host: &Host, task: &Task, told: &mut Vec<Happened>) -> Effect {
    match host.volumes.unmount(&task.pod.metadata.uid).await {
        Ok(()) => Effect::VolumesGone,
        Err(error) => {
            let message = chain(&error);
            told.push(warning("FailedUnmount", message.clone()));
            Effect::VolumesFailed { message }
        }
    }
}

async fn create_sandbox(host: &Host, task: &Task, told: &mut Vec<Happened>) -> Effect {
    match make_sandbox(host, &task.pod).await {
        Ok((status, addresses)) => Effect::SandboxReady { id: status.spec.id.0, addresses },
        Err(message) => {
            told.push(warning("FailedCreatePodSandBox", message.clone()));
            Effect::SandboxFailed { message }
        }
    }
}

async fn make_sandbox(host: &Host, pod: &Pod) -> Result<(SandboxStatus, Vec<String>), String> {
    let spec = sandbox_spec(pod, &host.config.domain);
    let status = match host.driver.create_sandbox(&spec).await {
        // An attempt before this one got as far as the sandbox, or a kactor before this one did.
        Err(DriverError::Exists { .. }) => host.driver.sandbox(&spec.id).await,
        other => other,
    };
    let status = status.map_err(|it| chain(&it))?;
    let addresses = plumb(host, pod, &status).await?;
    Ok((status, addresses))
}

/// Connects the sandbox, or finds its connection again.
pub async fn plumb(host: &Host, pod: &Pod, status: &SandboxStatus) -> Result<Vec<String>, String> {
    let Some(netns) = &status.netns else {
        return Ok(status.addresses.iter().map(ToString::to_string).collect());
    };
    let ports: Vec<HostPort> =
        pod.spec.containers.iter().flat_map(|it| &it.ports).filter_map(host_port).collect();
    let attached = host.plumbing.attach(&pod.metadata.uid, netns, &ports).await;
    attached.map(|it| it.iter().map(ToString::to_string).collect()).map_err(|it| chain(&it))
}

fn host_port(port: &crate::spec::ContainerPort) -> Option<HostPort> {
    Some(HostPort {
        host_address: port.host_ip.as_deref().and_then(|it| it.parse().ok()),
        host_port: port.host_port?,
        container_port: port.container_port,
        protocol: port.protocol.clone(),
    })
}

async fn remove_sandbox(host: &Host, task: &Task, told: &mut Vec<Happened>) -> Effect {
    let uid = &task.pod.metadata.uid;
    let detached = host.plumbing.detach(uid).await.map_err(|it| chain(&it));
    let removed = match detached {
        Ok(()) => {
            let removed = host.driver.remove_sandbox(&SandboxId(uid.clone())).await;
            removed.map_err(|it| chain(&it))
        }
        Err(message) => Err(message),
    };
    match removed {
        Ok(()) => Effect::SandboxGone,
        Err(message) => {
            told.push(warning("FailedKillPod", message.clone()));
            Effect::SandboxFailed { message }
        }
    }
}

async fn ensure_image(host: &Host, task: &Task, name: &str, told: &mut Vec<Happened>) -> Effect {
    let Some(container) = container(&task.pod, name) else {
        return Effect::ImageReady { container: name.to_owned() };
    };
    let image = &container.image;
    let present = host.driver.image(image).await;
    let failed = |reason: Option<&'static str>, message: String| Effect::ImageFailed {
        container: name.to_owned(),
        reason,
        message,
    };
    match (present, container.image_pull_policy) {
        (Ok(Some(_)), ImagePullPolicy::IfNotPresent | ImagePullPolicy::Never) => {
            told.push(normal(
                "Pulled",
                format!("Container image \"{image}\" already present on machine"),
            ));
            return Effect::ImageReady { container: name.to_owned() };
        }
        (Ok(None), ImagePullPolicy::Never) => {
            let message =
                format!("Container image \"{image}\" is not present with pull policy of Never");
            told.push(warning("ErrImageNeverPull", message.clone()));
            return failed(Some("ErrImageNeverPull"), message);
        }
        (Err(error), _) => {
            let message = format!("Failed to inspect image \"{image}\": {}", chain(&error));
            let reason = match error {
                DriverError::BadReference { .. } => "InvalidImageName",
                _ => "ImageInspectError",
            };
            told.push(warning("InspectFailed", message.clone()));
            return failed(Some(reason), message);
        }
        (Ok(_), _) => {}
    }
    told.push(normal("Pulling", format!("Pulling image \"{image}\"")));
    match pull(host, &task.pod, image).await {
        Ok(()) => {
            told.push(normal("Pulled", format!("Successfully pulled image \"{image}\"")));
            Effect::ImageReady { container: name.to_owned() }
        }
        Err((reason, why)) => {
            let message = format!("Failed to pull image \"{image}\": {why}");
            told.push(warning("Failed", message.clone()));
            failed(reason, message)
        }
    }
}

/// Tries the pod's pull secrets one after another, at last without any.
async fn pull(host: &Host, pod: &Pod, image: &str) -> Result<(), (Option<&'static str>, String)> {
    let mut secrets = Vec::new();
    for reference in &pod.spec.image_pull_secrets {
        secrets.extend(get(host, pod, "secrets", &reference.name).await.ok().flatten());
    }
    let mut last = (None, String::new());
    let found = secrets.iter().filter_map(|it| registry_auth(it, image));
    for auth in found.chain([RegistryAuth::Anonymous]) {
        match host.driver.pull_image(image, &auth).await {
            Ok(_) => return Ok(()),
            Err(error @ DriverError::BadReference { .. }) => {
                return Err((Some("InvalidImageName"), chain(&error)));
            }
            Err(error) => last = (None, chain(&error)),
        }
    }
    Err(last)
}

/// The credentials of a `kubernetes.io/dockerconfigjson` Secret for an image's registry.
pub fn registry_auth(secret: &Value, image: &str) -> Option<RegistryAuth> {
    let entries = secret_entries(secret);
    let config: Value = serde_json::from_slice(entries.get(".dockerconfigjson")?).ok()?;
    let registry = match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    };
    let host_of = |key: &str| {
        let plain = key.trim_start_matches("https://").trim_start_matches("http://");
        let host = plain.split('/').next().unwrap_or_default().to_owned();
        if host == "index.docker.io" { "docker.io".to_owned() } else { host }
    };
    let auths = config["auths"].as_object()?;
    let (_, entry) = auths.iter().find(|(key, _)| host_of(key) == registry)?;
    if let (Some(username), Some(password)) =
        (entry["username"].as_str(), entry["password"].as_str())
    {
        return Some(RegistryAuth::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        });
    }
    use base64::Engine;
    let both = base64::engine::general_purpose::STANDARD.decode(entry["auth"].as_str()?).ok()?;
    let both = String::from_utf8(both).ok()?;
    let (username, password) = both.split_once(':')?;
    Some(RegistryAuth::Basic { username: username.to_owned(), password: password.to_owned() })
}

async fn start(
    host: &Host,
    task: &Task,
    name: &str,
    attempt: u32,
    told: &mut Vec<Happened>,
) -> Effect {
    let refused = |reason: &'static str, message: String| Effect::ContainerRefused {
        container: name.to_owned(),
        reason,
        message,
    };
    let Some(container) = container(&task.pod, name) else {
        return refused("CreateContainerConfigError", format!("the pod has no container {name}"));
    };
    let spec = match prepare(host, task, container, attempt).await {
        Ok(spec) => spec,
        Err(message) => {
            told.push(warning("Failed", format!("Error: {message}")));
            return refused("CreateContainerConfigError", message);
        }
    };
    remove_surplus(host, &task.pod.metadata.uid).await;
    let first_kept = attempt.saturating_sub(1);
    PodLogs::of(host).forget_runs_before(&task.pod.metadata, name, first_kept).await;
    match host.driver.create_container(&spec).await {
        Ok(()) | Err(DriverError::Exists { .. }) => {}
        Err(error) => {
            // What the pod's author wrote, not what the node could not do.
            let reason = match error {
                DriverError::Invalid { .. } => "CreateContainerConfigError",
                _ => "CreateContainerError",
            };
            let message = chain(&error);
            told.push(warning("Failed", format!("Error: {message}")));
            return refused(reason, message);
        }
    }
    told.push(normal("Created", format!("Created container: {name}")));
    let started = host.driver.start_container(&spec.id).await;
    if let Err(error @ DriverError::Start { .. }) = &started {
        // The run has ended before it began; the driver's status says so and the back-off counts it.
        told.push(warning("Failed", format!("Error: {}", chain(error))));
        return Effect::ContainerStarted { container: name.to_owned() };
    }
    if let Err(error) = started {
        let message = chain(&error);
        told.push(warning("Failed", format!("Error: {message}")));
        return refused("RunContainerError", message);
    }
    told.push(normal("Started", format!("Started container {name}")));
    if let Some(hook) = container.lifecycle.as_ref().and_then(|it| it.post_start.as_ref())
        && let Err(why) = run_hook(host, &spec.id, hook, Duration::from_secs(60)).await
    {
        told.push(warning("FailedPostStartHook", why));
        // Kubernetes kills a container whose hook failed; its policy decides about another run.
        let _ = host.driver.stop_container(&spec.id, Duration::ZERO).await;
    }
    Effect::ContainerStarted { container: name.to_owned() }
}

async fn prepare(
    host: &Host,
    task: &Task,
    container: &Container,
    attempt: u32,
) -> Result<kactor_drivers::spec::ContainerSpec, String> {
    let pod = &task.pod;
    let volumes = mount_all(host, pod, &task.seen).await?;
    let fetched = fetch(host, pod, &references::of_environment(container)).await?;
    let facts = facts(host, &task.seen);
    let known = PodReferences { pod, facts: &facts, fetched: &fetched };
    let links = links(host, pod);
    let mut env = vec![("HOSTNAME".to_owned(), hostname(pod, &host.config.domain))];
    env.extend(environment(pod, container, &links, &known).map_err(|it| it.to_string())?);
    let files = write_files(host, pod, container, &facts).await?;
    let inputs = RunInputs {
        attempt,
        failures: task.seen.containers.get(&container.name).map_or(0, |it| it.failures),
        env,
        volumes: &volumes,
        files,
        log_path: PodLogs::of(host).file(&pod.metadata, &container.name, attempt),
        node_memory_bytes: host.config.memory_bytes,
    };
    container_spec(pod, container, inputs).map_err(|it| it.to_string())
}

fn links(host: &Host, pod: &Pod) -> Vec<(String, String)> {
    let mut services = host.services.of(&pod.metadata.namespace);
    if !pod.spec.enable_service_links {
        services.retain(|it| it.name == "kubernetes");
    }
    service_links(&services)
}

async fn write_files(
    host: &Host,
    pod: &Pod,
    container: &Container,
    facts: &NodeFacts,
) -> Result<Vec<(PathBuf, String)>, String> {
    let uid = &pod.metadata.uid;
    let write = async |name: &str, content: String| {
        let written = host.volumes.write_file(uid, name, content.into_bytes()).await;
        written.map_err(|it| it.to_string())
    };
    let mut out = Vec::new();
    if !pod.spec.host_network {
        let name = hostname(pod, &host.config.domain);
        let text = hosts(pod, &name, &facts.pod_addresses, &host.config.domain);
        out.push((write("etc-hosts", text).await?, "/etc/hosts".to_owned()));
    }
    let dns =
        resolver(pod, &host.config.host_resolver, host.plumbing.cluster_dns(), &host.config.domain);
    out.push((write("resolv.conf", dns.print()).await?, "/etc/resolv.conf".to_owned()));
    if !container.termination_message_path.is_empty() {
        let name = termination_file(&container.name);
        out.push((write(&name, String::new()).await?, container.termination_message_path.clone()));
    }
    Ok(out)
}

/// Where a container's last words are, below the pod's folder.
pub fn termination_file(container: &str) -> String {
    format!("containers/{container}/termination-log")
}

/// Keeps the run before the present one for `logs --previous`; what is older goes.
async fn remove_surplus(host: &Host, uid: &str) {
    let Ok(sandbox) = host.driver.sandbox(&SandboxId(uid.to_owned())).await else { return };
    for id in observe::surplus(&sandbox) {
        if let Err(error) = host.driver.remove_container(&id).await {
            tracing::warn!(container = %id, error = chain(&error), "an old run could not be removed; tried again at the next start");
        }
    }
}

async fn run_hook(
    host: &Host,
    id: &ContainerId,
    hook: &HookAction,
    limit: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        host.env.sleep(Duration::from_secs(sleep.seconds).min(limit)).await;
        return Ok(());
    }
    let Some(exec) = &hook.exec else {
        return Err(
            "this node runs exec and sleep hooks; httpGet hooks are not honoured yet".to_owned()
        );
    };
    let run = exec_to_end(host.driver.as_ref(), id, exec.command.clone());
    match futures::future::select(Box::pin(run), host.env.sleep(limit)).await {
        futures::future::Either::Left((Ok(output), _)) if output.code == 0 => Ok(()),
        futures::future::Either::Left((Ok(output), _)) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!(
                "Exec lifecycle hook {:?} exited with {}: {said}",
                exec.command, output.code
            ))
        }
        futures::future::Either::Left((Err(error), _)) => Err(chain(&error)),
        futures::future::Either::Right(_) => {
            Err(format!("the hook ran longer than {} s", limit.as_secs()))
        }
    }
}

async fn stop(
    host: &Host,
    task: &Task,
    name: &str,
    how: (Duration, &str),
    told: &mut Vec<Happened>,
) -> Effect {
    let (grace, why) = how;
    let stuck = |message: String| Effect::ContainerStuck { container: name.to_owned(), message };
    let id = match host.driver.sandbox(&SandboxId(task.pod.metadata.uid.clone())).await {
        Ok(sandbox) => observe::current(&sandbox, name),
        Err(DriverError::NoSandbox(_)) => None,
        Err(error) => return stuck(chain(&error)),
    };
    let Some(id) = id else {
        return Effect::ContainerStopped { container: name.to_owned() };
    };
    told.push(normal("Killing", format!("Stopping container {name}: {why}")));
    let begun = host.env.monotonic();
    let lifecycle = container(&task.pod, name).and_then(|it| it.lifecycle.as_ref());
    if let Some(hook) = lifecycle.and_then(|it| it.pre_stop.as_ref())
        && !grace.is_zero()
        && let Err(why) = run_hook(host, &id, hook, grace).await
    {
        told.push(warning("FailedPreStopHook", why));
    }
    // The hook's time counts; a container gets at least two seconds for its signal (kubelet minimumGracePeriod).
    let left = grace.saturating_sub(host.env.monotonic().saturating_sub(begun));
    let left = if grace.is_zero() { grace } else { left.max(Duration::from_secs(2)) };
    match host.driver.stop_container(&id, left).await {
        Ok(()) | Err(DriverError::NoContainer(_) | DriverError::NoSandbox(_)) => {
            Effect::ContainerStopped { container: name.to_owned() }
        }
        Err(error) => {
            let message = chain(&error);
            told.push(warning("FailedKillPod", message.clone()));
            stuck(message)
        }
    }
}

/// Takes the object away, this very one: a pod of the same name that came after it stays.
async fn give_up(host: &Host, task: &Task) -> Effect {
    let meta = &task.pod.metadata;
    let body = json!({
        "apiVersion": "v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "preconditions": { "uid": meta.uid },
    });
    let target = core("pods", &meta.namespace, &meta.name);
    let call =
        CallApi { verb: ApiVerb::Delete, target, options: vec![], body: body.to_string().into() };
    match host.control.call(call).await {
        // Gone, or another one has its name: nothing of ours is left either way.
        Ok(reply) if reply.code < 300 || reply.code == 404 || reply.code == 409 => {
            PodLogs::of(host).forget(meta).await;
            Effect::ObjectGivenUp
        }
        Ok(reply) => Effect::ObjectKept { message: refusal(reply.code, &reply.body) },
        Err(error) => Effect::ObjectKept { message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_secrets_match_the_registry_of_the_image() {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let config = json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": encode("hub:p:w") },
            "localhost:5000": { "username": "u", "password": "p" },
        }});
        let secret = json!({ "data": { ".dockerconfigjson": encode(&config.to_string()) } });
        let basic = |username: &str, password: &str| {
            Some(RegistryAuth::Basic {
                username: username.to_owned(),
                password: password.to_owned(),
            })
        };
        assert!(registry_auth(&secret, "busybox") == basic("hub", "p:w"));
        assert!(registry_auth(&secret, "localhost:5000/a/b:1") == basic("u", "p"));
        assert!(registry_auth(&secret, "ghcr.io/a/b").is_none());
    }
}
