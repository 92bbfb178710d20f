//! What a pod's `spec.volumes` ask for, as a plan without IO.
//!
//! A kind or field that this node does not honour refuses the pod by name (design section 9).
//! Field reference: Kubernetes API reference, core/v1 Volume.

use serde::Deserialize;
use serde_json::Value;

/// Mode bits of projected files when the object names none (core/v1 defaults).
pub const DEFAULT_MODE: u32 = 0o644;

/// A volume as the node makes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    pub name: String,
    pub source: Source,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    EmptyDir {
        in_memory: bool,
        size_limit: Option<Value>,
    },
    HostPath {
        path: String,
        kind: HostPathKind,
    },
    /// Files made of API objects; `sources` are layered in order.
    Projected {
        sources: Vec<Projection>,
        default_mode: u32,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum HostPathKind {
    /// Nothing is checked.
    #[default]
    #[serde(rename = "")]
    Any,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One source of a projected volume. A configMap, secret or downwardAPI volume is one with a single source.
#[derive(Debug, Clone, PartialEq)]
pub enum Projection {
    ConfigMap { name: String, items: Vec<KeyToPath>, optional: bool },
    Secret { name: String, items: Vec<KeyToPath>, optional: bool },
    DownwardApi { items: Vec<DownwardFile> },
    ServiceAccountToken { audience: Option<String>, expiration_seconds: u64, path: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyToPath {
    pub key: String,
    pub path: String,
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DownwardFile {
    pub path: String,
    pub mode: Option<u32>,
    pub field_ref: Option<FieldRef>,
    pub resource_field_ref: Option<ResourceRef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    pub api_version: Option<String>,
    pub field_path: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceRef {
    pub container_name: Option<String>,
    pub resource: String,
    pub divisor: Option<Value>,
}

/// Why this node does not make a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.volumes[{index}] ({name}): {problem}")]
pub struct Unsupported {
    pub index: usize,
    pub name: String,
    pub problem: String,
}

// The API's shapes; only `read` turns them into a plan.

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawVolume {
    name: String,
    empty_dir: Option<RawEmptyDir>,
    host_path: Option<RawHostPath>,
    config_map: Option<RawConfigMap>,
    secret: Option<RawSecret>,
    #[serde(rename = "downwardAPI")]
    downward_api: Option<RawDownward>,
    projected: Option<RawProjected>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawEmptyDir {
    #[serde(default)]
    medium: String,
    size_limit: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHostPath {
    path: String,
    #[serde(rename = "type", default)]
    kind: Option<HostPathKind>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawConfigMap {
    #[serde(default)]
    name: String,
    #[serde(default)]
    items: Vec<KeyToPath>,
    default_mode: Option<u32>,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSecret {
    #[serde(default)]
    secret_name: String,
    #[serde(default)]
    items: Vec<KeyToPath>,
    default_mode: Option<u32>,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawDownward {
    #[serde(default)]
    items: Vec<DownwardFile>,
    default_mode: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawProjected {
    #[serde(default)]
    sources: Vec<RawSource>,
    default_mode: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSource {
    config_map: Option<RawConfigMap>,
    secret: Option<RawProjectedSecret>,
    #[serde(rename = "downwardAPI")]
    downward_api: Option<RawDownward>,
    service_account_token: Option<RawToken>,
}

/// Inside a projected volume a secret is named by `name`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProjectedSecret {
    #[serde(default)]
    name: String,
    #[serde(default)]
    items: Vec<KeyToPath>,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawToken {
    audience: Option<String>,
    #[serde(default = "an_hour")]
    expiration_seconds: u64,
    path: String,
}

fn an_hour() -> u64 {
    3600
}

/// Reads `spec.volumes`.
///
/// # Errors
/// Names the first volume that this node does not honour.
pub fn read(volumes: &[Value]) -> Result<Vec<Volume>, Unsupported> {
    volumes.iter().enumerate().map(|(index, it)| read_one(index, it)).collect()
}

fn read_one(index: usize, json: &Value) -> Result<Volume, Unsupported> {
    let name = json["name"].as_str().unwrap_or_default().to_owned();
    let raw: RawVolume = serde_path_to_error::deserialize(json).map_err(|error| Unsupported {
        index,
        name: name.clone(),
        problem: format!("{}: this node does not honour it: {}", error.path(), error.inner()),
    })?;
    let refuse = |problem: String| Unsupported { index, name: name.clone(), problem };
    Ok(Volume { name: raw.name.clone(), source: source(raw).map_err(refuse)? })
}

fn source(raw: RawVolume) -> Result<Source, String> {
    if let Some(it) = raw.empty_dir {
        return match it.medium.as_str() {
            "" => Ok(Source::EmptyDir { in_memory: false, size_limit: it.size_limit }),
            "Memory" => Ok(Source::EmptyDir { in_memory: true, size_limit: it.size_limit }),
            other => {
                Err(format!("emptyDir.medium {other:?} is not honoured; \"\" and \"Memory\" are"))
            }
        };
    }
    if let Some(it) = raw.host_path {
        return Ok(Source::HostPath { path: it.path, kind: it.kind.unwrap_or_default() });
    }
    let projected = |source, mode: Option<u32>| Source::Projected {
        sources: vec![source],
        default_mode: mode.unwrap_or(DEFAULT_MODE),
    };
    if let Some(it) = raw.config_map {
        let mode = it.default_mode;
        return Ok(projected(config_map(it), mode));
    }
    if let Some(it) = raw.secret {
        let source =
            Projection::Secret { name: it.secret_name, items: it.items, optional: it.optional };
        return Ok(projected(source, it.default_mode));
    }
    if let Some(it) = raw.downward_api {
        return Ok(projected(Projection::DownwardApi { items: it.items }, it.default_mode));
    }
    if let Some(it) = raw.projected {
        let sources: Result<_, _> = it.sources.into_iter().map(projection).collect();
        return Ok(Source::Projected {
            sources: sources?,
            default_mode: it.default_mode.unwrap_or(DEFAULT_MODE),
        });
    }
    // No source at all means emptyDir (core/v1 SetDefaults_Volume).
    Ok(Source::EmptyDir { in_memory: false, size_limit: None })
}

fn config_map(it: RawConfigMap) -> Projection {
    Projection::ConfigMap { name: it.name, items: it.items, optional: it.optional }
}

fn projection(raw: RawSource) -> Result<Projection, String> {
    if let Some(it) = raw.config_map {
        return Ok(config_map(it));
    }
    if let Some(it) = raw.secret {
        return Ok(Projection::Secret { name: it.name, items: it.items, optional: it.optional });
    }
    if let Some(it) = raw.downward_api {
        return Ok(Projection::DownwardApi { items: it.items });
    }
    match raw.service_account_token {
        Some(it) => Ok(Projection::ServiceAccountToken {
            audience: it.audience,
            expiration_seconds: it.expiration_seconds,
            path: it.path,
        }),
        None => Err("projected.sources has an empty source".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(json: Value) -> Result<Source, String> {
        read(&[json]).map(|mut it| it.remove(0).source).map_err(|it| it.to_string())
    }

    #[test]
    fn every_honoured_kind_is_read() {
        let source = one(json!({ "name": "v", "emptyDir": { "medium": "Memory" } })).unwrap();
        assert_eq!(source, Source::EmptyDir { in_memory: true, size_limit: None });
        assert!(matches!(
            one(json!({ "name": "v" })),
            Ok(Source::EmptyDir { in_memory: false, .. })
        ));
        let source = one(json!({ "name": "v", "hostPath": { "path": "/x", "type": "" } })).unwrap();
        assert_eq!(source, Source::HostPath { path: "/x".to_owned(), kind: HostPathKind::Any });
        let source =
            one(json!({ "name": "v", "secret": { "secretName": "s", "defaultMode": 256 } }));
        assert!(matches!(source, Ok(Source::Projected { default_mode: 0o400, .. })));
        let token = json!({ "name": "v", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
        ] } });
        let Ok(Source::Projected { sources, .. }) = one(token) else { panic!("not projected") };
        assert_eq!(sources.len(), 3);
        let expected = Projection::ServiceAccountToken {
            audience: None,
            expiration_seconds: 3600,
            path: "token".to_owned(),
        };
        assert_eq!(sources[0], expected);
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name() {
        let error = one(json!({ "name": "v", "nfs": { "server": "s", "path": "/" } })).unwrap_err();
        assert!(
            error.starts_with("spec.volumes[0] (v): nfs") && error.contains("unknown field"),
            "{error}"
        );
        let error = one(json!({ "name": "v", "emptyDir": { "medium": "HugePages" } })).unwrap_err();
        assert!(error.contains("HugePages"), "{error}");
    }
}
