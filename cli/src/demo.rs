//! `kactor up --demo`: `cli/examples/hello.yaml` on this host, and what became of it, line by line.
//!
//! The manifest takes the one write pipeline, as the administrator, by server-side apply: a second `up --demo` changes
//! nothing, and what somebody changed meanwhile stays theirs. Waiting follows the store's changes; nothing is polled.

pub mod image;
pub mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_api::{
    Api, Body, Caller, Operation, Options, PatchType, Request, Resource, Response, User,
};
use kactor_drivers::driver::Driver;
use kactor_objects::meta;
use kactor_objects::status::{Reason, Status};
use kactor_protocol::Deadline;
use kactor_protocol::ids::TraceId;
use kactor_protocol::store::Key;
use kactor_runtime::env::{Env, Lane};
use serde_json::Value;

/// The manifest, as a user would apply it.
pub const MANIFEST: &str = include_str!("../examples/hello.yaml");
const NAMESPACE: &str = "default";
const NAME: &str = "hello";
/// Who owns the demo's fields.
const MANAGER: &str = "kactor-demo";
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// A pod that is not Running after this long is told of, with the reason that is known.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// What the demo works with.
pub struct Demo<'a> {
    pub env: &'a Env,
    pub api: &'a Api,
    pub driver: Arc<dyn Driver>,
    /// Where a tarball may lie for a moment.
    pub scratch: &'a Path,
    /// When `up` began: what is told carries the time since.
    pub begun: Duration,
    /// Says one line to the user.
    pub say: &'a dyn Fn(&str),
}

