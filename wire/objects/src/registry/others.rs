//! Rows of coordination, discovery, events, policy and RBAC.

use serde_json::Value;

use super::{Access, Kind, Scope, Storage, Stored, Strategy, Subresource, Verb, as_stored};
use crate::kinds;
use crate::table::Printer;

const fn stored(
    group: &'static str,
    api_version: &'static str,
    resource: &'static str,
    kind: &'static str,
) -> Storage {
    Storage::Stored(Stored {
        group,
        resource,
        api_version,
        kind,
        version: 1,
        from_storage: as_stored,
        to_storage: as_stored,
    })
}

const fn rbac(resource: &'static str, kind: &'static str) -> Storage {
    stored("rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1", resource, kind)
}

const PLAIN: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "",
    resource: "",
    singular: "",
    scope: Scope::Namespaced,
    short_names: &[],
    categories: &[],
    verbs: Verb::ALL,
    subresources: &[],
    storage: Storage::Virtual,
    strategy: Strategy::PLAIN,
    fields: &[],
    printer: Printer::PLAIN,
};

/// events.k8s.io serves the same stored Events as the core group, in its own words.
const EVENTS: Storage = Storage::Stored(Stored {
    group: "",
    resource: "events",
    api_version: "v1",
    kind: "Event",
    version: 1,
    from_storage: from_core_event,
    to_storage: to_core_event,
});

fn from_core_event(event: Value) -> Value {
    kinds::event::to_events_v1(&event)
}

fn to_core_event(event: Value) -> Value {
    kinds::event::to_core_v1(&event)
}

pub(super) static KINDS: &[Kind] = &[
    // Nothing makes one yet, so there are none, and clients can read that: kubectl looks for them when it meets a kind
    // that it does not know, and says what is wrong only when it may look.
    Kind {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        resource: "customresourcedefinitions",
        singular: "customresourcedefinition",
        scope: Scope::Cluster,
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        verbs: Verb::READ,
        storage: stored(
            "apiextensions.k8s.io",
            "apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
        ),
        ..PLAIN
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        resource: "leases",
        singular: "lease",
        storage: stored("coordination.k8s.io", "coordination.k8s.io/v1", "leases", "Lease"),
        strategy: kinds::lease::STRATEGY,
        printer: kinds::lease::PRINTER,
        ..PLAIN
    },
    Kind {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        resource: "endpointslices",
        singular: "endpointslice",
        storage: stored(
            "discovery.k8s.io",
            "discovery.k8s.io/v1",
            "endpointslices",
            "EndpointSlice",
        ),
        strategy: kinds::endpoint_slice::STRATEGY,
        printer: kinds::endpoint_slice::PRINTER,
        ..PLAIN
    },
    Kind {
        group: "events.k8s.io",
        kind: "Event",
        resource: "events",
        singular: "event",
        short_names: &["ev"],
        storage: EVENTS,
        strategy: kinds::event::EVENTS_V1_STRATEGY,
        fields: kinds::event::EVENTS_V1_FIELDS,
        printer: kinds::event::EVENTS_V1_PRINTER,
        ..PLAIN
    },
    Kind {
        group: "policy",
        kind: "PodDisruptionBudget",
        resource: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        short_names: &["pdb"],
        subresources: &[Subresource {
            name: "status",
            group: "policy",
            version: "v1",
            kind: "PodDisruptionBudget",
            verbs: Verb::CHANGE,
            access: Access::Object(kinds::disruption_budget::STATUS),
        }],
        storage: stored("policy", "policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
        strategy: kinds::disruption_budget::STRATEGY,
        printer: kinds::disruption_budget::PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "ClusterRoleBinding",
        resource: "clusterrolebindings",
        singular: "clusterrolebinding",
        scope: Scope::Cluster,
        storage: rbac("clusterrolebindings", "ClusterRoleBinding"),
        strategy: kinds::rbac::CLUSTER_BINDING,
        printer: kinds::rbac::BINDING_PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "ClusterRole",
        resource: "clusterroles",
        singular: "clusterrole",
        scope: Scope::Cluster,
        storage: rbac("clusterroles", "ClusterRole"),
        strategy: kinds::rbac::CLUSTER_ROLE,
        printer: kinds::rbac::ROLE_PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "RoleBinding",
        resource: "rolebindings",
        singular: "rolebinding",
        storage: rbac("rolebindings", "RoleBinding"),
        strategy: kinds::rbac::BINDING,
        printer: kinds::rbac::BINDING_PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "Role",
        resource: "roles",
        singular: "role",
        storage: rbac("roles", "Role"),
        strategy: kinds::rbac::ROLE,
        printer: kinds::rbac::ROLE_PRINTER,
        ..PLAIN
    },
];
