//! Where containers' logs lie, and when they go: `ROOT/NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log`.
//!
//! A log outlives its container, so that a pod that ended can still be read, and goes with the pod's object; of a
//! container that is started again and again the last two runs are kept. Whoever writes a log bounds its size (the
//! shim: 10 MiB and four older parts beside it as `.1`, `.2`, …), so a pod's logs are bounded too. Upstream: kubelet
//! kuberuntime `GetContainerLogPath`, container log manager.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use kactor_protocol::node::LogOptions;
use kactor_runtime::env::{Disk, Env, Lane};

use crate::log_reader::LogReader;
use crate::perform::Host;
use crate::spec::Metadata;

/// Most of a log that becomes a container's last words (kubelet MaxContainerTerminationMessageLogLength, …LogLines).
const LAST_WORDS_BYTES_MAX: usize = 2048;
const LAST_WORDS_LINES_MAX: u64 = 80;

/// The folder of all pods' logs.
#[derive(Clone)]
pub struct PodLogs {
    env: Env,
    root: PathBuf,
}

impl PodLogs {
    pub fn of(host: &Host) -> Self {
        Self { env: host.env.clone(), root: host.config.pod_logs.clone() }
    }

    pub fn folder(&self, pod: &Metadata) -> PathBuf {
        self.root.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }

    pub fn file(&self, pod: &Metadata, container: &str, attempt: u32) -> PathBuf {
        self.folder(pod).join(container).join(format!("{attempt}.log"))
    }

    /// Runs of a container that left a log, oldest first.
    pub fn attempts(&self, pod: &Metadata, container: &str) -> Vec<u32> {
        attempts(self.env.disk.as_ref(), &self.folder(pod).join(container))
    }

    /// The log's end, for a container that failed without a last word of its own.
    pub async fn last_words(&self, path: &Path) -> Vec<u8> {
        let options =
            LogOptions { tail_lines: Some(LAST_WORDS_LINES_MAX), ..LogOptions::default() };
        let mut out = Vec::new();
        // A log that cannot be read has no last words.
        if let Ok(mut reader) = LogReader::new(self.env.clone(), path, &options) {
            while let Ok(Some(bytes)) = reader.next(&|| Box::pin(std::future::ready(true))).await {
                out.extend_from_slice(&bytes);
                out.drain(..out.len().saturating_sub(LAST_WORDS_BYTES_MAX));
            }
        }
        out
    }

    /// Removes the logs of runs before `first_kept`.
    pub async fn forget_runs_before(&self, pod: &Metadata, container: &str, first_kept: u32) {
        let folder = self.folder(pod).join(container);
        self.removing(folder, move |disk, folder| {
            for name in disk.list(folder)? {
                if attempt_of(&name).is_some_and(|it| it < first_kept) {
                    disk.remove_file(&folder.join(name))?;
                }
            }
            Ok(())
        })
        .await;
    }

    /// Removes all of a pod's logs: its object is gone.
    pub async fn forget(&self, pod: &Metadata) {
        self.removing(self.folder(pod), |disk, folder| disk.remove_dir_all(folder)).await;
    }

    /// Removes the logs of pods whose objects went while nobody watched.
    pub async fn forget_all_but(&self, known: BTreeSet<String>) {
        self.removing(self.root.clone(), move |disk, root| {
            for name in disk.list(root)? {
                let is_known = name.rsplit('_').next().is_some_and(|uid| known.contains(uid));
                if !is_known {
                    disk.remove_dir_all(&root.join(name))?;
                }
            }
            Ok(())
        })
        .await;
    }

    /// Where it may block. What cannot be removed is named and tried again at the next start.
    async fn removing(
        &self,
        folder: PathBuf,
        remove: impl FnOnce(&dyn Disk, &Path) -> io::Result<()> + Send + 'static,
    ) {
        let (done, removed) = tokio::sync::oneshot::channel();
        let disk = self.env.disk.clone();
        let shown = folder.display().to_string();
        // The task ends by itself.
        let _ = self.env.spawn(Lane::Blocking, async move {
            let _ = done.send(remove(disk.as_ref(), &folder));
        });
        if let Ok(Err(error)) = removed.await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = shown, %error, "old logs could not be removed; tried again at the next start");
        }
    }
}

fn attempts(disk: &dyn Disk, folder: &Path) -> Vec<u32> {
    let names = disk.list(folder).unwrap_or_default(); // A container that never ran has none.
    let found: BTreeSet<u32> = names.iter().filter_map(|it| attempt_of(it)).collect();
    found.into_iter().collect()
}

/// 3 of `3.log` and of `3.log.1`.
fn attempt_of(name: &str) -> Option<u32> {
    let (attempt, rest) = name.split_once('.')?;
    (rest == "log" || rest.starts_with("log.")).then(|| attempt.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use kactor_runtime::env::Machine;

    use super::*;

    fn pod(uid: &str) -> Metadata {
        let (name, namespace) = ("web".to_owned(), "default".to_owned());
        Metadata { name, namespace, uid: uid.to_owned(), ..Metadata::default() }
    }

    fn write(logs: &PodLogs, pod: &Metadata, name: &str) {
        let folder = logs.folder(pod).join("a");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), "2026-11-21T12:00:00Z stderr F no such file\n").unwrap();
    }

    #[test]
    fn old_runs_go_and_the_last_two_stay() {
        let (temp, machine) = (tempfile::tempdir().unwrap(), Machine::start());
        let logs = PodLogs { env: machine.env().clone(), root: temp.path().to_owned() };
        for name in ["2.log", "9.log", "9.log.1", "10.log", "11.log", "notes"] {
            write(&logs, &pod("u"), name);
        }
        assert_eq!(logs.attempts(&pod("u"), "a"), [2, 9, 10, 11], "by number, not by name");
        block_on(logs.forget_runs_before(&pod("u"), "a", 10));
        assert_eq!(logs.attempts(&pod("u"), "a"), [10, 11]);
        assert!(logs.folder(&pod("u")).join("a/notes").exists());
        assert!(logs.attempts(&pod("u"), "b").is_empty());
    }

    #[test]
    fn logs_go_with_their_pods() {
        let (temp, machine) = (tempfile::tempdir().unwrap(), Machine::start());
        let logs = PodLogs { env: machine.env().clone(), root: temp.path().to_owned() };
        for uid in ["one", "two", "three"] {
            write(&logs, &pod(uid), "0.log");
        }
        block_on(logs.forget(&pod("one")));
        block_on(logs.forget(&pod("one"))); // Once more is fine.
        block_on(logs.forget_all_but(BTreeSet::from(["three".to_owned()])));
        let left: Vec<bool> =
            ["one", "two", "three"].map(|it| logs.folder(&pod(it)).exists()).to_vec();
        assert_eq!(left, [false, false, true]);
    }

    #[test]
    fn last_words_are_the_end_of_the_log() {
        let (temp, machine) = (tempfile::tempdir().unwrap(), Machine::start());
        let logs = PodLogs { env: machine.env().clone(), root: temp.path().to_owned() };
        write(&logs, &pod("u"), "0.log");
        let path = logs.file(&pod("u"), "a", 0);
        assert_eq!(block_on(logs.last_words(&path)), b"no such file\n");
        assert_eq!(block_on(logs.last_words(&logs.file(&pod("u"), "a", 1))), b"");
    }
}
