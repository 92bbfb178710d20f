//! What the API says about itself: discovery (both forms), OpenAPI v3 and v2, made from the list of served kinds.
//!
//! Only what is served is described: definitions are the closure of what the served kinds refer to. OpenAPI documents
//! are large, asked for rarely and often only by their hash; so they are made when first asked for, piece by piece
//! (never as one tree), and kept compressed. Hashes come from what goes in, not from what comes out: an index costs
//! no generation.

mod descriptions;
mod discovery;
mod openapi_v2;
mod openapi_v3;
mod operations;
mod protobuf;
mod rendering;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, LazyLock, OnceLock};

/// What clients name in `Accept` for the protobuf form of OpenAPI v2.
pub const OPENAPI_V2_PROTOBUF_ACCEPT: &str =
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// What the answer's `Content-Type` is then: `@` may not stand in a media type, and Go's parser refuses it.
pub const OPENAPI_V2_PROTOBUF_CONTENT_TYPE: &str =
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// One kind that the API serves. A kind served in two versions is two of these.
#[derive(Debug, Clone, Serialize)]
pub struct Served {
    /// `""` for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub resource: String,
    pub singular: String,
    pub namespaced: bool,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// create, delete, deletecollection, get, list, patch, update, watch.
    pub verbs: Vec<String>,
    pub subresources: Vec<ServedSubresource>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ServedSubresource {
    /// `status`, `scale`, `log`, …
    pub name: String,
    /// The group and version of its body's kind, where they are not those of the resource (`autoscaling/v1` Scale).
    pub group_version: Option<(String, String)>,
    pub kind: String,
    pub verbs: Vec<String>,
}

/// Which of the two roots of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `/api`: the core group.
    Core,
    /// `/apis`: all other groups.
    Groups,
}

/// A document as kept: compressed, with a strong tag of its content.
#[derive(Debug, Clone)]
pub struct Document {
    /// Upper-case hex, without the quotes of the HTTP header.
    pub etag: String,
    /// The gzip stream; may be sent as it is to who accepts it.
    pub gzip: Arc<[u8]>,
}

impl Document {
    /// The plain bytes.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*self.gzip)
            .read_to_end(&mut plain)
            .expect("a stream that this process compressed decompresses");
        plain
    }
}

/// All documents about one list of served kinds.
#[derive(Debug)]
pub struct Documents {
    kinds: Vec<Served>,
    v3: BTreeMap<GroupVersion, OnceLock<Document>>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

type GroupVersion = (String, String);

impl Documents {
    pub fn new(mut kinds: Vec<Served>) -> Documents {
        kinds.sort_by(|a, b| {
            (&a.group, &a.version, &a.resource).cmp(&(&b.group, &b.version, &b.resource))
        });
        let group_versions = kinds.iter().map(|kind| (kind.group.clone(), kind.version.clone()));
        let v3 = group_versions.map(|it| (it, OnceLock::new())).collect();
        Documents { kinds, v3, v2: OnceLock::new(), v2_protobuf: OnceLock::new() }
    }

    /// `/api`: `APIVersions`. `address` is where clients reach this server, `host:port`.
    pub fn api_versions(&self, address: &str) -> Value {
        discovery::api_versions(&self.kinds, address)
    }

    /// `/apis`: `APIGroupList`.
    pub fn api_groups(&self) -> Value {
        discovery::api_groups(&self.kinds)
    }

    /// `/apis/{group}`: `APIGroup`.
    pub fn api_group(&self, group: &str) -> Option<Value> {
        discovery::api_group(&self.kinds, group)
    }

    /// `/api/v1` and `/apis/{group}/{version}`: `APIResourceList`.
    pub fn api_resources(&self, group: &str, version: &str) -> Option<Value> {
        discovery::api_resources(self.of(group, version))
    }

    /// `/api` and `/apis` as `application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList`.
    pub fn aggregated(&self, root: Root) -> Value {
        discovery::aggregated(&self.kinds, root)
    }

    /// `/openapi/v3`.
    pub fn openapi_v3_index(&self) -> Value {
        let paths = self.v3.keys().map(|(group, version)| {
            let path = group_version_path(group, version);
            let hash = self.hash(&self.of(group, version).collect::<Vec<_>>());
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, serde_json::json!({ "serverRelativeURL": url }))
        });
        serde_json::json!({ "paths": paths.collect::<serde_json::Map<_, _>>() })
    }

    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/apps/v1`. The etag is the index's hash.
    pub fn openapi_v3(&self, group: &str, version: &str) -> Option<Document> {
        let cell = self.v3.get(&(group.to_owned(), version.to_owned()))?;
        let document = cell.get_or_init(|| {
            let kinds: Vec<&Served> = self.of(group, version).collect();
            self.compressed(&kinds, |out| openapi_v3::write(&kinds, out))
        });
        Some(document.clone())
    }

    /// `/openapi/v2` as JSON.
    pub fn openapi_v2(&self) -> Document {
        let make = || {
            let kinds: Vec<&Served> = self.kinds.iter().collect();
            self.compressed(&kinds, |out| openapi_v2::write(&kinds, out))
        };
        self.v2.get_or_init(make).clone()
    }

    /// `/openapi/v2` for [`OPENAPI_V2_PROTOBUF_ACCEPT`].
    pub fn openapi_v2_protobuf(&self) -> Document {
        let make = || {
            let kinds: Vec<&Served> = self.kinds.iter().collect();
            self.compressed(&kinds, |out| out.write_all(&openapi_v2::protobuf(&kinds)))
        };
        self.v2_protobuf.get_or_init(make).clone()
    }

    fn of(&self, group: &str, version: &str) -> impl Iterator<Item = &Served> {
        self.kinds.iter().filter(move |kind| kind.group == group && kind.version == version)
    }

    fn compressed(
        &self,
        kinds: &[&Served],
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Document {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let written = write(&mut encoder).and_then(|()| encoder.finish());
        let gzip = written.expect("writing to memory does not fail");
        Document { etag: self.hash(kinds), gzip: gzip.into() }
    }

    /// What a document about these kinds is made from, as one number.
    fn hash(&self, kinds: &[&Served]) -> String {
        static SOURCES: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let mut hash = Sha256::new();
            hash.update(env!("CARGO_PKG_VERSION"));
            hash.update(crate::schema::FACTS);
            hash.update(descriptions::DESCRIPTIONS);
            hash.finalize().to_vec()
        });
        let mut hash = Sha256::new();
        hash.update(&*SOURCES);
        hash.update(serde_json::to_vec(kinds).expect("strings and flags are JSON"));
        hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

fn group_version_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

#[cfg(test)]
mod tests;
