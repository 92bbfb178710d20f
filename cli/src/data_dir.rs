//! The data directory: where it is, what lies in it, and who holds it.
//!
//! `kactor.lock` is held by the running process and names it, so `down` and `status` find it and a second `up` is
//! refused in one sentence. The lock is the kernel's (an open file description lock), so a crash leaves none behind, and
//! looking at it takes nothing: a `status` that asks while `up` begins can't be in its way.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use serde::{Deserialize, Serialize};

/// The paths of one data directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

/// Who holds the directory; the content of its lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// Where its API listens.
    pub listen: SocketAddr,
    pub node: String,
}

/// Held as long as this process uses the directory.
pub struct Lock {
    _file: File,
}

/// The whole file, as fcntl(2) wants it; `kind` is `F_WRLCK` to take or to ask for it.
fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl DataDir {
    /// The directory that was named, or the default one for this user.
    pub fn find(named: Option<&Path>) -> anyhow::Result<Self> {
        let root = match named {
            Some(path) => path.to_owned(),
            None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/lib/kactor"),
            None => {
                let home = std::env::var_os("HOME").context(
                    "neither --data-dir nor $HOME says where the data directory is; pass --data-dir DIR",
                )?;
                PathBuf::from(home).join(".local/share/kactor")
            }
        };
        let root =
            std::path::absolute(&root).with_context(|| format!("the path {}", root.display()))?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Names the cluster that the keys belong to.
    pub fn cluster_name(&self) -> PathBuf {
        self.pki().join("cluster")
    }

    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }

    /// Who this host is in its cluster, and who the others are.
    pub fn hosts(&self) -> PathBuf {
        self.root.join("hosts.json")
    }

    /// This host's own key and certificate.
    pub fn host(&self) -> PathBuf {
        self.root.join("host")
    }

    pub fn host_certificate(&self) -> PathBuf {
        self.host().join("host.crt")
    }

    /// Stands there once the host left its cluster.
    pub fn left(&self) -> PathBuf {
        self.root.join("left")
    }

    /// Stands there while the host joins.
    pub fn joining(&self) -> PathBuf {
        self.root.join("joining")
    }

    /// Where `snapshot restore` builds what it then moves into place.
    pub fn unfinished_restore(&self) -> PathBuf {
        self.root.join("restore.new")
    }

    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Records of pods and what their containers write.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// The docker driver's own notes; it is there if pods ever ran on Docker.
    pub fn docker(&self) -> PathBuf {
        self.root.join("docker")
    }

    /// Volumes, in the kubelet's layout.
    pub fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// The port of the kubelet's API, when it is not the usual one.
    pub fn kubelet_port(&self) -> PathBuf {
        self.root.join("kubelet.port")
    }

    pub fn pod_logs(&self) -> PathBuf {
        self.root.join("logs/pods")
    }

    /// As `pod_logs`, of a node that pretends beside the host's own.
    pub fn pod_logs_beside(&self, node: &str) -> PathBuf {
        self.root.join("logs/beside").join(node)
    }

    /// Which of the user's kubeconfigs hold our context.
    pub fn kubeconfigs(&self) -> PathBuf {
        self.root.join("kubeconfigs.json")
    }

    /// Whether kactor made this directory: nothing else may be removed by `down --purge`.
    pub fn is_kactors(&self) -> bool {
        self.lock_path().is_file()
    }

    fn lock_path(&self) -> PathBuf {
        self.root.join("kactor.lock")
    }

    /// Takes the directory for this process.
    pub fn lock(&self, holder: &Holder) -> anyhow::Result<Lock> {
        let unusable = || {
            let dir = self.root.display();
            format!(
                "{dir} cannot be the data directory, name one that can be written with --data-dir"
            )
        };
        std::fs::create_dir_all(&self.root).with_context(unusable)?;
        self.refuse_others()?;
        let path = self.lock_path();
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.with_context(unusable)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => match self.holder()? {
                Some(it) => bail!(
                    "{} is in use by kactor with pid {} on {}; stop it with `kactor down --data-dir {}` or name another --data-dir",
                    self.root.display(),
                    it.pid,
                    it.listen,
                    self.root.display()
                ),
                None => {
                    bail!("{} is in use by another kactor that is starting", self.root.display())
                }
            },
            Err(error) => return Err(error).with_context(|| format!("locking {}", path.display())),
        }
        let text = serde_json::to_vec(holder)?;
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
        written.with_context(|| format!("writing {}", path.display()))?;
        Ok(Lock { _file: file })
    }

    /// A directory with somebody else's files is not taken: `down --purge` would take folders of theirs for kactor's.
    fn refuse_others(&self) -> anyhow::Result<()> {
        if self.is_kactors() || self.store().is_dir() {
            return Ok(());
        }
        let doing = || format!("reading the data directory {}", self.root.display());
        for entry in std::fs::read_dir(&self.root).with_context(doing)? {
            let name = entry.with_context(doing)?.file_name();
            // A file system of its own begins with this one.
            if name != "lost+found" {
                bail!(
                    "{} holds {} and was not made by kactor; name an empty or new folder with --data-dir",
                    self.root.display(),
                    name.to_string_lossy()
                );
            }
        }
        Ok(())
    }

    /// Takes the directory for a command that serves nothing.
    pub fn lock_for(&self, command: &str) -> anyhow::Result<Lock> {
        let listen = SocketAddr::from(([0, 0, 0, 0], 0));
        self.lock(&Holder { pid: std::process::id(), listen, node: command.to_owned() })
    }

    /// Refuses a directory that a restore left half made.
    pub fn check_whole(&self) -> anyhow::Result<()> {
        let unfinished = self.unfinished_restore();
        if unfinished.exists() {
            bail!(
                "a restore into {} was cut short ({} is there); run `kactor snapshot restore FILE --force` again, nothing of it is lost",
                self.root.display(),
                unfinished.display()
            );
        }
        Ok(())
    }

    /// Who holds the directory now; `None` when nobody does.
    pub fn holder(&self) -> anyhow::Result<Option<Holder>> {
        let path = self.lock_path();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("reading {}", path.display()))?;
        let mut asked = whole_file(libc::F_WRLCK);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked))
            .with_context(|| format!("asking who holds {}", path.display()))?;
        let free = i32::from(asked.l_type) == libc::F_UNLCK;
        if free {
            return Ok(None);
        }
        Ok(serde_json::from_str(&text).ok())
    }

    /// The running kactor of this directory, or a sentence that says that there is none.
    pub fn running(&self) -> anyhow::Result<Holder> {
        self.holder()?.with_context(|| {
            format!("no kactor runs with the data directory {}; start one with `kactor up`, or name another --data-dir", self.root.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        let listen = "127.0.0.1:6443".parse().unwrap();
        Holder { pid: 7, listen, node: "n".to_owned() }
    }

    #[test]
    fn a_directory_has_one_holder_and_is_free_after_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::find(Some(temp.path())).unwrap();
        assert_eq!(dir.holder().unwrap(), None);
        assert!(dir.running().unwrap_err().to_string().contains("kactor up"));
        let lock = dir.lock(&holder()).unwrap();
        assert_eq!(dir.holder().unwrap(), Some(holder()));
        let error = dir.lock(&holder()).err().unwrap().to_string();
        assert!(error.contains("pid 7") && error.contains("kactor down"), "{error}");
        drop(lock);
        assert_eq!(dir.holder().unwrap(), None);
        assert!(dir.lock(&holder()).is_ok());
    }

    #[test]
    fn a_folder_of_others_is_not_taken() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("lost+found")).unwrap();
        std::fs::create_dir(temp.path().join("network")).unwrap();
        let dir = DataDir::find(Some(temp.path())).unwrap();
        let error = dir.lock(&holder()).err().unwrap().to_string();
        assert!(error.contains("network") && error.contains("--data-dir"), "{error}");
        assert!(!dir.is_kactors(), "nothing was made there");
        std::fs::remove_dir(temp.path().join("network")).unwrap();
        drop(dir.lock(&holder()).unwrap());
        std::fs::create_dir(temp.path().join("network")).unwrap();
        assert!(dir.lock(&holder()).is_ok(), "now it is kactor's");
    }

    #[test]
    fn asking_who_holds_a_directory_never_keeps_it_from_being_taken() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::find(Some(temp.path())).unwrap();
        drop(dir.lock(&holder()).unwrap());
        let asking = dir.clone();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    asking.holder().unwrap();
                }
            });
            for _ in 0..500 {
                drop(dir.lock(&holder()).expect("nobody holds it"));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
