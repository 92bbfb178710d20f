//! Kubeconfig files: merging our context into the user's, and writing one of our own.
//!
//! Merging replaces the entries that bear our name and keeps everything else; the current context changes only where
//! there was none. Files are written beside and renamed, mode 0600: they hold a private key.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::args::KubeconfigArgs;
use crate::data_dir::DataDir;

/// `$KUBECONFIG`'s first file, else `~/.kube/config`.
pub fn default_path() -> anyhow::Result<PathBuf> {
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|it| !it.is_empty()) {
        let first = std::env::split_paths(&list).find(|it| !it.as_os_str().is_empty());
        return first.context("KUBECONFIG names no file");
    }
    let home = std::env::var_os("HOME").context("$HOME is not set; pass --kubeconfig FILE")?;
    Ok(PathBuf::from(home).join(".kube/config"))
}

pub fn run(args: &KubeconfigArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    let path = dir.kubeconfig();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}; `kactor up` writes it", path.display()))?;
    match &args.merge {
        None => print!("{text}"),
        Some(file) => {
            let ours: Value = serde_saphyr::from_str(&text)
                .with_context(|| format!("{} is no YAML", path.display()))?;
            merge_into(file, &ours)?;
            println!("merged into {}", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Merges our document into a file, which may not exist yet.
pub fn merge_into(file: &Path, ours: &Value) -> anyhow::Result<()> {
    let theirs = match std::fs::read_to_string(file) {
        Ok(text) if !text.trim().is_empty() => {
            serde_saphyr::from_str(&text).with_context(|| {
                format!("{} is no kubeconfig; it was left as it is", file.display())
            })?
        }
        Ok(_) => Value::Null,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    if !theirs.is_null() && !theirs.is_object() {
        bail!("{} is no kubeconfig; it was left as it is", file.display());
    }
    write(file, &merge(theirs, ours))
}

/// Our entries replace those of the same name; the rest stays.
pub fn merge(theirs: Value, ours: &Value) -> Value {
    let mut out =
        if theirs.is_object() { theirs } else { json!({ "apiVersion": "v1", "kind": "Config" }) };
    for list in ["clusters", "users", "contexts"] {
        let mut entries = out[list].as_array().cloned().unwrap_or_default();
        for entry in ours[list].as_array().into_iter().flatten() {
            entries.retain(|it| it["name"] != entry["name"]);
            entries.push(entry.clone());
        }
        out[list] = Value::Array(entries);
    }
    let has_current = out["current-context"].as_str().is_some_and(|it| !it.is_empty());
    if !has_current {
        out["current-context"] = ours["current-context"].clone();
    }
    out
}

/// Writes a kubeconfig whole or not at all.
pub fn write(file: &Path, document: &Value) -> anyhow::Result<()> {
    if let Some(folder) = file.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let beside = file.with_extension("kactor-new");
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut it = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        it.write_all(kactor_gateway::kubeconfig::yaml(document).as_bytes())?;
        it.sync_all()?;
        std::fs::rename(&beside, file)
    })();
    written.with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Value {
        json!({
            "clusters": [{ "name": "kactor", "cluster": { "server": "new" } }],
            "users": [{ "name": "kactor", "user": {} }],
            "contexts": [{ "name": "kactor", "context": {} }],
            "current-context": "kactor",
        })
    }

    #[test]
    fn others_entries_stay_and_the_current_context_is_theirs() {
        let theirs = json!({
            "clusters": [{ "name": "prod", "cluster": {} }, { "name": "kactor", "cluster": { "server": "old" } }],
            "current-context": "prod",
            "preferences": { "colors": true },
        });
        let got = merge(theirs, &ours());
        let names: Vec<&str> = got["clusters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["prod", "kactor"]);
        assert_eq!(got["clusters"][1]["cluster"]["server"], "new");
        assert_eq!(got["current-context"], "prod");
        assert_eq!(got["preferences"]["colors"], true);
        assert_eq!(merge(Value::Null, &ours())["current-context"], "kactor");
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("config");
        std::fs::write(&file, "- not\n- a config\n").unwrap();
        assert!(merge_into(&file, &ours()).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "- not\n- a config\n");
        std::fs::remove_file(&file).unwrap();
        merge_into(&file, &ours()).unwrap();
        merge_into(&file, &ours()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
