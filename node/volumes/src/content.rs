//! The files of a projected volume, made of API objects. Pure.
//!
//! Upstream: kubelet pkg/volume/{configmap,secret,downwardapi,projected}: keys become file names, `items` select
//! and rename, a missing object fails unless it is optional, later sources win over earlier ones.

use std::collections::BTreeMap;

use crate::plan::{DownwardFile, KeyToPath, Projection};

/// Most bytes of one volume's files; a ConfigMap or Secret holds 1 MiB, so this is generous.
pub const VOLUME_BYTES_MAX: usize = 16 << 20;

/// A file of a volume: relative path, content, mode bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub content: Vec<u8>,
    pub mode: u32,
}

pub type Files = BTreeMap<String, File>;

/// What projections may point at, fetched before.
pub trait Objects {
    /// `data` and `binaryData` of a ConfigMap; `None` if it does not exist.
    fn config_map(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>>;
    /// A Secret's data, decoded; `None` if it does not exist.
    fn secret(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>>;
    /// A value of the downward API; `None` if there is no such field.
    fn downward(&self, file: &DownwardFile) -> Option<String>;
    /// A token for this audience; `None` while there is none.
    fn token(&self, audience: Option<&str>, expiration_seconds: u64) -> Option<String>;
}

/// Why a volume's files cannot be made yet; the pod waits in `ContainerCreating` and it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("{kind} \"{name}\" references non-existent key: {key}")]
    NoKey { kind: &'static str, name: String, key: String },
    #[error("{0}: not a field that the downward API offers")]
    NoField(String),
    #[error("no service account token yet for audience {0:?}")]
    NoToken(Option<String>),
    #[error("path {0:?} must be relative, without \"..\", and not begin with \"..\"")]
    BadPath(String),
    #[error("the volume's files take more than {VOLUME_BYTES_MAX} bytes")]
    TooLarge,
}

/// All files of the volume.
pub fn files(
    sources: &[Projection],
    default_mode: u32,
    objects: &dyn Objects,
) -> Result<Files, ContentError> {
    let mut out = Files::new();
    for source in sources {
        match source {
            Projection::ConfigMap { name, items, optional } => match objects.config_map(name) {
                Some(entries) => {
                    select("configmap", name, entries, items, *optional, default_mode, &mut out)?
                }
                None if *optional => {}
                None => return Err(ContentError::NoConfigMap(name.clone())),
            },
            Projection::Secret { name, items, optional } => match objects.secret(name) {
                Some(entries) => {
                    select("secret", name, entries, items, *optional, default_mode, &mut out)?
                }
                None if *optional => {}
                None => return Err(ContentError::NoSecret(name.clone())),
            },
            Projection::DownwardApi { items } => {
                for item in items {
                    let text = objects
                        .downward(item)
                        .ok_or_else(|| ContentError::NoField(item.path.clone()))?;
                    put(
                        &mut out,
                        &item.path,
                        text.into_bytes(),
                        item.mode.unwrap_or(default_mode),
                    )?;
                }
            }
            Projection::ServiceAccountToken { audience, expiration_seconds, path } => {
                let token = objects.token(audience.as_deref(), *expiration_seconds);
                let token = token.ok_or_else(|| ContentError::NoToken(audience.clone()))?;
                put(&mut out, path, token.into_bytes(), default_mode)?;
            }
        }
    }
    let bytes: usize = out.values().map(|it| it.content.len()).sum();
    if bytes > VOLUME_BYTES_MAX { Err(ContentError::TooLarge) } else { Ok(out) }
}

fn select(
    kind: &'static str,
    name: &str,
    entries: &BTreeMap<String, Vec<u8>>,
    items: &[KeyToPath],
    optional: bool,
    default_mode: u32,
    out: &mut Files,
) -> Result<(), ContentError> {
    if items.is_empty() {
        for (key, bytes) in entries {
            put(out, key, bytes.clone(), default_mode)?;
        }
    }
    for item in items {
        match entries.get(&item.key) {
            Some(bytes) => put(out, &item.path, bytes.clone(), item.mode.unwrap_or(default_mode))?,
            None if optional => {}
            None => {
                let (name, key) = (name.to_owned(), item.key.clone());
                return Err(ContentError::NoKey { kind, name, key });
            }
        }
    }
    Ok(())
}

fn put(out: &mut Files, path: &str, content: Vec<u8>, mode: u32) -> Result<(), ContentError> {
    let inside = !path.is_empty()
        && !path.starts_with('/')
        && !path.starts_with("..")
        && path.split('/').all(|part| part != ".." && part != "." && !part.is_empty());
    if !inside {
        return Err(ContentError::BadPath(path.to_owned()));
    }
    out.insert(path.to_owned(), File { content, mode });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fixed {
        config: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    }

    impl Objects for Fixed {
        fn config_map(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
            self.config.get(name)
        }
        fn secret(&self, _: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
            None
        }
        fn downward(&self, file: &DownwardFile) -> Option<String> {
            let path = &file.field_ref.as_ref()?.field_path;
            (path == "metadata.name").then(|| "web".to_owned())
        }
        fn token(&self, audience: Option<&str>, _: u64) -> Option<String> {
            audience.is_none().then(|| "jwt".to_owned())
        }
    }

    fn fixed() -> Fixed {
        let entries =
            BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        Fixed { config: BTreeMap::from([("cm".to_owned(), entries)]) }
    }

    fn config(items: &[(&str, &str)], optional: bool) -> Projection {
        let item = |(key, path): &(&str, &str)| KeyToPath {
            key: (*key).to_owned(),
            path: (*path).to_owned(),
            mode: None,
        };
        Projection::ConfigMap {
            name: "cm".to_owned(),
            items: items.iter().map(item).collect(),
            optional,
        }
    }

    fn names(sources: &[Projection]) -> Result<Vec<String>, ContentError> {
        files(sources, 0o644, &fixed()).map(|it| it.into_keys().collect())
    }

    #[test]
    fn keys_become_files_and_items_select_and_rename() {
        assert_eq!(names(&[config(&[], false)]).unwrap(), ["a", "b"]);
        assert_eq!(names(&[config(&[("b", "x/y")], false)]).unwrap(), ["x/y"]);
    }

    #[test]
    fn what_is_missing_fails_unless_it_is_optional() {
        let error = names(&[config(&[("z", "z")], false)]).unwrap_err();
        assert_eq!(error.to_string(), "configmap \"cm\" references non-existent key: z");
        assert!(names(&[config(&[("z", "z")], true)]).unwrap().is_empty());
        let secret =
            |optional| Projection::Secret { name: "s".to_owned(), items: vec![], optional };
        assert_eq!(names(&[secret(false)]).unwrap_err(), ContentError::NoSecret("s".to_owned()));
        assert!(names(&[secret(true)]).unwrap().is_empty());
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        for path in ["/etc/passwd", "../x", "a/../../b", "a//b", "", "..data", "a/."] {
            let error = names(&[config(&[("a", path)], false)]).unwrap_err();
            assert_eq!(error, ContentError::BadPath(path.to_owned()));
        }
    }

    #[test]
    fn tokens_and_fields_are_files_too() {
        let token = Projection::ServiceAccountToken {
            audience: None,
            expiration_seconds: 1,
            path: "token".to_owned(),
        };
        let field = |path: &str| Projection::DownwardApi {
            items: vec![DownwardFile {
                path: "n".to_owned(),
                mode: Some(0o600),
                field_ref: Some(crate::plan::FieldRef {
                    api_version: None,
                    field_path: path.to_owned(),
                }),
                resource_field_ref: None,
            }],
        };
        let got = files(&[token, field("metadata.name")], 0o644, &fixed()).unwrap();
        assert_eq!(got["token"], File { content: b"jwt".to_vec(), mode: 0o644 });
        assert_eq!(got["n"], File { content: b"web".to_vec(), mode: 0o600 });
        assert!(matches!(
            files(&[field("metadata.nope")], 0, &fixed()),
            Err(ContentError::NoField(_))
        ));
    }
}
