//! The Kubernetes object model: kind registry, defaults, validation, selectors, quantities, tables.
//!
//! Pure: objects are JSON trees, time and generated values are passed in, nothing is read or kept. A kind is a
//! row in `registry`, with its functions under `kinds/`; the api runs every row through the same steps
//! (`writes`). Adding a kind adds a row and its functions. Facts and wording follow Kubernetes 1.36.

pub mod admission;
pub mod ages;
pub mod field_error;
pub mod fields;
pub mod kinds;
pub mod labels;
pub mod meta;
pub mod names;
pub mod quantity;
pub mod references;
pub mod registry;
pub mod scale;
pub mod status;
pub mod table;
pub mod tree;
pub mod writes;

pub use field_error::{FieldError, FieldErrorKind, Path};
pub use quantity::Quantity;
pub use registry::{Kind, Registry, Scope, Verb, registry};
pub use status::{Reason, Status};
