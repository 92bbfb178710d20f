//! What every driver checks of a spec before it makes anything: names, bounds, settings that are not the Pod's own.

use std::collections::BTreeMap;

use crate::error::DriverError;
use crate::spec::{ContainerId, ContainerSpec, IpcMode, NetworkMode, SandboxId, SandboxSpec};

/// Bound of annotations and of everything else that is only kept.
const NOTES_BYTES_MAX: usize = 64 * 1024;

/// A sandbox's hostname, sysctls and notes. A setting that is not the Pod's own would change the host's kernel.
pub fn sandbox(driver: &'static str, spec: &SandboxSpec) -> Result<(), DriverError> {
    names(&spec.id, None)?;
    let is_label = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'.';
    let name = &spec.hostname;
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_label) {
        let why = format!("{name:?} is no host name of at most 64 bytes");
        return Err(DriverError::Invalid { field: "spec.hostname", why });
    }
    for name in spec.sysctls.keys() {
        let scoped = name.starts_with("net.") && spec.network == NetworkMode::Pod
            || (name.starts_with("kernel.shm")
                || name.starts_with("kernel.msg")
                || name == "kernel.sem"
                || name.starts_with("fs.mqueue."))
                && spec.ipc == IpcMode::Pod;
        if !scoped || name.contains('/') || name.contains("..") {
            let why = format!("{name} would change the host's kernel");
            return Err(DriverError::Unsupported { driver, field: "securityContext.sysctls", why });
        }
    }
    notes(&spec.annotations)
}

/// A container's names, log path and notes.
pub fn container(spec: &ContainerSpec) -> Result<(), DriverError> {
    names(&spec.id.sandbox, Some(&spec.id))?;
    if !spec.log_path.is_absolute() {
        let why = format!("{} is not absolute", spec.log_path.display());
        return Err(DriverError::Invalid { field: "log_path", why });
    }
    notes(&spec.annotations)
}

/// What is only kept is bounded.
pub fn notes(notes: &BTreeMap<String, String>) -> Result<(), DriverError> {
    let n_bytes: usize = notes.iter().map(|(key, value)| key.len() + value.len()).sum();
    match n_bytes > NOTES_BYTES_MAX {
        true => Err(DriverError::Invalid {
            field: "annotations",
            why: format!("{n_bytes} bytes; at most {NOTES_BYTES_MAX} are kept"),
        }),
        false => Ok(()),
    }
}

/// Refuses ids that are no single harmless folder name.
pub fn names(sandbox: &SandboxId, container: Option<&ContainerId>) -> Result<(), DriverError> {
    if !is_name(&sandbox.0, 128) {
        let why = format!("{:?} is no uid", sandbox.0);
        return Err(DriverError::Invalid { field: "metadata.uid", why });
    }
    match container {
        Some(it) if !is_name(&it.name, 63) || it.name.contains('.') => {
            let why = format!("{:?} is no DNS label", it.name);
            Err(DriverError::Invalid { field: "containers[].name", why })
        }
        _ => Ok(()),
    }
}

fn is_name(text: &str, bytes_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= bytes_max
        && !text.starts_with('.')
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_are_refused() {
        let pod = |text: &str| SandboxId(text.to_owned());
        for bad in ["", ".", "..", "a/b", "../x", ".hidden", "a\0b", &"x".repeat(200)] {
            assert!(names(&pod(bad), None).is_err(), "{bad:?}");
        }
        let id = |name: &str| ContainerId { sandbox: pod("u"), name: name.to_owned(), attempt: 0 };
        for bad in ["", "a.b", "a/b", "..", &"x".repeat(64)] {
            assert!(names(&pod("u-1"), Some(&id(bad))).is_err(), "{bad:?}");
        }
        assert!(names(&pod("0c9b-1"), Some(&id("web-1"))).is_ok());
    }

    #[test]
    fn sysctls_of_the_host_are_refused_by_name() {
        let mut spec = SandboxSpec::new("u", "n", "p");
        spec.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
        assert!(sandbox("test", &spec).is_ok());
        spec.network = NetworkMode::Host;
        assert!(sandbox("test", &spec).is_err());
        let mut spec = SandboxSpec::new("u", "n", "p");
        spec.sysctls.insert("vm.swappiness".to_owned(), "1".to_owned());
        assert!(sandbox("test", &spec).is_err());
    }
}
