//! The names of files and folders as a crash sees them: durable only once their folder was synced.
//!
//! Changes that were not synced form one list, as in a journal of metadata: after a crash some beginning of it is there and
//! the rest is not. A rename is in it as one change, so it is never half done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::chance::Chance;

/// Which file a name stands for; the name may change, the file stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Folder,
    File(FileId),
}

#[derive(Debug, Clone)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    /// The folder whose sync makes it durable.
    fn folder(&self) -> Option<&Path> {
        match self {
            Change::Add(path, _) | Change::Remove(path) | Change::Rename(_, path) => path.parent(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    unsynced: Vec<Change>,
}

impl Names {
    pub(crate) fn get(&self, path: &Path) -> Option<Node> {
        if path.parent().is_none() {
            return Some(Node::Folder); // The root is always there.
        }
        self.live.get(path).copied()
    }

    pub(crate) fn add(&mut self, path: &Path, node: Node) {
        self.change(Change::Add(path.into(), node));
    }

    pub(crate) fn remove(&mut self, path: &Path) {
        self.change(Change::Remove(path.into()));
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) {
        self.change(Change::Rename(from.into(), to.into()));
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.unsynced.push(change);
    }

    /// The names right inside a folder, sorted.
    pub(crate) fn list(&self, folder: &Path) -> Vec<String> {
        let inside = self.live.keys().filter(|it| it.parent() == Some(folder));
        inside.filter_map(|it| Some(it.file_name()?.to_string_lossy().into_owned())).collect()
    }

    pub(crate) fn sync(&mut self, folder: &Path) {
        for change in std::mem::take(&mut self.unsynced) {
            if change.folder() == Some(folder) {
                apply(&mut self.durable, &change);
            } else {
                self.unsynced.push(change);
            }
        }
    }

    pub(crate) fn crash(&mut self, chance: &Chance) {
        let n_kept = chance.below(self.unsynced.len() as u64 + 1) as usize;
        for change in self.unsynced.drain(..).take(n_kept) {
            apply(&mut self.durable, &change);
        }
        let names = std::mem::take(&mut self.durable);
        // In the order of paths a folder comes before what is in it: what lost its folder is lost.
        for (path, node) in names {
            let parent = path.parent();
            let has_folder = parent.is_none_or(|it| {
                it.parent().is_none() || self.durable.get(it) == Some(&Node::Folder)
            });
            if has_folder {
                self.durable.insert(path, node);
            }
        }
        self.live = self.durable.clone();
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = FileId> {
        let file = |node: &Node| match node {
            Node::File(id) => Some(*id),
            Node::Folder => None,
        };
        self.live.values().filter_map(file)
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    match change {
        Change::Add(path, node) => {
            names.insert(path.clone(), *node);
        }
        Change::Remove(path) => names.retain(|it, _| !it.starts_with(path)),
        Change::Rename(from, to) => {
            let moved: Vec<_> = names.keys().filter(|it| it.starts_with(from)).cloned().collect();
            names.retain(|it, _| moved.is_empty() || !it.starts_with(to) || moved.contains(it));
            for path in moved {
                let node = names.remove(&path).expect("it was listed a moment ago");
                let rest = path.strip_prefix(from).expect("it was listed by this prefix");
                let target = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(target, node);
            }
        }
    }
}
