//! The driver trait, its conformance suite, and the hollow driver.
//!
//! A driver runs containers on this machine and knows nothing of Pods' objects, volumes or networks: the node
//! agent hands it finished specs (`spec`), plumbs the sandbox's network namespace itself, and reads back
//! `status`. Every driver passes `suite`; what it cannot do it refuses by name, it never ignores a field.

pub mod capabilities;
pub mod cgroups;
pub mod checks;
pub mod cri_log;
pub mod driver;
pub mod error;
pub mod event;
pub mod hollow;
pub mod image;
pub mod session;
pub mod spec;
pub mod status;
pub mod suite;

pub use driver::Driver;
pub use error::DriverError;
pub use event::{DriverEvent, EventFeed, Events};
pub use image::{Image, ImageConfig, RegistryAuth};
pub use session::{
    AttachSpec, ExecExit, ExecOutput, ExecSession, ExecSpec, SessionWindow, WindowSize,
};
pub use spec::{
    Capabilities, ContainerId, ContainerSpec, IpcMode, Mount, MountSource, NetworkMode, PidMode,
    Propagation, QosClass, Resources, SandboxId, SandboxSpec, Seccomp, Security, Stdin, Terminal,
};
pub use status::{
    ContainerState, ContainerStats, ContainerStatus, ExitReason, SandboxState, SandboxStatus,
};
