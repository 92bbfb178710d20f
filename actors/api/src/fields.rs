//! All use of kactor-schema: decoding against a kind's schema, patches, and managedFields.
//!
//! Decoding is strict or lenient by `fieldValidation`: unknown and duplicate fields are refused, warned of or dropped;
//! wrong JSON types are always 400. Patches are applied to the object as the client's version shows it, then decoded
//! like any body. Every write keeps `managedFields`, from the first object on.

use kactor_objects::registry::Kind;
use kactor_objects::status::{Cause, Reason, Status};
use kactor_objects::{meta, tree};
use kactor_protocol::time::Timestamp;
use kactor_schema::managed::{self, ApplyError, FieldSet, OnConflict, Writer};
use kactor_schema::patch::{self, PatchError};
use kactor_schema::{FieldProblem, Schema, check_fields, check_types, strict_message};
use serde_json::Value;

use crate::body;
use crate::freshness::{invalid_field, invalid_options};
use crate::request::{Conflicts, FieldValidation, PatchType, Request};

/// Most warnings of one answer.
const WARNINGS_MAX: usize = 32;

/// Group, version and kind.
pub(crate) type Gvk = (&'static str, &'static str, &'static str);

/// Parses the body and makes it an object of the kind; the texts are warnings.
pub(crate) fn decode(
    request: &Request,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
) -> Result<(Value, Vec<String>), Status> {
    let given = request.body.as_ref().ok_or_else(|| Status::bad_request("a body is required"))?;
    let parsed = body::parse(given)?;
    let mut object = parsed.tree;
    let warnings = check(request, (group, version, kind), &mut object, parsed.duplicates)?;
    Ok((object, warnings))
}

/// Checks the tree against the kind: its own `apiVersion` and `kind`, unknown fields, JSON types.
fn check(
    request: &Request,
    (group, version, kind): Gvk,
    object: &mut Value,
    duplicates: Vec<FieldProblem>,
) -> Result<Vec<String>, Status> {
    let api_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    if !object.is_object() {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): it is no JSON object"
        )));
    }
    tree::fill(object, "apiVersion", api_version.as_str());
    tree::fill(object, "kind", kind);
    if meta::kind(object) != kind || meta::api_version(object) != api_version {
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {kind} in version {api_version:?}",
            meta::kind(object),
            meta::api_version(object),
        )));
    }
    let Some(schema) = Schema::of(group, version, kind) else {
        return Err(Status::internal(&format!("{api_version} {kind} has no schema")));
    };
    let unusable = |why: String| {
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    };
    check_types(schema, object).map_err(|error| unusable(error.to_string()))?;
    let mut problems = check_fields(schema, object);
    problems.extend(duplicates);
    match request.options.field_validation {
        _ if problems.is_empty() => Ok(Vec::new()),
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => {
            Ok(problems.iter().take(WARNINGS_MAX).map(ToString::to_string).collect())
        }
        FieldValidation::Strict => Err(unusable(strict_message(&problems))),
    }
}

/// A patch, parsed once; applied to whatever stands.
#[derive(Debug)]
pub(crate) struct Patch {
    pub tree: Value,
    pub warnings: Vec<String>,
    patch_type: PatchType,
    /// Fields that stood in the patch twice; judged with what the patched object is told.
    duplicates: Vec<FieldProblem>,
}

/// Parses the patch. An apply is an object of the kind and is checked as one.
pub(crate) fn decode_patch(
    request: &Request,
    patch_type: PatchType,
    gvk: Gvk,
) -> Result<Patch, Status> {
    if request.options.conflicts == Conflicts::Force && patch_type != PatchType::Apply {
        return Err(invalid_options(
            "PatchOptions",
            "force",
            "Forbidden: may not be specified for non-apply patch",
        ));
    }
    let given = request.body.as_ref().ok_or_else(|| Status::bad_request("a body is required"))?;
    let parsed = body::parse(given)?;
    let mut tree = parsed.tree;
    let mut duplicates = parsed.duplicates;
    let warnings = match patch_type {
        PatchType::Apply => {
            if request.caller.field_manager.as_deref().unwrap_or_default().is_empty() {
                return Err(invalid_options(
                    "PatchOptions",
                    "fieldManager",
                    "Required value: is required for apply patch",
                ));
            }
            if !tree::list(&tree, "metadata.managedFields").is_empty() {
                return Err(Status::bad_request("metadata.managedFields must be nil"));
            }
            if meta::api_version(&tree).is_empty() || meta::kind(&tree).is_empty() {
                return Err(Status::bad_request(
                    "apiVersion and kind must be set in an apply patch",
                ));
            }
            check(request, gvk, &mut tree, std::mem::take(&mut duplicates))?
        }
        _ => Vec::new(),
    };
    Ok(Patch { tree, warnings, patch_type, duplicates })
}