impl Demo<'_> {
    /// Makes the image, applies the manifest, tells of the pods until all are Running, then of the service.
    ///
    /// Answers the service's address.
    pub async fn run(&self) -> anyhow::Result<String> {
        if self.driver.name() == "hollow" {
            self.tell("demo", "pods only pretend to run here (--runtime hollow)");
        } else {
            self.make_image().await?;
        }
        self.until(|api| present(api, "namespaces", "", NAMESPACE)).await?;
        for document in documents()? {
            let outcome = self.apply(&document).await?;
            let kind = meta::kind(&document).to_lowercase();
            self.tell("apply", &format!("{kind}/{} {outcome}", meta::name(&document)));
        }
        self.tell_pods().await?;
        let service = self.get("", "services", NAME).await?;
        let address =
            service["spec"]["clusterIP"].as_str().context("the service has no address")?;
        Ok(address.to_owned())
    }

    fn tell(&self, what: &str, text: &str) {
        (self.say)(&format!("  {what:<10} {text}"));
    }

    async fn make_image(&self) -> anyhow::Result<()> {
        let begun = self.env.monotonic();
        // Reading and writing the program blocks, so not here, where signals are waited for.
        let (told, made) = tokio::sync::oneshot::channel();
        let (driver, scratch) = (self.driver.clone(), self.scratch.to_owned());
        self.env.spawn(Lane::Blocking, async move {
            let _ = told.send(image::ensure(driver.as_ref(), &scratch).await);
        });
        let made = made.await.context("making the demo's image was cut off")?;
        let text = match made.context("making the demo's image from this program")? {
            image::Found::There => format!("{} is there already", image::NAME),
            image::Found::Made { size_bytes } => format!(
                "made {} from this program and its libraries: {:.0} MB ({:.2} s)",
                image::NAME,
                size_bytes as f64 / 1e6,
                (self.env.monotonic() - begun).as_secs_f64()
            ),
        };
        self.tell("image", &text);
        Ok(())
    }

    /// Server-side apply: says what it did.
    async fn apply(&self, document: &Value) -> anyhow::Result<String> {
        let kind = kactor_objects::registry()
            .by_api_version(meta::api_version(document), meta::kind(document))
            .context("the demo has a kind that this kactor does not serve")?;
        let name = meta::name(document);
        let resource = Resource::new(kind.group, kind.version, kind.resource)
            .in_namespace(NAMESPACE)
            .named(name);
        // Looked up in the store: a question to the API would stand in every `why` as one that found nothing.
        let key = Key::new(kind.group, kind.resource, NAMESPACE, name)?;
        let before = self.api.store().get(&key).map(|it| it.modified.0.to_string());
        let operation = Operation::Patch(PatchType::Apply);
        let body = Body::Encoded {
            content_type: "application/apply-patch+yaml".to_owned(),
            bytes: document.to_string().into(),
        };
        match self.ask(operation, resource, None, Some(body)).await {
            Ok(answer) => Ok(match before {
                None => "created",
                Some(it) if it == version(&answer.object.to_tree()) => "unchanged",
                Some(_) => "configured",
            }
            .to_owned()),
            // Somebody took fields over, with `kubectl scale` say: it is theirs now.
            Err(status) if status.reason == Reason::Conflict => {
                Ok(format!("kept as it is: {}", status.message))
            }
            Err(status) => bail!("applying {}/{name}: {}", kind.resource, status.message),
        }
    }

    /// Follows the pods until as many run as the Deployment wants.
    async fn tell_pods(&self) -> anyhow::Result<()> {
        let mut told = BTreeMap::new();
        let mut quiet_until = self.env.monotonic() + QUIET_MAX;
        loop {
            let mut watch = self.watch("//pods/")?;
            let (wanted, pods) = self.pods().await?;
            let is_new = |it: &&Row| told.get(&it.name) != Some(&Told::Running);
            for pod in pods.iter().filter(|it| it.runs).filter(is_new).cloned().collect::<Vec<_>>()
            {
                let since = (self.env.monotonic() - self.begun).as_secs_f64();
                self.tell("pod", &format!("{}  Running  {} ({since:.2} s)", pod.name, pod.address));
                told.insert(pod.name, Told::Running);
                quiet_until = self.env.monotonic() + QUIET_MAX;
            }
            if pods.iter().filter(|it| it.runs).count() >= wanted {
                return Ok(());
            }
            tokio::select! {
                biased;
                _ = watch.next() => {}
                () = self.env.clock.sleep_until(quiet_until) => {
                    self.tell_waiting(&pods, wanted, &mut told);
                    quiet_until = self.env.monotonic() + QUIET_MAX;
                }
            }
        }
    }

    fn tell_waiting(&self, pods: &[Row], wanted: usize, told: &mut BTreeMap<String, Told>) {
        if pods.is_empty() {
            return self.tell("waiting", &format!("for the first of {wanted} pods"));
        }
        for pod in pods.iter().filter(|it| !it.runs) {
            let now = Told::Waits(pod.state.clone());
            if told.get(&pod.name) != Some(&now) {
                let text = format!("{}  {}; `kactor why pod/{0}` knows more", pod.name, pod.state);
                self.tell("waiting", &text);
                told.insert(pod.name.clone(), now);
            }
        }
    }

    /// How many are wanted, and what there is, sorted by name.
    async fn pods(&self) -> anyhow::Result<(usize, Vec<Row>)> {
        let deployment = self.get("apps", "deployments", NAME).await?;
        let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        let all = Resource::new("", "v1", "pods").in_namespace(NAMESPACE);
        let selector = Some(format!("app={NAME}"));
        let list = self.ask(Operation::List, all, selector, None).await;
        let list = list.map_err(|it| anyhow::anyhow!("listing the demo's pods: {}", it.message))?;
        let list = list.object.to_tree();
        let rows = list["items"].as_array().into_iter().flatten().filter_map(Row::of);
        Ok((usize::try_from(wanted)?, rows.collect()))
    }

    async fn get(&self, group: &str, resource: &str, name: &str) -> anyhow::Result<Value> {
        let it = Resource::new(group, "v1", resource).in_namespace(NAMESPACE).named(name);
        match self.ask(Operation::Get, it, None, None).await {
            Ok(answer) => Ok(answer.object.to_tree()),
            Err(status) => bail!("reading {resource}/{name}: {}", status.message),
        }
    }

    async fn ask(
        &self,
        operation: Operation,
        resource: Resource,
        label_selector: Option<String>,
        body: Option<Body>,
    ) -> Result<Response, Status> {
        let admin = kactor_gateway::Subject::admin();
        let groups: Vec<&str> = admin.groups.iter().map(String::as_str).collect();
        let mut caller =
            Caller::internal(User::authenticated(admin.user, &groups), MANAGER, TraceId::NONE);
        caller.field_manager = Some(MANAGER.to_owned());
        let deadline = Deadline::after(self.env.monotonic(), REQUEST_MAX);
        let options = Options { label_selector, ..Options::default() };
        self.api.handle(Request { caller, resource, operation, options, body, deadline }).await
    }

    fn watch(&self, prefix: &str) -> anyhow::Result<kactor_store::Watch> {
        let store = self.api.store();
        store.watch(prefix, store.revision()).context("following the store's changes")
    }

    /// Waits until something holds of the store.
    async fn until(&self, holds: impl Fn(&Api) -> bool) -> anyhow::Result<()> {
        loop {
            let mut watch = self.watch("/")?;
            if holds(self.api) {
                return Ok(());
            }
            let _ = watch.next().await; // A watch that was closed is made anew.
        }
    }
}

