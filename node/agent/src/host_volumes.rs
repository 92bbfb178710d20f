//! A pod's volumes on a real host: `kactor-volumes` behind the agent's port, on the lane that may block.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kactor_runtime::env::{Env, Lane};
use kactor_volumes::content::Files;
use kactor_volumes::host::{PodVolumes, VolumeError};
use kactor_volumes::plan::{Source, Volume};

use crate::ports::{VolumeFailure, VolumeHost};
use crate::spec::Pod;

/// The name of the file that a container's process leaves its last words in.
const LAST_WORDS: &str = "termination-log";

/// Volumes below one folder, the kubelet's layout.
pub struct HostVolumes {
    env: Env,
    root: PathBuf,
}

impl HostVolumes {
    /// `root` is what `/var/lib/kubelet` is on an ordinary host.
    pub fn new(env: Env, root: PathBuf) -> Self {
        Self { env, root }
    }

    fn pod_folder(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Runs what may block where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, VolumeFailure> + Send + 'static,
    ) -> Result<T, VolumeFailure> {
        let (done, result) = tokio::sync::oneshot::channel();
        // The task ends by itself; a pod that is given up meanwhile does not wait for it.
        let _ = self.env.spawn(Lane::Blocking, async move {
            let _ = done.send(work());
        });
        let stopped = |_| VolumeFailure { why: "kactor is stopping".to_owned() };
        result.await.map_err(stopped)?
    }
}

fn failure(error: &VolumeError) -> VolumeFailure {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(it) = source {
        why.push_str(&format!(": {it}"));
        source = it.source();
    }
    VolumeFailure { why }
}

fn mount_all(
    volumes: &PodVolumes,
    wanted: &[Volume],
    contents: &BTreeMap<String, Files>,
    stamp: &str,
) -> Result<BTreeMap<String, PathBuf>, VolumeError> {
    let mut out = BTreeMap::new();
    for volume in wanted {
        let limit = match &volume.source {
            Source::EmptyDir { size_limit: Some(limit), .. } => {
                kactor_objects::quantity::of_json(limit)
                    .ok()
                    .and_then(|it| u64::try_from(it.value()).ok())
            }
            _ => None,
        };
        match contents.get(&volume.name) {
            Some(files) => drop(volumes.write(volume, files, stamp)?),
            None => volumes.make(volume, limit)?,
        }
        out.insert(volume.name.clone(), volumes.path(volume));
    }
    Ok(out)
}

fn write_file(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Written in place: a container has this very file mounted.
    std::fs::write(path, content)?;
    // Whoever the container runs as reads it; only its last words are for everybody to write.
    let mode = if path.ends_with(LAST_WORDS) { 0o666 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[async_trait]
impl VolumeHost for HostVolumes {
    async fn mount(
        &self,
        pod: &Pod,
        volumes: &[Volume],
        contents: BTreeMap<String, Files>,
        stamp: &str,
    ) -> Result<BTreeMap<String, PathBuf>, VolumeFailure> {
        let group = pod.spec.security_context.fs_group;
        let host = PodVolumes::new(&self.root, &pod.metadata.uid, group);
        let (wanted, stamp) = (volumes.to_vec(), stamp.to_owned());
        self.blocking(move || {
            mount_all(&host, &wanted, &contents, &stamp).map_err(|it| failure(&it))
        })
        .await
    }

    async fn unmount(&self, pod_uid: &str) -> Result<(), VolumeFailure> {
        let host = PodVolumes::new(&self.root, pod_uid, None);
        let folder = self.pod_folder(pod_uid);
        self.blocking(move || {
            host.remove().map_err(|it| failure(&it))?;
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(VolumeFailure { why: format!("removing {}: {error}", folder.display()) })
                }
                _ => Ok(()),
            }
        })
        .await
    }

    async fn write_file(
        &self,
        pod_uid: &str,
        name: &str,
        content: Vec<u8>,
    ) -> Result<PathBuf, VolumeFailure> {
        let path = self.pod_folder(pod_uid).join(name);
        self.blocking(move || match write_file(&path, &content) {
            Ok(()) => Ok(path),
            Err(error) => {
                Err(VolumeFailure { why: format!("writing {}: {error}", path.display()) })
            }
        })
        .await
    }

    async fn read_file(&self, pod_uid: &str, name: &str, bytes_max: usize) -> Vec<u8> {
        let path = self.pod_folder(pod_uid).join(name);
        let read = self.blocking(move || {
            use std::io::Read;
            let mut out = Vec::new();
            if let Ok(file) = std::fs::File::open(&path) {
                // A file that cannot be read to its end still says something.
                let _ = file.take(bytes_max as u64).read_to_end(&mut out);
            }
            Ok(out)
        });
        read.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use kactor_runtime::env::Machine;

    use super::*;

    #[test]
    fn files_and_volumes_of_a_pod_come_and_go_together() {
        let temp = tempfile::tempdir().unwrap();
        let machine = Machine::start();
        let host = HostVolumes::new(machine.env().clone(), temp.path().to_owned());
        let pod = crate::spec::parse(
            br#"{"metadata":{"uid":"u"},"spec":{"containers":[],"volumes":[{"name":"d","emptyDir":{}}]}}"#,
        )
        .unwrap();
        let volumes = kactor_volumes::plan::read(&pod.spec.volumes).unwrap();
        let paths = block_on(host.mount(&pod, &volumes, BTreeMap::new(), "1")).unwrap();
        assert!(paths["d"].is_dir());
        let path = block_on(host.write_file("u", "containers/a/termination-log", b"bye".to_vec()))
            .unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o666);
        let hosts = block_on(host.write_file("u", "etc-hosts", b"127.0.0.1".to_vec())).unwrap();
        assert_eq!(mode(&hosts), 0o644, "no user of a container changes where names lead");
        assert_eq!(block_on(host.read_file("u", "containers/a/termination-log", 2)), b"by");
        assert_eq!(block_on(host.read_file("u", "nothing", 2)), b"");
        block_on(host.unmount("u")).unwrap();
        assert!(!temp.path().join("pods/u").exists());
        block_on(host.unmount("u")).unwrap();
    }
}
