//! `kactor doctor`: what of this machine kactor relies on, checked one by one, with what to do.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kactor_runtime::env::{Env, OpenMode};
use serde::Serialize;

use crate::args::{DoctorArgs, Output, UpArgs};
use crate::client::block_on;
use crate::data_dir::{DataDir, Holder};
use crate::networks;
use crate::print::table;

/// Syncs that are measured.
const SYNCS: usize = 20;
/// A disk whose syncs take longer makes every write slow.
const SYNC_SLOW: Duration = Duration::from_millis(50);
const DISK_FREE_MIN: u64 = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What was found, and what to do about it.
    found: String,
}

pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    let env = Env::machine();
    let holder = dir.holder()?;
    let findings = vec![
        root(),
        kernel(),
        cgroups(),
        features(),
        block_on(async { Ok(disk_sync(&env, dir.root()).await) })?,
        disk_free(&env, dir.root()),
        block_on(async { Ok(docker().await) })?,
        port("API port 6443", 6443, holder.as_ref().filter(|it| it.listen.port() == 6443)),
        port("kubelet port 10250", 10250, holder.as_ref()),
        host_networks(&dir),
        clock(&env),
    ];
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Output::Text => {
            let row = |it: &Finding| {
                vec![
                    format!("{:?}", it.verdict).to_lowercase(),
                    it.check.to_owned(),
                    it.found.clone(),
                ]
            };
            print!(
                "{}",
                table(
                    &["VERDICT", "CHECK", "FOUND"],
                    &findings.iter().map(row).collect::<Vec<_>>()
                )
            );
        }
    }
    let failed = findings.iter().any(|it| it.verdict == Verdict::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What keeps this machine from running containers, in a sentence: asked by `up` before it makes anything.
pub fn refusal() -> Option<String> {
    let failed = [kernel(), cgroups()].into_iter().find(|it| it.verdict == Verdict::Fail)?;
    Some(format!(
        "containers cannot run here, {}: {}; --runtime hollow and none work without",
        failed.check, failed.found
    ))
}

fn finding(check: &'static str, verdict: Verdict, found: impl Into<String>) -> Finding {
    Finding { check, verdict, found: found.into() }
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        finding("user", Verdict::Pass, "root")
    } else {
        finding(
            "user",
            Verdict::Warn,
            "not root: only --runtime hollow and none work; run as root for containers",
        )
    }
}

/// Overlay in other mounts' namespaces, pidfd_open and nftables' sets as the rules use them.
const KERNEL_MIN: (u32, u32) = (5, 4);

fn kernel() -> Finding {
    let release = release();
    match version(&release) {
        Some(it) if it >= KERNEL_MIN => finding("kernel", Verdict::Pass, release),
        Some(_) => {
            let (major, minor) = KERNEL_MIN;
            let found =
                format!("{release}, but {major}.{minor} or later is needed: boot a newer one");
            finding("kernel", Verdict::Fail, found)
        }
        None => {
            finding("kernel", Verdict::Warn, format!("{release:?} is no version that is known"))
        }
    }
}

