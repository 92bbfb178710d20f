//! Kubeconfig files: merging our context into the user's, and taking it away again.
//!
//! Merging replaces the entries that lead to this very cluster and keeps everything else, unknown fields included; an
//! entry of the same name that leads elsewhere keeps its name, and ours gets another. The current context changes only
//! where there was none. Files are written beside and renamed, mode 0600: they hold a private key. One that can't be
//! read is left as it is. Comments are lost, as with `kubectl config`.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use kactor_cluster::host::HostRole;
use serde_json::{Map, Value, json};

use crate::args::KubeconfigArgs;
use crate::data_dir::DataDir;
use crate::kept::Kept;

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];
/// Names that are tried for our entries, until one is free.
const NAMES_MAX: usize = 100;

/// Where the context went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub file: PathBuf,
    pub context: String,
    /// Whether kubectl takes it without being told.
    pub is_current: bool,
}

/// The files that kubectl would read: those of `$KUBECONFIG`, else `~/.kube/config`.
pub fn default_files() -> anyhow::Result<Vec<PathBuf>> {
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|it| !it.is_empty()) {
        let files: Vec<PathBuf> =
            std::env::split_paths(&list).filter(|it| !it.as_os_str().is_empty()).collect();
        anyhow::ensure!(!files.is_empty(), "KUBECONFIG names no file");
        return Ok(files);
    }
    let home = std::env::var_os("HOME").filter(|it| !it.is_empty());
    let home = home.context("neither KUBECONFIG nor HOME is set; pass --kubeconfig FILE")?;
    Ok(vec![PathBuf::from(home).join(".kube/config")])
}

