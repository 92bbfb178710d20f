//! The scheduler: framework, plugins, columns, and its shell.
//!
//! Pure but for the shell: `Scheduler::step` takes the view's changes and the time and says which Pods to bind where and
//! what to tell of the others. Nodes are columns, updated by each change; Pods of one template share one evaluation.

pub mod columns;
pub mod cycle;
pub mod framework;
pub mod plugins;
pub mod profile;
pub mod queue;
pub mod refusal;
pub mod scheduler;
#[cfg(feature = "shell")]
mod scheduler_actor;
#[cfg(feature = "shell")]
mod send;

pub use columns::Columns;
pub use cycle::{Choice, Evaluations};
pub use framework::{Filter, Plugin, Score, Verdict};
pub use profile::{PluginConfig, Profile, ProfileError, Registry};
pub use scheduler::{BindRequest, Scheduler, Told};
#[cfg(feature = "shell")]
pub use scheduler_actor::start;
