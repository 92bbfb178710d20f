//! The cgroup tree of an instance: `kactor-<instance>/kubepods/<class>/pod<uid>/<container>`.
//!
//! Which files get which text is pure (`settings`), for v1 (a tree for each controller) and v2 (one tree, given by
//! its root, so that it is tested in a folder of its own). The Pod's level is made here; the containers' by
//! libcontainer within it, each in a folder of its own: two that shared one would be killed by each other's end.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::spec::{QosClass, Resources, SandboxId};
use crate::status::ContainerStats;

/// Where the controllers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    /// Mount points with the controllers of each.
    V1(Vec<(Vec<String>, PathBuf)>),
    V2(PathBuf),
}

/// Controllers that the Pod's level sets something in.
const OURS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];

impl Hierarchy {
    /// This machine's, or `None` if no cgroups are mounted.
    pub fn detect() -> io::Result<Option<Self>> {
        Ok(Self::from_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// v1 wins where both are mounted (hybrid): the controllers are there.
    pub fn from_mountinfo(text: &str) -> Option<Self> {
        let mut v1 = Vec::new();
        let mut v2 = None;
        for line in text.lines() {
            let Some((mount, about)) = line.split_once(" - ") else { continue };
            let Some(path) = mount.split(' ').nth(4) else { continue };
            let about: Vec<&str> = about.split(' ').collect();
            match about.as_slice() {
                ["cgroup", _, options] => {
                    let names = options.split(',').filter(|it| !matches!(*it, "rw" | "ro"));
                    let names: Vec<String> = names
                        .filter(|it| !it.contains('=') && *it != "xattr")
                        .map(str::to_owned)
                        .collect();
                    if !names.is_empty() {
                        v1.push((names, PathBuf::from(path)));
                    }
                }
                ["cgroup2", ..] => v2 = v2.or(Some(PathBuf::from(path))),
                _ => {}
            }
        }
        let has_memory = v1.iter().any(|(names, _)| names.iter().any(|it| it == "memory"));
        match (has_memory, v2) {
            (true, _) => Some(Hierarchy::V1(v1)),
            (false, Some(root)) => Some(Hierarchy::V2(root)),
            (false, None) => None,
        }
    }

    /// The folder of `path` in every tree.
    pub fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let path = path.trim_start_matches('/');
        match self {
            Hierarchy::V1(mounts) => mounts.iter().map(|(_, at)| at.join(path)).collect(),
            Hierarchy::V2(root) => vec![root.join(path)],
        }
    }

    /// The folder of `path` in the tree of one controller.
    pub fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let path = path.trim_start_matches('/');
        match self {
            Hierarchy::V1(mounts) => {
                let has = |names: &[String]| names.iter().any(|it| it == controller);
                mounts.iter().find(|(names, _)| has(names)).map(|(_, at)| at.join(path))
            }
            Hierarchy::V2(root) => Some(root.join(path)),
        }
    }

    /// The folders that processes are put in by us.
    pub fn own_dirs(&self, path: &str) -> Vec<PathBuf> {
        let all: BTreeSet<PathBuf> = OURS.iter().filter_map(|it| self.dir(it, path)).collect();
        all.into_iter().collect()
    }

    /// Which file is to get which text for these limits.
    pub fn settings(&self, path: &str, limits: &Resources) -> Vec<(PathBuf, String)> {
        let rows: Vec<(&str, &str, String)> = match self {
            Hierarchy::V1(_) => v1_rows(limits),
            Hierarchy::V2(_) => v2_rows(limits),
        };
        rows.into_iter()
            .filter_map(|(controller, file, text)| {
                Some((self.dir(controller, path)?.join(file), text))
            })
            .collect()
    }

    /// Makes the group with its parents and sets its limits.
    pub fn create(&self, path: &str, limits: &Resources) -> io::Result<()> {
        for dir in self.own_dirs(path) {
            fs::create_dir_all(&dir).map_err(|it| named(&dir, it))?;
        }
        if let Hierarchy::V2(root) = self {
            pass_down_controllers(root, path)?;
        }
        for (file, text) in self.settings(path, limits) {
            fs::write(&file, text).map_err(|it| named(&file, it))?;
        }
        Ok(())
    }

    /// The file that counts out-of-memory kills of a container.
    pub fn oom_file(&self, path: &str) -> Option<PathBuf> {
        let name = match self {
            Hierarchy::V1(_) => "memory.oom_control",
            Hierarchy::V2(_) => "memory.events",
        };
        self.dir("memory", path).map(|it| it.join(name))
    }

    /// Everything that runs in the group or below it.
    pub fn pids(&self, path: &str) -> BTreeSet<i32> {
        self.dirs(path).iter().flat_map(|it| pids_below(it)).collect()
    }

