//! The three patches that change a document: RFC 6902 operations, RFC 7386 merge, and strategic merge.
//!
//! Server-side apply is a patch too, but needs owners: see `managed`. All of these are total on accepted trees: a
//! patch cannot make a tree deeper or larger than the limits, however it copies (RFC 6902 can double with each step).

pub mod strategic;

pub use strategic::strategic_merge;

use crate::decode::{DEPTH_MAX, depth};
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

/// As kube-apiserver limits RFC 6902.
pub const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// How much a JSON patch may copy, in bytes of JSON: the size of the largest object.
pub const JSON_PATCH_COPY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Why a patch gives no document. `Malformed` is 400, `Inapplicable` 422, `TooLarge` 413.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is not one.
    #[error("{0}")]
    Malformed(String),
    /// A good patch that does not fit this document: a failed `test`, a missing path, a bad directive.
    #[error("{0}")]
    Inapplicable(String),
    #[error("{0}")]
    TooLarge(String),
}

/// Applies RFC 6902 operations, all or none.
pub fn json_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let patch: Patch = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let n_operations = patch.0.len();
    if n_operations > JSON_PATCH_OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {n_operations}"
        )));
    }
    let mut result = document.clone();
    let mut copied_bytes = 0;
    for operation in patch.0 {
        copied_bytes += check_growth(&result, &operation)?;
        if copied_bytes > JSON_PATCH_COPY_BYTES_MAX {
            return Err(PatchError::TooLarge(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding the limit {JSON_PATCH_COPY_BYTES_MAX}"
            )));
        }
        json_patch::patch(&mut result, &[operation])
            .map_err(|error| PatchError::Inapplicable(error.to_string()))?;
    }
    Ok(result)
}

/// The bytes that an operation duplicates; refuses one that would make the tree too deep.
fn check_growth(document: &Value, operation: &PatchOperation) -> Result<usize, PatchError> {
    let (target, placed) = match operation {
        PatchOperation::Add(add) => (&add.path, Some(&add.value)),
        PatchOperation::Replace(replace) => (&replace.path, Some(&replace.value)),
        PatchOperation::Copy(copy) => (&copy.path, document.pointer(copy.from.as_str())),
        PatchOperation::Move(moved) => (&moved.path, document.pointer(moved.from.as_str())),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(0),
    };
    let Some(placed) = placed else { return Ok(0) }; // the operation itself will say what is missing
    if target.as_str().matches('/').count() + depth(placed) > DEPTH_MAX {
        return Err(PatchError::TooLarge(format!(
            "the patch makes the object deeper than {DEPTH_MAX} levels at {target}"
        )));
    }
    Ok(match operation {
        PatchOperation::Copy(_) => placed.to_string().len(),
        _ => 0,
    })
}

/// Merges by RFC 7386: nulls remove, objects merge, everything else replaces.
pub fn merge_patch(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("a merge patch must be a JSON object".to_owned()));
    }
    let mut result = document.clone();
    json_patch::merge(&mut result, patch);
    Ok(result)
}

#[cfg(test)]
mod tests;
