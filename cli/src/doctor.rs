//! `kactor doctor`: what of this machine kactor relies on, checked one by one, with what to do.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kactor_runtime::env::{Env, OpenMode};
use serde::Serialize;

use crate::args::{DoctorArgs, Output};
use crate::client::block_on;
use crate::data_dir::DataDir;
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
    let findings = vec![
        root(),
        kernel(),
        cgroups(),
        features(),
        block_on(async { Ok(disk_sync(&env, dir.root()).await) })?,
        disk_free(&env, dir.root()),
        port("API port 6443", 6443),
        port("kubelet port 10250", 10250),
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

fn kernel() -> Finding {
    let release = nix::sys::utsname::uname().map(|it| it.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let major: u32 = release.split('.').next().and_then(|it| it.parse().ok()).unwrap_or(0);
    if major >= 5 {
        finding("kernel", Verdict::Pass, release)
    } else {
        finding(
            "kernel",
            Verdict::Fail,
            format!("{release}: 5.0 or later is needed for nftables, overlay and pidfd"),
        )
    }
}

fn cgroups() -> Finding {
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let v1 =
        ["cpu", "memory", "pids"].iter().all(|it| Path::new("/sys/fs/cgroup").join(it).is_dir());
    match v2 {
        Ok(controllers) if controllers.contains("memory") => {
            finding("cgroups", Verdict::Pass, "v2")
        }
        _ if v1 => finding("cgroups", Verdict::Pass, "v1 (cpu, memory, pids)"),
        _ => finding(
            "cgroups",
            Verdict::Fail,
            "no cpu, memory and pids controllers under /sys/fs/cgroup; mount cgroup2 there",
        ),
    }
}

fn features() -> Finding {
    let wanted =
        [("overlay", "overlay"), ("bridge", "bridge"), ("veth", "veth"), ("nf_tables", "nftables")];
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    let built_in = |name: &str| {
        let release = nix::sys::utsname::uname()
            .map(|it| it.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let list = std::fs::read_to_string(format!("/lib/modules/{release}/modules.builtin"))
            .unwrap_or_default();
        list.contains(&format!("/{name}.ko"))
    };
    let is_there = |name: &str| {
        filesystems.contains(name)
            || modules.lines().any(|it| it.starts_with(&format!("{name} ")))
            || built_in(name)
    };
    let missing: Vec<&str> =
        wanted.iter().filter(|(module, _)| !is_there(module)).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        finding("kernel features", Verdict::Pass, "overlay, bridge, veth, nftables")
    } else {
        let list = missing.join(", ");
        finding(
            "kernel features",
            Verdict::Warn,
            format!(
                "not seen (may be built in or loaded on demand): {list}; try `modprobe` if pods do not start"
            ),
        )
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

async fn measure_syncs(env: &Env, dir: &Path) -> std::io::Result<Duration> {
    let existed = dir.exists();
    env.disk.create_dir_all(dir)?;
    let path = dir.join(".kactor-doctor");
    let file = env.disk.open(&path, OpenMode::ReadWriteCreate)?;
    file.allocate(4096)?;
    let mut worst = Duration::ZERO;
    for n in 0..SYNCS {
        file.write_all_at(0, &[n as u8; 512])?;
        let begun = env.monotonic();
        file.sync_data().await?;
        worst = worst.max(env.monotonic() - begun);
    }
    env.disk.remove_file(&path)?;
    if !existed {
        env.disk.remove_dir_all(dir)?;
    }
    Ok(worst)
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

fn port(check: &'static str, port: u16) -> Finding {
    match std::net::TcpListener::bind(("0.0.0.0", port)) {
        Ok(_) => finding(check, Verdict::Pass, "free"),
        Err(error) => finding(
            check,
            Verdict::Warn,
            format!(
                "{error}: another program has it (`ss -ltnp sport = :{port}` names it), or kactor runs already"
            ),
        ),
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
