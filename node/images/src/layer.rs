//! Unpacking one layer: a tar stream from a stranger into a folder of ours.
//!
//! Refuses what leaves the folder, what is no file kind of an image, and what is larger than its bounds. Long
//! names and PAX records are read here, bounded, instead of by the tar crate, which would keep any length of
//! them in memory. Whiteouts (OCI image-spec, "Layer Filesystem Changeset") become overlayfs's own, or deletions
//! when layers are copied over each other.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{EntryType, Header, PaxExtensions};

use crate::digest::{Digest, Hashing};
use crate::error::{Doing, ImageError};
use crate::rooted::{Rooted, c_string, make_dir, normal};

mod place;

use place::{Owner, place};

/// Bounds of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerLimits {
    pub bytes_max: u64,
    pub entries_max: usize,
}

/// What a `.wh.` entry becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// overlayfs's marks: a 0/0 device, an `opaque` attribute. Needs root.
    Marks,
    /// The file goes away, for layers that are copied over each other.
    Deletions,
}

const EXTENSION_BYTES_MAX: u64 = 64 * 1024;
const OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";

/// Unpacks `stream` (plain, gzip or zstd) into `dir` and checks the digest of the plain tar.
pub fn unpack(
    stream: impl Read,
    dir: &Path,
    diff_id: &Digest,
    whiteouts: Whiteouts,
    limits: LayerLimits,
) -> Result<u64, ImageError> {
    let name = format!("layer {diff_id}");
    let mut plain = Hashing::new(decompress(stream)?);
    let rooted = Rooted::open(dir).doing(|| format!("opening {}", dir.display()))?;
    let mut unpacking = Unpacking { rooted, dir, whiteouts, limits, n_bytes: 0, n_entries: 0 };
    unpacking.entries(&mut plain, &name)?;
    // What follows the end marker belongs to the digest too.
    let rest = io::copy(&mut (&mut plain).take(limits.bytes_max), &mut io::sink());
    rest.doing(|| format!("reading the end of {name}"))?;
    let (found, _, _) = plain.finish();
    match found == *diff_id {
        true => Ok(unpacking.n_bytes),
        false => Err(ImageError::WrongDigest { name, wanted: diff_id.clone(), found }),
    }
}

