//! Names of images as people write them, made complete as Docker and Kubernetes do.
//!
//! `busybox` is `docker.io/library/busybox:latest`. The first part is a registry only if it has a dot, a colon
//! or is `localhost` (distribution/reference, `splitDockerDomain`). A name with a digest needs no tag.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::ImageError;

const REFERENCE_BYTES_MAX: usize = 512;
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
const DEFAULT_REGISTRY: &str = "docker.io";

/// A complete name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub registry: String,
    pub repository: String,
    /// `latest` when neither tag nor digest was written.
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository:tag`, if it has a tag.
    pub fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }

    /// Registries on this very machine may be spoken to without TLS, as Docker does.
    pub fn is_loopback(&self) -> bool {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) => host,
            _ => &self.registry,
        };
        host == "localhost" || host == "[::1]" || host.parse().is_ok_and(is_loopback_v4)
    }
}

fn is_loopback_v4(address: std::net::Ipv4Addr) -> bool {
    address.is_loopback()
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let refuse = |why| ImageError::BadReference { text: text.chars().take(100).collect(), why };
        if text.is_empty() || text.len() > REFERENCE_BYTES_MAX {
            return Err(refuse("it must have 1 to 512 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| refuse("its digest is no sha256"))?))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if !tag.as_deref().is_none_or(is_tag) {
            return Err(refuse("a tag is up to 128 letters, digits, _, . and -"));
        }
        let (registry, path) = split_registry(name);
        if !is_registry(registry) {
            return Err(refuse("its registry is no host name"));
        }
        let repository = match registry == DEFAULT_REGISTRY && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        if repository.len() > REPOSITORY_BYTES_MAX || !repository.split('/').all(is_component) {
            return Err(refuse(
                "a repository is lower-case letters, digits and . _ - / between them",
            ));
        }
        let tag = match (&tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            _ => tag,
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_REGISTRY, path),
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_is_fine = port.is_none_or(|it| it.parse::<u16>().is_ok());
    let literal = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let name_is_fine = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|it| {
            !it.is_empty()
                && !it.starts_with('-')
                && !it.ends_with('-')
                && it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
        }),
    };
    port_is_fine && name_is_fine
}

/// Lower-case words joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let is_word = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !is_word(first) || !is_word(last) {
        return false;
    }
    bytes.split(|it| is_word(*it)).all(|joint| {
        matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|it| *it == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let is_word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    text.len() <= TAG_BYTES_MAX
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|it| is_word(it) || it == b'.' || it == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_are_completed_as_docker_does() {
        let hex = "ab".repeat(32);
        let cases = [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.37", "docker.io/library/busybox:1.37".to_owned()),
            ("me/app", "docker.io/me/app:latest".to_owned()),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/app:v1", "localhost:5000/app:v1".to_owned()),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("ghcr.io/o/r__x.y-z", "ghcr.io/o/r__x.y-z:latest".to_owned()),
            (&format!("busybox@sha256:{hex}"), format!("docker.io/library/busybox@sha256:{hex}")),
            (&format!("a.b/c:t@sha256:{hex}"), format!("a.b/c:t@sha256:{hex}")),
        ];
        for (text, wanted) in cases {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        let long = "a".repeat(600);
        for text in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "Upper",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:",
            "a:-t",
            "a b",
            "a@sha256:12",
            "a@md5:00",
            "x.y:99999/a",
            "-x.y/a",
            "a:b:c/d",
            "../a",
            "a/../b",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (text, is) in [
            ("localhost:5000/a", true),
            ("127.1.2.3/a", true),
            ("[::1]:1/a", true),
            ("localhost.example.com/a", false),
            ("10.0.0.1:5000/a", false),
            ("a", false),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().is_loopback(), is, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_again(text in "[a-zA-Z0-9@:/._-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
