//! What upstream's admission plugins do to pods, as pure functions for the api's pipeline.
//!
//! They run after defaulting and before validation, on creation only: `ServiceAccount`,
//! `DefaultTolerationSeconds`, `Priority`. What they need from elsewhere (the service account, a generated
//! suffix, priority classes) is passed in.

use serde_json::{Value, json};

use crate::meta;
use crate::tree;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a few seconds: marks injected tokens, whose lifetime the issuer may extend.
const TOKEN_SECONDS: i64 = 3607;
const TOLERATION_SECONDS: i64 = 300;
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// The ConfigMap with the cluster's CA that each namespace gets.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// The account that the pod runs as; its name must exist before `inject_service_account`.
pub fn service_account_of(pod: &Value) -> &str {
    match tree::text(pod, "spec.serviceAccountName") {
        "" => DEFAULT_SERVICE_ACCOUNT,
        name => name,
    }
}

/// Names the service account, mounts its token into each container that has nothing there, and takes over its
/// image pull secrets. `suffix` (5 letters) names the volume. Mirror pods are left alone.
pub fn inject_service_account(pod: &mut Value, account: &Value, suffix: &str) {
    if meta::annotation(pod, MIRROR_POD).is_some() {
        return;
    }
    let name = service_account_of(pod).to_owned();
    tree::put(pod, "spec.serviceAccountName", name.as_str());
    tree::put(pod, "spec.serviceAccount", name);
    if wants_token(pod, account) {
        mount_token(pod, suffix);
    }
    let secrets = tree::list(account, "imagePullSecrets");
    if tree::list(pod, "spec.imagePullSecrets").is_empty() && !secrets.is_empty() {
        tree::put(pod, "spec.imagePullSecrets", secrets.to_vec());
    }
}

/// The pod's own wish counts before the account's.
fn wants_token(pod: &Value, account: &Value) -> bool {
    tree::at(pod, "spec.automountServiceAccountToken")
        .as_bool()
        .or_else(|| tree::at(account, "automountServiceAccountToken").as_bool())
        .unwrap_or(true)
}

fn mount_token(pod: &mut Value, suffix: &str) {
    // A pod that was copied with its injected volume keeps using that one.
    let own = tree::list(pod, "spec.volumes")
        .iter()
        .map(|it| tree::text(it, "name"))
        .find(|it| it.starts_with("kube-api-access-"));
    let (volume, is_new) = match own {
        Some(name) => (name.to_owned(), false),
        None => (format!("kube-api-access-{suffix}"), true),
    };
    let mount = json!({"name": volume, "mountPath": TOKEN_PATH, "readOnly": true});
    let mut n_mounted = 0;
    for list in ["spec.initContainers", "spec.containers"] {
        for container in tree::each_mut(pod, list) {
            let mounts = tree::list(container, "volumeMounts");
            if mounts.iter().any(|it| tree::text(it, "mountPath") == TOKEN_PATH) {
                continue;
            }
            let mut mounts = mounts.to_vec();
            mounts.push(mount.clone());
            tree::put(container, "volumeMounts", mounts);
            n_mounted += 1;
        }
    }
    if is_new && n_mounted > 0 {
        let mut volumes = tree::list(pod, "spec.volumes").to_vec();
        volumes.push(token_volume(&volume));
        tree::put(pod, "spec.volumes", volumes);
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": ROOT_CA_CONFIG_MAP, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        },
    })
}

/// A pod stays five minutes on a node that became not ready or unreachable, unless it says otherwise.
pub fn default_tolerations(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tree::list(pod, "spec.tolerations").iter().any(|it| {
            let effect = tree::text(it, "effect");
            let covers_key = matches!(tree::text(it, "key"), "") || tree::text(it, "key") == key;
            covers_key && matches!(effect, "" | "NoExecute")
        });
        if !tolerated {
            let mut all = tree::list(pod, "spec.tolerations").to_vec();
            all.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            }));
            tree::put(pod, "spec.tolerations", all);
        }
    }
}

/// No such PriorityClass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no PriorityClass with name {0} was found")]
pub struct UnknownPriorityClass(pub String);

/// Computes `spec.priority` from the two classes that every cluster has. PriorityClass objects are not served
/// yet, so any other name is refused, as upstream refuses a class that does not exist.
///
/// # Errors
/// `spec.priorityClassName` names no class.
pub fn default_priority(pod: &mut Value) -> Result<(), UnknownPriorityClass> {
    let priority = match tree::text(pod, "spec.priorityClassName") {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        other => return Err(UnknownPriorityClass(other.to_owned())),
    };
    tree::put(pod, "spec.priority", priority);
    tree::fill(pod, "spec.preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}

#[cfg(test)]
mod tests;
