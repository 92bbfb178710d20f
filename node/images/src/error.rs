//! Why an image was refused, could not be fetched, or could not be unpacked.

use std::io;

use crate::digest::Digest;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{text:?} is no image reference: {why}")]
    BadReference { text: String, why: &'static str },
    #[error("{text:?} is no digest: sha256: and 64 hexadecimal digits are")]
    BadDigest { text: String },
    #[error("no image {reference} here")]
    NotFound { reference: String },
    #[error("image {reference} is used by {n_users} containers")]
    InUse { reference: String, n_users: usize },
    #[error("content {name} has the digest {found}, not {wanted}")]
    WrongDigest { name: String, wanted: Digest, found: Digest },
    #[error("{name} is larger than {bytes_max} bytes")]
    TooLarge { name: String, bytes_max: u64 },
    #[error("{name} has more than {n_max} entries")]
    TooMany { name: String, n_max: usize },
    #[error("the archive is no image: {why}")]
    NotAnImage { why: String },
    #[error("{name} is malformed: {why}")]
    Malformed { name: String, why: String },
    /// A layer's entry would reach outside of its folder.
    #[error("entry {path:?} of a layer leaves the image: {why}")]
    Escape { path: String, why: &'static str },
    #[error("entry {path:?} of a layer is a device; devices come from the runtime")]
    Device { path: String },
    #[error("entry {path:?} of a layer has the type {kind:?}, which is not supported")]
    EntryKind { path: String, kind: char },
    #[error("{media_type} is not a supported kind of content")]
    MediaType { media_type: String },
    #[error("the image is for {found}, this machine is {wanted}")]
    Platform { found: String, wanted: String },
    #[error("{path} is no program for this machine: {why}")]
    Elf { path: String, why: String },
    #[error("library {name}, needed by {by}, was not found in {searched}")]
    NoLibrary { name: String, by: String, searched: String },
    #[error("{free_bytes} bytes are free at the image store, {wanted_bytes} must stay")]
    DiskFull { free_bytes: u64, wanted_bytes: u64 },
    /// The registry does not know it or does not let us.
    #[error("the registry refused {reference}: {why}")]
    Refused { reference: String, why: String },
    /// Worth another try later.
    #[error("{reference} could not be fetched: {why}")]
    Fetch { reference: String, why: String },
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        // Errors of ours travel through `Read` as the inner error of an io::Error.
        match source.downcast::<ImageError>() {
            Ok(ours) => ours,
            Err(source) => ImageError::Io { doing: doing.into(), source },
        }
    }

    pub fn malformed(name: impl Into<String>, why: impl ToString) -> Self {
        ImageError::Malformed { name: name.into(), why: why.to_string() }
    }
}

/// Adds what was being done to an I/O error.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::io(what(), source))
    }
}
