//! The docker driver through the suite of all drivers, with a dockerd of the machine or of its own.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kactor_docker::{DockerConfig, DockerDriver, PauseProgram};
use kactor_drivers::suite::{self, BUSYBOX_IMAGE, Subject};
use kactor_drivers::{Driver, ImageConfig, SandboxSpec, SandboxState};
use kactor_images::build::{Content, Entry, image_from_files};
use kactor_images::{ImageStore, Limits, export};
use kactor_runtime::env::Machine;

use dockerd::Dockerd;

#[path = "suite/dockerd.rs"]
mod dockerd;

const BUSYBOX: &str = "/bin/busybox";

fn busybox_tarball(dir: &Path) -> PathBuf {
    let store = ImageStore::open(&dir.join("store"), Limits::default()).unwrap();
    let link = |name: &str| Entry {
        path: format!("/bin/{name}"),
        content: Content::Link("busybox".to_owned()),
        mode: 0o777,
    };
    let names = [
        "sh", "cat", "sleep", "tail", "id", "hostname", "stty", "tty", "touch", "df", "grep",
        "sed", "cut", "ps", "readlink", "unshare", "true",
    ];
    let mut entries: Vec<Entry> = names.into_iter().map(link).collect();
    entries.push(Entry {
        path: "/bin/busybox".to_owned(),
        content: Content::File(PathBuf::from(BUSYBOX)),
        mode: 0o755,
    });
    entries.push(Entry {
        path: "/etc/passwd".to_owned(),
        content: Content::Bytes(b"root:x:0:0:root:/root:/bin/sh\n".to_vec()),
        mode: 0o644,
    });
    let image = image_from_files(&store, BUSYBOX_IMAGE, &entries, &ImageConfig::default());
    let image = image.expect("busybox is packed");
    let tarball = dir.join("busybox.tar");
    let file = std::fs::File::create(&tarball).unwrap();
    export::docker_archive(&store, &[(image.id, image.tags)], file).unwrap();
    tarball
}

/// Everything on this machine that carries the text: containers, mounts, processes' cgroups, cgroups.
fn leftovers(text: &str) -> Vec<String> {
    let mut left = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("Linux has it");
    left.extend(mounts.lines().filter(|it| it.contains(text)).map(str::to_owned));
    for entry in std::fs::read_dir("/proc").expect("Linux has it").flatten() {
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if groups.contains(text) {
            left.push(format!("process {}", entry.path().display()));
        }
    }
    left.extend(cgroups_with(Path::new("/sys/fs/cgroup"), text));
    left
}

fn cgroups_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            if entry.file_name().to_string_lossy().contains(text) {
                found.push(entry.path().display().to_string());
            }
            found.extend(cgroups_with(&entry.path(), text));
        }
    }
    found
}

#[test]
fn the_docker_driver_passes_the_suite() {
    let Some(dockerd) = Dockerd::find_or_skip() else { return };
    let dir = tempfile::tempdir().unwrap();
    let instance = format!("suite-{}", std::process::id());
    let machine = Machine::start();
    let env = machine.env().clone();
    let config = {
        let (instance, state_dir) = (instance.clone(), dir.path().join("docker"));
        let socket = dockerd.socket().to_owned();
        move || DockerConfig {
            instance: instance.clone(),
            state_dir: state_dir.clone(),
            socket: socket.clone(),
            pause: PauseProgram {
                program: PathBuf::from(env!("CARGO_BIN_EXE_kactor-pause")),
                args: Vec::new(),
            },
        }
    };
    let report = machine
        .block_on(async {
            let driver = DockerDriver::start(config(), env.clone()).await.unwrap();
            driver.import_images(&busybox_tarball(dir.path())).await.unwrap();
            let another = env.clone();
            let restart: suite::Restart = Box::new(move || {
                let started = DockerDriver::start(config(), another.clone());
                Box::pin(async { Arc::new(started.await.unwrap()) as Arc<dyn Driver> })
            });
            let subject = Subject {
                driver: Arc::new(driver.clone()),
                env: env.clone(),
                dir: dir.path().to_owned(),
                restart,
                leftovers: Box::new(leftovers),
                pretends: BTreeMap::new(),
            };
            let report = suite::run(&subject).await;
            a_dead_pause_container_is_a_lost_sandbox(&driver).await;
            driver.remove_image(BUSYBOX_IMAGE).await.unwrap();
            driver.purge().await.unwrap();
            assert!(driver.list().await.unwrap().is_empty());
            let images = driver.images().await.unwrap();
            let ours = images.iter().flat_map(|it| &it.tags).filter(|it| it.contains(&instance));
            assert_eq!(ours.count(), 0, "purge left the pause image: {images:?}");
            report
        })
        .unwrap();
    eprintln!("{report}");
    assert_eq!(report.failures(), 0, "{report}");
    assert!(!dir.path().join("docker").exists(), "purge left its folder");
    let left = leftovers(&instance);
    assert!(left.is_empty(), "purge left {left:?}");
}

/// The agent then removes it and makes it anew, under the same name, with another namespace to plumb.
async fn a_dead_pause_container_is_a_lost_sandbox(driver: &DockerDriver) {
    let spec = SandboxSpec::new("lost-1", "default", "lost");
    let made = driver.create_sandbox(&spec).await.unwrap();
    let netns = made.netns.expect("a pod of its own network has a namespace");
    let pid: i32 = netns.iter().nth(2).unwrap().to_str().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
    let mut events = driver.events();
    while driver.sandbox(&spec.id).await.unwrap().state == SandboxState::Ready {
        events.next().await;
    }
    driver.remove_sandbox(&spec.id).await.unwrap();
    let again = driver.create_sandbox(&spec).await.unwrap();
    assert_eq!(again.state, SandboxState::Ready);
    assert!(again.netns.expect("plumbed anew").exists());
    driver.remove_sandbox(&spec.id).await.unwrap();
}
