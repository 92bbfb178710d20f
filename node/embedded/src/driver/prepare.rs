//! Making a sandbox's and a container's folders: everything that stands before the shim is asked.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kactor_drivers::checks;
use kactor_drivers::{
    ContainerSpec, DriverError, IpcMode, NetworkMode, PidMode, SandboxSpec, Seccomp, Stdin,
    Terminal,
};
use kactor_images::rooted::{Rooted, normal};
use kactor_images::rootfs::{self, Preference};
use kactor_images::{command, store};

use super::status::{ContainerRecord, SandboxRecord, is_alive};
use super::{Inner, images};
use crate::config_json::{
    DRIVER, Device, NamespacePaths, Prepared, config_json, has_default_filter,
};
use crate::layout::{ContainerLayout, PodLayout, container_dir_name, read_json, write_json};
use crate::protocol::{
    ContainerLaunch, PidScope, PodLaunch, Scope, SeccompMode, StdinMode, VERSION,
};
use crate::user::identity;

fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> DriverError {
    let what = what.into();
    move |error| DriverError::io(what, error)
}

impl Inner {
    pub(super) fn prepare_sandbox(&self, spec: &SandboxSpec) -> Result<(), DriverError> {
        checks::sandbox(DRIVER, spec)?;
        let pod = self.layout.pod(&spec.id);
        if pod.sandbox_json().exists() {
            return Err(DriverError::Exists { what: format!("sandbox {}", spec.id) });
        }
        if pod.state.exists() {
            self.remove_sandbox(&spec.id)?; // The leftover of a crash before its record was written.
        }
        for dir in [pod.containers(), pod.run.clone()] {
            fs::create_dir_all(&dir).map_err(doing(format!("making {}", dir.display())))?;
        }
        let record = SandboxRecord { spec: spec.clone(), created: self.env.wall() };
        write_json(&pod.sandbox_json(), &record).map_err(doing("writing sandbox.json"))?;
        let group = self.cgroup(spec);
        self.hierarchy.create(&group, &spec.resources).map_err(doing("making the Pod's cgroup"))?;
        let own = format!("{group}/shim");
        self.hierarchy
            .create(&own, &kactor_drivers::Resources::default())
            .map_err(doing("making the shim's cgroup"))?;
        let scope = |is_own: bool| if is_own { Scope::Pod } else { Scope::Host };
        let launch = PodLaunch {
            version: VERSION,
            run: pod.run.clone(),
            hostname: spec.hostname.clone(),
            network: scope(spec.network == NetworkMode::Pod),
            ipc: scope(spec.ipc == IpcMode::Pod),
            pid: match spec.pid {
                PidMode::Container => PidScope::Container,
                PidMode::Pod => PidScope::Pod,
                PidMode::Host => PidScope::Host,
            },
            sysctls: spec.sysctls.clone(),
            cgroups: self.hierarchy.own_dirs(&own),
        };
        write_json(&pod.shim_json(), &launch).map_err(doing("writing shim.json"))
    }

    pub(super) fn prepare_container(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        let pod = self.layout.pod(&spec.id.sandbox);
        let sandbox: Option<SandboxRecord> = read_json(&pod.sandbox_json());
        let sandbox = sandbox.ok_or_else(|| DriverError::NoSandbox(spec.id.sandbox.clone()))?.spec;
        if !is_alive(&pod) {
            let what = format!("sandbox {}", spec.id.sandbox);
            return Err(DriverError::WrongState { what, state: "lost", wanted: "ready" });
        }
        check_container(spec)?;
        let layout = pod.container(&spec.id);
        if layout.container_json().exists() {
            return Err(DriverError::Exists { what: format!("container {}", spec.id) });
        }
        if layout.dir.exists() {
            self.remove_container(&spec.id)?; // The leftover of a crash before its record was written.
        }
        let _hold = self.images.hold();
        let found = self.images.find(&spec.image).map_err(|it| images::error(&spec.image, it))?;
        let image = found.ok_or_else(|| DriverError::NoImage { reference: spec.image.clone() })?;
        let done = self.make_container(spec, &sandbox, &pod, &layout, &image);
        if done.is_err() {
            // The first error is the one to tell; leftovers are removed by the next attempt or with the pod.
            let _ = self.remove_container(&spec.id);
        }
        done
    }

