//! An image for real containers without a registry: Debian's busybox-static as a `docker save` tarball.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

/// The image's name.
pub const IMAGE: &str = "busybox:latest";
/// Debian's package busybox-static.
const PROGRAM: &str = "/bin/busybox";
/// Commands that tests use; each is a link to the program.
const COMMANDS: &[&str] = &[
    "sh",
    "cat",
    "echo",
    "sleep",
    "wget",
    "httpd",
    "hostname",
    "env",
    "id",
    "true",
    "false",
    "ls",
    "mkdir",
    "tar",
    "date",
    "seq",
    "head",
    "tail",
    "grep",
    "sha256sum",
    "stty",
    "nc",
    "rm",
    "touch",
    "chown",
    "kill",
    "ps",
    "readlink",
    "wc",
    "dd",
    "mount",
    "nslookup",
    "stat",
    "yes",
    "tr",
    "test",
];

/// Whether the image can be made here.
pub fn is_available() -> bool {
    Path::new(PROGRAM).exists()
}

/// Writes the tarball into `folder` and gives its path.
///
/// # Panics
/// When files can't be read or written: the test cannot go on.
pub fn tarball(folder: &Path) -> PathBuf {
    let layer = layer();
    let digest: String = Sha256::digest(&layer).iter().map(|it| format!("{it:02x}")).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    let mut out = tar::Builder::new(Vec::new());
    put(&mut out, "layer.tar", &layer, 0o644);
    put(&mut out, "config.json", config.to_string().as_bytes(), 0o644);
    put(&mut out, "manifest.json", manifest.to_string().as_bytes(), 0o644);
    let path = folder.join("busybox.tar");
    let bytes = out.into_inner().expect("a tar in memory ends");
    let mut file = std::fs::File::create(&path).expect("the tarball can be made");
    file.write_all(&bytes).expect("the tarball can be written");
    path
}

fn layer() -> Vec<u8> {
    let program = std::fs::read(PROGRAM).expect("busybox-static is installed");
    let mut out = tar::Builder::new(Vec::new());
    put(&mut out, "bin/busybox", &program, 0o755);
    for name in COMMANDS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        out.append_link(&mut header, format!("bin/{name}"), "busybox").expect("a short name fits");
    }
    put(&mut out, "etc/passwd", b"root:x:0:0::/:/bin/sh\n", 0o644);
    put(&mut out, "tmp/.keep", b"", 0o666);
    out.into_inner().expect("a tar in memory ends")
}

/// Without owner and time, as some programs make tarballs.
fn put(out: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    out.append_data(&mut header, path, content).expect("a tar in memory grows");
}
