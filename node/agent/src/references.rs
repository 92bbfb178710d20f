//! The ConfigMaps, Secrets and tokens that a pod refers to: which ones, and what they hold once fetched.
//!
//! The names are found without IO; the shell fetches exactly those, as the node (the Node authorizer permits a node
//! the objects of its own pods and no others).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kactor_volumes::content::Objects;
use kactor_volumes::plan::{DownwardFile, Projection, Source, Volume};
use serde_json::Value;

use crate::downward::{self, NodeFacts};
use crate::environment::References;
use crate::spec::{Container, Pod};

/// A token that a projected volume wants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenWanted {
    pub audience: Option<String>,
    pub expiration_seconds: u64,
}

/// What has to be fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub tokens: BTreeSet<TokenWanted>,
}

/// Everything that the pod's volumes refer to.
pub fn of_volumes(volumes: &[Volume]) -> Wanted {
    let mut out = Wanted::default();
    for volume in volumes {
        let Source::Projected { sources, .. } = &volume.source else { continue };
        for source in sources {
            match source {
                Projection::ConfigMap { name, .. } => drop(out.config_maps.insert(name.clone())),
                Projection::Secret { name, .. } => drop(out.secrets.insert(name.clone())),
                Projection::ServiceAccountToken { audience, expiration_seconds, .. } => {
                    let (audience, expiration_seconds) = (audience.clone(), *expiration_seconds);
                    out.tokens.insert(TokenWanted { audience, expiration_seconds });
                }
                Projection::DownwardApi { .. } => {}
            }
        }
    }
    out
}

/// Everything that a container's environment refers to.
pub fn of_environment(container: &Container) -> Wanted {
    let mut out = Wanted::default();
    for from in &container.env_from {
        out.config_maps.extend(from.config_map_ref.iter().map(|it| it.name.clone()));
        out.secrets.extend(from.secret_ref.iter().map(|it| it.name.clone()));
    }
    for source in container.env.iter().filter_map(|it| it.value_from.as_ref()) {
        out.config_maps.extend(source.config_map_key_ref.iter().map(|it| it.name.clone()));
        out.secrets.extend(source.secret_key_ref.iter().map(|it| it.name.clone()));
    }
    out
}

type Entries = BTreeMap<String, Vec<u8>>;

/// What was fetched, beside the pod's own facts.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    pub config_maps: BTreeMap<String, Entries>,
    pub secrets: BTreeMap<String, Entries>,
    pub tokens: BTreeMap<TokenWanted, String>,
}

/// `data` (text) and `binaryData` (base64) of a ConfigMap.
pub fn config_map_entries(object: &Value) -> Entries {
    let mut out = base64_entries(&object["binaryData"]);
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        out.insert(key.clone(), value.as_str().unwrap_or_default().as_bytes().to_vec());
    }
    out
}

/// `data` (base64) of a Secret.
pub fn secret_entries(object: &Value) -> Entries {
    base64_entries(&object["data"])
}

/// The API has checked the encoding; an entry that does not decode is empty rather than lost.
fn base64_entries(map: &Value) -> Entries {
    let entries = map.as_object().into_iter().flatten();
    let decode = |it: &Value| STANDARD.decode(it.as_str().unwrap_or_default()).unwrap_or_default();
    entries.map(|(key, value)| (key.clone(), decode(value))).collect()
}

/// Fetched objects and the downward API of one pod.
pub struct PodReferences<'a> {
    pub pod: &'a Pod,
    pub facts: &'a NodeFacts,
    pub fetched: &'a Fetched,
}

impl References for PodReferences<'_> {
    fn config_map(&self, name: &str) -> Option<&Entries> {
        self.fetched.config_maps.get(name)
    }

    fn secret(&self, name: &str) -> Option<&Entries> {
        self.fetched.secrets.get(name)
    }

    fn field(&self, pod: &Pod, path: &str) -> Option<String> {
        downward::field(pod, self.facts, path)
    }

    fn resource(
        &self,
        pod: &Pod,
        container: &str,
        resource: &str,
        divisor: &str,
    ) -> Option<String> {
        downward::resource(pod, self.facts, container, resource, divisor)
    }
}

impl Objects for PodReferences<'_> {
    fn config_map(&self, name: &str) -> Option<&Entries> {
        self.fetched.config_maps.get(name)
    }

    fn secret(&self, name: &str) -> Option<&Entries> {
        self.fetched.secrets.get(name)
    }

    fn downward(&self, file: &DownwardFile) -> Option<String> {
        if let Some(field) = &file.field_ref {
            return downward::field(self.pod, self.facts, &field.field_path);
        }
        let it = file.resource_field_ref.as_ref()?;
        let divisor = match &it.divisor {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "1".to_owned(),
        };
        let container = it.container_name.as_deref()?;
        downward::resource(self.pod, self.facts, container, &it.resource, &divisor)
    }

    fn token(&self, audience: Option<&str>, expiration_seconds: u64) -> Option<String> {
        let wanted = TokenWanted { audience: audience.map(str::to_owned), expiration_seconds };
        self.fetched.tokens.get(&wanted).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_reference_is_found_once() {
        let pod = crate::spec::parse(
            br#"{"metadata":{"uid":"u"},"spec":{"containers":[{"name":"a","envFrom":[{"secretRef":{"name":"s1"}}],
            "env":[{"name":"X","valueFrom":{"configMapKeyRef":{"name":"c1","key":"k"}}},{"name":"Y","valueFrom":{"secretKeyRef":{"name":"s1","key":"k"}}}]}],
            "volumes":[{"name":"v","configMap":{"name":"c2"}},{"name":"t","projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}}]}}"#,
        )
        .unwrap();
        let env = of_environment(&pod.spec.containers[0]);
        assert_eq!(env.config_maps.into_iter().collect::<Vec<_>>(), ["c1"]);
        assert_eq!(env.secrets.into_iter().collect::<Vec<_>>(), ["s1"]);
        let volumes = of_volumes(&kactor_volumes::plan::read(&pod.spec.volumes).unwrap());
        assert_eq!(volumes.config_maps.into_iter().collect::<Vec<_>>(), ["c2"]);
        assert_eq!(volumes.tokens.len(), 1);
    }

    #[test]
    fn objects_hold_text_and_base64() {
        let got =
            config_map_entries(&json!({ "data": { "a": "x" }, "binaryData": { "b": "AAE=" } }));
        assert_eq!((got["a"].as_slice(), got["b"].as_slice()), (&b"x"[..], &[0_u8, 1][..]));
        assert_eq!(secret_entries(&json!({ "data": { "p": "cHc=" } }))["p"], b"pw");
    }
}