    fn make_container(
        &self,
        spec: &ContainerSpec,
        sandbox: &SandboxSpec,
        pod: &PodLayout,
        layout: &ContainerLayout,
        image: &store::Resolved,
    ) -> Result<(), DriverError> {
        let bundle = layout.bundle();
        fs::create_dir_all(&bundle).map_err(doing(format!("making {}", bundle.display())))?;
        rootfs::prepare(&self.images, image, &layout.dir, Preference::Overlay)
            .map_err(|it| images::error(&spec.image, it))?;
        let run = image.config.run();
        let args = command::command_line(&run, &spec.command, &spec.args);
        if args.is_empty() {
            let why = "neither the container nor its image names a program".to_owned();
            return Err(DriverError::Invalid { field: "containers[].command", why });
        }
        let stop_signal = spec.stop_signal.as_deref().or(run.stop_signal.as_deref());
        let record = ContainerRecord {
            spec: spec.clone(),
            image_id: image.id().to_string(),
            created: self.env.wall(),
            stop_signal: signal_number(stop_signal)?,
            warnings: Vec::new(),
        };
        let cgroup = format!("{}/{}", self.cgroup(sandbox), container_dir_name(&spec.id));
        let prepared = Prepared {
            sandbox,
            container: spec,
            args,
            env: command::environment(&run, &spec.env),
            working_dir: working_dir(&layout.rootfs(), spec, &run.working_dir)?,
            identity: identity(&layout.rootfs(), &run.user, &spec.security)?,
            rootfs: layout.rootfs(),
            cgroup: cgroup.clone(),
            namespace: pod,
            bounding: self.bounding.clone(),
            devices: host_devices(spec.security.privileged),
            shm: match sandbox.ipc {
                IpcMode::Pod => pod.shm(),
                IpcMode::Host => PathBuf::from("/dev/shm"),
            },
        };
        let document = config_json(&prepared)?;
        write_json(&layout.config_json(), &document).map_err(doing("writing config.json"))?;
        let launch = self.launch(spec, sandbox, &cgroup);
        write_json(&layout.launch_json(), &launch).map_err(doing("writing launch.json"))?;
        write_json(&layout.container_json(), &record).map_err(doing("writing container.json"))
    }

    fn launch(&self, spec: &ContainerSpec, sandbox: &SandboxSpec, cgroup: &str) -> ContainerLaunch {
        ContainerLaunch {
            version: VERSION,
            log_path: spec.log_path.clone(),
            log_bytes_max: spec.log_bytes_max,
            log_files_max: spec.log_files_max,
            terminal: spec.terminal == Terminal::Tty,
            stdin: match spec.stdin {
                Stdin::Closed => StdinMode::Closed,
                Stdin::Open => StdinMode::Open,
                Stdin::Once => StdinMode::Once,
            },
            cgroups: self.hierarchy.dirs(cgroup),
            oom_file: self.hierarchy.oom_file(cgroup),
            kills_leftovers: sandbox.pid != PidMode::Container,
            seccomp: match has_default_filter(&spec.security) {
                true => SeccompMode::Default,
                false => SeccompMode::Unconfined,
            },
            oom_score_adj: spec.resources.oom_score_adj,
        }
    }
}

impl NamespacePaths for PodLayout {
    fn path(&self, kind: &str) -> PathBuf {
        self.namespace(kind)
    }
}