impl Patch {
    /// The patched object, decoded like a body; for an apply the applied configuration itself.
    pub fn apply_to(
        &self,
        base: &Value,
        request: &Request,
        gvk: Gvk,
    ) -> Result<(Value, Vec<String>), Status> {
        let patched = match self.patch_type {
            PatchType::Apply => return Ok((self.tree.clone(), Vec::new())),
            PatchType::Json => patch::json_patch(base, &self.tree),
            PatchType::Merge => patch::merge_patch(base, &self.tree),
            PatchType::Strategic => {
                let Some(schema) = Schema::of(gvk.0, gvk.1, gvk.2) else {
                    return Err(Status::unsupported_media_type(&["application/merge-patch+json"]));
                };
                patch::strategic_merge(schema, base, &self.tree)
            }
        };
        let mut patched = patched.map_err(patch_refused)?;
        let warnings = check(request, gvk, &mut patched, self.duplicates.clone())
            .map_err(|why| unfit(&why))?;
        Ok((patched, warnings))
    }
}

/// The patch could be applied, but what came out is no object of the kind: 422, as upstream, but without the object,
/// which may be a Secret, and refusals are shown by `why`.
fn unfit(why: &Status) -> Status {
    invalid_field("", "patch", &format!("Invalid value: {}", why.message))
}

fn patch_refused(error: PatchError) -> Status {
    match error {
        PatchError::Malformed(why) => Status::bad_request(why),
        PatchError::Inapplicable(why) => Status::new(
            Reason::Invalid,
            format!("the server rejected our request due to an error in our request: {why}"),
        ),
        PatchError::TooLarge(_) => Status::request_too_large(body::BODY_BYTES_MAX),
    }
}

/// How an author's fields come to be owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// Everything that the write changed.
    Update,
    /// Everything that the applied configuration names.
    Apply,
}

/// Who writes which kind, through what, and when.
pub(crate) struct Authorship<'a> {
    pub kind: &'static Kind,
    pub manager: String,
    pub subresource: Option<&'a str>,
    pub now: Timestamp,
    pub conflicts: Conflicts,
}

impl Authorship<'_> {
    /// Runs `write` with the schema and the writer that kactor-schema takes.
    fn with<T>(&self, write: impl FnOnce(&Schema, &Writer<'_>) -> T) -> Result<T, Status> {
        let kind = self.kind;
        let schema = Schema::of(kind.group, kind.version, kind.kind).ok_or_else(|| {
            Status::internal(&format!("{} {} has no schema", kind.api_version(), kind.kind))
        })?;
        let ignored = match self.subresource {
            Some("status") => FieldSet::of(&["spec"]),
            None if kind.subresource("status").is_some() => FieldSet::of(&["status"]),
            _ => FieldSet::default(),
        };
        let writer = Writer {
            manager: &self.manager,
            api_version: &kind.api_version(),
            subresource: self.subresource.unwrap_or_default(),
            time: &self.now.rfc3339(),
            ignored: &ignored,
        };
        Ok(write(schema, &writer))
    }
}

/// Whether a write would change nothing: all is equal but the revision and the times in managedFields.
pub(crate) fn is_unchanged(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut metadata = tree::at(object, "metadata").clone();
        tree::remove(&mut metadata, "resourceVersion");
        tree::each_mut(&mut metadata, "managedFields")
            .for_each(|it| drop(tree::remove(it, "time")));
        metadata
    };
    let (Some(new_fields), Some(old_fields)) = (new.as_object(), old.as_object()) else {
        return new == old;
    };
    let beside =
        |(key, value): (&String, &Value)| key == "metadata" || old_fields.get(key) == Some(value);
    new_fields.len() == old_fields.len() && new_fields.iter().all(beside) && bare(new) == bare(old)
}

/// Notes in `new` who owns what the write changed.
pub(crate) fn track(
    old: Option<&Value>,
    new: &mut Value,
    by: &Authorship<'_>,
) -> Result<(), Status> {
    by.with(|schema, writer| managed::update_fields(schema, old, new, writer))
}

/// The object after a server-side apply.
pub(crate) fn apply(
    old: Option<&Value>,
    applied: &Value,
    by: &Authorship<'_>,
) -> Result<Value, Status> {
    let on_conflict = match by.conflicts {
        Conflicts::Refuse => OnConflict::Refuse,
        Conflicts::Force => OnConflict::Force,
    };
    by.with(|schema, writer| managed::apply(schema, old, applied, writer, on_conflict))?
        .map(|it| it.object)
        .map_err(apply_refused)
}

fn apply_refused(error: ApplyError) -> Status {
    let message = error.to_string();
    match error {
        ApplyError::Conflicts(conflicts) => {
            let causes = conflicts.into_iter().map(|it| Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: it.message(),
                field: it.field,
            });
            Status::apply_conflict(message, causes.collect())
        }
        ApplyError::Invalid(why) => Status::bad_request(why),
    }
}