fn release() -> String {
    let it = nix::sys::utsname::uname().map(|it| it.release().to_string_lossy().into_owned());
    it.unwrap_or_default()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// As the driver finds them: a unified hierarchy with the controllers, or one hierarchy for each.
fn cgroups() -> Finding {
    const WANTED: [&str; 3] = ["cpu", "memory", "pids"];
    let root = Path::new("/sys/fs/cgroup");
    let unified = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let has = |name: &str| unified.split_whitespace().any(|it| it == name);
    let (version, missing): (&str, Vec<&str>) = match unified.is_empty() {
        false => ("v2", WANTED.into_iter().filter(|it| !has(it)).collect()),
        true => {
            ("v1", WANTED.into_iter().filter(|it| !root.join(it).join("tasks").exists()).collect())
        }
    };
    if !missing.is_empty() {
        let list = missing.join(", ");
        let found = format!(
            "{version} without {list} under /sys/fs/cgroup: mount cgroup2 there, or name the controllers on the kernel's command line (cgroup_enable=memory)"
        );
        return finding("cgroups", Verdict::Fail, found);
    }
    let probe = if version == "v2" { root.to_owned() } else { root.join("memory") };
    let is_writable = nix::unistd::access(&probe, nix::unistd::AccessFlags::W_OK).is_ok();
    match is_writable || !nix::unistd::geteuid().is_root() {
        true => finding("cgroups", Verdict::Pass, format!("{version} ({})", WANTED.join(", "))),
        false => finding(
            "cgroups",
            Verdict::Fail,
            format!(
                "{} is read-only: in a container, start that with --privileged",
                probe.display()
            ),
        ),
    }
}

/// What pods are made of, by the module's name and by a symbol of its code.
const FEATURES: [(&str, &str); 5] = [
    ("overlay", "ovl_fill_super"),
    ("bridge", "br_add_if"),
    ("veth", "veth_newlink"),
    ("nf_tables", "nft_register_chain_type"),
    ("nft_nat", "nft_nat_init"),
];

/// Where a kernel says what it can: what is loaded, built in, or can be loaded when it is asked for.
struct Kernel {
    loaded: String,
    /// Names with a path and an ending: `kernel/drivers/net/veth.ko`.
    on_disk: String,
    symbols: String,
}

impl Kernel {
    fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let modules = format!("/lib/modules/{}", release());
        Self {
            loaded: file("/proc/modules"),
            on_disk: file(&format!("{modules}/modules.builtin"))
                + &file(&format!("{modules}/modules.dep")),
            symbols: file("/proc/kallsyms"),
        }
    }

    fn has(&self, module: &str, symbol: &str) -> bool {
        let is_loaded = self.loaded.lines().any(|it| it.split(' ').next() == Some(module));
        let file = format!("/{module}.ko");
        is_loaded
            || self.on_disk.contains(&file)
            || self.symbols.lines().any(|it| it.split_whitespace().nth(2) == Some(symbol))
    }
}

fn features() -> Finding {
    let kernel = Kernel::read();
    let missing: Vec<&str> = FEATURES
        .iter()
        .filter(|(module, symbol)| !kernel.has(module, symbol))
        .map(|(module, _)| *module)
        .collect();
    if missing.is_empty() {
        let list = FEATURES.map(|(module, _)| module).join(", ");
        return finding("kernel features", Verdict::Pass, list);
    }
    let list = missing.join(", ");
    // A kernel that hides its symbols may have them all the same, so this is no verdict of failure.
    let found = format!(
        "no sign of {list}: `modprobe {}`, or a kernel built with them; else pods do not start",
        missing.join(" ")
    );
    finding("kernel features", Verdict::Warn, found)
}

/// Only one runtime needs it, so its absence is no fault.
async fn docker() -> Finding {
    let only = "only --runtime docker needs it";
    let socket = match crate::node_parts::docker_socket() {
        Ok(socket) => socket,
        Err(error) => return finding("docker", Verdict::Warn, format!("{error} ({only})")),
    };
    match kactor_docker::Engine::connect(&socket).await {
        Ok(engine) => {
            let at = socket.display();
            finding("docker", Verdict::Pass, format!("dockerd {} at {at} ({only})", engine.version))
        }
        Err(error) => finding("docker", Verdict::Pass, format!("{error} ({only})")),
    }
}

/// Writes and syncs a small file where the log would be.
async fn disk_sync(env: &Env, dir: &Path) -> Finding {
    match measure_syncs(env, dir).await {
        Ok(worst) if worst > SYNC_SLOW => {
            let found = format!(
                "the slowest of {SYNCS} syncs took {} ms: every write waits for one; use a faster disk for --data-dir",
                worst.as_millis()
            );
            finding("disk sync", Verdict::Warn, found)
        }
        Ok(worst) => finding(
            "disk sync",
            Verdict::Pass,
            format!("the slowest of {SYNCS} took {:.1} ms", worst.as_secs_f64() * 1000.0),
        ),
        Err(error) => finding(
            "disk sync",
            Verdict::Fail,
            format!("{} cannot be written: {error}; name another --data-dir", dir.display()),
        ),
    }
}

