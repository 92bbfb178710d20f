//! Reading the workspace for the architecture tests: crates, arrows, sources.
//!
//! The architecture is a list of things that are absent; `tests/tests/tidy.rs` fails when one appears.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A crate of this workspace.
pub struct Member {
    pub name: String,
    /// Relative to the workspace's root, `/`-separated.
    pub folder: String,
    /// Names of crates used in builds (not dev-dependencies).
    pub uses: Vec<String>,
}

/// A tracked Rust source file.
pub struct Source {
    /// Relative to the workspace's root.
    pub path: String,
    pub text: String,
}

impl Source {
    /// The lines outside `#[cfg(test)] mod … { … }` blocks at a file's end, numbered from 1.
    pub fn production_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test_file = self.path.contains("/tests/")
            || self.path.contains("/benches/")
            || self.path.ends_with("/tests.rs");
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
            .filter(move |_| !is_test_file)
            .map(|(index, line)| (index + 1, line))
    }
}

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ lies in the root").to_path_buf()
}

/// `cargo metadata` of the locked workspace.
///
/// # Panics
/// When cargo cannot be run: without it nothing can be said of the architecture.
pub fn metadata() -> Value {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        // What is built elsewhere only need not have been downloaded here.
        .args(["--filter-platform", &platform])
        .current_dir(root())
        .output()
        .expect("cargo metadata starts");
    assert!(
        output.status.success(),
        "cargo metadata failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// The workspace's crates with the crates that each uses.
pub fn members(metadata: &Value) -> Vec<Member> {
    let root = root();
    let ids: Vec<&str> = strings(&metadata["workspace_members"]);
    let mut found: Vec<Member> = array(&metadata["packages"])
        .iter()
        .filter(|it| ids.contains(&it["id"].as_str().unwrap_or_default()))
        .map(|it| member(it, &root))
        .collect();
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    found
}

fn member(package: &Value, root: &Path) -> Member {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    let folder = manifest.parent().and_then(|it| it.strip_prefix(root).ok());
    Member {
        name: package["name"].as_str().unwrap_or_default().to_owned(),
        folder: folder.map(|it| it.display().to_string()).unwrap_or_default(),
        uses: array(&package["dependencies"])
            .iter()
            .filter(|it| it["kind"].is_null())
            .filter_map(|it| it["name"].as_str().map(str::to_owned))
            .collect(),
    }
}

/// Licence expressions by package name and version.
pub fn licences(metadata: &Value) -> BTreeMap<String, String> {
    array(&metadata["packages"])
        .iter()
        .map(|it| {
            let name = it["name"].as_str().unwrap_or_default();
            let version = it["version"].as_str().unwrap_or_default();
            let licence = it["license"].as_str().unwrap_or("none");
            (format!("{name} {version}"), licence.to_owned())
        })
        .collect()
}

/// Every Rust file that git tracks or would track.
pub fn sources() -> Vec<Source> {
    files(&["*.rs"])
}

/// Every file that git tracks or would track and that matches one of the patterns.
pub fn files(patterns: &[&str]) -> Vec<Source> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--"])
        .args(patterns)
        .current_dir(root())
        .output()
        .expect("git ls-files starts");
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: Vec<Source> = listing
        .lines()
        .filter_map(|path| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            Some(Source { path: path.to_owned(), text })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "git lists no file for {patterns:?}");
    found
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<&str> {
    array(value).iter().filter_map(Value::as_str).collect()
}
