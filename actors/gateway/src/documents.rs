//! The documents that describe the API: discovery, OpenAPI, version, and the token issuer's keys.
//!
//! Each is made when it is first asked for, from the kinds registry, and kept as the bytes that are sent, with an
//! ETag, so that clients that poll (kubectl's cache, controllers) get 304.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use kactor_api::{Api, Status, TokenKeys};
use serde_json::{Value, json};

use crate::discovery::{self, Root};
use crate::negotiate::{Clause, clauses};
use crate::reply::{self, Reply, ReplyBody};
use crate::route::Document;
use crate::version;

pub(crate) struct Documents {
    advertised: String,
    issuer: String,
    key_set: Value,
    made: Mutex<BTreeMap<String, Made>>,
}

/// A document as it is sent.
#[derive(Clone)]
struct Made {
    content_type: String,
    bytes: Bytes,
    etag: String,
}

/// What was asked for, in the form that the client takes.
enum Form {
    Plain,
    /// `APIGroupDiscoveryList` of this version.
    Aggregated(&'static str),
}

impl Documents {
    pub fn new(api: &Api, advertised: String) -> Self {
        let key_set = TokenKeys::new(&api.config().token_keys)
            .map(|it| it.key_set())
            .expect("the API was made with these very keys");
        Self { advertised, issuer: api.config().issuer.clone(), key_set, made: Mutex::default() }
    }

    pub fn answer(&self, document: &Document, headers: &HeaderMap) -> Result<Reply, Status> {
        match document {
            Document::Paths => Ok(reply::json(200, &paths())),
            Document::Version => Ok(reply::json(200, &version::document())),
            Document::OpenIdConfiguration => Ok(reply::json(200, &self.openid())),
            Document::KeySet => Ok(reply::json(200, &self.key_set)),
            Document::CoreVersions => self.discovered(headers, Root::Core),
            Document::Groups => self.discovered(headers, Root::Named),
            Document::Group(name) => found(discovery::group(name)),
            Document::Resources { group, version } => found(discovery::resources(group, version)),
            Document::OpenApiV2 | Document::OpenApiV3Index | Document::OpenApiV3(_) => {
                Err(Status::path_not_found())
            }
        }
    }

    fn openid(&self) -> Value {
        let issuer = &self.issuer;
        json!({
            "issuer": issuer,
            "jwks_uri": format!("https://{}/openid/v1/jwks", self.advertised),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    fn discovered(&self, headers: &HeaderMap, root: Root) -> Result<Reply, Status> {
        let form = discovery_form(&clauses(headers));
        let made = match form {
            Form::Aggregated(version) => self.kept(&format!("{root:?}/{version}"), || {
                let content_type =
                    format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                (content_type, print(&discovery::aggregated(root, version)))
            }),
            Form::Plain => self.kept(&format!("{root:?}"), || {
                let tree = match root {
                    Root::Core => discovery::core_versions(&self.advertised),
                    Root::Named => discovery::groups(),
                };
                (reply::JSON.to_owned(), print(&tree))
            }),
        };
        Ok(made.reply(headers))
    }

    fn kept(&self, key: &str, make: impl FnOnce() -> (String, Bytes)) -> Made {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = all.get(key) {
            return made.clone();
        }
        let (content_type, bytes) = make();
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let hex: String = digest.as_ref().iter().map(|it| format!("{it:02X}")).collect();
        let made = Made { content_type, bytes, etag: format!("\"{hex}\"") };
        all.insert(key.to_owned(), made.clone());
        made
    }
}

impl Made {
    fn reply(self, headers: &HeaderMap) -> Reply {
        let unchanged = headers.get(IF_NONE_MATCH).is_some_and(|it| it.as_bytes() == self.etag.as_bytes());
        let mut reply = match unchanged {
            true => reply::with_body(304, &self.content_type, ReplyBody::empty()),
            false => reply::bytes(200, &self.content_type, self.bytes),
        };
        if let Ok(value) = HeaderValue::from_str(&self.etag) {
            reply.headers_mut().insert(ETAG, value);
        }
        reply.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
        reply
    }
}

fn discovery_form(clauses: &[Clause]) -> Form {
    for clause in clauses {
        let aggregated = clause.parameter("as") == Some("APIGroupDiscoveryList")
            && clause.parameter("g") == Some("apidiscovery.k8s.io");
        match clause.parameter("v") {
            _ if clause.media_type != reply::JSON => {}
            Some("v2") if aggregated => return Form::Aggregated("v2"),
            Some("v2beta1") if aggregated => return Form::Aggregated("v2beta1"),
            None => return Form::Plain,
            Some(_) => {}
        }
    }
    Form::Plain
}

fn found(tree: Option<Value>) -> Result<Reply, Status> {
    tree.map(|it| reply::json(200, &it)).ok_or_else(Status::path_not_found)
}

fn print(tree: &Value) -> Bytes {
    let mut text = serde_json::to_vec(tree).expect("a tree has string keys only");
    text.push(b'\n');
    Bytes::from(text)
}

/// `/`: every path that answers without a resource.
fn paths() -> Value {
    let mut paths = vec![
        "/.well-known/openid-configuration".to_owned(),
        "/api".to_owned(),
        "/apis".to_owned(),
        "/healthz".to_owned(),
        "/livez".to_owned(),
        "/metrics".to_owned(),
        "/openapi/v2".to_owned(),
        "/openapi/v3".to_owned(),
        "/openid/v1/jwks".to_owned(),
        "/readyz".to_owned(),
        "/version".to_owned(),
    ];
    for (group, version) in kactor_objects::registry::registry().group_versions() {
        match group {
            "" => paths.push(format!("/api/{version}")),
            group => paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]),
        }
    }
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}
