//! Rows of the apps group.

use super::{Access, Kind, Scope, Storage, Stored, Subresource, Verb, as_stored};
use crate::fields::SelectableField;
use crate::kinds;
use crate::registry::SubresourceStrategy;

const fn stored(resource: &'static str, kind: &'static str) -> Storage {
    Storage::Stored(Stored {
        group: "apps",
        resource,
        api_version: "apps/v1",
        kind,
        version: 1,
        from_storage: as_stored,
        to_storage: as_stored,
    })
}

const SCALE: Subresource = Subresource {
    name: "scale",
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    verbs: Verb::CHANGE,
    access: Access::Scale,
};

const fn status(kind: &'static str, strategy: SubresourceStrategy) -> Subresource {
    Subresource {
        name: "status",
        group: "apps",
        version: "v1",
        kind,
        verbs: Verb::CHANGE,
        access: Access::Object(strategy),
    }
}

pub(super) static KINDS: &[Kind] = &[
    Kind {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        resource: "deployments",
        singular: "deployment",
        scope: Scope::Namespaced,
        short_names: &["deploy"],
        categories: &["all"],
        verbs: Verb::ALL,
        subresources: &[SCALE, status("Deployment", kinds::deployment::STATUS)],
        storage: stored("deployments", "Deployment"),
        strategy: kinds::deployment::STRATEGY,
        fields: &[],
        printer: kinds::deployment::PRINTER,
    },
    Kind {
        group: "apps",
        version: "v1",
        kind: "ReplicaSet",
        resource: "replicasets",
        singular: "replicaset",
        scope: Scope::Namespaced,
        short_names: &["rs"],
        categories: &["all"],
        verbs: Verb::ALL,
        subresources: &[SCALE, status("ReplicaSet", kinds::replica_set::STATUS)],
        storage: stored("replicasets", "ReplicaSet"),
        strategy: kinds::replica_set::STRATEGY,
        fields: &[SelectableField::or(&["status.replicas"], "0")],
        printer: kinds::replica_set::PRINTER,
    },
];
