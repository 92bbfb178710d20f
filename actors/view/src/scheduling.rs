//! The part of a Pod's spec that decides where it may run. Equal fingerprints are equal answers to every filter and score.

use serde_json::{Value, json};

use crate::json;
use crate::meta::Labels;
use crate::nodes::{Taint, TaintEffect};
use crate::quantity::Resources;
use crate::selector::{Requirement, Selector};

/// Requests that every container makes in the eyes of the scorers alone (scheduler util, DefaultMilliCPURequest).
const SCORED_CPU_DEFAULT: i64 = 100;
const SCORED_MEMORY_DEFAULT: i64 = 200 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    pub key: String,
    /// `false`: equal values only.
    pub is_exists: bool,
    pub value: String,
    pub effect: Option<TaintEffect>,
    pub seconds: Option<i64>,
}

impl Toleration {
    /// Core v1, `Toleration.ToleratesTaint`: an empty key with `Exists` tolerates all, an absent effect all effects.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|it| it != taint.effect) {
            return false;
        }
        if self.key.is_empty() {
            return self.is_exists;
        }
        self.key == taint.key && (self.is_exists || self.value == taint.value)
    }
}

/// One term of a node selector: labels and `metadata.name`, all must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTerm {
    pub weight: i64,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl NodeTerm {
    fn parse(term: &Value, weight: i64) -> Self {
        let all = |at| json::list(term, at).iter().map(Requirement::parse).collect();
        Self { weight, labels: all("/matchExpressions"), fields: all("/matchFields") }
    }

    /// A term without requirements matches nothing.
    pub fn matches(&self, node_name: &str, labels: &Labels) -> bool {
        let is_empty = self.labels.is_empty() && self.fields.is_empty();
        !is_empty
            && self.labels.iter().all(|it| it.matches(labels))
            && self
                .fields
                .iter()
                .all(|it| it.key() == "metadata.name" && it.accepts(Some(node_name)))
    }
}

/// Where this Pod must or should (not) be with respect to other Pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTerm {
    pub weight: i64,
    pub topology_key: String,
    selector: Selector,
    namespaces: Vec<String>,
    all_namespaces: bool,
}

impl PodTerm {
    fn parse(term: &Value, weight: i64, namespace: &str) -> Self {
        let mut namespaces = json::texts(term, "/namespaces");
        let by_selector = term.get("namespaceSelector").filter(|it| it.is_object());
        if namespaces.is_empty() && by_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        Self {
            weight,
            topology_key: json::text(term, "/topologyKey").to_owned(),
            selector: Selector::parse(term.get("labelSelector")),
            namespaces,
            // A selector that demands nothing means all namespaces; others are not looked up (see the scheduler's README).
            all_namespaces: Selector::parse(by_selector).is_everything(),
        }
    }

    pub fn matches(&self, namespace: &str, labels: &Labels) -> bool {
        (self.all_namespaces || self.namespaces.iter().any(|it| it == namespace))
            && self.selector.matches(labels)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsatisfiable {
    DoNotSchedule,
    ScheduleAnyway,
}

/// One entry of `topologySpreadConstraints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadConstraint {
    pub max_skew: i64,
    pub topology_key: String,
    pub when_unsatisfiable: Unsatisfiable,
    pub selector: Selector,
    pub min_domains: i64,
    pub honors_affinity: bool,
    pub honors_taints: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: String,
    pub port: i64,
    pub protocol: String,
}

impl HostPort {
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |it: &HostPort| it.ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(self) || any(other))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    pub scheduler_name: String,
    pub service_account: String,
    pub is_host_network: bool,
    pub has_gates: bool,
    pub priority: i64,
    pub node_selector: Labels,
    /// Any one must match; empty with `demands_affinity` matches nothing.
    pub required_nodes: Vec<NodeTerm>,
    pub demands_affinity: bool,
    pub preferred_nodes: Vec<NodeTerm>,
    pub required_affinity: Vec<PodTerm>,
    pub required_anti_affinity: Vec<PodTerm>,
    pub preferred_affinity: Vec<PodTerm>,
    pub preferred_anti_affinity: Vec<PodTerm>,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<SpreadConstraint>,
    pub requests: Resources,
    /// What the scorers count: requests with a default for containers that ask for nothing.
    pub scored: Resources,
    pub host_ports: Vec<HostPort>,
    /// Pods of one namespace, labels and spec have one fingerprint.
    pub fingerprint: u64,
}

