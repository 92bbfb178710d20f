//! Schema facts of the Kubernetes API as data: field types, patches, managed fields, OpenAPI and discovery documents.
//!
//! Everything here is a pure function over `serde_json::Value` trees and a [`Schema`], the typed fields of one kind.
//! No clock, no IO: time comes in as text, the list of served kinds as plain structs. The facts are those of
//! Kubernetes 1.36, extracted once by tools/ and committed compressed in data/ (README.md says how).

pub mod check;
pub mod decode;
pub mod documents;
pub mod managed;
pub mod patch;
pub mod schema;

pub use check::{FieldProblem, ProblemKind, TypeError, check_fields, check_types, strict_message};
pub use decode::{Decoded, decode};
pub use schema::{Field, List, ListType, Node, PatchStrategy, Scalar, Schema, Shape, Struct};
