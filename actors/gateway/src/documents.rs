//! The documents that describe the API: discovery, OpenAPI, version, and the token issuer's keys.
//!
//! Their content is kactor-schema's, made from the kinds registry, so that what is not served is not announced. Here
//! is HTTP around them: which form the client takes, ETags (clients that poll get 304), and compressed documents
//! sent as they are kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderName, IF_NONE_MATCH, LOCATION,
    VARY,
};
use http::{HeaderMap, HeaderValue};
use kactor_api::{Api, Status};
use kactor_objects::registry::{Kind, Subresource, registry};
use kactor_schema::documents::{self, Root, Served, ServedSubresource};
use serde_json::{Value, json};

use crate::negotiate::{Clause, clauses};
use crate::query::Query;
use crate::reply::{self, Reply, ReplyBody};
use crate::route::Document;
use crate::version;

const OPENAPI_V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

pub(crate) struct Documents {
    advertised: String,
    issuer: String,
    key_set: Value,
    described: documents::Documents,
    /// Aggregated discovery, which every client asks for first, as it is sent.
    aggregated: Mutex<BTreeMap<String, Made>>,
}

/// A document as it is sent, with its ETag.
#[derive(Clone)]
struct Made {
    bytes: Bytes,
    etag: String,
}

/// In which form discovery is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DiscoveryForm {
    Plain,
    /// `APIGroupDiscoveryList` of this version.
    Aggregated(&'static str),
}

impl Documents {
    pub fn new(api: &Api, advertised: String) -> Self {
        Self {
            advertised,
            issuer: api.config().issuer.clone(),
            key_set: api.tokens().key_set(),
            described: documents::Documents::new(registry().iter().map(served).collect()),
            aggregated: Mutex::default(),
        }
    }

    pub fn answer(
        &self,
        document: &Document,
        headers: &HeaderMap,
        query: &Query,
    ) -> Result<Reply, Status> {
        let described = &self.described;
        match document {
            Document::Paths => Ok(reply::json(200, &paths())),
            Document::Version => Ok(reply::json(200, &version::document())),
            Document::OpenIdConfiguration => Ok(reply::json(200, &self.openid())),
            Document::KeySet => Ok(reply::json(200, &self.key_set)),
            Document::CoreVersions => Ok(self.discovered(headers, Root::Core)),
            Document::Groups => Ok(self.discovered(headers, Root::Groups)),
            Document::Group(name) => found(described.api_group(name)),
            Document::Resources { group, version } => {
                found(described.api_resources(group, version))
            }
            Document::OpenApiV3Index => Ok(reply::json(200, &described.openapi_v3_index())),
            Document::OpenApiV3(path) => self.openapi_v3(path, headers, query),
            Document::OpenApiV2 => self.openapi_v2(headers),
        }
    }

