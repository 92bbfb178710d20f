//! What every new Pod gets: its service account and token, two tolerations, and its priority.
//!
//! References: Kubernetes plugin/pkg/admission/{serviceaccount,defaulttolerationseconds,priority}. Each is idempotent:
//! what the client set stays.

use kactor_objects::status::Status;
use kactor_objects::{meta, tree};
use kactor_protocol::store::Key;
use serde_json::{Value, json};

use super::Admission;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A little more than an hour: agents renew at 80 % of it.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long a Pod stays on a node that is gone.
const TOLERATION_SECONDS: i64 = 300;
const CONTAINER_LISTS: [&str; 3] = ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"];

/// Built-in classes; others are objects.
const CLASSES: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(super) fn complete(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    if meta::annotation(pod, MIRROR).is_none() {
        service_account(admission, pod)?;
    }
    priority(admission, pod)?;
    tolerate(pod, "node.kubernetes.io/not-ready");
    tolerate(pod, "node.kubernetes.io/unreachable");
    Ok(())
}

fn service_account(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    let old_name = tree::text(pod, "spec.serviceAccount").to_owned();
    if !old_name.is_empty() {
        tree::fill(pod, "spec.serviceAccountName", old_name);
    }
    tree::fill(pod, "spec.serviceAccountName", "default");
    let name = tree::text(pod, "spec.serviceAccountName").to_owned();
    tree::put(pod, "spec.serviceAccount", name.as_str());
    let namespace = admission.request.resource.namespace.as_deref().unwrap_or_default();
    let refuse = || {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        admission.forbid(meta::name(pod), &why)
    };
    let key = Key::new("", "serviceaccounts", namespace, &name).map_err(|_| refuse())?;
    let stored = admission.api.store().get(&key).ok_or_else(refuse)?;
    let account: Value = serde_json::from_slice(&stored.value.body).unwrap_or_default();
    if tree::list(pod, "spec.imagePullSecrets").is_empty() {
        let secrets = tree::list(&account, "imagePullSecrets").to_vec();
        if !secrets.is_empty() {
            tree::put(pod, "spec.imagePullSecrets", secrets);
        }
    }
    let wants = tree::at(pod, "spec.automountServiceAccountToken").as_bool();
    let offers = tree::at(&account, "automountServiceAccountToken").as_bool();
    if wants.or(offers).unwrap_or(true) {
        mount_token(pod, &format!("kube-api-access-{}", admission.api.random_suffix()));
    }
    Ok(())
}

/// Mounts a projected token into every container that has nothing at its path.
fn mount_token(pod: &mut Value, fresh: &str) {
    let present = tree::list(pod, "spec.volumes").iter().find(|it| {
        tree::text(it, "name").starts_with("kube-api-access-") && it.get("projected").is_some()
    });
    let volume = present.map_or(fresh, |it| tree::text(it, "name")).to_owned();
    let mut used = false;
    for list in CONTAINER_LISTS {
        for container in tree::each_mut(pod, list) {
            let mounts = tree::list(container, "volumeMounts");
            if mounts.iter().any(|it| tree::text(it, "mountPath") == TOKEN_PATH) {
                continue;
            }
            let mut mounts = mounts.to_vec();
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH}));
            tree::put(container, "volumeMounts", mounts);
            used = true;
        }
    }
    if !used || volume != fresh {
        return;
    }
    let mut volumes = tree::list(pod, "spec.volumes").to_vec();
    volumes.push(json!({
        "name": volume,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        },
    }));
    tree::put(pod, "spec.volumes", volumes);
}

fn priority(admission: &Admission<'_>, pod: &mut Value) -> Result<(), Status> {
    let class = tree::text(pod, "spec.priorityClassName").to_owned();
    let (priority, policy) = if class.is_empty() {
        (0, "PreemptLowerPriority".to_owned())
    } else if let Some((_, value)) = CLASSES.iter().find(|(name, _)| *name == class) {
        (*value, "PreemptLowerPriority".to_owned())
    } else {
        let refuse = || admission.forbid(meta::name(pod), &format!("no PriorityClass with name {class} was found"));
        let key = Key::new("scheduling.k8s.io", "priorityclasses", "", &class).map_err(|_| refuse())?;
        let stored = admission.api.store().get(&key).ok_or_else(refuse)?;
        let object: Value = serde_json::from_slice(&stored.value.body).unwrap_or_default();
        let policy = match tree::text(&object, "preemptionPolicy") {
            "" => "PreemptLowerPriority",
            it => it,
        };
        (tree::integer(&object, "value").unwrap_or(0), policy.to_owned())
    };
    if let Some(given) = tree::integer(pod, "spec.priority")
        && given != priority
    {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; \
             priority admission controller computed {priority} from the given PriorityClass name"
        );
        return Err(admission.forbid(meta::name(pod), &why));
    }
    tree::put(pod, "spec.priority", priority);
    tree::fill(pod, "spec.preemptionPolicy", policy);
    Ok(())
}

fn tolerate(pod: &mut Value, taint: &str) {
    let mut tolerations = tree::list(pod, "spec.tolerations").to_vec();
    let tolerated = tolerations.iter().any(|it| {
        let key = tree::text(it, "key");
        (key == taint || key.is_empty()) && matches!(tree::text(it, "effect"), "NoExecute" | "")
    });
    if tolerated {
        return;
    }
    tolerations.push(json!({
        "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
    }));
    tree::put(pod, "spec.tolerations", tolerations);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_gets_the_token_once_and_keeps_its_own_mount() {
        let own = json!({"name": "own", "mountPath": TOKEN_PATH});
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [own]}]}});
        mount_token(&mut pod, "kube-api-access-x");
        let once = pod.clone();
        mount_token(&mut pod, "kube-api-access-y");
        assert_eq!(pod, once, "a second pass changes nothing");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-x");
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"], json!([own]));
        assert_eq!(tree::list(&pod, "spec.volumes").len(), 1);
    }

    #[test]
    fn a_toleration_that_covers_the_taint_is_left_alone() {
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        tolerate(&mut pod, "node.kubernetes.io/not-ready");
        assert_eq!(tree::list(&pod, "spec.tolerations").len(), 1);
        let mut pod = json!({"spec": {}});
        tolerate(&mut pod, "node.kubernetes.io/not-ready");
        assert_eq!(pod["spec"]["tolerations"][0]["tolerationSeconds"], 300);
    }
}
