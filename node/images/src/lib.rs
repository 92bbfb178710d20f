//! OCI images: registry pulls, tarball imports, images made at run time, unpacking.
//!
//! One `ImageStore` per data folder holds content by its sha256, so nothing is trusted by name: bytes are hashed
//! while they are written and a layer is hashed again while it is unpacked. Calls block; the driver runs them
//! on a lane that may. Everything read from outside is bounded by `Limits` before it is kept.

pub mod archive;
pub mod build;
pub mod command;
pub mod digest;
pub mod elf;
pub mod error;
pub mod export;
pub mod layer;
pub mod manifest;
pub mod reference;
pub mod registry;
pub mod rooted;
pub mod rootfs;
pub mod store;

pub use digest::Digest;
pub use error::ImageError;
pub use reference::Reference;
pub use store::{ImageStore, Limits};