impl PodSpec {
    pub fn parse(namespace: &str, labels: &Labels, body: &Value) -> Self {
        let required = body
            .pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
        let pods = |kind: &str, when: &str| pod_terms(body, namespace, kind, when);
        let is_host_network = json::is_true(body, "/spec/hostNetwork");
        Self {
            scheduler_name: json::opt_text(body, "/spec/schedulerName")
                .unwrap_or("default-scheduler")
                .to_owned(),
            service_account: json::text(body, "/spec/serviceAccountName").to_owned(),
            is_host_network,
            has_gates: !json::list(body, "/spec/schedulingGates").is_empty(),
            priority: json::int(body, "/spec/priority").unwrap_or(0),
            node_selector: json::text_map(body, "/spec/nodeSelector"),
            required_nodes: required
                .map(|it| json::list(it, "/nodeSelectorTerms"))
                .unwrap_or_default()
                .iter()
                .map(|it| NodeTerm::parse(it, 0))
                .collect(),
            demands_affinity: required.is_some(),
            preferred_nodes: preferred_nodes(body),
            required_affinity: pods("podAffinity", "required"),
            required_anti_affinity: pods("podAntiAffinity", "required"),
            preferred_affinity: pods("podAffinity", "preferred"),
            preferred_anti_affinity: pods("podAntiAffinity", "preferred"),
            tolerations: json::list(body, "/spec/tolerations").iter().map(toleration).collect(),
            spread: spread_constraints(labels, body),
            requests: requests(body, &Resources::default()),
            scored: requests(body, &scored_defaults()),
            host_ports: host_ports(body, is_host_network),
            fingerprint: fingerprint(namespace, labels, body),
        }
    }

    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|it| it.tolerates(taint))
    }

    /// `nodeSelector` and the required node affinity.
    pub fn accepts_node(&self, name: &str, labels: &Labels) -> bool {
        self.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && (!self.demands_affinity
                || self.required_nodes.iter().any(|it| it.matches(name, labels)))
    }
}

fn preferred_nodes(body: &Value) -> Vec<NodeTerm> {
    let at = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
    json::list(body, at)
        .iter()
        .filter_map(|it| {
            let weight = json::int(it, "/weight").unwrap_or(0);
            Some(NodeTerm::parse(it.get("preference")?, weight))
        })
        .collect()
}

fn pod_terms(body: &Value, namespace: &str, kind: &str, when: &str) -> Vec<PodTerm> {
    let at = format!("/spec/affinity/{kind}/{when}DuringSchedulingIgnoredDuringExecution");
    let term = |it: &Value| match it.get("podAffinityTerm") {
        Some(inner) => PodTerm::parse(inner, json::int(it, "/weight").unwrap_or(0), namespace),
        None => PodTerm::parse(it, 0, namespace),
    };
    json::list(body, &at).iter().map(term).collect()
}

fn toleration(entry: &Value) -> Toleration {
    Toleration {
        key: json::text(entry, "/key").to_owned(),
        is_exists: json::text(entry, "/operator") == "Exists",
        value: json::text(entry, "/value").to_owned(),
        effect: TaintEffect::parse(json::text(entry, "/effect")),
        seconds: json::int(entry, "/tolerationSeconds"),
    }
}