    /// Removes the group and all below it; absent is fine. Nothing may run in it any more.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        self.dirs(path).iter().try_for_each(|it| remove_tree(it))
    }

    pub fn stats(&self, path: &str) -> ContainerStats {
        let number = |controller: &str, file: &str| -> u64 {
            let text = self.dir(controller, path).map(|it| fs::read_to_string(it.join(file)));
            text.and_then(Result::ok).and_then(|it| it.trim().parse().ok()).unwrap_or_default()
        };
        let field = |controller: &str, file: &str, name: &str| -> u64 {
            let text = self.dir(controller, path).map(|it| fs::read_to_string(it.join(file)));
            text.and_then(Result::ok).and_then(|it| keyed(&it, name)).unwrap_or_default()
        };
        let (cpu, memory, inactive) = match self {
            Hierarchy::V1(_) => (
                number("cpuacct", "cpuacct.usage"),
                number("memory", "memory.usage_in_bytes"),
                field("memory", "memory.stat", "total_inactive_file"),
            ),
            Hierarchy::V2(_) => (
                field("cpu", "cpu.stat", "usage_usec") * 1000,
                number("memory", "memory.current"),
                field("memory", "memory.stat", "inactive_file"),
            ),
        };
        ContainerStats {
            cpu_usage_ns: cpu,
            memory_usage_bytes: memory,
            memory_working_set_bytes: memory.saturating_sub(inactive),
            n_processes: self.pids(path).len() as u64,
        }
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn v1_rows(limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
    let mut rows = Vec::new();
    let mut row = |controller, file, value: Option<String>| {
        rows.extend(value.map(|it| (controller, file, it)));
    };
    row("cpu", "cpu.shares", limits.cpu_shares.map(|it| it.clamp(2, 262_144).to_string()));
    let period = limits.cpu_quota_us.map(|_| limits.cpu_period_us.unwrap_or(100_000));
    row("cpu", "cpu.cfs_period_us", period.map(|it| it.to_string()));
    row("cpu", "cpu.cfs_quota_us", limits.cpu_quota_us.map(|it| it.to_string()));
    row("memory", "memory.limit_in_bytes", limits.memory_limit_bytes.map(|it| it.to_string()));
    row("pids", "pids.max", limits.pids_max.map(|it| it.to_string()));
    rows
}

fn v2_rows(limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
    let mut rows = Vec::new();
    let mut row = |controller, file, value: Option<String>| {
        rows.extend(value.map(|it| (controller, file, it)));
    };
    // Kubernetes' (and runc's) mapping of 2..262144 shares to 1..10000.
    let weight = limits.cpu_shares.map(|it| 1 + (it.clamp(2, 262_144) - 2) * 9999 / 262_142);
    row("cpu", "cpu.weight", weight.map(|it| it.to_string()));
    let period = limits.cpu_period_us.unwrap_or(100_000);
    let quota = limits.cpu_quota_us.map(|it| match it {
        ..0 => format!("max {period}"),
        _ => format!("{it} {period}"),
    });
    row("cpu", "cpu.max", quota);
    row("memory", "memory.max", limits.memory_limit_bytes.map(|it| it.to_string()));
    row("pids", "pids.max", limits.pids_max.map(|it| it.to_string()));
    rows
}

/// v2: a controller is in a group only if each group above passes it down.
fn pass_down_controllers(root: &Path, path: &str) -> io::Result<()> {
    let offered = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let wanted = ["cpu", "memory", "pids"].into_iter();
    let wanted = wanted.filter(|it| offered.split_whitespace().any(|has| has == *it));
    let text: Vec<String> = wanted.map(|it| format!("+{it}")).collect();
    if text.is_empty() {
        return Ok(());
    }
    let mut at = root.to_owned();
    for part in Path::new(path.trim_start_matches('/')).iter() {
        let file = at.join("cgroup.subtree_control");
        fs::write(&file, text.join(" ")).map_err(|it| named(&file, it))?;
        at.push(part);
    }
    // The Pod's group passes them on to its containers.
    let file = at.join("cgroup.subtree_control");
    fs::write(&file, text.join(" ")).map_err(|it| named(&file, it))
}

fn pids_below(dir: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
            found.extend(text.lines().filter_map(|it| it.parse::<i32>().ok()));
        }
        open.extend(child_dirs(&dir));
    }
    found
}

fn child_dirs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()).collect()
}

/// Where any cgroup tree is mounted, those without controllers (`name=systemd`) too: other runtimes use them.
pub fn mount_points() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mounted = table.lines().filter_map(|line| {
        let (mount, about) = line.split_once(" - ")?;
        about.starts_with("cgroup").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    });
    Ok(mounted.collect())
}