fn check_container(spec: &ContainerSpec) -> Result<(), DriverError> {
    if let Seccomp::Localhost(path) = &spec.security.seccomp {
        let why = format!("profile {}: only RuntimeDefault is built in", path.display());
        return Err(DriverError::Unsupported {
            driver: DRIVER,
            field: "securityContext.seccompProfile.localhostProfile",
            why,
        });
    }
    checks::container(spec)
}

/// The container's, else the image's, else `/`; made in the root if the image has no such folder.
fn working_dir(root: &Path, spec: &ContainerSpec, image: &str) -> Result<String, DriverError> {
    let dir = spec.working_dir.as_deref().filter(|it| !it.is_empty()).unwrap_or(image);
    let dir = if dir.is_empty() { "/" } else { dir };
    let invalid = |why: String| DriverError::Invalid { field: "containers[].workingDir", why };
    if !dir.starts_with('/') {
        return Err(invalid(format!("{dir:?} is not absolute")));
    }
    let inside = normal(dir.as_bytes()).map_err(|it| invalid(format!("{dir:?}: {}", it.why())))?;
    let rooted = Rooted::open(root).map_err(doing(format!("opening {}", root.display())))?;
    match rooted.make_dir_all(&inside) {
        Ok(_) => Ok(dir.to_owned()),
        Err(error) => Err(invalid(format!("{dir:?} cannot be made in the image: {error}"))),
    }
}

/// `SIGTERM`, `TERM`, `15`; nothing is SIGTERM.
fn signal_number(name: Option<&str>) -> Result<i32, DriverError> {
    const NAMES: &[(&str, i32)] = &[
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ABRT", libc::SIGABRT),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("WINCH", libc::SIGWINCH),
        ("IO", libc::SIGIO),
        ("PWR", libc::SIGPWR),
    ];
    let Some(name) = name.filter(|it| !it.is_empty()) else {
        return Ok(libc::SIGTERM);
    };
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = || {
        let offset = short.strip_prefix("RTMIN")?;
        let offset: i32 =
            if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        (0..=30).contains(&offset).then(|| libc::SIGRTMIN() + offset)
    };
    let by_name = NAMES.iter().find(|(it, _)| *it == short).map(|(_, number)| *number);
    let by_number = || short.parse::<i32>().ok().filter(|it| (1..=64).contains(it));
    by_name.or_else(by_number).or_else(realtime).ok_or_else(|| DriverError::Invalid {
        field: "lifecycle.stopSignal",
        why: format!("{name:?} is no signal"),
    })
}

/// The host's device nodes directly in /dev, for a privileged container.
fn host_devices(privileged: bool) -> Vec<Device> {
    if !privileged {
        return Vec::new();
    }
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut devices: Vec<Device> = entries.filter_map(|it| device(&it.path())).collect();
    devices.sort_by(|a, b| a.path.cmp(&b.path));
    devices
}

fn device(path: &Path) -> Option<Device> {
    // The runtime makes these itself.
    const OWN: [&str; 9] =
        ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "stdin"];
    let about = fs::symlink_metadata(path).ok()?;
    let kind = match about.file_type() {
        it if it.is_char_device() => 'c',
        it if it.is_block_device() => 'b',
        _ => return None,
    };
    if OWN.contains(&path.file_name()?.to_str()?) {
        return None;
    }
    Some(Device {
        path: path.to_owned(),
        kind,
        major: libc::major(about.rdev()),
        minor: libc::minor(about.rdev()),
        mode: about.mode() & 0o777,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (name, number) in
            [(None, 15), (Some("SIGQUIT"), 3), (Some("int"), 2), (Some("9"), 9), (Some(""), 15)]
        {
            assert_eq!(signal_number(name).unwrap(), number, "{name:?}");
        }
        assert_eq!(signal_number(Some("SIGRTMIN+3")).unwrap(), libc::SIGRTMIN() + 3);
        for bad in ["SIGNOPE", "0", "65", "RTMIN+99"] {
            assert!(signal_number(Some(bad)).is_err(), "{bad}");
        }
    }
}
