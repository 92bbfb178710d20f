//! The demo's image: this very program and the libraries that it is linked to, so neither a registry nor a binary in
//! git is needed.
//!
//! It goes in through `Driver::import_images`, as any other tarball, so every driver has it the same way. A label says
//! what it was made of: while that holds, a second `up --demo` finds the image there and makes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kactor_drivers::ImageConfig;
use kactor_drivers::driver::Driver;
use kactor_images::build::{self, Content, Entry};

/// As `cli/examples/hello.yaml` names it.
pub const NAME: &str = "localhost/kactor/hello:1";
const MADE_OF: &str = "kactor.io/made-of";
/// What older C libraries load by name when a program looks up a host, which its headers do not say.
const LOADED_BY_NAME: [&str; 3] = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];

/// What was done for the image.
pub enum Found {
    There,
    Made { size_bytes: u64 },
}

/// Makes the image unless it is there. Blocks for as long as reading and writing the program takes.
pub async fn ensure(driver: &dyn Driver, scratch: &Path) -> anyhow::Result<Found> {
    // Not its path: a program that was built anew while it ran is no longer there.
    let entries = entries(Path::new("/proc/self/exe"))?;
    let made_of = fingerprint(&entries)?;
    if let Some(image) = driver.image(NAME).await?
        && image.config.labels.get(MADE_OF) == Some(&made_of)
    {
        return Ok(Found::There);
    }
    std::fs::create_dir_all(scratch).with_context(|| format!("making {}", scratch.display()))?;
    let tarball = scratch.join("hello.tar");
    let imported = async {
        build::tarball_from_files(&tarball, NAME, &entries, &config(made_of))?;
        anyhow::Ok(driver.import_images(&tarball).await?)
    };
    let imported = imported.await;
    let _ = std::fs::remove_file(&tarball); // Whatever came of it, nobody needs it any more.
    let image = imported?.pop().context("the driver took no image out of the tarball")?;
    Ok(Found::Made { size_bytes: image.size_bytes })
}

fn config(made_of: String) -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/bin/kactor".to_owned(), "demo-server".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        user: "65534:65534".to_owned(),
        labels: BTreeMap::from([(MADE_OF.to_owned(), made_of)]),
        ..ImageConfig::default()
    }
}

fn entries(program: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut entries = build::program_entries(program, "kactor")?;
    let folders: Vec<PathBuf> = entries
        .iter()
        .filter(|it| it.path.contains("/libc.so"))
        .filter_map(|it| Path::new(&it.path).parent().map(Path::to_owned))
        .collect();
    for path in folders.iter().flat_map(|it| LOADED_BY_NAME.map(|name| it.join(name))) {
        let shown = path.display().to_string();
        if path.is_file() && entries.iter().all(|it| it.path != shown) {
            entries.push(Entry { path: shown, content: Content::File(path), mode: 0o755 });
        }
    }
    let passwd = b"nobody:x:65534:65534:nobody:/:/bin/kactor\n".to_vec();
    entries.push(Entry {
        path: "/etc/passwd".to_owned(),
        content: Content::Bytes(passwd),
        mode: 0o644,
    });
    Ok(entries)
}

/// Changes when a file of it does: names, lengths and times of change, not the content of a hundred megabytes.
fn fingerprint(entries: &[Entry]) -> anyhow::Result<String> {
    let mut parts = Vec::new();
    for entry in entries {
        let of = match &entry.content {
            Content::File(from) | Content::Head(from, _) => {
                let it = from.metadata().with_context(|| format!("reading {}", from.display()))?;
                format!("{}:{}.{:09}", it.len(), it.mtime(), it.mtime_nsec())
            }
            other => format!("{other:?}"),
        };
        parts.push(format!("{} {of}", entry.path));
    }
    Ok(kactor_images::Digest::of(parts.join("\n").as_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_the_image_that_is_made() {
        assert!(super::super::MANIFEST.contains(&format!("image: {NAME}\n")));
    }

    #[test]
    fn the_image_changes_with_the_program_and_holds_what_it_loads() {
        let temp = tempfile::tempdir().unwrap();
        let program = temp.path().join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let before = entries(&program).unwrap();
        assert_eq!(before[0].path, "/bin/kactor");
        assert!(before.iter().any(|it| it.path.contains("libc.so")));
        let first = fingerprint(&before).unwrap();
        assert_eq!(first, fingerprint(&entries(&program).unwrap()).unwrap());
        let later = std::time::UNIX_EPOCH + std::time::Duration::from_secs(7);
        let file = std::fs::File::options().write(true).open(&program).unwrap();
        file.set_modified(later).unwrap();
        assert_ne!(first, fingerprint(&entries(&program).unwrap()).unwrap());
    }
}
