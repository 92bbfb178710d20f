//! `kactor snapshot restore`: makes a data directory of a file, as a new epoch.
//!
//! The file is read to its end before anything is touched. The new store and keys are built in `restore.new` within the
//! directory, what is there already is moved to `before-restore-TIME`, then the new is renamed into place. A restore that
//! was cut short leaves `restore.new` behind, and `kactor up` refuses to start from such a directory.

use std::fs::File;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use kactor_replica::applied::SledStore;
use kactor_replica::data_dir::Identity;
use kactor_replica::snapshot_file::{self, KeyFile, Taken};
use kactor_runtime::env::{Env, Machine};
use kactor_state::ClusterState;

use crate::args::SnapshotRestoreArgs;
use crate::data_dir::DataDir;
use crate::kept::Kept;

/// A cluster is these; everything else in a data directory belongs to the node and stays.
const CLUSTER: [&str; 3] = ["store", "pki", "admin.kubeconfig"];

pub fn run(args: &SnapshotRestoreArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    refuse_running(&dir)?;
    let (taken, state) = snapshot_file::read(Env::machine().disk.as_ref(), &args.file)?;
    super::check_keys(&taken.head.keys)?;
    let there = present(&dir);
    if !there.is_empty() && !args.force {
        bail!(
            "{} holds a cluster already ({}); name another --data-dir, or move it aside with --force",
            dir.root().display(),
            there.join(", ")
        );
    }
    println!("{} is whole", args.file.display());
    print!("{}", super::text(&taken));
    println!("it will be restored into {}:", dir.root().display());
    if !there.is_empty() {
        println!("  - {} there will be moved aside, not deleted", there.join(", "));
    }
    println!("  - revisions begin a billion higher; every client lists anew");
    println!("  - what was written to the cluster after the save is not in it");
    if !args.yes && !confirmed()? {
        println!("nothing was touched");
        return Ok(ExitCode::FAILURE);
    }
    let machine = Machine::start();
    let restored = machine.block_on(restore(machine.env(), &dir, &taken, state));
    let restored = restored.context("the event loop of the restore")?;
    machine.stop();
    let done = restored?;
    println!("restored: revision {}, epoch {}", done.revision, done.epoch);
    if let Some(aside) = done.aside {
        println!("the former cluster lies in {}", aside.display());
    }
    println!("start it with: {}", start_with(&dir, &taken));
    Ok(ExitCode::SUCCESS)
}

fn refuse_running(dir: &DataDir) -> anyhow::Result<()> {
    if let Some(holder) = dir.holder()? {
        bail!(
            "kactor with pid {} runs on {}; stop it first with `kactor down --data-dir {}`",
            holder.pid,
            dir.root().display(),
            dir.root().display()
        );
    }
    Ok(())
}

fn present(dir: &DataDir) -> Vec<&'static str> {
    CLUSTER.into_iter().filter(|it| dir.root().join(it).exists()).collect()
}

fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("a restore asks before it writes, and there is no terminal to ask on; pass --yes");
    }
    print!("go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

struct Restored {
    revision: u64,
    epoch: u64,
    aside: Option<PathBuf>,
}

async fn restore(
    env: &Env,
    dir: &DataDir,
    taken: &Taken,
    state: ClusterState,
) -> anyhow::Result<Restored> {
    let _lock = dir.lock_for("snapshot restore")?;
    let new = dir.unfinished_restore();
    if new.exists() {
        std::fs::remove_dir_all(&new)
            .with_context(|| format!("removing {}, left by an earlier restore", new.display()))?;
    }
    make_private(&new)?;
    let store = new.join("store");
    let identity =
        Identity { cluster: env.random_uuid(), replica: kactor_cluster::host::FIRST_REPLICA.0 };
    let state = {
        let mut applied =
            SledStore::open(&store.join("applied")).context("making the applied state")?;
        snapshot_file::restore(env, state, &store, &identity, &mut applied).await?
    };
    write_keys(&new.join("pki"), &taken.head.keys)?;
    let aside = move_aside(env, dir)?;
    for name in ["store", "pki"] {
        let from = new.join(name);
        std::fs::rename(&from, dir.root().join(name))
            .with_context(|| format!("renaming {}", from.display()))?;
    }
    sync(dir.root())?;
    begin_alone(dir)?;
    std::fs::remove_dir(&new).with_context(|| format!("removing {}", new.display()))?;
    sync(dir.root())?;
    Ok(Restored { revision: state.revision().0, epoch: state.epoch(), aside })
}

/// The restored cluster begins with this host, whatever it was before; the control hosts from before join it anew.
fn begin_alone(dir: &DataDir) -> anyhow::Result<()> {
    let Some(mut kept) = Kept::read(dir)? else { return Ok(()) };
    (kept.joined, kept.revision) = (false, 0);
    kept.hosts.clear();
    kept.write(dir)
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(folder);
    made.with_context(|| format!("making {}", folder.display()))
}

fn write_keys(folder: &Path, keys: &[KeyFile]) -> anyhow::Result<()> {
    make_private(folder)?;
    for key in keys {
        let path = folder.join(&key.name);
        let doing = || format!("writing {}", path.display());
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.with_context(doing)?;
        file.write_all(&key.content).with_context(doing)?;
        file.sync_all().with_context(doing)?;
    }
    sync(folder)
}

/// Moves the cluster that is there into a folder of its own; answers that folder.
fn move_aside(env: &Env, dir: &DataDir) -> anyhow::Result<Option<PathBuf>> {
    let there = present(dir);
    if there.is_empty() {
        return Ok(None);
    }
    let time = env.wall().to_string().replace([':', '-'], "");
    let aside = dir.root().join(format!("before-restore-{time}"));
    make_private(&aside)?;
    for name in there {
        let from = dir.root().join(name);
        std::fs::rename(&from, aside.join(name))
            .with_context(|| format!("moving {} aside", from.display()))?;
    }
    sync(&aside)?;
    Ok(Some(aside))
}

fn sync(folder: &Path) -> anyhow::Result<()> {
    File::open(folder)
        .and_then(|it| it.sync_all())
        .with_context(|| format!("syncing {}", folder.display()))
}

/// The command that fits the saved cluster: its networks are part of what was saved.
fn start_with(dir: &DataDir, taken: &Taken) -> String {
    let flags = [
        ("node", "--node-name"),
        ("listen", "--listen"),
        ("runtime", "--runtime"),
        ("pod_cidr", "--pod-cidr"),
        ("service_cidr", "--service-cidr"),
    ];
    let setup = &taken.head.setup;
    let known = flags.iter().filter_map(|(name, flag)| {
        let (_, value) = setup.iter().find(|(it, _)| it == name)?;
        Some(format!(" {flag} {value}"))
    });
    format!("kactor up --data-dir {}{}", dir.root().display(), known.collect::<String>())
}
