//! Images made at run time from files of this machine: the demo's, from kactor's own executable.
//!
//! One layer, plain tar, entries sorted and dated 1970, so that equal files give an equal digest and a second
//! `up` finds the image there already.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kactor_drivers::{Image, ImageConfig};
use tar::{EntryType, Header};

use crate::digest::{Digest, Hashing};
use crate::elf;
use crate::error::{Doing, ImageError};
use crate::manifest::{self, CONFIG_TYPE, Config, Descriptor, LAYER_TYPE, MANIFEST_TYPE, Manifest};
use crate::reference::Reference;
use crate::rooted::normal;
use crate::store::ImageStore;

const TAR_BLOCK_BYTES: u64 = 512;

/// One thing in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path in the image.
    pub path: String,
    pub content: Content,
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Dir,
    Bytes(Vec<u8>),
    /// A file of this machine, links followed.
    File(PathBuf),
    /// The start of a file: what an ELF program loads, without its debug sections.
    Head(PathBuf, u64),
    Link(String),
}

/// Makes an image of one layer and names it.
pub fn image_from_files(
    store: &ImageStore,
    name: &str,
    entries: &[Entry],
    config: &ImageConfig,
) -> Result<Image, ImageError> {
    let reference: Reference = name.parse()?;
    let (layer, size) = write_layer(store, entries)?;
    let config = Config::from_run(config, vec![layer.clone()]);
    let config = manifest::print(&config);
    let (config_digest, config_size) = store.write_blob("the config", config.as_slice(), None)?;
    let describe = |media_type: &str, digest: Digest, size| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        annotations: BTreeMap::new(),
        platform: None,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST_TYPE.to_owned()),
        config: describe(CONFIG_TYPE, config_digest, config_size),
        layers: vec![describe(LAYER_TYPE, layer, size)],
    };
    let bytes = manifest::print(&manifest);
    let (digest, _) = store.write_blob("the manifest", bytes.as_slice(), None)?;
    let mut images = store.register(&[(digest, vec![reference])])?;
    Ok(images.pop().expect("register answers one image for each"))
}

/// Writes an image of one layer as a `docker save` tarball, which every driver imports.
pub fn tarball_from_files(
    path: &Path,
    name: &str,
    entries: &[Entry],
    config: &ImageConfig,
) -> Result<(), ImageError> {
    let doing = || format!("writing {}", path.display());
    let reference: Reference = name.parse()?;
    let mut file = File::create(path).doing(doing)?;
    // The layer's length is known only after it: its header is written last, over this room.
    file.write_all(&[0; TAR_BLOCK_BYTES as usize]).doing(doing)?;
    let (digest, len, mut file) = layer_into(Hashing::new(file), entries).doing(doing)?.finish();
    let padding = len.next_multiple_of(TAR_BLOCK_BYTES) - len;
    let mut head = header(EntryType::Regular, 0o644, len);
    let finished = (|| {
        file.write_all(&vec![0; padding as usize])?;
        file.seek(SeekFrom::Start(0))?;
        head.set_path("layer.tar")?;
        head.set_cksum();
        file.write_all(head.as_bytes())?;
        file.seek(SeekFrom::End(0))?;
        let mut tar = tar::Builder::new(file);
        let config = manifest::print(&Config::from_run(config, vec![digest]));
        let index = serde_json::json!([{
            "Config": "config.json",
            "RepoTags": [reference.to_string()],
            "Layers": ["layer.tar"],
        }]);
        for (name, bytes) in
            [("config.json", config), ("manifest.json", index.to_string().into_bytes())]
        {
            let mut head = header(EntryType::Regular, 0o644, bytes.len() as u64);
            tar.append_data(&mut head, name, bytes.as_slice())?;
        }
        tar.into_inner()?.flush()
    })();
    finished.doing(doing)
}

/// A program at `/bin/<name>` and every library that it is linked to, at their own paths. Debug sections are left
/// out.
pub fn program_entries(program: &Path, name: &str) -> Result<Vec<Entry>, ImageError> {
    let doing = || format!("reading {}", program.display());
    let bytes = std::fs::read(program).doing(doing)?;
    let linkage = elf::linkage(&program.display().to_string(), &bytes)?;
    let mut entries = vec![Entry {
        path: format!("/bin/{name}"),
        content: Content::Head(program.to_owned(), linkage.loaded_bytes),
        mode: 0o755,
    }];
    for library in elf::libraries(program)? {
        entries.push(Entry {
            path: library.display().to_string(),
            content: Content::File(library),
            mode: 0o755,
        });
    }
    entries.push(Entry { path: "/tmp".to_owned(), content: Content::Dir, mode: 0o1777 });
    Ok(entries)
}

fn write_layer(store: &ImageStore, entries: &[Entry]) -> Result<(Digest, u64), ImageError> {
    let piece = Piece { blob: store.begin_blob("the layer")?, error: None };
    let piece = layer_into(piece, entries).doing(|| "writing the image's layer".to_owned())?;
    piece.blob.finish(None)
}

