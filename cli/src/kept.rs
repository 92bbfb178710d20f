//! What a host keeps of its cluster beside the store: who it is there, and where the others were last.
//!
//! A start needs it before any store or link is there: which name and key are ours, whom to dial. It is written when the
//! host joins and whenever the others change. Losing it costs a control host its way to the others, never data.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use kactor_cluster::host::{HostRole, KnownHost};
use serde::{Deserialize, Serialize};

use crate::args::Runtime;
use crate::data_dir::DataDir;

/// The content of `hosts.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The name that this host is known by; it belongs to the key in `host/host.key`.
    pub node: String,
    pub role: HostRole,
    /// Others let this host in: it never begins a cluster of its own.
    pub joined: bool,
    /// The cluster's CA, PEM.
    pub ca: String,
    /// What this host was started with: the next start needs no flags.
    pub listen: SocketAddr,
    pub runtime: Runtime,
    /// Where a worker's kubelet is: there its own commands find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<SocketAddr>,
    pub pod_cidr: String,
    pub service_cidr: String,
    /// The revision of the store that `hosts` are of; 0 as they were told at the door.
    pub revision: u64,
    /// All hosts of the cluster as they were known last, this one included.
    pub hosts: Vec<KnownHost>,
}

impl Kept {
    /// `None`: this directory is of no cluster yet, or of one of its own from before there were others.
    pub fn read(dir: &DataDir) -> anyhow::Result<Option<Self>> {
        let path = dir.hosts();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let kept = serde_json::from_slice(&text);
        kept.map(Some).with_context(|| {
            format!("{} can't be read; put it back from a backup, or join again", path.display())
        })
    }

    /// Whole or not at all.
    pub fn write(&self, dir: &DataDir) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        write_private(&dir.hosts(), &text)
    }
}

/// Writes a file beside its place, readable by its owner alone, syncs it, and swaps it in.
pub fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    })();
    written.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::find(Some(temp.path())).unwrap();
        assert_eq!(Kept::read(&dir).unwrap(), None);
        let kept = Kept {
            node: "n2".to_owned(),
            role: HostRole::Control,
            joined: true,
            ca: "CA".to_owned(),
            listen: "127.0.0.1:7443".parse().unwrap(),
            runtime: Runtime::None,
            kubelet: None,
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            revision: 7,
            hosts: Vec::new(),
        };
        kept.write(&dir).unwrap();
        assert_eq!(Kept::read(&dir).unwrap(), Some(kept));
        let mode = std::fs::metadata(dir.hosts()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.hosts(), "half").unwrap();
        let error = crate::print::chain(&Kept::read(&dir).unwrap_err());
        assert!(error.contains("hosts.json") && error.contains("join again"), "{error}");
    }
}