/// rmdir from the leaves up: the files in a group are no files to delete. Absent is fine.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in child_dirs(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(dir, error)),
        _ => Ok(()),
    }
}

/// The number behind `name ` at a line's start.
pub fn keyed(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The top of an instance's tree.
pub fn instance_path(instance: &str) -> String {
    format!("/kactor-{instance}")
}

pub fn pod_path(instance: &str, class: QosClass, id: &SandboxId) -> String {
    let class = match class {
        QosClass::Guaranteed => "guaranteed",
        QosClass::Burstable => "burstable",
        QosClass::BestEffort => "besteffort",
    };
    format!("{}/kubepods/{class}/pod{id}", instance_path(instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 1 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
26 1 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 1 0:25 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
28 1 0:26 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
29 1 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    fn limits() -> Resources {
        Resources {
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            memory_limit_bytes: Some(64 << 20),
            pids_max: Some(100),
            ..Resources::default()
        }
    }

    fn lines(settings: Vec<(PathBuf, String)>) -> Vec<String> {
        settings.into_iter().map(|(file, text)| format!("{} {text}", file.display())).collect()
    }

    #[test]
    fn a_hybrid_machine_is_v1_with_its_named_tree_left_out() {
        let found = Hierarchy::from_mountinfo(HYBRID).unwrap();
        let Hierarchy::V1(mounts) = &found else { panic!("{found:?}") };
        assert_eq!(mounts.len(), 3);
        assert_eq!(found.dir("cpuacct", "/a"), Some(PathBuf::from("/sys/fs/cgroup/cpu/a")));
        assert_eq!(found.own_dirs("/a").len(), 3);
        let unified = "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let found = Hierarchy::from_mountinfo(unified);
        assert_eq!(found, Some(Hierarchy::V2(PathBuf::from("/sys/fs/cgroup"))));
        assert_eq!(Hierarchy::from_mountinfo("1 1 0:1 / / rw - ext4 /dev/a rw"), None);
    }

    #[test]
    fn limits_become_the_files_of_v1() {
        let v1 = Hierarchy::from_mountinfo(HYBRID).unwrap();
        assert_eq!(
            lines(v1.settings("/p", &limits())),
            [
                "/sys/fs/cgroup/cpu/p/cpu.shares 512",
                "/sys/fs/cgroup/cpu/p/cpu.cfs_period_us 100000",
                "/sys/fs/cgroup/cpu/p/cpu.cfs_quota_us 50000",
                "/sys/fs/cgroup/memory/p/memory.limit_in_bytes 67108864",
                "/sys/fs/cgroup/pids/p/pids.max 100",
            ]
        );
        assert!(v1.settings("/p", &Resources::default()).is_empty());
    }

    #[test]
    fn a_v2_tree_is_made_limited_counted_and_removed_in_its_own_root() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let v2 = Hierarchy::V2(root.path().to_owned());
        let path = pod_path("test", QosClass::Burstable, &SandboxId("u1".to_owned()));
        assert_eq!(path, "/kactor-test/kubepods/burstable/podu1");
        v2.create(&path, &limits()).unwrap();
        let pod = root.path().join(&path[1..]);
        let read = |file: PathBuf| fs::read_to_string(file).unwrap();
        assert_eq!(read(pod.join("cpu.weight")), "20");
        assert_eq!(read(pod.join("cpu.max")), "50000 100000");
        assert_eq!(read(pod.join("memory.max")), "67108864");
        assert_eq!(read(pod.join("pids.max")), "100");
        assert_eq!(
            read(root.path().join("kactor-test/cgroup.subtree_control")),
            "+cpu +memory +pids"
        );
        assert_eq!(read(pod.join("cgroup.subtree_control")), "+cpu +memory +pids");
        fs::create_dir(pod.join("web.0")).unwrap();
        fs::write(pod.join("web.0/cgroup.procs"), "12\n13\n").unwrap();
        fs::write(pod.join("web.0/memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
        assert_eq!(v2.pids(&path), BTreeSet::from([12, 13]));
        let events = read(v2.oom_file(&format!("{path}/web.0")).unwrap());
        assert_eq!(keyed(&events, "oom_kill"), Some(2));
    }

    #[test]
    fn groups_are_removed_from_the_leaves_up_and_absent_ones_are_fine() {
        let root = tempfile::tempdir().unwrap();
        let v2 = Hierarchy::V2(root.path().to_owned());
        fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        v2.remove("/a").unwrap();
        v2.remove("/a").unwrap();
        assert!(!root.path().join("a").exists());
    }
}
