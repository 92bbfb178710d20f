//! `kactor snapshot`: the whole cluster in one file, and back.
//!
//! The file holds the keys too (authority, token key, key of Secrets): without them a restore would hold Secrets that
//! nobody can read, and every kubeconfig and token out there would be refused. So whoever reads the file owns the
//! cluster; it is written with mode 0600 and every command that meets it says so.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use kactor_protocol::ids::Revision;
use kactor_replica::data_dir::read_identity;
use kactor_replica::snapshot_file::{self, Head, KeyFile, Taken};
use kactor_runtime::env::Env;
use kactor_store::Store;
use serde_json::{Value, json};

use crate::args::{Output, SnapshotCommand};
use crate::data_dir::DataDir;
use crate::print::{bytes, table};

mod restore;
mod save;

/// The files of `DATA/pki` without which the state is worth nothing.
const KEYS: [&str; 4] = ["ca.crt", "ca.key", "sa.key", "secrets.key"];

pub fn run(command: &SnapshotCommand) -> anyhow::Result<ExitCode> {
    match command {
        SnapshotCommand::Save(args) => save::run(args),
        SnapshotCommand::Restore(args) => restore::run(args),
        SnapshotCommand::Inspect { file, output } => inspect(file, *output),
    }
}

/// The file of what the store holds now. `setup` is how the host was started.
pub fn chunks(
    store: &Store,
    dir: &DataDir,
    setup: Vec<(String, String)>,
    is_current: bool,
) -> anyhow::Result<snapshot_file::Chunks> {
    let env = store.env();
    let identity = read_identity(env.disk.as_ref(), &dir.store())?;
    let identity =
        identity.with_context(|| format!("{} holds no cluster", dir.root().display()))?;
    let head = Head {
        kactor: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: identity.cluster,
        saved_at: env.wall(),
        is_current,
        revision: Revision(0),
        n_objects: 0,
        setup,
        keys: read_keys(&dir.pki())?,
    };
    let table = store.table().read();
    Ok(snapshot_file::chunks(head, &table))
}

fn read_keys(folder: &Path) -> anyhow::Result<Vec<KeyFile>> {
    let read = |name: &&str| {
        let path = folder.join(name);
        let content = std::fs::read(&path).with_context(|| {
            format!("reading {}; a snapshot without it could not be restored", path.display())
        })?;
        anyhow::Ok(KeyFile { name: (*name).to_owned(), content: Bytes::from(content) })
    };
    KEYS.iter().map(read).collect()
}

/// Refuses a file from which secrets could not be read or old kubeconfigs would be refused.
fn check_keys(keys: &[KeyFile]) -> anyhow::Result<()> {
    let has = |name: &str| keys.iter().any(|it| it.name == name && !it.content.is_empty());
    if let Some(missing) = KEYS.into_iter().find(|it| !has(it)) {
        bail!("the snapshot lacks {missing}; its Secrets and identities could not be used");
    }
    // The names become paths.
    if let Some(strange) = keys.iter().find(|it| !KEYS.contains(&it.name.as_str())) {
        bail!("the snapshot holds a key {:?} that this kactor does not know", strange.name);
    }
    Ok(())
}

fn inspect(file: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let (taken, state) = snapshot_file::read(Env::machine().disk.as_ref(), file)?;
    let kinds = kactor_replica::kinds(&state);
    match output {
        Output::Json => {
            let mut said = summary(file, &taken);
            said["setup"] = taken.head.setup.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            said["kinds"] = json!(kinds);
            println!("{said:#}");
        }
        Output::Text => {
            println!("{} is whole", file.display());
            print!("{}", text(&taken));
            println!("  written by kactor {} of cluster {}", taken.head.kactor, taken.head.cluster);
            let row = |it: &Value| {
                let word = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
                let number = |name: &str| it[name].as_u64().unwrap_or_default();
                vec![word("kind"), number("objects").to_string(), bytes(number("bytes"))]
            };
            let rows: Vec<_> = kinds.iter().map(row).collect();
            print!("\n{}", table(&["KIND", "OBJECTS", "SIZE"], &rows));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(file: &Path, taken: &Taken) -> Value {
    let head = &taken.head;
    json!({
        "file": file,
        "kactor": head.kactor,
        "cluster": head.cluster,
        "saved_at": head.saved_at.to_string(),
        "current": head.is_current,
        "revision": head.revision.0,
        "objects": head.n_objects,
        "bytes": taken.n_bytes,
        "sha256": taken.sha256,
    })
}

fn text(taken: &Taken) -> String {
    let head = &taken.head;
    let behind = match head.is_current {
        true => "",
        false => " (no leader confirmed it: the last writes may be missing)",
    };
    let rows = [
        ("saved at", head.saved_at.to_string()),
        ("revision", format!("{}{behind}", head.revision.0)),
        ("objects", head.n_objects.to_string()),
        ("size", bytes(taken.n_bytes)),
        ("sha256", taken.sha256.clone()),
        (
            "secret",
            "it holds the cluster's private keys: whoever reads it owns the cluster".to_owned(),
        ),
    ];
    rows.iter().map(|(name, value)| format!("  {name:<10} {value}\n")).collect()
}