pub fn run(args: &KubeconfigArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.data_dir.as_deref())?;
    let path = dir.kubeconfig();
    if Kept::read(&dir)?.is_some_and(|it| it.role == HostRole::Worker) {
        bail!(
            "{} is a worker's and has no administrator's kubeconfig; `kactor kubeconfig` on a control host prints it, and it may name any host of the cluster",
            dir.root().display()
        );
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}; `kactor up` writes it", path.display()))?;
    match &args.merge {
        None => print!("{text}"),
        Some(file) => {
            let ours = parse(&path, &text)?;
            let merged = add(&dir, std::slice::from_ref(file), &ours)?;
            println!("merged context {} into {}", merged.context, merged.file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(file: &Path, text: &str) -> anyhow::Result<Value> {
    let is_config = |it: &Value| {
        it.is_object() && LISTS.iter().all(|list| it[*list].is_null() || it[*list].is_array())
    };
    match serde_saphyr::from_str::<Value>(text) {
        Ok(it) if is_config(&it) => Ok(it),
        Ok(_) => bail!("{} is no kubeconfig; it was left as it is", file.display()),
        Err(error) => {
            let first = error.to_string();
            let first = first.lines().next().unwrap_or_default().to_owned();
            bail!("{} is no YAML ({first}); it was left as it is", file.display())
        }
    }
}

/// Whether a context can be merged into this file: asked before anything is started.
pub fn check(file: &Path) -> anyhow::Result<()> {
    read(file).map(drop)
}

/// A file's content; `None` if there is none.
fn read(file: &Path) -> anyhow::Result<Option<Value>> {
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => parse(file, &text).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

/// Merges our document into one of the files, as kubectl would choose: the one that has our entries already, else the
/// first that exists, else the last. The data directory remembers which, for `down --purge`.
pub fn add(dir: &DataDir, files: &[PathBuf], ours: &Value) -> anyhow::Result<Merged> {
    let documents: Vec<Option<Value>> =
        files.iter().map(|it| read(it)).collect::<Result<_, _>>()?;
    let present = || documents.iter().flatten();
    let ours = with_free_name(&documents, ours)?;
    let context = ours["current-context"].as_str().unwrap_or_default().to_owned();
    let has_ours =
        |it: &Option<Value>| it.as_ref().is_some_and(|it| cluster(it, &context).is_some());
    let target = documents
        .iter()
        .position(has_ours)
        .or_else(|| files.iter().position(|it| it.exists()))
        .unwrap_or(files.len() - 1);
    let current = present().find_map(current_context).map(str::to_owned);
    let theirs = documents[target].clone();
    let mut merged = merge(theirs.unwrap_or(Value::Null), &ours);
    if current.is_none() {
        merged["current-context"] = context.clone().into();
    }
    // Remembered first: a purge forgives an entry that is not there, and never finds one that is not written down.
    remember(dir, &files[target])?;
    write(&files[target], &merged)?;
    let is_current = current.is_none_or(|it| it == context);
    Ok(Merged { file: files[target].clone(), context, is_current })
}

fn current_context(document: &Value) -> Option<&str> {
    document["current-context"].as_str().filter(|it| !it.is_empty())
}

fn cluster<'a>(document: &'a Value, name: &str) -> Option<&'a Value> {
    let all = document["clusters"].as_array().into_iter().flatten();
    all.filter(|it| it["name"] == name).map(|it| &it["cluster"]).next()
}

/// Our entries under a name that no other cluster has: `kactor`, else `kactor-2` …
fn with_free_name(documents: &[Option<Value>], ours: &Value) -> anyhow::Result<Value> {
    let wanted = ours["current-context"].as_str().context("our kubeconfig has no context")?;
    let mine = &ours["clusters"][0]["cluster"];
    let is_free = |name: &str| {
        documents.iter().flatten().all(|document| match cluster(document, name) {
            Some(theirs) => ["server", "certificate-authority-data"]
                .iter()
                .any(|it| theirs[*it] == mine[*it] && !mine[*it].is_null()),
            // A user or context of that name without a cluster is somebody's too.
            None => ["users", "contexts"].iter().all(|list| {
                let all = document[*list].as_array().into_iter().flatten();
                all.into_iter().all(|it| it["name"] != name)
            }),
        })
    };
    let names = (2..NAMES_MAX).map(|n| format!("{wanted}-{n}"));
    let name = std::iter::once(wanted.to_owned()).chain(names).find(|it| is_free(it));
    let name = name.with_context(|| {
        format!("{wanted} and {NAMES_MAX} names like it are taken by other clusters; pass --kubeconfig FILE")
    })?;
    let mut out = ours.clone();
    for list in LISTS {
        out[list][0]["name"] = name.clone().into();
    }
    out["contexts"][0]["context"]["cluster"] = name.clone().into();
    out["contexts"][0]["context"]["user"] = name.clone().into();
    out["current-context"] = name.into();
    Ok(out)
}

/// Our entries replace those of the same name; the rest stays. A context keeps what else it says: its namespace.
fn merge(theirs: Value, ours: &Value) -> Value {
    let mut out =
        if theirs.is_object() { theirs } else { json!({ "apiVersion": "v1", "kind": "Config" }) };
    for list in LISTS {
        let mut entries = out[list].as_array().cloned().unwrap_or_default();
        for entry in ours[list].as_array().into_iter().flatten() {
            match entries.iter_mut().find(|it| it["name"] == entry["name"]) {
                Some(old) if list == "contexts" && old["context"].is_object() => {
                    for part in ["cluster", "user"] {
                        old["context"][part] = entry["context"][part].clone();
                    }
                }
                Some(old) => *old = entry.clone(),
                None => entries.push(entry.clone()),
            }
        }
        out[list] = Value::Array(entries);
    }
    out
}

fn remember(dir: &DataDir, file: &Path) -> anyhow::Result<()> {
    let mut files = remembered(dir);
    let file = std::path::absolute(file).with_context(|| format!("the path {}", file.display()))?;
    if !files.contains(&file) {
        files.push(file);
        let note = dir.kubeconfigs();
        std::fs::write(&note, serde_json::to_vec(&files)?)
            .with_context(|| format!("writing {}", note.display()))?;
    }
    Ok(())
}

fn remembered(dir: &DataDir) -> Vec<PathBuf> {
    let bytes = std::fs::read(dir.kubeconfigs()).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Takes our context out of every file that it was merged into; answers what was done, a sentence each.
///
/// A file that can't be changed is told of and stops nothing: a purge goes on to the last.
pub fn forget(dir: &DataDir) -> Vec<String> {
    let text = std::fs::read_to_string(dir.kubeconfig()).unwrap_or_default();
    let ours: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    let ca = &ours["clusters"][0]["cluster"]["certificate-authority-data"];
    if !ca.is_string() {
        return Vec::new();
    }
    let mut done = Vec::new();
    for file in remembered(dir) {
        let changed = read(&file).and_then(|document| {
            let Some(left) = document.and_then(|it| without(it, ca)) else {
                return Ok(None);
            };
            if holds_nothing(&left) {
                std::fs::remove_file(&file)
                    .with_context(|| format!("removing {}", file.display()))?;
                return Ok(Some(format!("removed {}, which held nothing else", file.display())));
            }
            write(&file, &left)?;
            Ok(Some(format!("removed kactor's context from {}", file.display())))
        });
        match changed {
            Ok(told) => done.extend(told),
            Err(error) => done.push(format!(
                "kactor's context stays in {}: {}",
                file.display(),
                crate::print::chain(&error)
            )),
        }
    }
    done
}

/// The document without the entries of the cluster with this CA; `None` if it has none.
fn without(mut document: Value, ca: &Value) -> Option<Value> {
    let names = |list: &Value, of: &dyn Fn(&Value) -> bool, name: &dyn Fn(&Value) -> Value| {
        let all = list.as_array().into_iter().flatten();
        all.filter(|it| of(it)).map(name).collect::<Vec<Value>>()
    };
    let is_ours = |it: &Value| it["cluster"]["certificate-authority-data"] == *ca;
    let clusters = names(&document["clusters"], &is_ours, &|it| it["name"].clone());
    if clusters.is_empty() {
        return None;
    }
    let leads_here = |it: &Value| clusters.contains(&it["context"]["cluster"]);
    let contexts = names(&document["contexts"], &leads_here, &|it| it["name"].clone());
    let user_of = |it: &Value| it["context"]["user"].clone();
    let used = names(&document["contexts"], &|it| !leads_here(it), &user_of);
    let mut users = names(&document["contexts"], &leads_here, &user_of);
    users.retain(|it| !used.contains(it));
    for (list, gone) in LISTS.iter().zip([&clusters, &users, &contexts]) {
        if let Some(entries) = document[*list].as_array_mut() {
            entries.retain(|it| !gone.contains(&it["name"]));
        }
    }
    if contexts.contains(&document["current-context"]) {
        document["current-context"] = "".into();
    }
    Some(document)
}

fn holds_nothing(document: &Value) -> bool {
    let is_empty = |it: &Value| match it {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let none = Map::new();
    let fields = document.as_object().unwrap_or(&none);
    fields.iter().all(|(name, it)| ["apiVersion", "kind"].contains(&name.as_str()) || is_empty(it))
}

/// Writes a kubeconfig whole or not at all. Links are followed, and the file stays its owner's.
pub fn write(file: &Path, document: &Value) -> anyhow::Result<()> {
    let file = &std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if let Some(folder) = file.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let mut beside = file.clone().into_os_string();
    beside.push(format!(".kactor-{}", std::process::id()));
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        let mut it = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        if let Ok(old) = std::fs::metadata(file) {
            // Root that works for somebody must not lock them out of their own file.
            let _ = std::os::unix::fs::fchown(&it, Some(old.uid()), Some(old.gid()));
        }
        it.write_all(kactor_gateway::kubeconfig::yaml(document).as_bytes())?;
        it.sync_all()?;
        std::fs::rename(&beside, file)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside); // The error that follows says what matters.
    }
    written.with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ours() -> Value {
        json!({
            "clusters": [{ "name": "kactor", "cluster":
                { "server": "https://127.0.0.1:6443", "certificate-authority-data": "Q0E=" } }],
            "users": [{ "name": "kactor", "user": { "client-key-data": "S0VZ" } }],
            "contexts": [{ "name": "kactor", "context": { "cluster": "kactor", "user": "kactor" } }],
            "current-context": "kactor",
        })
    }

    struct Place {
        temp: tempfile::TempDir,
        dir: DataDir,
    }

    impl Place {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let dir = DataDir::find(Some(&temp.path().join("data"))).unwrap();
            std::fs::create_dir(dir.root()).unwrap();
            write(&dir.kubeconfig(), &ours()).unwrap();
            Self { temp, dir }
        }

        fn file(&self, name: &str, content: &str) -> PathBuf {
            let file = self.temp.path().join(name);
            if !content.is_empty() {
                std::fs::write(&file, content).unwrap();
            }
            file
        }

        fn add(&self, files: &[&PathBuf]) -> Merged {
            let files: Vec<PathBuf> = files.iter().map(|it| (*it).clone()).collect();
            add(&self.dir, &files, &ours()).unwrap()
        }
    }

    const THEIRS: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: prod\n  cluster: {server: 'https://prod', tls-server-name: 'yes'}\n\
        users:\n- name: me\n  user: {exec: {command: aws, args: ['1', 'on'], env: null}}\n\
        contexts:\n- name: prod\n  context: {cluster: prod, user: me, namespace: web}\n\
        current-context: prod\npreferences: {colors: true}\nextensions: [{name: x, extension: {a: '007'}}]\n";

    #[test]
    fn what_others_wrote_stays_and_comes_back_when_ours_is_taken_away() {
        let place = Place::new();
        let file = place.file("config", THEIRS);
        let merged = place.add(&[&file]);
        assert_eq!(
            merged,
            Merged { file: file.clone(), context: "kactor".to_owned(), is_current: false }
        );
        let now = read(&file).unwrap().unwrap();
        let before: Value = serde_saphyr::from_str(THEIRS).unwrap();
        assert_eq!(now["clusters"][0], before["clusters"][0]);
        assert_eq!(now["users"][0], before["users"][0]);
        assert_eq!(now["extensions"], before["extensions"]);
        assert_eq!(now["current-context"], "prod");
        assert_eq!(now["clusters"][1]["cluster"], ours()["clusters"][0]["cluster"]);
        // A namespace that the user chose for our context stays when kactor starts again.
        let mut chosen = now;
        chosen["contexts"][1]["context"]["namespace"] = "mine".into();
        write(&file, &chosen).unwrap();
        place.add(&[&file]);
        assert_eq!(read(&file).unwrap().unwrap(), chosen);
        assert_eq!(forget(&place.dir).len(), 1);
        assert_eq!(read(&file).unwrap().unwrap(), before);
    }

    #[test]
    fn a_new_file_is_ours_alone_and_goes_with_us() {
        let place = Place::new();
        let file = place.file("home/.kube/config", "");
        let merged = place.add(&[&file]);
        assert!(merged.is_current);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(place.add(&[&file]), merged, "a second start finds its own");
        forget(&place.dir);
        assert!(!file.exists());
        assert!(forget(&place.dir).is_empty(), "nothing is left to do");
    }

    #[test]
    fn of_several_files_the_one_with_our_entries_is_taken_then_the_first_that_exists_then_the_last()
    {
        let place = Place::new();
        let (none, some) = (place.file("none", ""), place.file("some", THEIRS));
        assert_eq!(place.add(&[&none, &some]).file, some);
        let first = place.file("first", "kind: Config\n");
        let again = place.add(&[&first, &some]);
        assert_eq!(again.file, some, "an older entry would shadow a second one");
        assert!(!again.is_current, "another file of the list has a current context");
        let fresh = Place::new();
        assert_eq!(fresh.add(&[&none, &fresh.file("last", "")]).file, fresh.file("last", ""));
    }

    #[test]
    fn a_name_that_leads_to_another_cluster_is_not_taken_away() {
        let place = Place::new();
        let text = THEIRS
            .replace("name: prod", "name: kactor")
            .replace("cluster: prod", "cluster: kactor");
        let file = place.file("config", &text);
        let merged = place.add(&[&file]);
        assert_eq!(merged.context, "kactor-2");
        let now = read(&file).unwrap().unwrap();
        assert_eq!(now["clusters"][0]["cluster"]["server"], "https://prod");
        assert_eq!(
            now["contexts"][1]["context"],
            json!({"cluster": "kactor-2", "user": "kactor-2"})
        );
        assert_eq!(place.add(&[&file]).context, "kactor-2", "found again, not numbered on");
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_as_it_is() {
        let place = Place::new();
        for text in ["- not\n- a config\n", "a: [1\n", "just words\n", "clusters: 7\n", "\u{1}\n"] {
            let file = place.file("config", text);
            let error = add(&place.dir, std::slice::from_ref(&file), &ours()).unwrap_err();
            assert!(error.to_string().contains("left as it is"), "{text:?}: {error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        assert!(place.dir.kubeconfig().exists());
        let left: Vec<_> = std::fs::read_dir(place.temp.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "no half-written file lies about: {left:?}");
    }

    #[test]
    fn a_link_stays_a_link_to_the_file_that_changes() {
        let place = Place::new();
        let real = place.file("real", THEIRS);
        let link = place.file("link", "");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        place.add(&[&link]);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(std::fs::read_to_string(&real).unwrap().contains("kactor"));
    }

    #[test]
    fn a_user_that_another_context_needs_stays() {
        let document = json!({
            "clusters": ours()["clusters"], "users": [{ "name": "me" }],
            "contexts": [
                { "name": "a", "context": { "cluster": "kactor", "user": "me" } },
                { "name": "b", "context": { "cluster": "prod", "user": "me" } },
            ],
            "current-context": "a",
        });
        let left = without(document, &"Q0E=".into()).unwrap();
        assert_eq!(left["users"], json!([{ "name": "me" }]));
        assert_eq!(left["contexts"].as_array().unwrap().len(), 1);
        assert_eq!(left["current-context"], "");
    }
}
