//! Taking things away, to the last: processes, mounts, cgroups, folders. Also what a dead kactor left.
//!
//! Works from folders and cgroups alone, so that it needs no shim and no memory of what was made. Everything may be
//! repeated; what is gone is fine. Blocks.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use kactor_drivers::{ContainerId, DriverError, QosClass, SandboxId};
use kactor_images::rootfs;

use super::Inner;
use super::status::{SandboxRecord, is_alive};
use crate::cgroups::{Hierarchy, instance_path, pod_path};
use crate::layout::{ContainerLayout, Layout, PodLayout, container_dir_name, read_json};

/// A killed process is gone within this many looks, or something holds it in the kernel.
const TRIES: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(5);

const CLASSES: [QosClass; 3] = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];

impl Inner {
    pub(super) fn remove_sandbox(&self, id: &SandboxId) -> Result<(), DriverError> {
        let pod = self.layout.pod(id);
        remove_pod(&pod, id, &self.hierarchy, &self.instance)
    }

    /// The container does not run any more.
    pub(super) fn remove_container(&self, id: &ContainerId) -> Result<(), DriverError> {
        let pod = self.layout.pod(&id.sandbox);
        let layout = pod.container(id);
        if let Some(record) = read_json::<SandboxRecord>(&pod.sandbox_json()) {
            let group = format!("{}/{}", self.cgroup(&record.spec), container_dir_name(id));
            end_group(&self.hierarchy, &group)?;
        }
        remove_container_dir(&layout)
    }
}

fn remove_container_dir(layout: &ContainerLayout) -> Result<(), DriverError> {
    rootfs::release(&layout.dir).map_err(|it| DriverError::Runtime {
        doing: format!("removing {}", layout.dir.display()),
        why: it.to_string(),
    })?;
    remove_dir(&layout.dir)
}

fn remove_pod(
    pod: &PodLayout,
    id: &SandboxId,
    hierarchy: &Hierarchy,
    instance: &str,
) -> Result<(), DriverError> {
    for class in CLASSES {
        end_group(hierarchy, &pod_path(instance, class, id))?;
    }
    for _ in 0..TRIES {
        if !is_alive(pod) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    if is_alive(pod) {
        let limit_ms = (PAUSE * TRIES).as_millis() as u64;
        return Err(DriverError::Timeout {
            doing: format!("ending the shim of pod {id}"),
            limit_ms,
        });
    }
    for entry in fs::read_dir(pod.containers()).into_iter().flatten().flatten() {
        remove_container_dir(&ContainerLayout::new(entry.path()))?;
    }
    for kind in ["net", "uts", "ipc", "pid"] {
        unmount(&pod.namespace(kind))?;
    }
    unmount(&pod.shm())?;
    remove_dir(&pod.run)?;
    // The record goes first: a folder without it is known to be a leftover.
    match fs::remove_file(pod.sandbox_json()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DriverError::io(format!("removing pod {id}"), error))
        }
        _ => remove_dir(&pod.state),
    }
}

/// Kills all in a cgroup until it is empty, then removes it.
fn end_group(hierarchy: &Hierarchy, path: &str) -> Result<(), DriverError> {
    for _ in 0..TRIES {
        let pids = hierarchy.pids(path);
        if pids.is_empty() {
            match hierarchy.remove(path) {
                Ok(()) => return Ok(()),
                // The last process has left it, but not quite.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => {
                    return Err(DriverError::io(format!("removing cgroup {path}"), error));
                }
            }
        }
        for pid in pids.into_iter().filter(|it| *it > 1) {
            // SAFETY: kill takes integers.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::sleep(PAUSE);
    }
    let limit_ms = (PAUSE * TRIES).as_millis() as u64;
    Err(DriverError::Timeout { doing: format!("emptying cgroup {path}"), limit_ms })
}

fn unmount(path: &Path) -> Result<(), DriverError> {
    let doing = || format!("unmounting {}", path.display());
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|it| DriverError::io(doing(), it.into()))?;
    loop {
        // SAFETY: the path is NUL-terminated and outlives the call.
        if unsafe { libc::umount2(name.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) } == 0 {
            continue; // Mounts stack.
        }
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOENT) => Ok(()),
            _ => Err(DriverError::io(doing(), error)),
        };
    }
}

fn remove_dir(dir: &Path) -> Result<(), DriverError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DriverError::io(format!("removing {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

/// All pods and the tree above them; images are the caller's.
pub(super) fn purge(
    layout: &Layout,
    hierarchy: &Hierarchy,
    instance: &str,
) -> Result<(), DriverError> {
    let mut ids = std::collections::BTreeSet::new();
    for dir in [layout.pods(), layout.run.join("pods")] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        ids.extend(entries.filter_map(|it| it.file_name().into_string().ok()));
    }
    for id in ids.into_iter().map(SandboxId) {
        remove_pod(&layout.pod(&id), &id, hierarchy, instance)?;
    }
    end_group(hierarchy, &instance_path(instance))?;
    remove_dir(&layout.pods())?;
    remove_dir(&layout.run)
}

/// `down --purge` without a running kactor: kills and removes what an instance's driver made. Images lie in the data
/// folder and go with it.
pub fn purge_instance(instance: &str, state_dir: &Path, run_dir: &Path) -> Result<(), DriverError> {
    let layout = Layout { state: state_dir.to_owned(), run: run_dir.to_owned() };
    let hierarchy = Hierarchy::detect().map_err(|it| DriverError::io("looking for cgroups", it))?;
    match hierarchy {
        Some(hierarchy) => purge(&layout, &hierarchy, instance),
        None => Ok(()), // Without cgroups the driver never started.
    }
}
