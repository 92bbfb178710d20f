//! The docker driver: pods as containers of a Docker Engine on this machine, spoken to with bollard.
//!
//! A pod's sandbox is a pause container that owns its namespaces; the agent plumbs its network namespace. Everything
//! that must be known of a pod is in its containers' labels, so that a new agent finds it by asking dockerd. dockerd
//! keeps the output; `logs` copies it, entry by entry, to where Kubernetes expects it.

mod config;
mod cri;
mod driver;
mod engine;
mod frames;
mod images;
mod labels;
mod logs;
mod pause;
mod raw;
mod remove;
mod sessions;
mod status;

pub use driver::{DockerConfig, DockerDriver, PauseProgram};
pub use engine::{Engine, socket_path};
pub use pause::pause_main;
pub use remove::purge_instance;
