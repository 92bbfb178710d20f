//! Rows of the core group, `/api/v1`.

use super::{Access, Kind, Scope, Storage, Stored, Strategy, Subresource, Verb, as_stored};
use crate::fields::SelectableField;
use crate::kinds;
use crate::table::Printer;

const fn stored(resource: &'static str, kind: &'static str) -> Storage {
    Storage::Stored(Stored {
        group: "",
        resource,
        api_version: "v1",
        kind,
        version: 1,
        from_storage: as_stored,
        to_storage: as_stored,
    })
}

const fn sub(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [Verb],
    access: Access,
) -> Subresource {
    Subresource { name, group: "", version: "v1", kind, verbs, access }
}

const CONNECT: &[Verb] = &[Verb::Create, Verb::Get];
const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
const NO_DELETE_COLLECTION: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

const PLAIN: Kind = Kind {
    group: "",
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

pub(super) static KINDS: &[Kind] = &[
    Kind {
        kind: "Binding",
        resource: "bindings",
        singular: "binding",
        verbs: Verb::CREATE,
        ..PLAIN
    },
    Kind {
        kind: "ConfigMap",
        resource: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        storage: stored("configmaps", "ConfigMap"),
        strategy: kinds::config_map::STRATEGY,
        printer: kinds::config_map::PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "Endpoints",
        resource: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        storage: stored("endpoints", "Endpoints"),
        strategy: kinds::endpoints::STRATEGY,
        printer: kinds::endpoints::PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "Event",
        resource: "events",
        singular: "event",
        short_names: &["ev"],
        storage: stored("events", "Event"),
        strategy: kinds::event::STRATEGY,
        fields: kinds::event::CORE_FIELDS,
        printer: kinds::event::CORE_PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "Namespace",
        resource: "namespaces",
        singular: "namespace",
        scope: Scope::Cluster,
        short_names: &["ns"],
        verbs: NO_DELETE_COLLECTION,
        subresources: &[
            sub(
                "finalize",
                "Namespace",
                &[Verb::Update],
                Access::Object(kinds::namespace::FINALIZE),
            ),
            sub("status", "Namespace", Verb::CHANGE, Access::Object(kinds::namespace::STATUS)),
        ],
        storage: stored("namespaces", "Namespace"),
        strategy: kinds::namespace::STRATEGY,
        fields: &[SelectableField::text(&["status.phase"])],
        printer: kinds::namespace::PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "Node",
        resource: "nodes",
        singular: "node",
        scope: Scope::Cluster,
        short_names: &["no"],
        subresources: &[
            sub("proxy", "NodeProxyOptions", PROXY, Access::Connect),
            sub("status", "Node", Verb::CHANGE, Access::Object(kinds::node::STATUS)),
        ],
        storage: stored("nodes", "Node"),
        strategy: kinds::node::STRATEGY,
        fields: &[SelectableField::or(&["spec.unschedulable"], "false")],
        printer: kinds::node::PRINTER,
        ..PLAIN
    },
    POD,
    Kind {
        kind: "Secret",
        resource: "secrets",
        singular: "secret",
        storage: stored("secrets", "Secret"),
        strategy: kinds::secret::STRATEGY,
        fields: &[SelectableField::text(&["type"])],
        printer: kinds::secret::PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "ServiceAccount",
        resource: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        subresources: &[Subresource {
            name: "token",
            group: "authentication.k8s.io",
            version: "v1",
            kind: "TokenRequest",
            verbs: Verb::CREATE,
            access: Access::Action,
        }],
        storage: stored("serviceaccounts", "ServiceAccount"),
        strategy: kinds::service_account::STRATEGY,
        printer: kinds::service_account::PRINTER,
        ..PLAIN
    },
    Kind {
        kind: "Service",
        resource: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[sub(
            "status",
            "Service",
            Verb::CHANGE,
            Access::Object(kinds::service::STATUS),
        )],
        storage: stored("services", "Service"),
        strategy: kinds::service::STRATEGY,
        fields: &[
            SelectableField::text(&["spec.clusterIP"]),
            SelectableField::text(&["spec.type"]),
        ],
        printer: kinds::service::PRINTER,
        ..PLAIN
    },
];

const POD: Kind = Kind {
    kind: "Pod",
    resource: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: &[
        sub("attach", "PodAttachOptions", CONNECT, Access::Connect),
        sub("binding", "Binding", Verb::CREATE, Access::Action),
        sub(
            "ephemeralcontainers",
            "Pod",
            Verb::CHANGE,
            Access::Object(kinds::pod::EPHEMERAL_CONTAINERS),
        ),
        Subresource {
            name: "eviction",
            group: "policy",
            version: "v1",
            kind: "Eviction",
            verbs: Verb::CREATE,
            access: Access::Action,
        },
        sub("exec", "PodExecOptions", CONNECT, Access::Connect),
        sub("log", "Pod", &[Verb::Get], Access::Connect),
        sub("portforward", "PodPortForwardOptions", CONNECT, Access::Connect),
        sub("resize", "Pod", Verb::CHANGE, Access::Object(kinds::pod::RESIZE)),
        sub("status", "Pod", Verb::CHANGE, Access::Object(kinds::pod::STATUS)),
    ],
    storage: stored("pods", "Pod"),
    strategy: kinds::pod::STRATEGY,
    fields: &[
        SelectableField::text(&["spec.nodeName"]),
        SelectableField::text(&["spec.restartPolicy"]),
        SelectableField::text(&["spec.schedulerName"]),
        SelectableField::text(&["spec.serviceAccountName"]),
        SelectableField::or(&["spec.hostNetwork"], "false"),
        SelectableField::text(&["status.phase"]),
        SelectableField::text(&["status.podIP"]),
        SelectableField::text(&["status.nominatedNodeName"]),
    ],
    printer: kinds::pod::PRINTER,
    ..PLAIN
};
