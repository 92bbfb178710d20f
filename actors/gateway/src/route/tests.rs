//! Paths and what they name.

use proptest::prelude::*;

use super::*;

fn shown(path: &str) -> String {
    match route(path) {
        Route::Resource { resource, prefixed_watch, rest } => {
            let part = |it: Option<String>| it.unwrap_or_else(|| "-".to_owned());
            let watch = if prefixed_watch { " watch" } else { "" };
            format!(
                "{}/{} {} ns={} name={} sub={}{watch}{}",
                resource.group,
                resource.version,
                resource.resource,
                part(resource.namespace),
                part(resource.name),
                part(resource.subresource),
                rest.iter().map(|it| format!(" +{it}")).collect::<String>(),
            )
        }
        Route::Document(it) => format!("{it:?}"),
        Route::System(it) => format!("{it:?}"),
        Route::Unknown => "unknown".to_owned(),
    }
}

#[test]
fn every_form_of_path_is_read_as_kubernetes_reads_it() {
    for (path, expected) in [
        ("/", "Paths"),
        ("/api", "CoreVersions"),
        ("/api/", "CoreVersions"),
        ("/api/v1", r#"Resources { group: "", version: "v1" }"#),
        ("/apis", "Groups"),
        ("/apis/apps", r#"Group("apps")"#),
        ("/apis/apps/v1", r#"Resources { group: "apps", version: "v1" }"#),
        ("/api/v1/pods", "/v1 pods ns=- name=- sub=-"),
        ("/api/v1/nodes/n1/status", "/v1 nodes ns=- name=n1 sub=status"),
        ("/api/v1/namespaces", "/v1 namespaces ns=- name=- sub=-"),
        ("/api/v1/namespaces/a", "/v1 namespaces ns=- name=a sub=-"),
        ("/api/v1/namespaces/a/finalize", "/v1 namespaces ns=- name=a sub=finalize"),
        ("/api/v1/namespaces/a/pods", "/v1 pods ns=a name=- sub=-"),
        ("/api/v1/namespaces/a/pods/b", "/v1 pods ns=a name=b sub=-"),
        ("/api/v1/namespaces/a/pods/b/log", "/v1 pods ns=a name=b sub=log"),
        ("/api/v1/namespaces/a/services/b/proxy/c/d", "/v1 services ns=a name=b sub=proxy +c +d"),
        ("/api/v1/watch/namespaces/a/pods", "/v1 pods ns=a name=- sub=- watch"),
        (
            "/apis/apps/v1/namespaces/a/deployments/web/scale",
            "apps/v1 deployments ns=a name=web sub=scale",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
            "rbac.authorization.k8s.io/v1 clusterroles ns=- name=system:node sub=-",
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "rbac.authorization.k8s.io/v1 clusterroles ns=- name=system:node sub=-",
        ),
        ("/api/v1/watch", "unknown"),
        ("/readyz", "Health { probe: Readyz, check: None }"),
        ("/livez/poststarthook/x", r#"Health { probe: Livez, check: Some("poststarthook/x") }"#),
        ("/openapi/v3/apis/apps/v1", r#"OpenApiV3("apis/apps/v1")"#),
        ("/openapi/v2", "OpenApiV2"),
        ("/version", "Version"),
        ("/metrics", "Metrics"),
        ("/.well-known/openid-configuration", "OpenIdConfiguration"),
        ("/openid/v1/jwks", "KeySet"),
        ("/kactor/v1/insight", "Insight"),
        ("/configz", "unknown"),
        ("/favicon.ico", "unknown"),
    ] {
        assert_eq!(shown(path), expected, "{path}");
    }
}

#[test]
fn an_endless_path_names_nothing() {
    assert_eq!(route(&"/a".repeat(100_000)), Route::Unknown);
}

proptest! {
    #[test]
    fn no_path_makes_it_panic(path in "(/[a-z%.0-9:]{0,12}){0,40}") {
        route(&path);
    }
}
