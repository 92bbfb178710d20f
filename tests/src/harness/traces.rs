//! What a kactor has on the host: looked for where the kernel and the file system list it, not where kactor says it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::process;

/// Everything that bears the name of the instance of this data directory, a line each; empty after `down --purge`.
///
/// # Panics
/// When the kernel's lists cannot be read.
pub fn of(data_dir: &Path) -> Vec<String> {
    let instance = instance(data_dir);
    let mut found = Vec::new();
    found.extend(links(&instance).into_iter().map(|it| format!("link {it}")));
    found.extend(tables(&instance).into_iter().map(|it| format!("nftables: {it}")));
    let run = PathBuf::from("/run/kactor").join(&instance);
    found.extend(mounts(&[data_dir, &run]).into_iter().map(|it| format!("mount {it}")));
    found.extend(cgroups(&instance).into_iter().map(|it| format!("cgroup {it}")));
    found.extend(processes(&instance, data_dir).into_iter().map(|it| format!("process {it}")));
    let folders = [data_dir, &run].into_iter().filter(|it| it.exists());
    found.extend(folders.map(|it| format!("folder {}", it.display())));
    found
}

/// The instance's name, as README says it follows from the data directory (FNV-1a).
fn instance(data_dir: &Path) -> String {
    let hash = data_dir
        .to_string_lossy()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

fn links(instance: &str) -> Vec<String> {
    let digest: String =
        Sha256::digest(instance.as_bytes()).iter().map(|it| format!("{it:02x}")).collect();
    let (bridge, pods) = (format!("kb-{instance}"), format!("kv{}", &digest[..5]));
    let entries = std::fs::read_dir("/sys/class/net").expect("the kernel lists links").flatten();
    let names = entries.map(|it| it.file_name().to_string_lossy().into_owned());
    names.filter(|it| *it == bridge || it.starts_with(&pods)).collect()
}

fn tables(instance: &str) -> Vec<String> {
    let answer = process::run(Command::new("nft").args(["list", "tables"]), "");
    assert!(answer.is_ok(), "{}", answer.both());
    answer.stdout.lines().filter(|it| it.contains(instance)).map(str::to_owned).collect()
}

fn mounts(below: &[&Path]) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the kernel lists mounts");
    let points = table.lines().filter_map(|it| it.split(' ').nth(4));
    let is_below = |it: &&str| below.iter().any(|folder| Path::new(it).starts_with(folder));
    points.filter(is_below).map(str::to_owned).collect()
}

fn cgroups(instance: &str) -> Vec<String> {
    let name = format!("kactor-{instance}");
    let trees = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten();
    let roots = trees.map(|it| it.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    roots
        .map(|it| it.join(&name))
        .filter(|it| it.exists())
        .map(|it| it.display().to_string())
        .collect()
}

/// Shims by their arguments, containers' processes by their cgroup.
fn processes(instance: &str, data_dir: &Path) -> Vec<String> {
    let group = format!("kactor-{instance}");
    let shim = data_dir.display().to_string();
    let all = std::fs::read_dir("/proc").expect("the kernel lists processes").flatten();
    let pids = all.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    pids.filter(|it| *it != own)
        .filter_map(|pid| {
            let read = |name: &str| {
                let bytes = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let arguments = read("cmdline");
            let is_ours = arguments.contains(&shim) || read("cgroup").contains(&group);
            is_ours.then(|| format!("{pid}: {arguments}"))
        })
        .collect()
}
