//! What kactor writes on containers: whose they are and everything that must be known of them. And their names.
//!
//! A label that shipped keeps its name and meaning: the next kactor reads what this one wrote.

use std::collections::BTreeMap;

use kactor_drivers::{ContainerId, ContainerSpec, DriverError, SandboxId, SandboxSpec};
use serde::Serialize;

pub const INSTANCE: &str = "io.kactor.instance";
pub const POD: &str = "io.kactor.pod.uid";
pub const KIND: &str = "io.kactor.kind";
/// The spec as JSON.
pub const SPEC: &str = "io.kactor.spec";
/// What was left out, as a JSON list of sentences.
pub const WARNINGS: &str = "io.kactor.warnings";
const NAME: &str = "io.kactor.container.name";
const ATTEMPT: &str = "io.kactor.container.attempt";

pub const SANDBOX: &str = "sandbox";
pub const CONTAINER: &str = "container";
pub const PAUSE_IMAGE: &str = "pause-image";

/// The name of a pod's pause container: unique, so that dockerd itself refuses a second one.
pub fn sandbox_name(instance: &str, id: &SandboxId) -> String {
    format!("kactor-{instance}-{id}")
}

pub fn container_name(instance: &str, id: &ContainerId) -> String {
    format!("kactor-{instance}-{}.{}.{}", id.sandbox, id.name, id.attempt)
}

pub fn of_sandbox(
    instance: &str,
    spec: &SandboxSpec,
) -> Result<BTreeMap<String, String>, DriverError> {
    let mut labels = common(instance, &spec.id, SANDBOX);
    labels.insert(SPEC.to_owned(), json(spec)?);
    // Names that people and log collectors know.
    labels.insert("io.kubernetes.pod.namespace".to_owned(), spec.namespace.clone());
    labels.insert("io.kubernetes.pod.name".to_owned(), spec.name.clone());
    labels.insert("io.kubernetes.pod.uid".to_owned(), spec.id.0.clone());
    Ok(labels)
}

pub fn of_container(
    instance: &str,
    pod: &SandboxSpec,
    spec: &ContainerSpec,
    warnings: &[String],
) -> Result<BTreeMap<String, String>, DriverError> {
    let mut labels = of_sandbox(instance, pod)?;
    labels.insert(KIND.to_owned(), CONTAINER.to_owned());
    labels.insert(NAME.to_owned(), spec.id.name.clone());
    labels.insert(ATTEMPT.to_owned(), spec.id.attempt.to_string());
    labels.insert(SPEC.to_owned(), json(spec)?);
    labels.insert(WARNINGS.to_owned(), json(&warnings)?);
    labels.insert("io.kubernetes.container.name".to_owned(), spec.id.name.clone());
    Ok(labels)
}

fn common(instance: &str, id: &SandboxId, kind: &str) -> BTreeMap<String, String> {
    [(INSTANCE, instance), (POD, id.0.as_str()), (KIND, kind)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn json<T: Serialize>(value: &T) -> Result<String, DriverError> {
    serde_json::to_string(value).map_err(|it| DriverError::Runtime {
        doing: "writing a container's labels".to_owned(),
        why: it.to_string(),
    })
}

/// Whom a container's labels, looked up by name, say it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    Sandbox(SandboxId),
    Container(ContainerId),
}

pub fn whose<'a>(label: impl Fn(&str) -> Option<&'a String>) -> Option<Whose> {
    let sandbox = SandboxId(label(POD)?.clone());
    match label(KIND)?.as_str() {
        SANDBOX => Some(Whose::Sandbox(sandbox)),
        CONTAINER => {
            let name = label(NAME)?.clone();
            let attempt = label(ATTEMPT)?.parse().ok()?;
            Some(Whose::Container(ContainerId { sandbox, name, attempt }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_whose_a_container_is_and_keep_its_spec() {
        let pod = SandboxSpec::new("u-1", "default", "web");
        let id = ContainerId { sandbox: pod.id.clone(), name: "main".to_owned(), attempt: 3 };
        let spec = ContainerSpec::new(id.clone(), "busybox", "/log");
        let labels = of_container("i", &pod, &spec, &["w".to_owned()]).unwrap();
        assert_eq!(whose(|it| labels.get(it)), Some(Whose::Container(id.clone())));
        assert_eq!(serde_json::from_str::<ContainerSpec>(&labels[SPEC]).unwrap(), spec);
        let labels = of_sandbox("i", &pod).unwrap();
        assert_eq!(whose(|it| labels.get(it)), Some(Whose::Sandbox(pod.id.clone())));
        assert_eq!(serde_json::from_str::<SandboxSpec>(&labels[SPEC]).unwrap(), pod);
        assert_eq!(container_name("i", &id), "kactor-i-u-1.main.3");
    }

    #[test]
    fn a_container_of_somebody_else_is_nobodys() {
        let none = BTreeMap::<String, String>::new();
        assert_eq!(whose(|it| none.get(it)), None);
    }
}