/// In the directory itself, or in the nearest one that exists: nothing is made that would stay.
async fn measure_syncs(env: &Env, dir: &Path) -> std::io::Result<Duration> {
    let there = dir.ancestors().find(|it| it.is_dir()).unwrap_or(Path::new("/"));
    let path = there.join(format!(".kactor-doctor-{}", std::process::id()));
    let file = env.disk.open(&path, OpenMode::ReadWriteCreate)?;
    let measured = async {
        file.allocate(4096)?;
        let mut worst = Duration::ZERO;
        for n in 0..SYNCS {
            file.write_all_at(0, &[n as u8; 512])?;
            let begun = env.monotonic();
            file.sync_data().await?;
            worst = worst.max(env.monotonic() - begun);
        }
        Ok(worst)
    };
    let measured = measured.await;
    env.disk.remove_file(&path)?;
    measured
}

fn disk_free(env: &Env, dir: &Path) -> Finding {
    let there = dir.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
    match env.disk.free_bytes(there) {
        Ok(bytes) if bytes < DISK_FREE_MIN => finding(
            "disk space",
            Verdict::Warn,
            format!("{} MiB free at {}: images and logs need more", bytes >> 20, there.display()),
        ),
        Ok(bytes) => finding(
            "disk space",
            Verdict::Pass,
            format!("{} GiB free at {}", bytes >> 30, there.display()),
        ),
        Err(error) => finding("disk space", Verdict::Fail, format!("{}: {error}", there.display())),
    }
}

fn port(check: &'static str, port: u16, holder: Option<&Holder>) -> Finding {
    match std::net::TcpListener::bind(("0.0.0.0", port)) {
        Ok(_) => finding(check, Verdict::Pass, "free"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            finding(check, Verdict::Fail, format!("{error}: take a port above 1023 with --listen"))
        }
        Err(error) => match holder {
            Some(it) => {
                finding(check, Verdict::Pass, format!("kactor with pid {} serves there", it.pid))
            }
            None => finding(
                check,
                Verdict::Warn,
                format!(
                    "{error}: `ss -ltnp sport = :{port}` names who has it; stop that, or take another with `up --listen`"
                ),
            ),
        },
    }
}

/// The networks that `up` takes when it is told no others.
fn host_networks(dir: &DataDir) -> Finding {
    let host = networks::of_host(&crate::node_parts::instance(dir));
    let (pods, services) = (UpArgs::POD_CIDR, UpArgs::SERVICE_CIDR);
    match networks::check(pods, services, &host) {
        Ok(()) => {
            let found = format!("{pods} for pods and {services} for services are free");
            finding("networks", Verdict::Pass, found)
        }
        Err(error) => finding("networks", Verdict::Warn, error.to_string()),
    }
}

/// Certificates are made at the start: a clock before this program was built makes them invalid.
fn clock(env: &Env) -> Finding {
    let now = env.wall();
    let built_not_before: kactor_protocol::Timestamp =
        "2026-11-01T00:00:00Z".parse().expect("a constant of RFC 3339 parses");
    if now < built_not_before {
        finding(
            "clock",
            Verdict::Fail,
            format!(
                "it is {now} here, which is before kactor existed; set the clock, certificates depend on it"
            ),
        )
    } else {
        finding("clock", Verdict::Pass, now.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, wanted) in [
            ("6.1.0-18-amd64", Some((6, 1))),
            ("5.10.0", Some((5, 10))),
            ("4.19-x", Some((4, 19))),
            ("5.4+", Some((5, 4))),
            ("linux", None),
        ] {
            assert_eq!(version(release), wanted, "{release}");
        }
        assert!((5, 10) > KERNEL_MIN && (4, 19) < KERNEL_MIN);
    }

    #[test]
    fn a_feature_may_be_loaded_built_in_or_waiting_on_disk() {
        let kernel = Kernel {
            loaded: "bridge 311296 1 br_netfilter, Live 0x0\n".to_owned(),
            on_disk: "kernel/drivers/net/veth.ko.xz: kernel/x.ko\n".to_owned(),
            symbols: "0000000000000000 t ovl_fill_super\n0 T nft_nat_init_x\n".to_owned(),
        };
        let has: Vec<bool> =
            FEATURES.iter().map(|(module, symbol)| kernel.has(module, symbol)).collect();
        assert_eq!(has, [true, true, true, false, false]);
    }

    #[test]
    fn measuring_a_disk_leaves_nothing_behind() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("not/there/yet");
        let measured = block_on(async { Ok(measure_syncs(&Env::machine(), &dir).await?) });
        assert!(measured.is_ok(), "{measured:?}");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
