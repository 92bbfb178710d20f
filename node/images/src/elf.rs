//! Which shared libraries a program needs, read from its ELF headers: for images made at run time.
//!
//! Only what the dynamic linker reads: PT_INTERP, DT_NEEDED, DT_RUNPATH/DT_RPATH (System V ABI, chapter 5).
//! Little-endian 64-bit files, which is every machine kactor runs on. All offsets are checked; a hostile file
//! gives an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Doing, ImageError};

const FILE_BYTES_MAX: u64 = 2 << 30;
const LIBRARIES_MAX: usize = 256;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// What the dynamic linker would read of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Linkage {
    /// The dynamic linker; `None` for libraries and static programs.
    pub interpreter: Option<PathBuf>,
    pub needed: Vec<String>,
    /// Folders to search first.
    pub run_paths: Vec<PathBuf>,
    /// Bytes from the start that segments use: all that running it needs.
    pub loaded_bytes: u64,
}

/// Parses the headers of an ELF file; `None` if the bytes lead outside of it.
fn parse(bytes: &[u8]) -> Option<Linkage> {
    let mut linkage = Linkage::default();
    let (table, size, n) = (u64_at(bytes, 32)?, u16_at(bytes, 54)?, u16_at(bytes, 56)?);
    let mut segments = Vec::new();
    for index in 0..u64::from(n) {
        let at = usize::try_from(table.checked_add(index * u64::from(size))?).ok()?;
        segments.push(Segment {
            kind: u32_at(bytes, at)?,
            offset: u64_at(bytes, at.checked_add(8)?)?,
            address: u64_at(bytes, at.checked_add(16)?)?,
            n_bytes: u64_at(bytes, at.checked_add(32)?)?,
        });
    }
    let headers_end = table.checked_add(u64::from(n) * u64::from(size))?;
    linkage.loaded_bytes = headers_end;
    for it in segments.iter().filter(|it| it.kind == PT_LOAD) {
        linkage.loaded_bytes = linkage.loaded_bytes.max(it.offset.checked_add(it.n_bytes)?);
    }
    if let Some(it) = segments.iter().find(|it| it.kind == PT_INTERP) {
        linkage.interpreter = Some(PathBuf::from(text_at(bytes, it.offset)?));
    }
    if let Some(it) = segments.iter().find(|it| it.kind == PT_DYNAMIC) {
        read_dynamic(bytes, it, &segments, &mut linkage)?;
    }
    Some(linkage)
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    n_bytes: u64,
}