    fn openid(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("https://{}/openid/v1/jwks", self.advertised),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    fn discovered(&self, headers: &HeaderMap, root: Root) -> Reply {
        let DiscoveryForm::Aggregated(version) = discovery_form(&clauses(headers)) else {
            let tree = match root {
                Root::Core => self.described.api_versions(&self.advertised),
                Root::Groups => self.described.api_groups(),
            };
            return vary(reply::json(200, &tree), &http::header::ACCEPT);
        };
        let made = self.aggregated(root, version);
        let content_type =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let reply = match is_unchanged(headers, &made.etag) {
            true => reply::with_body(304, &content_type, ReplyBody::empty()),
            false => reply::bytes(200, &content_type, made.bytes),
        };
        vary(tagged(reply, &made.etag), &http::header::ACCEPT)
    }

    fn aggregated(&self, root: Root, version: &str) -> Made {
        let key = format!("{root:?}/{version}");
        let mut kept = self.aggregated.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = kept.get(&key) {
            return made.clone();
        }
        let mut tree = self.described.aggregated(root);
        tree["apiVersion"] = json!(format!("apidiscovery.k8s.io/{version}"));
        let mut text = serde_json::to_vec(&tree).expect("a tree has string keys only");
        text.push(b'\n');
        let digest = ring::digest::digest(&ring::digest::SHA256, &text);
        let etag = digest.as_ref().iter().map(|it| format!("{it:02X}")).collect();
        let made = Made { bytes: Bytes::from(text), etag };
        kept.insert(key, made.clone());
        made
    }

    /// `?hash=` comes from the index and makes the answer cacheable for ever; an old hash is led to the new one.
    fn openapi_v3(&self, path: &str, headers: &HeaderMap, query: &Query) -> Result<Reply, Status> {
        if !accepts(headers, reply::JSON) {
            return Err(Status::not_acceptable(&[reply::JSON]));
        }
        let (group, version) = group_version(path).ok_or_else(Status::path_not_found)?;
        let document = self.described.openapi_v3(group, version);
        let document = document.ok_or_else(Status::path_not_found)?;
        let asked = query.get("hash").filter(|it| !it.is_empty());
        if let Some(hash) = asked
            && hash != document.etag
        {
            let mut reply = reply::with_body(301, reply::JSON, ReplyBody::empty());
            let to = format!("/openapi/v3/{path}?hash={}", document.etag);
            reply.headers_mut().extend(HeaderValue::from_str(&to).map(|it| (LOCATION, it)));
            return Ok(reply);
        }
        let mut reply = kept(&document, reply::JSON, headers);
        if asked.is_some() {
            let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
            reply.headers_mut().insert(CACHE_CONTROL, for_ever);
        }
        Ok(reply)
    }

    fn openapi_v2(&self, headers: &HeaderMap) -> Result<Reply, Status> {
        if accepts(headers, reply::JSON) && !prefers_protobuf(headers) {
            return Ok(kept(&self.described.openapi_v2(), reply::JSON, headers));
        }
        if prefers_protobuf(headers) {
            let document = self.described.openapi_v2_protobuf();
            return Ok(kept(&document, OPENAPI_V2_PROTOBUF[1], headers));
        }
        Err(Status::not_acceptable(&[reply::JSON, OPENAPI_V2_PROTOBUF[1]]))
    }
}

fn served(kind: &Kind) -> Served {
    let own = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect();
    let verbs = |verbs: &[kactor_objects::registry::Verb]| {
        verbs.iter().map(|it| it.as_str().to_owned()).collect()
    };
    let subresource = |sub: &Subresource| {
        let foreign = (sub.group, sub.version) != (kind.group, kind.version);
        ServedSubresource {
            name: sub.name.to_owned(),
            group_version: foreign.then(|| (sub.group.to_owned(), sub.version.to_owned())),
            kind: sub.kind.to_owned(),
            verbs: verbs(sub.verbs),
        }
    };
    Served {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        kind: kind.kind.to_owned(),
        resource: kind.resource.to_owned(),
        singular: kind.singular.to_owned(),
        namespaced: kind.is_namespaced(),
        short_names: own(kind.short_names),
        categories: own(kind.categories),
        verbs: verbs(kind.verbs),
        subresources: kind.subresources.iter().map(subresource).collect(),
    }
}

/// `api/v1`, `apis/apps/v1`
fn group_version(path: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["api", version] => Some(("", version)),
        ["apis", group, version] => Some((group, version)),
        _ => None,
    }
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let clauses = clauses(headers);
    clauses.is_empty() || clauses.iter().any(|it| it.takes(media_type))
}

/// Whether protobuf is named before anything that JSON would do for.
fn prefers_protobuf(headers: &HeaderMap) -> bool {
    let clauses = clauses(headers);
    let named = |it: &Clause| OPENAPI_V2_PROTOBUF.contains(&it.media_type.as_str());
    let first = clauses.iter().find(|it| named(it) || it.takes(reply::JSON));
    first.is_some_and(named)
}

