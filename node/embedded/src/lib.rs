//! The embedded driver: libcontainer under one shim per pod.
//!
//! Two programs in one crate. `EmbeddedDriver` lives in the node agent: it prepares files (root file systems,
//! `config.json`, cgroups) and talks to shims. The shim (`shim_main`) is one single-threaded process per pod that
//! runs the containers and writes down what became of them. All that they share is `protocol` (frozen at v1) and the
//! folders of `layout`; so a pod outlives its agent, and a new agent finds it by looking.

pub mod config_json;
pub mod driver;
pub mod layout;
pub mod protocol;
pub mod sealed;
pub mod shim;
pub mod user;

pub(crate) use kactor_drivers::cgroups;

pub use driver::{EmbeddedConfig, EmbeddedDriver, ShimProgram, purge_instance};
pub use shim::shim_main;
