//! The way to dockerd: its socket, its facts, and its errors in the words of drivers.

use std::path::{Path, PathBuf};

use bollard::errors::Error;
use bollard::models::SystemInfoCgroupDriverEnum;
use bollard::{API_DEFAULT_VERSION, Docker};
use kactor_drivers::DriverError;

/// Docker's own default.
pub const SOCKET: &str = "/var/run/docker.sock";
/// How long dockerd may take to begin an answer; creating a container from a large image is slow.
const ANSWER_S: u64 = 120;

/// Docker's socket on this machine, as `DOCKER_HOST` or the default names it. Other ways to dockerd are refused: the
/// pods' network and volumes are made here.
pub fn socket_path(docker_host: Option<&str>) -> Result<PathBuf, DriverError> {
    match docker_host.filter(|it| !it.is_empty()) {
        None => Ok(PathBuf::from(SOCKET)),
        Some(host) => match host.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            _ => Err(DriverError::Invalid {
                field: "DOCKER_HOST",
                why: format!(
                    "{host:?} is no unix socket of this machine (unix:///var/run/docker.sock): the pods' network and volumes are made here"
                ),
            }),
        },
    }
}

/// How dockerd names cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    Cgroupfs,
    Systemd,
}

/// A connection to one dockerd; each request has a stream of its own.
pub struct Engine {
    pub docker: Docker,
    pub socket: PathBuf,
    pub version: String,
    pub cgroups: CgroupDriver,
}

impl Engine {
    /// Asks for the version and the facts; says in one sentence what is missing.
    pub async fn connect(socket: &Path) -> Result<Self, DriverError> {
        let path = socket.display().to_string();
        let failed = |it| to_driver_error(socket, "asking for its version", it);
        let docker = Docker::connect_with_unix(&path, ANSWER_S, API_DEFAULT_VERSION);
        let docker = docker.map_err(failed)?.negotiate_version().await.map_err(failed)?;
        let info = docker.info().await.map_err(failed)?;
        let refused = |why: String| DriverError::Runtime {
            doing: format!("using dockerd at {path}"),
            why: format!("{why}; use --runtime embedded"),
        };
        if info.os_type.as_deref() != Some("linux") {
            return Err(refused("it runs no Linux containers".to_owned()));
        }
        let cgroups = match info.cgroup_driver {
            Some(SystemInfoCgroupDriverEnum::CGROUPFS) => CgroupDriver::Cgroupfs,
            Some(SystemInfoCgroupDriverEnum::SYSTEMD) => CgroupDriver::Systemd,
            _ => return Err(refused("it sets no cgroups (rootless?)".to_owned())),
        };
        let version = info.server_version.unwrap_or_else(|| "unknown".to_owned());
        Ok(Self { docker, socket: socket.to_owned(), version, cgroups })
    }

    pub fn error(&self, doing: impl Into<String>, error: Error) -> DriverError {
        to_driver_error(&self.socket, doing, error)
    }

    pub fn unreachable(&self, why: impl Into<String>) -> DriverError {
        unreachable(&self.socket, why)
    }
}

fn unreachable(socket: &Path, why: impl Into<String>) -> DriverError {
    DriverError::Unreachable {
        whom: format!("dockerd at {}", socket.display()),
        why: format!("{}; is it running? (`systemctl start docker`)", why.into()),
    }
}

fn to_driver_error(socket: &Path, doing: impl Into<String>, error: Error) -> DriverError {
    let doing = doing.into();
    match error {
        Error::DockerResponseServerError { message, .. }
        | Error::DockerStreamError { error: message } => {
            let full = message.contains("no space left on device");
            match full {
                true => DriverError::DiskFull { doing: format!("{doing}: {message}") },
                false => DriverError::Runtime { doing, why: message.trim().to_owned() },
            }
        }
        Error::SocketNotFoundError(_) => unreachable(socket, "there is no such socket"),
        Error::RequestTimeoutError => {
            DriverError::Timeout { doing: format!("dockerd, {doing},"), limit_ms: ANSWER_S * 1000 }
        }
        Error::IOError { .. }
        | Error::HyperResponseError { .. }
        | Error::HyperLegacyError { .. } => unreachable(socket, chain(&error)),
        other => DriverError::Runtime { doing, why: chain(&other) },
    }
}

/// An error with its causes, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

/// The status code of dockerd's answer, if it answered.
pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What dockerd said.
pub fn message(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. }
        | Error::DockerStreamError { error: message } => message.trim().to_owned(),
        other => chain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_of_this_machine_is_a_way_to_dockerd() {
        assert_eq!(socket_path(None).unwrap(), Path::new(SOCKET));
        assert_eq!(socket_path(Some("")).unwrap(), Path::new(SOCKET));
        assert_eq!(socket_path(Some("unix:///x/d.sock")).unwrap(), Path::new("/x/d.sock"));
        for bad in ["tcp://10.0.0.1:2375", "ssh://host", "unix://relative", "/plain"] {
            let refused = socket_path(Some(bad)).unwrap_err().to_string();
            assert!(refused.contains(bad) && refused.contains("DOCKER_HOST"), "{refused}");
        }
    }
}
