//! Where the kactor binary is that this build made.
//!
//! `cargo test --workspace` builds it beside the test programs, because cli has an integration test. A run of this
//! crate's tests alone may find none; then it is built once, whoever comes first, into the same target folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

/// The binary under test: `KACTOR_BIN`, else the one of this build.
///
/// # Panics
/// When it is missing and cannot be built.
pub fn kactor() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(find)
}

fn find() -> PathBuf {
    if let Some(named) = std::env::var_os("KACTOR_BIN") {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "KACTOR_BIN names {}, which is no file", path.display());
        return path;
    }
    let profile = profile_folder();
    let binary = profile.join("kactor");
    let lock =
        File::create(profile.join(".kactor-tests.lock")).expect("the build folder is writable");
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, it)| it).expect("flock works");
    if !binary.is_file() {
        build(&profile);
    }
    assert!(binary.is_file(), "cargo built no {}", binary.display());
    binary
}

/// `target/debug`: test programs lie in its `deps`.
fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a program knows its path");
    let deps = program.parent().expect("a program lies in a folder");
    assert!(deps.ends_with("deps"), "{} is not where cargo puts test programs", program.display());
    deps.parent().expect("deps lies in the profile's folder").to_path_buf()
}

fn build(profile: &Path) {
    let target = profile.parent().expect("the profile's folder lies in the target folder");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--locked", "-p", "kactor", "--target-dir"])
        .arg(target)
        .current_dir(crate::tidy::root());
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo starts");
    assert!(status.success(), "cargo could not build kactor");
}