fn read_dynamic(bytes: &[u8], at: &Segment, all: &[Segment], out: &mut Linkage) -> Option<()> {
    let start = usize::try_from(at.offset).ok()?;
    let len = usize::try_from(at.n_bytes).ok()?;
    let table = bytes.get(start..start.checked_add(len)?)?;
    let rows: Vec<(u64, u64)> = table
        .chunks_exact(16)
        .map_while(|row| Some((u64_at(row, 0)?, u64_at(row, 8)?)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let strings = rows.iter().find(|(tag, _)| *tag == DT_STRTAB)?.1;
    let home = all.iter().find(|it| {
        it.kind == PT_LOAD && strings >= it.address && strings - it.address < it.n_bytes
    })?;
    let strings = home.offset.checked_add(strings - home.address)?;
    for (tag, value) in rows {
        let text = || text_at(bytes, strings.checked_add(value)?);
        match tag {
            DT_NEEDED => out.needed.push(text()?),
            DT_RPATH | DT_RUNPATH => {
                out.run_paths.extend(text()?.split(':').map(PathBuf::from));
            }
            _ => {}
        }
        if out.needed.len() > LIBRARIES_MAX {
            return None;
        }
    }
    Some(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn text_at(bytes: &[u8], at: u64) -> Option<String> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().take(4096).position(|it| *it == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

/// Reads the headers of a 64-bit little-endian ELF image.
pub fn linkage(name: &str, bytes: &[u8]) -> Result<Linkage, ImageError> {
    let refuse = |why: &str| ImageError::Elf { path: name.to_owned(), why: why.to_owned() };
    if !bytes.starts_with(b"\x7fELF") {
        return Err(refuse("it is no ELF file"));
    }
    if bytes.get(4..6) != Some(&[2, 1]) {
        return Err(refuse("it is not 64-bit little-endian"));
    }
    parse(bytes).ok_or_else(|| refuse("its headers lead outside of the file"))
}

/// The libraries that a program needs, transitively, and its dynamic linker: path on this machine, sorted. Each
/// is to stand at the same path in the image.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let mut found: BTreeMap<PathBuf, ()> = BTreeMap::new();
    let mut open = vec![program.to_owned()];
    while let Some(path) = open.pop() {
        let linkage = linkage(&path.display().to_string(), &read(&path)?)?;
        let folders = folders(&path, &linkage);
        let needed = linkage.needed.iter().map(|name| search(name, &path, &folders));
        let interpreter = linkage.interpreter.into_iter().map(Ok);
        for library in needed.chain(interpreter) {
            let library = library?;
            if found.insert(library.clone(), ()).is_none() {
                open.push(library);
            }
        }
        if found.len() > LIBRARIES_MAX {
            let name = program.display().to_string();
            return Err(ImageError::TooMany { name, n_max: LIBRARIES_MAX });
        }
    }
    Ok(found.into_keys().collect())
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let doing = || format!("reading {}", path.display());
    let len = std::fs::metadata(path).doing(doing)?.len();
    if len > FILE_BYTES_MAX {
        let name = path.display().to_string();
        return Err(ImageError::TooLarge { name, bytes_max: FILE_BYTES_MAX });
    }
    std::fs::read(path).doing(doing)
}

/// Where the linker looks: the file's own paths, then the system's (multiarch ones on Debian, lib64 elsewhere).
fn folders(file: &Path, linkage: &Linkage) -> Vec<PathBuf> {
    let origin = file.parent().unwrap_or(Path::new("/")).display().to_string();
    let own = linkage.run_paths.iter().map(|it| {
        PathBuf::from(
            it.display().to_string().replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin),
        )
    });
    let arch = std::env::consts::ARCH;
    let system = [
        format!("/lib/{arch}-linux-gnu"),
        format!("/usr/lib/{arch}-linux-gnu"),
        "/lib64".to_owned(),
        "/usr/lib64".to_owned(),
        "/lib".to_owned(),
        "/usr/lib".to_owned(),
        "/usr/local/lib".to_owned(),
    ];
    own.chain(system.into_iter().map(PathBuf::from)).collect()
}

fn search(name: &str, by: &Path, folders: &[PathBuf]) -> Result<PathBuf, ImageError> {
    if name.starts_with('/') {
        return Ok(PathBuf::from(name));
    }
    let found = folders.iter().map(|it| it.join(name)).find(|it| it.is_file());
    found.ok_or_else(|| ImageError::NoLibrary {
        name: name.to_owned(),
        by: by.display().to_string(),
        searched: folders.iter().map(|it| it.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_test_program_needs_libc_and_a_linker() {
        let me = std::env::current_exe().unwrap();
        let found = libraries(&me).unwrap();
        let names: Vec<_> = found.iter().filter_map(|it| it.file_name()?.to_str()).collect();
        assert!(names.iter().any(|it| it.starts_with("libc.so")), "{names:?}");
        assert!(names.iter().any(|it| it.starts_with("ld-")), "{names:?}");
        assert!(found.iter().all(|it| it.is_absolute()));
    }

    #[test]
    fn the_loaded_part_of_a_program_is_within_it() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let loaded = linkage("me", &me).unwrap().loaded_bytes;
        assert!(loaded > 1000 && loaded <= me.len() as u64);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(matches!(linkage("x", b"#!/bin/sh"), Err(ImageError::Elf { .. })));
        assert!(matches!(linkage("x", b"\x7fELF\x02\x01"), Err(ImageError::Elf { .. })));
    }

    proptest! {
        #[test]
        fn damaged_headers_never_panic(
            at in 0_usize..6000,
            with in proptest::collection::vec(any::<u8>(), 1..16),
            cut in 0_usize..8000,
        ) {
            use std::io::Read;
            let mut bytes = Vec::new(); // Its beginning: the whole program again for each case takes a minute.
            let me = std::fs::File::open("/proc/self/exe").unwrap();
            me.take(8000).read_to_end(&mut bytes).unwrap();
            bytes[at..at + with.len()].copy_from_slice(&with);
            bytes.truncate(cut);
            let _ = linkage("damaged", &bytes);
        }
    }
}
