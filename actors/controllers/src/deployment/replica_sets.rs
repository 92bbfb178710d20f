//! A Deployment's ReplicaSets: making the new one, numbering revisions, scaling one, forgetting old ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use kactor_view::workloads::POD_TEMPLATE_HASH;
use kactor_view::{Deployment, Labels, ReplicaSet};
use serde_json::{Value, json};

use super::{Rollout, max_surge};
use crate::owner;
use crate::plan::{Note, Severity};

const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// A Deployment's annotations that its ReplicaSets do not take over.
const KEPT_BACK: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// As much history of revisions as upstream keeps in an annotation.
const REVISION_HISTORY_BYTES_MAX: usize = 2000;

pub(super) fn desired_annotation(set: &ReplicaSet) -> Option<i64> {
    set.meta.annotation(DESIRED_REPLICAS)?.parse().ok()
}

pub(super) fn max_annotation(set: &ReplicaSet) -> Option<i64> {
    set.meta.annotation(MAX_REPLICAS)?.parse().ok()
}

pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.meta.annotation(REVISION).and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// FNV-1a over the template and the collision count, spelled as Kubernetes spells its hash.
pub(super) fn template_hash(deployment: &Deployment) -> String {
    let mut bytes = deployment.template.json.to_vec();
    if let Some(count) = deployment.status.collision_count {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    let hash = bytes
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    owner::safe_encode(hash)
}

impl Rollout<'_> {
    /// The new set as it stands; when there is none yet, or its annotations lag, that is planned first.
    pub(super) fn ensure_new_set(&mut self) -> Option<Arc<ReplicaSet>> {
        if self.new.is_some() {
            self.sync_new_set_annotations();
        } else {
            self.create_new_set();
        }
        self.new.clone()
    }

    /// Numbers the new set's revision and copies what it takes from the Deployment.
    pub(super) fn sync_new_set_annotations(&mut self) {
        let Some(new) = self.new.clone() else { return };
        let annotations = self.new_set_annotations(Some(&new));
        let changed: BTreeMap<&String, &String> = annotations
            .iter()
            .filter(|(key, value)| new.meta.annotations.get(*key) != Some(value))
            .collect();
        let min_ready = self.deployment.min_ready_seconds;
        let mut patch = json!({});
        if !changed.is_empty() {
            patch["metadata"]["annotations"] = json!(changed);
        }
        if new.min_ready_seconds != min_ready {
            patch["spec"]["minReadySeconds"] = min_ready.into();
        }
        if patch != json!({}) {
            self.plan.patch(&new.meta, patch);
        }
        self.sync_deployment_revision(annotations.get(REVISION).cloned());
    }

    fn sync_deployment_revision(&mut self, revision: Option<String>) {
        let deployment = self.deployment;
        if let Some(revision) = revision
            && deployment.meta.annotation(REVISION) != Some(&revision)
        {
            let patch = json!({"metadata": {"annotations": {REVISION: revision}}});
            self.plan.patch(&deployment.meta, patch);
        }
    }

    /// The Deployment's own annotations, the revision, and where it was before a rollback.
    fn new_set_annotations(&self, new: Option<&ReplicaSet>) -> Labels {
        let mut annotations: Labels = self
            .deployment
            .meta
            .annotations
            .iter()
            .filter(|(key, _)| !KEPT_BACK.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let next = self.old.iter().map(|it| revision(it)).max().unwrap_or(0) + 1;
        let current = new.map_or(0, revision);
        annotations.insert(REVISION.to_owned(), next.max(current).to_string());
        if let Some(new) = new.filter(|_| 0 < current && current < next) {
            let mut history: Vec<String> = new
                .meta
                .annotation(REVISION_HISTORY)
                .map(|it| it.split(',').map(str::to_owned).collect())
                .unwrap_or_default();
            history.push(current.to_string());
            while history.join(",").len() > REVISION_HISTORY_BYTES_MAX {
                history.remove(0);
            }
            annotations.insert(REVISION_HISTORY.to_owned(), history.join(","));
        }
        annotations
    }

    fn create_new_set(&mut self) {
        let deployment = self.deployment;
        let hash = template_hash(deployment);
        let name = format!("{}-{hash}", deployment.meta.name());
        let key = owner::sibling(&deployment.meta.key, "apps", "replicasets", &name);
        if self.pass.view.replica_sets().get(&key).is_some() {
            // Not ours, or of another template: the hashes collide, the next pass tries another name.
            let count = deployment.status.collision_count.unwrap_or(0) + 1;
            self.plan.patch_status(&deployment.meta, json!({"collisionCount": count}));
            self.plan.trace(&deployment.meta.key, "HashCollision", format!("{name} is taken"));
            return;
        }
        let replicas = self.new_set_size(0);
        let annotations = self.new_set_annotations(None);
        let body = self.new_set_body(&name, &hash, replicas, &annotations);
        let message = format!("Scaled up replica set {name} from 0 to {replicas}");
        let about = &deployment.meta.key;
        self.plan
            .create(key, body)
            .on_done(Note::new(about, Severity::Normal, "ScalingReplicaSet", message))
            .on_refused(Note::new(
                about,
                Severity::Warning,
                "ReplicaSetCreateError",
                format!("Failed to create new replica set {name:?}"),
            ));
        self.sync_deployment_revision(annotations.get(REVISION).cloned());
    }

    fn new_set_body(&self, name: &str, hash: &str, replicas: i64, annotations: &Labels) -> Value {
        let deployment = self.deployment;
        let mut annotations = annotations.clone();
        let max = deployment.replicas + max_surge(deployment);
        annotations.insert(DESIRED_REPLICAS.to_owned(), deployment.replicas.to_string());
        annotations.insert(MAX_REPLICAS.to_owned(), max.to_string());
        let mut template = deployment.template.to_value();
        template["metadata"]["labels"][POD_TEMPLATE_HASH] = hash.into();
        let mut selector = deployment.selector_json.clone();
        selector["matchLabels"][POD_TEMPLATE_HASH] = hash.into();
        let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
        if deployment.min_ready_seconds > 0 {
            spec["minReadySeconds"] = deployment.min_ready_seconds.into();
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": deployment.meta.namespace(),
                "labels": template["metadata"]["labels"],
                "annotations": annotations,
                "ownerReferences": [owner::controller_ref("apps/v1", "Deployment", &deployment.meta)],
            },
            "spec": spec,
        })
    }

    /// Gives a set this size, and notes for what size of the Deployment that was.
    pub(super) fn scale(&mut self, set: &ReplicaSet, replicas: i64) {
        let deployment = self.deployment;
        let desired = deployment.replicas.to_string();
        let max = (deployment.replicas + max_surge(deployment)).to_string();
        let is_noted = set.meta.annotation(DESIRED_REPLICAS) == Some(&desired)
            && set.meta.annotation(MAX_REPLICAS) == Some(&max);
        if set.replicas == replicas && is_noted {
            return;
        }
        let mut patch =
            json!({"metadata": {"annotations": {DESIRED_REPLICAS: desired, MAX_REPLICAS: max}}});
        if set.replicas != replicas {
            patch["spec"]["replicas"] = replicas.into();
        }
        let effect = self.plan.patch(&set.meta, patch);
        if set.replicas != replicas {
            let way = if replicas > set.replicas { "up" } else { "down" };
            let name = set.meta.name();
            let from = set.replicas;
            effect.on_done(Note::new(
                &deployment.meta.key,
                Severity::Normal,
                "ScalingReplicaSet",
                format!("Scaled {way} replica set {name} from {from} to {replicas}"),
            ));
        }
    }

    /// Deletes the oldest empty sets beyond the history that is kept.
    pub(super) fn clean_up(&mut self) {
        let Some(limit) = self.deployment.revision_history_limit else { return };
        let mut kept: Vec<Arc<ReplicaSet>> =
            self.old.iter().filter(|it| !it.meta.is_terminating()).cloned().collect();
        kept.sort_by_key(|it| revision(it));
        let n_surplus = kept.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for set in kept.iter().take(n_surplus) {
            let is_empty = set.status.replicas == 0
                && set.replicas == 0
                && set.meta.generation <= set.status.observed_generation;
            if is_empty {
                self.plan.delete(&set.meta);
            }
        }
    }
}