fn present(api: &Api, resource: &str, namespace: &str, name: &str) -> bool {
    Key::new("", resource, namespace, name).is_ok_and(|it| api.store().get(&it).is_some())
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

fn documents() -> anyhow::Result<Vec<Value>> {
    let parts = MANIFEST.split("\n---\n");
    parts.map(|it| serde_saphyr::from_str(it).context("the demo's manifest")).collect()
}

/// What was said of a pod last.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Running,
    Waits(String),
}

/// A pod as it is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    address: String,
    /// Running and ready, and not on its way out.
    runs: bool,
    state: String,
}

impl Row {
    /// `None` for a pod that ends.
    fn of(pod: &Value) -> Option<Self> {
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            return None;
        }
        let status = &pod["status"];
        let phase = status["phase"].as_str().unwrap_or("Pending");
        let conditions = status["conditions"].as_array();
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|it| it["type"] == "Ready" && it["status"] == "True");
        Some(Self {
            name: meta::name(pod).to_owned(),
            address: status["podIP"].as_str().unwrap_or("no address").to_owned(),
            runs: phase == "Running" && ready,
            state: state(status, phase),
        })
    }
}

/// The most telling reason why a pod is not Running yet.
fn state(status: &Value, phase: &str) -> String {
    let reason = |it: &Value| {
        let (reason, message) = (it["reason"].as_str()?, it["message"].as_str().unwrap_or(""));
        Some(if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") })
    };
    let containers = status["containerStatuses"].as_array().into_iter().flatten();
    let waiting = containers.filter_map(|it| reason(&it["state"]["waiting"])).next();
    let refused = || {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.filter(|it| it["status"] == "False").filter_map(reason).next()
    };
    let because = waiting.or_else(|| reason(status)).or_else(refused);
    because.map_or_else(|| phase.to_owned(), |it| format!("{phase}: {it}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_told_of_with_the_reason_why_it_waits() {
        let pod = |status: Value| json!({ "metadata": { "name": "hello-a" }, "status": status });
        let waiting = json!({ "phase": "Pending", "containerStatuses": [
            { "state": { "waiting": { "reason": "ErrImageNeverPull", "message": "no image" } } }] });
        let row = Row::of(&pod(waiting)).unwrap();
        assert!(!row.runs);
        assert_eq!(row.state, "Pending: ErrImageNeverPull: no image");
        let nowhere = json!({ "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full" }] });
        assert_eq!(Row::of(&pod(nowhere)).unwrap().state, "Pending: Unschedulable: full");
        let ready = json!({ "phase": "Running", "podIP": "10.0.0.2",
            "conditions": [{ "type": "Ready", "status": "True" }] });
        assert!(Row::of(&pod(ready)).unwrap().runs);
        let ends =
            json!({ "metadata": { "name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z" } });
        assert_eq!(Row::of(&ends), None);
    }

    #[test]
    fn the_manifest_is_a_deployment_of_three_and_a_service_that_finds_them() {
        let documents = documents().unwrap();
        let kinds: Vec<&str> = documents.iter().map(meta::kind).collect();
        assert_eq!(kinds, ["Deployment", "Service"]);
        let template = &documents[0]["spec"]["template"];
        assert_eq!(documents[0]["spec"]["replicas"], 3);
        assert_eq!(documents[1]["spec"]["selector"], template["metadata"]["labels"]);
        // Nothing may ask a registry for it.
        assert_eq!(template["spec"]["containers"][0]["imagePullPolicy"], "Never");
    }
}
