//! What every new Pod gets from its surroundings: its service account, and its priority.
//!
//! The changes themselves are kactor-objects' `admission`; here are the look-ups that they need. References: Kubernetes
//! plugin/pkg/admission/{serviceaccount,defaulttolerationseconds,priority}.

use kactor_objects::admission as changes;
use kactor_objects::status::Status;
use kactor_objects::{meta, tree};
use kactor_protocol::store::Key;
use serde_json::Value;

use super::Admission;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn complete(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    if meta::annotation(pod, MIRROR).is_none() {
        let old_name = tree::text(pod, "spec.serviceAccount").to_owned();
        if !old_name.is_empty() {
            tree::fill(pod, "spec.serviceAccountName", old_name);
        }
        let account = service_account(admission, pod)?;
        changes::inject_service_account(pod, &account, &admission.api.random_suffix());
    }
    let given = tree::integer(pod, "spec.priority");
    changes::default_priority(pod)
        .map_err(|error| admission.forbid(meta::name(pod), &error.to_string()))?;
    let computed = tree::integer(pod, "spec.priority");
    if given.is_some() && given != computed {
        let why = format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller \
             computed {} from the given PriorityClass name",
            given.unwrap_or_default(),
            computed.unwrap_or_default()
        );
        return Err(admission.forbid(meta::name(pod), &why));
    }
    changes::default_tolerations(pod);
    Ok(())
}

fn service_account(admission: &Admission<'_>, pod: &Value) -> Result<Value, Status> {
    let name = changes::service_account_of(pod);
    let namespace = admission.request.resource.namespace.as_deref().unwrap_or_default();
    let refuse = || {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        admission.forbid(meta::name(pod), &why)
    };
    let key = Key::new("", "serviceaccounts", namespace, name).map_err(|_| refuse())?;
    let stored = admission.api.store().get(&key).ok_or_else(refuse)?;
    Ok(serde_json::from_slice(&stored.value.body).unwrap_or_default())
}