/// Sorted, with every folder before what is in it.
fn layer_into<W: Write>(out: W, entries: &[Entry]) -> io::Result<W> {
    let mut sorted: BTreeMap<PathBuf, &Entry> = BTreeMap::new();
    let mut dirs: BTreeSet<PathBuf> = BTreeSet::new();
    for entry in entries {
        let path = normal(entry.path.as_bytes()).map_err(|it| {
            io::Error::other(ImageError::Escape { path: entry.path.clone(), why: it.why() })
        })?;
        dirs.extend(path.ancestors().skip(1).map(Path::to_owned));
        sorted.insert(path, entry);
    }
    dirs.remove(Path::new(""));
    dirs.retain(|it| !sorted.contains_key(it));
    let mut tar = tar::Builder::new(out);
    for dir in &dirs {
        tar.append_data(&mut header(EntryType::Directory, 0o755, 0), dir, io::empty())?;
    }
    for (path, entry) in &sorted {
        append(&mut tar, path, entry)?;
    }
    tar.into_inner()
}

/// A blob as a `Write`, with our own errors inside of I/O errors.
struct Piece<'a> {
    blob: crate::store::BlobWriter<'a>,
    error: Option<()>,
}

impl Write for Piece<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_some() {
            return Err(io::Error::other("an earlier write failed"));
        }
        self.blob.write(bytes).map_err(|error| {
            self.error = Some(());
            io::Error::other(error)
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &Path, entry: &Entry) -> io::Result<()> {
    let file = |from: &Path| {
        File::open(from)
            .map_err(|it| io::Error::new(it.kind(), format!("{}: {it}", from.display())))
    };
    match &entry.content {
        Content::Dir => {
            tar.append_data(&mut header(EntryType::Directory, entry.mode, 0), path, io::empty())
        }
        Content::Bytes(bytes) => {
            let mut header = header(EntryType::Regular, entry.mode, bytes.len() as u64);
            tar.append_data(&mut header, path, bytes.as_slice())
        }
        Content::File(from) => {
            let file = file(from)?;
            let len = file.metadata()?.len();
            tar.append_data(&mut header(EntryType::Regular, entry.mode, len), path, file.take(len))
        }
        Content::Head(from, len) => {
            let file = file(from)?;
            tar.append_data(
                &mut header(EntryType::Regular, entry.mode, *len),
                path,
                file.take(*len),
            )
        }
        Content::Link(target) => {
            tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)
        }
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Limits;

    fn hello(path: &str) -> Entry {
        Entry { path: path.to_owned(), content: Content::Bytes(b"hello".to_vec()), mode: 0o644 }
    }

    #[test]
    fn equal_files_make_an_equal_image() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path(), Limits::default()).unwrap();
        let config = ImageConfig { cmd: vec!["/bin/x".to_owned()], ..ImageConfig::default() };
        let entries = [hello("/etc/a"), hello("/etc/b/c")];
        let first = image_from_files(&store, "kactor/demo:1", &entries, &config).unwrap();
        let swapped = [entries[1].clone(), entries[0].clone()];
        let second = image_from_files(&store, "kactor/demo:1", &swapped, &config).unwrap();
        assert_eq!(first, second);
        assert_eq!(first.tags, ["docker.io/kactor/demo:1"]);
        assert_eq!(first.config, config);
    }

    #[test]
    fn a_tarball_of_files_imports_as_the_image_that_is_made_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&dir.path().join("images"), Limits::default()).unwrap();
        let labels = BTreeMap::from([("made-of".to_owned(), "a".to_owned())]);
        let config = ImageConfig { labels, user: "7:7".to_owned(), ..ImageConfig::default() };
        let entries = [hello("/etc/a"), hello("/etc/b/c")];
        let made = image_from_files(&store, "kactor/demo:1", &entries, &config).unwrap();
        let tarball = dir.path().join("demo.tar");
        tarball_from_files(&tarball, "localhost/kactor/demo:1", &entries, &config).unwrap();
        let other = ImageStore::open(&dir.path().join("others"), Limits::default()).unwrap();
        let imported = crate::archive::import(&other, &tarball).unwrap();
        assert_eq!(imported[0].id, made.id);
        assert_eq!(imported[0].config, config);
        assert_eq!(imported[0].tags, ["localhost/kactor/demo:1"]);
        let refused = tarball_from_files(&tarball, "x", &[hello("/../a")], &config);
        assert!(matches!(refused, Err(ImageError::Escape { .. })), "{refused:?}");
    }

    #[test]
    fn a_path_that_climbs_out_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path(), Limits::default()).unwrap();
        let made = image_from_files(&store, "x", &[hello("/../a")], &ImageConfig::default());
        assert!(matches!(made, Err(ImageError::Escape { .. })), "{made:?}");
    }

    #[test]
    fn a_program_brings_its_libraries_and_leaves_its_debug_sections() {
        let me = std::env::current_exe().unwrap();
        let entries = program_entries(&me, "me").unwrap();
        assert_eq!(entries[0].path, "/bin/me");
        assert!(entries.iter().any(|it| it.path.contains("libc.so")));
        let Content::Head(_, head) = &entries[0].content else { panic!("{:?}", entries[0]) };
        assert!(*head < std::fs::metadata(&me).unwrap().len());
    }
}
