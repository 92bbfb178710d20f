//! Volumes: a pure mount plan and the mounts that carry it out.
//!
//! `plan` reads what a pod asks for and refuses by name what this node does not honour; `content` makes files of
//! ConfigMaps, Secrets, tokens and the downward API; `payload` writes a set of files so that a reader sees the
//! old set or the new one, never a mixture; `host` makes and removes a pod's volumes on this host.

pub mod content;
pub mod host;
pub mod payload;
pub mod plan;
