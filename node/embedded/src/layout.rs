//! Where everything of one instance lies: names of folders and files, nothing else.
//!
//! `state` survives a reboot and holds what must be known of a pod; `run` lies on tmpfs and holds sockets and mounts.
//! Names come from Kubernetes and are checked before they become paths.

use std::path::{Path, PathBuf};

use kactor_drivers::{ContainerId, SandboxId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub state: PathBuf,
    pub run: PathBuf,
}

impl Layout {
    pub fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }

    pub fn pod(&self, id: &SandboxId) -> PodLayout {
        PodLayout { state: self.pods().join(&id.0), run: self.run.join("pods").join(&id.0) }
    }
}

/// One pod's folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLayout {
    pub state: PathBuf,
    pub run: PathBuf,
}

impl PodLayout {
    /// The agent's own record of the sandbox.
    pub fn sandbox_json(&self) -> PathBuf {
        self.state.join("sandbox.json")
    }

    /// What the shim is told at its start.
    pub fn shim_json(&self) -> PathBuf {
        self.state.join("shim.json")
    }

    /// Held with flock for as long as the shim lives.
    pub fn lock(&self) -> PathBuf {
        self.state.join("shim.lock")
    }

    /// Why the shim gave up, if it did.
    pub fn shim_error(&self) -> PathBuf {
        self.state.join("shim.err")
    }

    pub fn containers(&self) -> PathBuf {
        self.state.join("containers")
    }

    pub fn container(&self, id: &ContainerId) -> ContainerLayout {
        ContainerLayout::new(self.containers().join(container_dir_name(id)))
    }

    pub fn socket(&self) -> PathBuf {
        self.run.join("shim.sock")
    }

    pub fn namespace(&self, kind: &str) -> PathBuf {
        self.run.join("ns").join(kind)
    }

    pub fn shm(&self) -> PathBuf {
        self.run.join("shm")
    }
}

/// `<name>.<attempt>`: a name has no dot.
pub fn container_dir_name(id: &ContainerId) -> String {
    format!("{}.{}", id.name, id.attempt)
}

/// One container's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerLayout {
    pub dir: PathBuf,
}

impl ContainerLayout {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The agent's own record.
    pub fn container_json(&self) -> PathBuf {
        self.dir.join("container.json")
    }

    /// What the shim is told of it.
    pub fn launch_json(&self) -> PathBuf {
        self.dir.join("launch.json")
    }

    /// What the shim says of it.
    pub fn state_json(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    pub fn config_json(&self) -> PathBuf {
        self.bundle().join("config.json")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// libcontainer's own folder.
    pub fn runtime(&self) -> PathBuf {
        self.dir.join("runtime")
    }
}

/// Reads a JSON file of ours; `None` if it is absent or, after a power loss, no JSON.
pub fn read_json<T: for<'a> serde::Deserialize<'a>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Whole or not at all: written beside, then renamed over.
pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(std::io::Error::other)?;
    let beside = path.with_extension("partial");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(beside, path)
}
