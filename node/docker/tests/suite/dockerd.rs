//! A dockerd for a test: the machine's, as DOCKER_HOST or the default socket names it.

use std::path::{Path, PathBuf};

pub struct Dockerd {
    socket: PathBuf,
}

impl Dockerd {
    /// `None` where the test cannot run; under KACTOR_E2E=1 that is a failure.
    pub fn find_or_skip() -> Option<Self> {
        let host = std::env::var("DOCKER_HOST").ok();
        let socket = kactor_docker::socket_path(host.as_deref()).expect("DOCKER_HOST is usable");
        let why = match () {
            () if !nix::unistd::geteuid().is_root() => Some("it needs root".to_owned()),
            () if !Path::new("/bin/busybox").exists() => {
                Some("it needs /bin/busybox: apt-get install busybox-static".to_owned())
            }
            () => std::os::unix::net::UnixStream::connect(&socket)
                .err()
                .map(|it| format!("it needs dockerd at {}: {it}", socket.display())),
        };
        match why {
            None => Some(Self { socket }),
            Some(why) => {
                assert!(
                    std::env::var_os("KACTOR_E2E").is_none(),
                    "skipped under KACTOR_E2E=1: {why}"
                );
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}