fn spread_constraints(labels: &Labels, body: &Value) -> Vec<SpreadConstraint> {
    let constraint = |it: &Value| {
        let same: Labels = json::texts(it, "/matchLabelKeys")
            .into_iter()
            .filter_map(|key| labels.get(&key).map(|value| (key.clone(), value.clone())))
            .collect();
        SpreadConstraint {
            max_skew: json::int(it, "/maxSkew").unwrap_or(1),
            topology_key: json::text(it, "/topologyKey").to_owned(),
            when_unsatisfiable: match json::text(it, "/whenUnsatisfiable") {
                "ScheduleAnyway" => Unsatisfiable::ScheduleAnyway,
                _ => Unsatisfiable::DoNotSchedule,
            },
            selector: Selector::parse(it.get("labelSelector")).and_equal(&same),
            min_domains: json::int(it, "/minDomains").unwrap_or(1),
            honors_affinity: json::text(it, "/nodeAffinityPolicy") != "Ignore",
            honors_taints: json::text(it, "/nodeTaintsPolicy") == "Honor",
        }
    };
    json::list(body, "/spec/topologySpreadConstraints").iter().map(constraint).collect()
}

fn scored_defaults() -> Resources {
    let mut defaults = Resources::default();
    defaults.set("cpu", SCORED_CPU_DEFAULT);
    defaults.set("memory", SCORED_MEMORY_DEFAULT);
    defaults
}

/// Core's PodRequests: containers and sidecars add up, init containers peak, overhead is added, pod-level requests win.
fn requests(body: &Value, defaults: &Resources) -> Resources {
    let mut sum = Resources::default();
    for container in json::list(body, "/spec/containers") {
        sum.add(&container_requests(container, defaults));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for init in json::list(body, "/spec/initContainers") {
        let mut now = container_requests(init, defaults);
        if json::text(init, "/restartPolicy") == "Always" {
            sidecars.add(&now);
            sum.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        peak.at_least(&now);
    }
    sum.at_least(&peak);
    for (name, amount) in Resources::parse(body.pointer("/spec/resources/requests")).iter() {
        sum.set(name, amount);
    }
    sum.add(&Resources::parse(body.pointer("/spec/overhead")));
    sum
}

fn container_requests(container: &Value, defaults: &Resources) -> Resources {
    let stated = Resources::parse(container.pointer("/resources/requests"));
    let mut all = defaults.clone();
    for (name, amount) in stated.iter() {
        all.set(name, amount);
    }
    all
}

fn host_ports(body: &Value, is_host_network: bool) -> Vec<HostPort> {
    let port = |entry: &Value| {
        let stated = json::int(entry, "/hostPort").filter(|it| *it > 0);
        let implied = if is_host_network { json::int(entry, "/containerPort") } else { None };
        Some(HostPort {
            ip: json::opt_text(entry, "/hostIP").unwrap_or("0.0.0.0").to_owned(),
            port: stated.or(implied)?,
            protocol: json::opt_text(entry, "/protocol").unwrap_or("TCP").to_owned(),
        })
    };
    json::list(body, "/spec/containers")
        .iter()
        .flat_map(|it| json::list(it, "/ports"))
        .filter_map(port)
        .collect()
}

fn fingerprint(namespace: &str, labels: &Labels, body: &Value) -> u64 {
    let mut spec = body.get("spec").cloned().unwrap_or_default();
    if let Value::Object(map) = &mut spec {
        for volatile in ["nodeName", "hostname", "volumes"] {
            map.remove(volatile);
        }
        for list in ["containers", "initContainers"] {
            if let Some(Value::Array(containers)) = map.get_mut(list) {
                // The token's volume has another name in each Pod; mounts decide nothing here.
                containers.iter_mut().for_each(|it| {
                    if let Value::Object(container) = it {
                        container.remove("volumeMounts");
                    }
                });
            }
        }
    }
    json::fingerprint(&json::canonical(&json!([namespace, labels, spec])))
}
