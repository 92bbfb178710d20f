//! What a path names: an API resource, a document of discovery, or one of the endpoints beside the API.
//!
//! No table of routes: the grammar of Kubernetes' paths is small and its kinds are data
//! (k8s.io/apiserver pkg/endpoints/request/requestinfo.go). Whether the kind exists is the API's to say.

use kactor_api::Resource;

use crate::query::{Plus, decode};

/// Deeper paths name nothing that is served.
const SEGMENTS_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Resource {
        resource: Resource,
        /// `/api/v1/watch/…`, the old way to ask for a watch.
        prefixed_watch: bool,
        /// What follows the subresource: `/proxy/some/path`.
        rest: Vec<String>,
    },
    Document(Document),
    System(System),
    /// Nothing is served there.
    Unknown,
}

/// What describes the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// `/`
    Paths,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1` (an empty group), `/apis/GROUP/VERSION`
    Resources { group: String, version: String },
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiV3Index,
    /// `/openapi/v3/PATH`, PATH such as `apis/apps/v1`
    OpenApiV3(String),
    /// `/version`
    Version,
    /// `/.well-known/openid-configuration`
    OpenIdConfiguration,
    /// `/openid/v1/jwks`
    KeySet,
}

/// What runs beside the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    Health {
        probe: Probe,
        check: Option<String>,
    },
    Metrics,
    /// `/kactor/v1/insight`
    Insight,
    /// `/kactor/v1/status`
    Status,
    /// `/kactor/v1/images`
    Images,
    /// `/kactor/v1/snapshot`
    Snapshot,
    /// `/kactor/v1/cluster`
    Cluster,
    /// `/kactor/v1/ca`
    Authority,
    /// `/kactor/v1/join`
    Join,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    Healthz,
    Livez,
    Readyz,
}

impl Probe {
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }
}

/// Reads a path as it stands in the URL (still percent-encoded).
pub fn route(path: &str) -> Route {
    let segments: Vec<String> = path
        .split('/')
        .filter(|it| !it.is_empty())
        .take(SEGMENTS_MAX + 1)
        .map(|it| decode(it, Plus::Plus))
        .collect();
    if segments.len() > SEGMENTS_MAX {
        return Route::Unknown;
    }
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] => Route::Document(Document::Paths),
        ["api"] => Route::Document(Document::CoreVersions),
        ["apis"] => Route::Document(Document::Groups),
        ["api", version] => documents("", version),
        ["apis", group] => Route::Document(Document::Group((*group).to_owned())),
        ["apis", group, version] => documents(group, version),
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        other => beside(other),
    }
}

fn documents(group: &str, version: &str) -> Route {
    Route::Document(Document::Resources { group: group.to_owned(), version: version.to_owned() })
}

fn beside(names: &[&str]) -> Route {
    let health = |probe, check: &[&str]| {
        let check = (!check.is_empty()).then(|| check.join("/"));
        Route::System(System::Health { probe, check })
    };
    match names {
        ["healthz", check @ ..] => health(Probe::Healthz, check),
        ["livez", check @ ..] => health(Probe::Livez, check),
        ["readyz", check @ ..] => health(Probe::Readyz, check),
        ["version"] => Route::Document(Document::Version),
        ["openapi", "v2"] => Route::Document(Document::OpenApiV2),
        ["openapi", "v3"] => Route::Document(Document::OpenApiV3Index),
        ["openapi", "v3", path @ ..] => Route::Document(Document::OpenApiV3(path.join("/"))),
        [".well-known", "openid-configuration"] => Route::Document(Document::OpenIdConfiguration),
        ["openid", "v1", "jwks"] => Route::Document(Document::KeySet),
        ["metrics"] => Route::System(System::Metrics),
        ["kactor", "v1", "insight"] => Route::System(System::Insight),
        ["kactor", "v1", "status"] => Route::System(System::Status),
        ["kactor", "v1", "images"] => Route::System(System::Images),
        ["kactor", "v1", "snapshot"] => Route::System(System::Snapshot),
        ["kactor", "v1", "cluster"] => Route::System(System::Cluster),
        ["kactor", "v1", "ca"] => Route::System(System::Authority),
        ["kactor", "v1", "join"] => Route::System(System::Join),
        _ => Route::Unknown,
    }
}

/// Subresources of a namespace; every other third segment is a resource inside it.
const OF_NAMESPACES: [&str; 2] = ["status", "finalize"];

fn resource(group: &str, version: &str, names: &[&str]) -> Route {
    let (prefixed_watch, names) = match names {
        ["watch", rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (namespace, names) = match names {
        ["namespaces", namespace, inner, rest @ ..] if !OF_NAMESPACES.contains(inner) => {
            (Some((*namespace).to_owned()), [&[*inner], rest].concat())
        }
        all => (None, all.to_vec()),
    };
    let Some((plural, names)) = names.split_first() else {
        return Route::Unknown;
    };
    let mut resource = Resource::new(group, version, plural);
    resource.namespace = namespace;
    resource.name = names.first().map(|it| (*it).to_owned());
    resource.subresource = names.get(1).map(|it| (*it).to_owned());
    let rest = names.iter().skip(2).map(|it| (*it).to_owned()).collect();
    Route::Resource { resource, prefixed_watch, rest }
}

#[cfg(test)]
mod tests;
