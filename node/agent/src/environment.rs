//! A container's environment: literals, references, service links, and `$(NAME)` expansion.
//!
//! Pure: what the references point at is given. Rules: Kubernetes docs, "Define Environment Variables for a
//! Container" and `third_party/forked/golang/expansion`: `$(NAME)` of an earlier variable is replaced, `$$` is a
//! literal `$`, an unknown name stays as it is written.

use std::collections::BTreeMap;

use crate::spec::{Container, EnvSource, KeyRef, Pod};

/// What references may point at, fetched before.
pub trait References {
    /// A ConfigMap's entries as text; `None` if it does not exist.
    fn config_map(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>>;
    /// A Secret's entries, decoded; `None` if it does not exist.
    fn secret(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>>;
    /// A value of the downward API, as `metadata.labels['app']` or `status.podIP`.
    fn field(&self, pod: &Pod, path: &str) -> Option<String>;
    /// `limits.cpu` and its like of a container, divided by the divisor.
    fn resource(&self, pod: &Pod, container: &str, resource: &str, divisor: &str)
    -> Option<String>;
}

/// Why a container cannot be configured yet. It stays `Waiting` with reason `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("env {name}: {kind} {object} holds bytes that are no UTF-8 text under key {key}")]
    NotText { name: String, kind: &'static str, object: String, key: String },
    #[error("env {name}: fieldRef {path} is not a field of the downward API")]
    NoField { name: String, path: String },
    #[error("env {name}: resourceFieldRef {resource} is not a resource of container {container}")]
    NoResource { name: String, container: String, resource: String },
}

/// Variables in the order in which they were set; a later one of the same name replaces the earlier.
pub fn environment(
    pod: &Pod,
    container: &Container,
    service_links: &[(String, String)],
    references: &dyn References,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut out = Ordered::default();
    for (name, value) in service_links {
        out.set(name, value.clone());
    }
    from_objects(container, references, &mut out)?;
    for var in &container.env {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => resolve(pod, container, &var.name, source, references)?,
            (Some(text), None) => Some(expand(text, |name| out.get(name))),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            out.set(&var.name, value);
        }
    }
    Ok(out.variables)
}

fn from_objects(
    container: &Container,
    references: &dyn References,
    out: &mut Ordered,
) -> Result<(), EnvironmentError> {
    for from in &container.env_from {
        if let Some(reference) = &from.config_map_ref {
            match references.config_map(&reference.name) {
                Some(entries) => out.set_all(&from.prefix, entries),
                None if reference.optional => {}
                None => return Err(EnvironmentError::NoConfigMap(reference.name.clone())),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match references.secret(&reference.name) {
                Some(entries) => out.set_all(&from.prefix, entries),
                None if reference.optional => {}
                None => return Err(EnvironmentError::NoSecret(reference.name.clone())),
            }
        }
    }
    Ok(())
}

fn resolve(
    pod: &Pod,
    container: &Container,
    name: &str,
    source: &EnvSource,
    references: &dyn References,
) -> Result<Option<String>, EnvironmentError> {
    if let Some(key) = &source.config_map_key_ref {
        let object = references.config_map(&key.name);
        let missing = || EnvironmentError::NoConfigMap(key.name.clone());
        return entry(pod, name, "ConfigMap", key, object, missing);
    }
    if let Some(key) = &source.secret_key_ref {
        let object = references.secret(&key.name);
        let missing = || EnvironmentError::NoSecret(key.name.clone());
        return entry(pod, name, "Secret", key, object, missing);
    }
    if let Some(field) = &source.field_ref {
        let path = field.field_path.clone();
        let value = references.field(pod, &path);
        return value.map(Some).ok_or(EnvironmentError::NoField { name: name.to_owned(), path });
    }
    if let Some(field) = &source.resource_field_ref {
        let of = field.container_name.clone().unwrap_or_else(|| container.name.clone());
        let divisor = match &field.divisor {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "1".to_owned(),
        };
        let value = references.resource(pod, &of, &field.resource, &divisor);
        return value.map(Some).ok_or(EnvironmentError::NoResource {
            name: name.to_owned(),
            container: of,
            resource: field.resource.clone(),
        });
    }
    Ok(Some(String::new()))
}

fn entry(
    pod: &Pod,
    name: &str,
    kind: &'static str,
    key: &KeyRef,
    object: Option<&BTreeMap<String, Vec<u8>>>,
    missing: impl Fn() -> EnvironmentError,
) -> Result<Option<String>, EnvironmentError> {
    let Some(entries) = object else {
        return if key.optional { Ok(None) } else { Err(missing()) };
    };
    let Some(bytes) = entries.get(&key.key) else {
        let no_key = EnvironmentError::NoKey {
            kind,
            namespace: pod.metadata.namespace.clone(),
            name: key.name.clone(),
            key: key.key.clone(),
        };
        return if key.optional { Ok(None) } else { Err(no_key) };
    };
    String::from_utf8(bytes.clone()).map(Some).map_err(|_| EnvironmentError::NotText {
        name: name.to_owned(),
        kind,
        object: key.name.clone(),
        key: key.key.clone(),
    })
}

/// Replaces `$(NAME)` by what `lookup` knows; `$$` is `$`; everything else stays as it is written.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|it| it.split_once(')'))
        {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Insertion order with replacement: what `execve` is given should not depend on a map's order.
#[derive(Default)]
struct Ordered {
    variables: Vec<(String, String)>,
}

impl Ordered {
    fn get(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.variables.iter_mut().find(|(it, _)| it == name) {
            Some(slot) => slot.1 = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    /// Entries that are no text or no variable name are left out, as in Kubernetes.
    fn set_all(&mut self, prefix: &str, entries: &BTreeMap<String, Vec<u8>>) {
        for (key, bytes) in entries {
            let name = format!("{prefix}{key}");
            let valid = !name.is_empty() && !name.contains('=') && name.is_ascii();
            if let (true, Ok(value)) = (valid, String::from_utf8(bytes.clone())) {
                self.set(&name, value);
            }
        }
    }
}

/// Variables for the services of a pod's namespace that had an address when its container started:
/// `WEB_SERVICE_HOST`, `WEB_SERVICE_PORT` and the docker-link forms (kubelet envvars.FromServices).
pub fn service_links(services: &[LinkedService]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for service in services {
        let prefix = service.name.to_uppercase().replace('-', "_");
        let Some(first) = service.ports.first() else { continue };
        out.push((format!("{prefix}_SERVICE_HOST"), service.address.clone()));
        out.push((format!("{prefix}_SERVICE_PORT"), first.port.to_string()));
        for port in service.ports.iter().filter(|it| !it.name.is_empty()) {
            let name = port.name.to_uppercase().replace('-', "_");
            out.push((format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string()));
        }
        for (index, port) in service.ports.iter().enumerate() {
            let protocol = port.protocol.to_lowercase();
            let url = format!("{protocol}://{}:{}", service.address, port.port);
            if index == 0 {
                out.push((format!("{prefix}_PORT"), url.clone()));
            }
            let link = format!("{prefix}_PORT_{}_{}", port.port, port.protocol.to_uppercase());
            out.push((link.clone(), url));
            out.push((format!("{link}_PROTO"), protocol));
            out.push((format!("{link}_PORT"), port.port.to_string()));
            out.push((format!("{link}_ADDR"), service.address.clone()));
        }
    }
    out
}

/// A service with a cluster address, as far as environment variables name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedService {
    pub name: String,
    pub address: String,
    pub ports: Vec<LinkedPort>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedPort {
    /// Empty if the port has none.
    pub name: String,
    pub port: u16,
    pub protocol: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fixed {
        config: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    }

    impl References for Fixed {
        fn config_map(&self, name: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
            self.config.get(name)
        }
        fn secret(&self, _: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
            None
        }
        fn field(&self, pod: &Pod, path: &str) -> Option<String> {
            (path == "metadata.name").then(|| pod.metadata.name.clone())
        }
        fn resource(&self, _: &Pod, _: &str, _: &str, _: &str) -> Option<String> {
            None
        }
    }

    fn run(env: &str) -> Result<Vec<(String, String)>, EnvironmentError> {
        let json = format!(
            r#"{{"metadata":{{"name":"web","namespace":"default","uid":"u"}},"spec":{{"containers":[{{"name":"a",{env}}}]}}}}"#
        );
        let pod = crate::spec::parse(json.as_bytes()).unwrap();
        let mut fixed = Fixed::default();
        let entries = [("k", "v"), ("bad=name", "x")];
        let entries =
            entries.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        fixed.config.insert("cm".to_owned(), entries);
        environment(&pod, &pod.spec.containers[0], &[("K".to_owned(), "link".to_owned())], &fixed)
    }

    #[test]
    fn expansion_follows_the_documented_cases() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)z", "x1y$(B)z"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }

    #[test]
    fn later_variables_see_earlier_ones_and_replace_links() {
        let got = run(r#""env":[{"name":"K","value":"own"},{"name":"L","value":"$(K)-$(M)"},
            {"name":"N","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]"#)
        .unwrap();
        let text: Vec<String> = got.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["K=own", "L=own-$(M)", "N=web"]);
    }

    #[test]
    fn env_from_takes_valid_names_only_and_misses_loudly() {
        let got = run(r#""envFrom":[{"prefix":"P_","configMapRef":{"name":"cm"}}]"#).unwrap();
        assert!(got.contains(&("P_k".to_owned(), "v".to_owned())));
        assert_eq!(got.len(), 2);
        let missing = run(r#""envFrom":[{"configMapRef":{"name":"no"}}]"#).unwrap_err();
        assert_eq!(missing.to_string(), "configmap \"no\" not found");
        assert!(run(r#""envFrom":[{"secretRef":{"name":"no","optional":true}}]"#).is_ok());
        let key =
            run(r#""env":[{"name":"X","valueFrom":{"configMapKeyRef":{"name":"cm","key":"z"}}}]"#);
        assert_eq!(key.unwrap_err().to_string(), "couldn't find key z in ConfigMap default/cm");
    }

    #[test]
    fn services_are_linked_as_docker_did() {
        let port = LinkedPort { name: "http".to_owned(), port: 80, protocol: "TCP".to_owned() };
        let service = LinkedService {
            name: "my-web".to_owned(),
            address: "10.0.0.1".to_owned(),
            ports: vec![port],
        };
        let text: Vec<String> =
            service_links(&[service]).iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text[0], "MY_WEB_SERVICE_HOST=10.0.0.1");
        assert!(text.contains(&"MY_WEB_PORT_80_TCP=tcp://10.0.0.1:80".to_owned()));
    }
}
