//! `kactor snapshot save`: asks the running kactor, or opens the directory of a stopped one, and writes one file.
//!
//! The file is written beside its place as `FILE.tmp`, checked as it comes, synced, and renamed: a FILE that is there is
//! whole. One chunk is in memory at a time.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kactor_replica::snapshot_file::{Intake, Taken};
use kactor_runtime::env::Machine;

use crate::args::{Output, SnapshotSaveArgs};
use crate::client::{Client, block_on};
use crate::data_dir::DataDir;
use crate::replica::RunningStore;

/// How long the store of a stopped kactor may take to recover.
const RECOVER_MAX: Duration = Duration::from_secs(60);

pub fn run(args: &SnapshotSaveArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    let file = &args.file;
    if !args.force && file.exists() {
        bail!("{} exists; name another file, or replace it with --force", file.display());
    }
    ensure!(!file.is_dir(), "{} is a directory; name a file", file.display());
    let (taken, of) = if dir.holder()?.is_some() {
        (of_running(&dir, file)?, "running")
    } else {
        (of_stopped(&dir, file)?, "stopped")
    };
    match args.output {
        Output::Json => println!("{:#}", super::summary(file, &taken)),
        Output::Text => {
            println!("saved {} from the {of} kactor of {}", file.display(), dir.root().display());
            print!("{}", super::text(&taken));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn of_running(dir: &DataDir, file: &Path) -> anyhow::Result<Taken> {
    let mut target = Target::create(file)?;
    block_on(async {
        let client = Client::of(dir)?;
        client.download("/kactor/v1/snapshot", |chunk| target.write(chunk)).await
    })?;
    target.finish()
}

/// Starts the store alone: it recovers as it always does, and its journal's tail is in the file.
fn of_stopped(dir: &DataDir, file: &Path) -> anyhow::Result<Taken> {
    ensure!(
        dir.store().exists(),
        "{} holds no cluster, and no kactor runs with it; name another --data-dir",
        dir.root().display()
    );
    // What its journal holds beyond the last checkpoint only the others can confirm: a file without it would be of the past.
    if let Some(kept) = crate::kept::Kept::read(dir)?.filter(|it| it.joined || it.hosts.len() > 1) {
        bail!(
            "{} is one of several control hosts and stopped, so what it holds may be old; start it with `kactor up` and save then, or save on another host",
            kept.node
        );
    }
    let _lock = dir.lock_for("snapshot save")?;
    let machine = Machine::start();
    let env = machine.env().clone();
    let saved = machine.block_on(async {
        let running = RunningStore::start(&env, dir).await?;
        let store = running.store().clone();
        let mut leadership = store.leadership();
        let led = async {
            while leadership.current().ours.is_none() && leadership.changed().await.is_some() {}
        };
        tokio::select! {
            biased;
            () = led => {}
            () = env.sleep(RECOVER_MAX) => {}
        }
        let is_current = store.leadership().current().ours.is_some();
        let mut target = Target::create(file)?;
        for chunk in super::chunks(&store, dir, Vec::new(), is_current)? {
            target.write(&chunk)?;
        }
        let taken = target.finish();
        running.stop().await;
        taken
    });
    let saved = saved.context("the event loop of the save")?;
    machine.stop();
    saved
}

/// `FILE.tmp` until it is whole.
struct Target {
    file: PathBuf,
    tmp: PathBuf,
    out: File,
    intake: Intake,
    is_done: bool,
}

impl Target {
    fn create(file: &Path) -> anyhow::Result<Self> {
        let mut tmp = file.as_os_str().to_owned();
        tmp.push(".tmp");
        let tmp = PathBuf::from(tmp);
        let doing = || format!("making {}", tmp.display());
        let out = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&tmp)
            .with_context(doing)?;
        // One that an earlier save left behind is ours to use; one that is being written is not.
        if out.try_lock().is_err() {
            bail!("another save writes {}; wait for it, or name another file", tmp.display());
        }
        out.set_permissions(std::fs::Permissions::from_mode(0o600)).with_context(doing)?;
        out.set_len(0).with_context(doing)?;
        Ok(Self { file: file.to_owned(), tmp, out, intake: Intake::default(), is_done: false })
    }

    fn write(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        self.intake.push(chunk).context("what kactor sent is no snapshot")?;
        self.out.write_all(chunk).with_context(|| format!("writing {}", self.tmp.display()))
    }

    fn finish(mut self) -> anyhow::Result<Taken> {
        let taken = std::mem::take(&mut self.intake).finish();
        let taken = taken.context("the snapshot did not come whole; nothing was saved")?;
        self.out.sync_all().with_context(|| format!("syncing {}", self.tmp.display()))?;
        std::fs::rename(&self.tmp, &self.file)
            .with_context(|| format!("renaming {}", self.tmp.display()))?;
        self.is_done = true;
        let parent = match self.file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent)
            .and_then(|it| it.sync_all())
            .with_context(|| format!("syncing {}", parent.display()))?;
        Ok(taken)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = std::fs::remove_file(&self.tmp);
        }
    }
}
