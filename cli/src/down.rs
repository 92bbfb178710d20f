//! `kactor down`: stops the kactor of a data directory, and with `--purge` leaves nothing of it on the machine.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_runtime::env::Env;

use crate::args::DownArgs;
use crate::data_dir::{DataDir, Holder};
use crate::kubeconfig_file;
use crate::progress::Progress;

/// How long `down` waits for the process to end.
const DOWN_MAX: Duration = Duration::from_secs(30);

pub fn run(args: &DownArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    match dir.holder()? {
        Some(holder) => {
            stop(&dir, &holder)?;
            let what =
                if args.purge { "" } else { "; its pods stay, the next `kactor up` finds them" };
            println!("stopped kactor with pid {}{what}", holder.pid);
        }
        None if args.purge => {}
        None => {
            println!("no kactor runs with the data directory {}", dir.root().display());
            return Ok(ExitCode::SUCCESS);
        }
    }
    if args.purge {
        purge(&dir)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the process that holds the directory, and waits for that.
pub fn stop(dir: &DataDir, holder: &Holder) -> anyhow::Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(holder.pid).context("the holder's pid")?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
        .with_context(|| format!("asking kactor with pid {pid} to stop"))?;
    let env = Env::machine();
    let limit = env.monotonic() + DOWN_MAX;
    let mut progress = Progress::new(&env);
    crate::client::block_on(async {
        while dir.holder()?.is_some() {
            if env.monotonic() > limit {
                bail!(
                    "kactor with pid {pid} did not stop within {} s; look at its log, or end it with `kill -9 {pid}`: no acknowledged write is lost by that",
                    DOWN_MAX.as_secs()
                );
            }
            progress.show(&format!("waiting for kactor with pid {pid} to stop"));
            env.sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    })
}

/// What kactor puts into its data directory. The lock comes last: it is what marks the directory as kactor's, so a purge
/// that was cut off can be repeated.
const OURS: &[&str] = &[
    "pki",
    "store",
    "logs",
    "images",
    "pods",
    "docker",
    "kubelet",
    "network",
    "scratch",
    "kubeconfigs.json",
    "admin.kubeconfig",
    "kubelet.port",
    "hosts.json",
    "hosts.new",
    "host",
    "left",
    "left.new",
    "joining",
    "joining.new",
    "kactor.lock",
];

/// Written beside one of our files by a kactor that was killed before it renamed it.
fn is_unfinished(name: &str) -> bool {
    let written = name.rsplit_once(".kactor-").filter(|(_, pid)| pid.parse::<u32>().is_ok());
    written.is_some_and(|(file, _)| OURS.contains(&file))
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    Ok(entries.flatten().filter_map(|it| it.file_name().into_string().ok()).collect())
}

/// Removes pods, networks, rules, mounts, our context in kubeconfigs, and this kactor's own files; others' files stay.
fn purge(dir: &DataDir) -> anyhow::Result<()> {
    let root = dir.root();
    if !root.exists() {
        println!("nothing to remove: {} does not exist", root.display());
        return Ok(());
    }
    if !dir.is_kactors() {
        bail!(
            "{} is no data directory of kactor (it has no kactor.lock), so nothing of it was removed; name the one of `kactor up` with --data-dir",
            root.display()
        );
    }
    crate::node_parts::purge(dir)?;
    if nix::unistd::geteuid().is_root() {
        println!("removed pods, their networks, rules and mounts");
    }
    kubeconfig_file::forget(dir).iter().for_each(|it| println!("{it}"));
    let unfinished = names(root)?.into_iter().filter(|it| is_unfinished(it));
    for name in unfinished.chain(OURS.iter().map(|it| (*it).to_owned())) {
        let path = root.join(name);
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", path.display()));
            }
            _ => {}
        }
    }
    match std::fs::remove_dir(root) {
        Ok(()) => println!("removed {}", root.display()),
        Err(_) => println!("removed kactor's files; {} holds others and stays", root.display()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_kactor_left_half_written_is_its_own_and_others_files_are_not() {
        for name in ["admin.kubeconfig.kactor-12", "kubeconfigs.json.kactor-4194304"] {
            assert!(is_unfinished(name), "{name}");
        }
        for name in ["notes", "config.kactor-12", "admin.kubeconfig.kactor-old", "admin.kubeconfig"]
        {
            assert!(!is_unfinished(name), "{name}");
        }
    }
}
