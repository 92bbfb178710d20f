//! EndpointSlice controller: where the Pods of each Service with a selector are, in slices of at most 100.
//!
//! Follows kubernetes pkg/controller/endpointslice. Endpoints that stay keep their slice, so that one Pod's change
//! touches one slice; new ones fill slices with room, then new slices. Slices are per address family and per set of
//! resolved ports (a named target port may differ between Pods).

mod desired;

use std::collections::BTreeMap;
use std::sync::Arc;

use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, EndpointSlice, Object, Service, json as fields};
use serde_json::{Value, json};

use crate::controller::{Controller, NoMemory, Pass};
use crate::owner;
use crate::plan::{Plan, Severity};

pub(crate) use desired::{is_served, resolved_ports, services_of};

/// Most endpoints of one slice (upstream's maxEndpointsPerSlice).
const ENDPOINTS_PER_SLICE_MAX: usize = 100;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

pub struct EndpointSliceController;

impl Controller for EndpointSliceController {
    const NAME: &'static str = "endpointslice-controller";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key> {
        let mut keys = Vec::new();
        for side in changed.sides() {
            match side {
                Object::Service(service) => keys.push(service.meta.key.clone()),
                Object::Pod(pod) => keys.extend(services_of(pod, view)),
                Object::EndpointSlice(slice) if is_managed(slice) => keys.extend(
                    slice.service().map(|it| owner::sibling(&slice.meta.key, "", "services", it)),
                ),
                _ => {}
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let Some(service) = pass.view.services().get(pass.key) else {
            return plan; // its slices are owned by it, the garbage collector has them
        };
        if service.selector.is_none() || service.kind == "ExternalName" {
            return plan;
        }
        let mut present = present_slices(service, pass.view);
        for (group, endpoints) in desired::groups(service, pass.view) {
            let (mine, others) = present.into_iter().partition(|it: &Arc<EndpointSlice>| {
                it.address_type == group.address_type && it.ports == group.ports
            });
            present = others;
            place(&mut plan, pass, &Group { service, group, endpoints }, mine);
        }
        for slice in present {
            plan.delete(&slice.meta);
        }
        plan
    }
}

fn is_managed(slice: &EndpointSlice) -> bool {
    slice.meta.labels.get(MANAGED_BY).is_some_and(|it| it == MANAGER)
}

fn present_slices(service: &Service, view: &ClusterView) -> Vec<Arc<EndpointSlice>> {
    view.endpoint_slices()
        .in_namespace(service.meta.namespace())
        .filter(|it| is_managed(it) && it.service() == Some(service.meta.name()))
        .filter(|it| !it.meta.is_terminating())
        .cloned()
        .collect()
}

struct Group<'a> {
    service: &'a Service,
    group: desired::GroupKey,
    /// By the uid of their Pod.
    endpoints: BTreeMap<String, Value>,
}

fn place(plan: &mut Plan, pass: &Pass<'_>, group: &Group<'_>, slices: Vec<Arc<EndpointSlice>>) {
    let labels = slice_labels(group.service);
    let mut left = group.endpoints.clone();
    // What stays keeps its slice.
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Value>)> = Vec::new();
    for slice in slices {
        let stay = slice
            .endpoints
            .iter()
            .filter_map(|it| left.remove(fields::text(it, "/targetRef/uid")))
            .take(ENDPOINTS_PER_SLICE_MAX)
            .collect();
        kept.push((slice, stay));
    }
    let mut left: Vec<Value> = left.into_values().collect();
    kept.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then_with(|| a.0.meta.key.cmp(&b.0.meta.key)));
    for (_, endpoints) in &mut kept {
        let room = ENDPOINTS_PER_SLICE_MAX.saturating_sub(endpoints.len()).min(left.len());
        endpoints.extend(left.drain(..room));
    }
    let mut n_slices = 0;
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && (n_slices > 0 || !group.endpoints.is_empty()) {
            plan.delete(&slice.meta);
            continue;
        }
        n_slices += 1;
        if slice.endpoints != endpoints || slice.meta.labels != labels {
            let patch = json!({"metadata": {"labels": labels}, "endpoints": endpoints});
            refusal_note(plan.patch_exactly(&slice.meta, patch), group.service);
        }
    }
    let mut names = Vec::new();
    while !left.is_empty() || n_slices == 0 {
        let n_taken = left.len().min(ENDPOINTS_PER_SLICE_MAX);
        let endpoints: Vec<Value> = left.drain(..n_taken).collect();
        create(plan, pass, group, &mut names, endpoints);
        n_slices += 1;
    }
}

fn create(
    plan: &mut Plan,
    pass: &Pass<'_>,
    group: &Group<'_>,
    names: &mut Vec<String>,
    endpoints: Vec<Value>,
) {
    let meta = &group.service.meta;
    let base = format!("{}-", meta.name());
    let key_of = |name: &str| owner::sibling(&meta.key, "discovery.k8s.io", "endpointslices", name);
    let seed = format!(
        "{}/{}/{}/{}/{}",
        meta.uid,
        pass.view.revision(),
        group.group.address_type,
        group.group.ports,
        names.len()
    );
    let name = owner::generated_name(&base, &seed, |it| {
        names.iter().any(|taken| taken == it)
            || pass.view.endpoint_slices().get(&key_of(it)).is_some()
    });
    let body = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "generateName": base,
            "namespace": meta.namespace(),
            "labels": slice_labels(group.service),
            "ownerReferences": [owner::controller_ref("v1", "Service", meta)],
        },
        "addressType": group.group.address_type,
        "endpoints": endpoints,
        "ports": group.group.ports,
    });
    refusal_note(plan.create(key_of(&name), body), group.service);
    names.push(name);
}

fn refusal_note(effect: &mut crate::plan::Effect, service: &Service) {
    let message = format!("Error syncing endpoint slices for service {}", service.meta.name());
    effect.on_refused(crate::plan::Note::new(
        &service.meta.key,
        Severity::Warning,
        "FailedToUpdateEndpointSlices",
        message,
    ));
}

/// The Service's own labels and those by which slices are found.
fn slice_labels(service: &Service) -> kactor_view::Labels {
    let mut labels = service.meta.labels.clone();
    labels.remove(HEADLESS);
    if service.is_headless() {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.meta.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

#[cfg(test)]
mod tests;
