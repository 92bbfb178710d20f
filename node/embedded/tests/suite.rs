//! The embedded driver through the suite of all drivers, with busybox-static in a root file system of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kactor_drivers::suite::{self, BUSYBOX_IMAGE, Subject};
use kactor_drivers::{Driver, ImageConfig, SandboxSpec};
use kactor_embedded::{EmbeddedConfig, EmbeddedDriver, ShimProgram};
use kactor_images::build::{Content, Entry, image_from_files};
use kactor_images::{ImageStore, Limits};
use kactor_runtime::env::Machine;

const BUSYBOX: &str = "/bin/busybox";

/// Why this machine cannot run the suite, if it cannot.
fn obstacle() -> Option<String> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Some("it needs root".to_owned());
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("it needs {BUSYBOX}: apt-get install busybox-static"));
    }
    if !Path::new("/sys/fs/cgroup").exists() {
        return Some("it needs cgroups".to_owned());
    }
    None
}

fn busybox_image(store: &ImageStore) {
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
    image_from_files(store, BUSYBOX_IMAGE, &entries, &ImageConfig::default())
        .expect("busybox is packed");
}

/// Everything on this machine that carries the pod's uid.
fn leftovers(uid: &str, dirs: &[PathBuf]) -> Vec<String> {
    let mut left = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("Linux has it");
    left.extend(mounts.lines().filter(|it| it.contains(uid)).map(str::to_owned));
    for dir in dirs {
        if dir.join(uid).exists() {
            left.push(dir.join(uid).display().to_string());
        }
    }
    for entry in std::fs::read_dir("/proc").expect("Linux has it").flatten() {
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if groups.contains(uid) {
            left.push(format!("process {}", entry.path().display()));
        }
    }
    left.extend(cgroups_with(Path::new("/sys/fs/cgroup"), uid));
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

/// Printed beside the table: each pod pays for one.
fn private_kb_of_shim(instance: &str) -> Option<u64> {
    let file = format!("kactor-{instance}/kubepods/besteffort/podmemory/shim/cgroup.procs");
    let trees = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let pids =
        trees.iter().find_map(|it| std::fs::read_to_string(Path::new(it).join(&file)).ok())?;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pids.trim())).ok()?;
    let private = rollup.lines().filter(|it| it.starts_with("Private_"));
    Some(private.filter_map(|it| it.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}

#[test]
fn the_embedded_driver_passes_the_suite() {
    if let Some(why) = obstacle() {
        assert!(std::env::var_os("KACTOR_E2E").is_none(), "skipped under KACTOR_E2E=1: {why}");
        eprintln!("skipped: {why}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let instance = format!("suite-{}", std::process::id());
    let run_dir = PathBuf::from(format!("/run/kactor-{instance}"));
    let state_dir = dir.path().join("node");
    let images = Arc::new(ImageStore::open(&dir.path().join("images"), Limits::default()).unwrap());
    busybox_image(&images);
    let machine = Machine::start();
    let env = machine.env().clone();
    let make = {
        let (env, images, state_dir, run_dir, instance) =
            (env.clone(), images, state_dir.clone(), run_dir.clone(), instance.clone());
        move || {
            let shim = ShimProgram {
                program: PathBuf::from(env!("CARGO_BIN_EXE_kactor-shim")),
                args: Vec::new(),
            };
            let config = EmbeddedConfig {
                instance: instance.clone(),
                state_dir: state_dir.clone(),
                run_dir: run_dir.clone(),
                images: images.clone(),
                shim,
            };
            Arc::new(EmbeddedDriver::start(config, env.clone()).unwrap()) as Arc<dyn Driver>
        }
    };
    let (report, shim_memory) = machine
        .block_on(async {
            let driver = make();
            let looked_at = [state_dir.join("pods"), run_dir.join("pods")];
            let subject = Subject {
                driver: driver.clone(),
                env,
                dir: dir.path().to_owned(),
                restart: Box::new(move || {
                    let driver = make();
                    Box::pin(async { driver })
                }),
                leftovers: Box::new(move |uid| leftovers(uid, &looked_at)),
                pretends: BTreeMap::new(),
            };
            let report = suite::run(&subject).await;
            // Two, because a page of the program counts as private while only one shim has mapped it.
            for uid in ["memory", "memory-2"] {
                driver.create_sandbox(&SandboxSpec::new(uid, "d", "p")).await.unwrap();
            }
            let shim_memory = private_kb_of_shim(&instance);
            driver.purge().await.unwrap();
            (report, shim_memory)
        })
        .unwrap();
    eprintln!("{report}");
    eprintln!("a shim's private memory: {} kB", shim_memory.expect("the shim was asked"));
    assert_eq!(report.failures(), 0, "{report}");
    assert!(!run_dir.exists(), "purge left {}", run_dir.display());
    let left = leftovers(&instance, &[]);
    assert!(left.is_empty(), "purge left {left:?}");
}