/// A kept document: compressed bytes go out as they are to who takes gzip.
fn kept(document: &documents::Document, content_type: &str, headers: &HeaderMap) -> Reply {
    if is_unchanged(headers, &document.etag) {
        return tagged(reply::with_body(304, content_type, ReplyBody::empty()), &document.etag);
    }
    let encodings = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
    let gzip = encodings
        .flat_map(|it| it.split(','))
        .any(|it| it.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case("gzip")));
    let mut reply = match gzip {
        true => reply::bytes(200, content_type, Bytes::copy_from_slice(&document.gzip)),
        false => reply::bytes(200, content_type, document.plain()),
    };
    if gzip {
        reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    vary(tagged(reply, &document.etag), &ACCEPT_ENCODING)
}

fn is_unchanged(headers: &HeaderMap, etag: &str) -> bool {
    let sent = headers.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok());
    sent.is_some_and(|it| it.split(',').any(|it| it.trim().trim_matches('"') == etag))
}

fn tagged(mut reply: Reply, etag: &str) -> Reply {
    let value = HeaderValue::from_str(&format!("\"{etag}\""));
    reply.headers_mut().extend(value.map(|it| (ETAG, it)));
    reply
}

fn vary(mut reply: Reply, on: &HeaderName) -> Reply {
    let on = HeaderValue::from_str(on.as_str()).expect("header names are header values");
    reply.headers_mut().append(VARY, on);
    reply
}

fn discovery_form(clauses: &[Clause]) -> DiscoveryForm {
    for clause in clauses.iter().filter(|it| it.takes(reply::JSON)) {
        let aggregated = clause.parameter("as") == Some("APIGroupDiscoveryList")
            && clause.parameter("g") == Some("apidiscovery.k8s.io");
        match clause.parameter("v") {
            Some("v2") if aggregated => return DiscoveryForm::Aggregated("v2"),
            Some("v2beta1") if aggregated => return DiscoveryForm::Aggregated("v2beta1"),
            None => return DiscoveryForm::Plain,
            Some(_) => {}
        }
    }
    DiscoveryForm::Plain
}

fn found(tree: Option<Value>) -> Result<Reply, Status> {
    tree.map(|it| reply::json(200, &it)).ok_or_else(Status::path_not_found)
}

/// `/`: every path that answers without a resource.
fn paths() -> Value {
    const FIXED: [&str; 11] = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    let mut paths: Vec<String> = FIXED.into_iter().map(str::to_owned).collect();
    for (group, version) in registry().group_versions() {
        match group {
            "" => paths.push(format!("/api/{version}")),
            group => paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]),
        }
    }
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(accept: &str) -> HeaderMap {
        let value = HeaderValue::from_str(accept).unwrap();
        [(http::header::ACCEPT, value)].into_iter().collect()
    }

    #[test]
    fn discovery_is_aggregated_for_those_who_ask_first_for_it() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let v2beta1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        for (accept, expected) in [
            (format!("{v2},{v2beta1},application/json"), DiscoveryForm::Aggregated("v2")),
            (format!("{v2beta1},application/json"), DiscoveryForm::Aggregated("v2beta1")),
            ("application/json".to_owned(), DiscoveryForm::Plain),
            (format!("application/json,{v2}"), DiscoveryForm::Plain),
            ("*/*".to_owned(), DiscoveryForm::Plain),
            (v2.replace("v=v2", "v=v3"), DiscoveryForm::Plain),
        ] {
            assert_eq!(discovery_form(&clauses(&accepting(&accept))), expected, "{accept}");
        }
    }

    #[test]
    fn openapi_v2_is_protobuf_for_those_who_name_it_first() {
        let pb = OPENAPI_V2_PROTOBUF[0];
        for (accept, expected) in [
            (pb.to_owned(), true),
            (format!("{pb},application/json"), true),
            (format!("application/json,{pb}"), false),
            ("*/*".to_owned(), false),
        ] {
            assert_eq!(prefers_protobuf(&accepting(&accept)), expected, "{accept}");
        }
    }

    #[test]
    fn every_path_of_the_registry_is_listed() {
        let tree = paths();
        let listed: Vec<&str> =
            tree["paths"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for path in ["/api/v1", "/apis/apps", "/apis/apps/v1", "/readyz", "/openapi/v3"] {
            assert!(listed.contains(&path), "{path}");
        }
    }
}