/// The plain bytes behind gzip or zstd, told apart by their first four.
pub fn decompress<'a>(stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let mut magic = [0_u8; 4];
    let mut n = 0;
    while n < magic.len() {
        match stream.read(&mut magic[n..]).doing(|| "reading a layer".to_owned())? {
            0 => break,
            more => n += more,
        }
    }
    let whole = io::Cursor::new(magic[..n].to_vec()).chain(stream);
    match magic {
        [0x1f, 0x8b, ..] => Ok(Box::new(flate2::read::MultiGzDecoder::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => ruzstd::decoding::StreamingDecoder::new(whole)
            .map(|it| Box::new(it) as Box<dyn Read + 'a>)
            .map_err(|why| ImageError::malformed("the zstd stream", why)),
        _ => Ok(Box::new(whole)),
    }
}

struct Unpacking<'a> {
    rooted: Rooted,
    dir: &'a Path,
    whiteouts: Whiteouts,
    limits: LayerLimits,
    n_bytes: u64,
    n_entries: usize,
}

/// What extension records said about the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Unpacking<'_> {
    fn entries(&mut self, plain: &mut impl Read, name: &str) -> Result<(), ImageError> {
        let mut archive = tar::Archive::new(plain);
        let entries = archive.entries().map_err(|it| ImageError::io(name, it))?;
        let mut extension = Extension::default();
        for entry in entries.raw(true) {
            let mut entry = entry.map_err(|it| tar_error(name, it))?;
            self.n_entries += 1;
            if self.n_entries > self.limits.entries_max {
                let n_max = self.limits.entries_max;
                return Err(ImageError::TooMany { name: name.to_owned(), n_max });
            }
            let header = entry.header().clone();
            if read_extension(&header, &mut entry, &mut extension, name)? {
                continue;
            }
            let said = std::mem::take(&mut extension);
            self.entry(&header, said, &mut entry, name)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        header: &Header,
        said: Extension,
        content: &mut impl Read,
        layer: &str,
    ) -> Result<(), ImageError> {
        let written = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let shown = String::from_utf8_lossy(&written).into_owned();
        let escape = |why| ImageError::Escape { path: shown.clone(), why };
        let path = normal(&written).map_err(|it| escape(it.why()))?;
        let number = |it: io::Result<u64>| it.map_err(|why| ImageError::malformed(layer, why));
        let old = header.as_old();
        let owner = Owner {
            uid: number(or_zero(&old.uid, header.uid()))? as u32,
            gid: number(or_zero(&old.gid, header.gid()))? as u32,
            mode: number(or_zero(&old.mode, header.mode().map(u64::from)))? as u32 & 0o7777,
            modified: number(or_zero(&old.mtime, header.mtime()))?,
        };
        if path.as_os_str().is_empty() {
            return place::own_root(self.dir, &owner);
        }
        if let Some(hidden) = self.whiteout(&path, &shown)? {
            return hidden;
        }
        let link = said.link.or_else(|| header.link_name_bytes().map(|it| it.into_owned()));
        let kind = header.entry_type();
        if kind == EntryType::Regular || kind == EntryType::Continuous {
            self.n_bytes = self.n_bytes.saturating_add(number(header.size())?);
            if self.n_bytes > self.limits.bytes_max {
                let bytes_max = self.limits.bytes_max;
                return Err(ImageError::TooLarge { name: layer.to_owned(), bytes_max });
            }
        }
        let link = link.unwrap_or_default();
        place(&self.rooted, &path, kind, &link, content, &owner, &said.attributes, &shown)
    }

    /// `Some` if the entry was a whiteout and is dealt with.
    fn whiteout(
        &self,
        path: &Path,
        shown: &str,
    ) -> Result<Option<Result<(), ImageError>>, ImageError> {
        let name = path.file_name().map(|it| it.as_bytes()).unwrap_or_default();
        let Some(hidden) = name.strip_prefix(WHITEOUT) else {
            return Ok(None);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self.rooted.make_dir_all(parent).doing(|| format!("hiding {shown}"))?;
        if name == OPAQUE {
            return Ok(Some(self.opaque(parent, &dir, shown)));
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            let why = "it hides no file of its folder";
            return Err(ImageError::Escape { path: shown.to_owned(), why });
        }
        let hidden = CString::new(hidden).map_err(|why| ImageError::malformed(shown, why))?;
        let done = place::remove_at(&dir, &hidden).and_then(|()| match self.whiteouts {
            Whiteouts::Deletions => Ok(()),
            Whiteouts::Marks => place::mark_hidden(&dir, &hidden),
        });
        Ok(Some(done.doing(|| format!("hiding {shown}"))))
    }

    /// Nothing of lower layers shows through this folder.
    fn opaque(&self, parent: &Path, dir: &OwnedFd, shown: &str) -> Result<(), ImageError> {
        let done = match self.whiteouts {
            Whiteouts::Marks => place::mark_opaque(dir),
            Whiteouts::Deletions => place::empty(&self.rooted, parent),
        };
        done.doing(|| format!("making {shown} opaque"))
    }
}

/// Some programs leave out who owns a file and when it was changed; Go's reader, which docker and containerd unpack
/// with, takes an empty field for zero.
fn or_zero(field: &[u8], read: io::Result<u64>) -> io::Result<u64> {
    match field.iter().all(|it| matches!(it, 0 | b' ')) {
        true => Ok(0),
        false => read,
    }
}

/// Takes in a record about the next entry; `false` if the header is an entry itself.
fn read_extension(
    header: &Header,
    content: &mut impl Read,
    extension: &mut Extension,
    layer: &str,
) -> Result<bool, ImageError> {
    let kind = header.entry_type();
    if kind.is_pax_global_extensions() {
        return Ok(true); // Git writes its commit there; nothing of it concerns files.
    }
    let is_pax = kind.is_pax_local_extensions();
    if !is_pax && !kind.is_gnu_longname() && !kind.is_gnu_longlink() {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    let read = content.take(EXTENSION_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|it| tar_error(layer, it))?;
    if bytes.len() as u64 > EXTENSION_BYTES_MAX {
        let name = format!("a name in {layer}");
        return Err(ImageError::TooLarge { name, bytes_max: EXTENSION_BYTES_MAX });
    }
    if is_pax {
        read_pax(&bytes, extension, layer)?;
        return Ok(true);
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    match kind.is_gnu_longname() {
        true => extension.path = Some(bytes),
        false => extension.link = Some(bytes),
    }
    Ok(true)
}

fn read_pax(bytes: &[u8], extension: &mut Extension, layer: &str) -> Result<(), ImageError> {
    for record in PaxExtensions::new(bytes) {
        let record = record.map_err(|why| ImageError::malformed(layer, why))?;
        let key = record.key().map_err(|why| ImageError::malformed(layer, why))?;
        let value = record.value_bytes().to_vec();
        match key {
            "path" => extension.path = Some(value),
            "linkpath" => extension.link = Some(value),
            // A size over 8 GiB; the raw walk would lose its place.
            "size" => {
                let bytes_max = 8 << 30;
                return Err(ImageError::TooLarge { name: layer.to_owned(), bytes_max });
            }
            _ => {
                // overlayfs's own marks must not come from a stranger.
                let attribute = key.strip_prefix("SCHILY.xattr.");
                let kept = |it: &&str| *it == "security.capability" || it.starts_with("user.");
                if let Some(name) = attribute.filter(kept) {
                    extension.attributes.push((name.to_owned(), value));
                }
            }
        }
    }
    Ok(())
}

/// The tar crate tells of malformed headers by I/O errors.
fn tar_error(name: &str, error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::Other
        | io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof => match error.downcast::<ImageError>() {
            Ok(ours) => ours,
            Err(error) => ImageError::malformed(name, error),
        },
        _ => ImageError::io(format!("reading {name}"), error),
    }
}

#[cfg(test)]
mod tests;
